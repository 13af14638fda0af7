"""Which photos belong together: a series, a patient, the variants of one photo.

Photos of one group share their set and their part in a cross-validation: a classifier that was
trained on one of them knows the others.
"""

import csv
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bottlenecks.errors import UsageError, shown

GroupOf = Callable[[str], str]
MAX_CSV_BYTES = 2**28  # a million photos with names of 200 letters
_COLUMNS = ["path", "group"]


def grouping(group_by: str | None) -> GroupOf:
    """The function that names the group of a relpath (``label/filename``).

    ``group_by`` is None, a CSV file with the columns path and group, or a regular expression
    that is searched in the relpath: the group is what its parentheses find, or without any all
    that it finds. A photo that neither names is on its own.

    Raises `UsageError` for what is neither.
    """
    if group_by is None:
        return on_its_own
    path = os.path.expanduser(group_by)
    if os.path.lexists(path) or path.lower().endswith(".csv"):
        named = _read_csv(Path(path))
        return lambda relpath: named.get(relpath) or on_its_own(relpath)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"--group_by must be a regular expression or a CSV file: {error}. "
            f"Received: {shown(group_by)}"
        ) from error

    def group_of(relpath: str) -> str:
        found = pattern.search(relpath)
        if found is None:
            return on_its_own(relpath)
        return _named("\0".join(part or "" for part in found.groups()) or found[0])

    return group_of


def on_its_own(relpath: str) -> str:
    """The group of a photo of which nothing else is known.

    What follows ``_nohash_`` in the file name is cut off, as retrain.py did, so that variants of
    one photo (``a_nohash_1.jpg``, ``a_nohash_2.jpg``) stay together.
    """
    folder, slash, name = relpath.rpartition("/")
    return folder + slash + name.split("_nohash_")[0]


def check_groups(group_by: str | None, relpaths: Sequence[str]) -> None:
    """Raise `UsageError` where ``group_by`` puts none of the photos together."""
    if group_by is None:
        return
    group_of = grouping(group_by)
    if len(set(map(group_of, relpaths))) == len(set(map(on_its_own, relpaths))):
        raise UsageError(
            f"--group_by {shown(group_by)} puts no two photos together; it is searched in, or "
            f"lists, paths below --image_dir, such as {shown(relpaths[0])}"
        )


def _named(name: str) -> str:
    return name + "\0"  # no path has that, so a name can be that of no photo on its own


def _read_csv(path: Path) -> dict[str, str]:
    """relpath -> group of each row of a CSV file."""
    remedy = "--group_by takes a regular expression, or a CSV file with the columns path,group"
    try:
        if not path.is_file():
            problem = "is no file" if path.exists() else "does not exist"
            raise UsageError(f"the CSV file {shown(path)} {problem}; {remedy}")
        if path.stat().st_size > MAX_CSV_BYTES:
            raise UsageError(f"the CSV file {shown(path)} has more than 256 MiB; {remedy}")
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read {shown(path)}: {error.strerror}; {remedy}") from error
    rows = csv.reader(text.splitlines())
    named: dict[str, str] = {}
    try:
        header = [column.strip().lower() for column in next(rows, [])]
        if header[:2] != _COLUMNS:
            raise UsageError(f"the first line of {shown(path)} is not path,group; {remedy}")
        for row in rows:
            if not any(row):
                continue
            if len(row) < 2 or not row[1].strip():
                raise UsageError(f"line {rows.line_num} of {shown(path)} names no group; {remedy}")
            relpath, group = row[0].removeprefix("./").replace(os.sep, "/"), _named(row[1].strip())
            if named.setdefault(relpath, group) != group:
                raise UsageError(
                    f"line {rows.line_num} of {shown(path)} puts {shown(relpath)} into a second "
                    "group; leave one"
                )
    except csv.Error as error:
        raise UsageError(f"{shown(path)} is no CSV file: {error}; {remedy}") from error
    return named
