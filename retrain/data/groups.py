"""Which photos belong together: a series, a patient, the variants of one photo.

Photos of one group share their set and their part in a cross-validation: a classifier that was
trained on one of them knows the others.
"""

import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bottlenecks.errors import UsageError, shown
from retrain.data.split import SETS, Member

log = logging.getLogger(__name__)


class Photo(Protocol):
    """What is asked of an image: see `bottlenecks.photos.labels.LabeledImage`."""

    @property
    def label(self) -> str: ...
    @property
    def relpath(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def given(self) -> str: ...


GroupOf = Callable[[Photo], str]
MAX_CSV_BYTES = 2**28  # a million photos with names of 200 letters
_COLUMNS = ["path", "group"]


def grouping(group_by: str | None) -> GroupOf:
    """The function that names the group of a photo.

    ``group_by`` is None, a CSV file with the columns path and group, or a regular expression
    that is searched in ``label/filename``: the group is what its parentheses find, or without any
    all that it finds. In a ready-made split that is the same in each set. A photo that neither
    names is on its own.

    Raises `UsageError` for what is neither.
    """
    if group_by is None:
        return on_its_own
    if _names_a_table(group_by):
        return _by_table(_read_csv(Path(os.path.expanduser(group_by))))
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"--group_by must be a regular expression or a CSV file: {error}. "
            f"Received: {shown(group_by)}"
        ) from error

    def group_of(photo: Photo) -> str:
        found = pattern.search(photo.name)
        parts = [part or "" for part in found.groups()] if found else []
        name = "\0".join(parts) if any(parts) else found[0] if found else ""
        return _named(name) if name else on_its_own(photo)

    return group_of


def members_of(photos: Iterable[Photo], group_by: str | None) -> list[Member]:
    """What `retrain.data.split.split` is to know of each photo."""
    group_of = grouping(group_by)
    return [Member(photo.label, photo.relpath, group_of(photo), photo.given) for photo in photos]


def on_its_own(photo: Photo) -> str:
    """The group of a photo of which nothing else is known.

    What follows ``_nohash_`` in the file name is cut off, as retrain.py did, so that variants of
    one photo (``a_nohash_1.jpg``, ``a_nohash_2.jpg``) stay together. Photos of one name in two
    given sets are two.
    """
    folder, slash, name = photo.name.rpartition("/")
    held_out = photo.given in SETS[:2]
    return f"{photo.given}\0/" * held_out + folder + slash + name.split("_nohash_")[0]


def check_groups(group_by: str | None, photos: Sequence[Photo]) -> None:
    """Raise `UsageError` where ``group_by`` puts none of the photos together, or all.

    Warns of rows of a CSV file that are no photo, and of photos that it does not name.
    """
    if group_by is None:
        return
    named = None
    if _names_a_table(group_by):
        named = _read_csv(Path(os.path.expanduser(group_by)))
    group_of = grouping(group_by) if named is None else _by_table(named)
    sizes = Counter(map(group_of, photos))
    if not any(size > 1 and _is_named(group) for group, size in sizes.items()):
        raise UsageError(
            f"--group_by {shown(group_by)} puts no two photos together; it is searched in, or "
            f"lists, paths below --image_dir, such as {shown(photos[0].name)}"
        )
    if len(sizes) == 1:
        raise UsageError(
            f"--group_by {shown(group_by)} puts all photos into one group, so that none is left to "
            "test on; use a finer one"
        )
    if named is not None:
        there = {name for photo in photos for name in (photo.relpath, photo.name)}
        without = [photo.relpath for photo in photos if _row_of(named, photo) is None]
        for missing, what in (
            (sorted(set(named) - there), "paths in it are no photo below --image_dir"),
            (sorted(without), "photos are not in it and count as groups of one"),
        ):
            if missing:
                log.warning(
                    "--group_by %s: %d %s, such as %s",
                    shown(group_by),
                    len(missing),
                    what,
                    shown(missing[0]),
                )


def _names_a_table(group_by: str) -> bool:
    return os.path.lexists(os.path.expanduser(group_by)) or group_by.lower().endswith(".csv")


def _by_table(named: Mapping[str, str]) -> GroupOf:
    return lambda photo: _row_of(named, photo) or on_its_own(photo)


def _row_of(named: Mapping[str, str], photo: Photo) -> str | None:
    return named.get(photo.relpath) or named.get(photo.name)


def _is_named(group: str) -> bool:
    return group.endswith("\0")


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
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read {shown(path)}: {error.strerror}; {remedy}") from error
    rows = csv.reader(io.StringIO(text, newline=""))
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
