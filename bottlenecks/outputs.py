"""Where a command writes: never over what it reads, another output, or somebody else's file."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bottlenecks.errors import OutputError, UsageError, shown
from bottlenecks.network.names import NETWORK_FILE
from bottlenecks.photos.images import HEADER_BYTES, IMAGE_SUFFIXES, sniff
from bottlenecks.settings import Output

_MARKER_WITHIN = 4096  # bytes from a file's start that its marker is looked for in


def check_ways(outputs: Iterable[Output], inputs: Mapping[str, str]) -> None:
    """Raise `UsageError` where an output file lies in the way of an input or another output.

    ``inputs`` are the files that are read, by their flags. Links are followed, and nothing need
    exist.
    """
    outputs = list(outputs)
    places = [(output.flag, Path(os.path.realpath(output.path))) for output in outputs]
    read = [(flag, Path(os.path.realpath(path))) for flag, path in inputs.items()]
    for i, (output, (flag, path)) in enumerate(zip(outputs, places, strict=True)):
        if output.folder:
            continue
        for other, place in places[:i] + places[i + 1 :] + read:
            if path in place.parents or _same(path, place):
                raise UsageError(
                    f"--{flag} {shown(path)} is in the way of --{other} {shown(place)}; "
                    "choose another place for one of them"
                )


def check_writable(outputs: Iterable[Output]) -> None:
    """Raise `OutputError` where an output cannot be written, or not without a loss; makes nothing.

    A photo, a file of a cache, and a network are not replaced, nor what lacks its marker.
    """
    for output in outputs:
        if output.folder:
            check_folder_place(output.path, output.flag)
            continue
        check_file_place(output.path, output.flag)
        if loss := _lost(Path(os.path.realpath(output.path)), output.marker):
            raise OutputError(
                f"--{output.flag} would replace {shown(output.path)}, {loss}; choose another place"
            )


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)  # names may differ in case alone
    except OSError:
        return False


def _lost(path: Path, marker: bytes) -> str:
    """What would be lost by replacing the file at ``path``; empty where nothing would."""
    from bottlenecks.store.layout import is_cache  # a third of what the help would take

    if any(is_cache(parent.name) for parent in path.parents):
        return "which is in a folder of the cache"
    if NETWORK_FILE.fullmatch(path.name):
        return "which is named as a network"
    try:
        with open(path, "rb") as file:
            start = file.read(_MARKER_WITHIN)
    except FileNotFoundError:
        start = None
    except OSError as error:
        return f"which cannot be read ({error.strerror})"
    if marker:
        return (
            ""
            if start is None or marker in start
            else "which is no file that this command of this version writes"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return "which is named as a photo"
    return "which is a photo" if start and sniff(start[:HEADER_BYTES]) else ""


def check_place(path: str | os.PathLike[str], flag: str) -> None:
    """Raise `OutputError` where nothing could be written under ``path``; makes nothing.

    Its missing parent folders count as writable if the first that exists is.
    """
    path = Path(os.path.realpath(path))  # where a link leads is written to
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise OutputError(
                    f"--{flag} {shown(path)} cannot be written: {shown(parent)} is a file"
                )
            if not path.exists() and not os.access(parent, os.W_OK | os.X_OK):
                raise OutputError(
                    f"--{flag} {shown(path)} cannot be written: no permission to write in "
                    f"{shown(parent)}; choose another place"
                )
            return


def check_file_place(path: str | os.PathLike[str], flag: str) -> None:
    """`check_place` for a file: a folder in its place is an error too."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"--{flag} {shown(path)} is a folder; name a file")
    check_place(path, flag)
    if path.exists() and not path.is_file():
        raise OutputError(f"--{flag} {shown(path)} is a pipe or a device; name a file")
    if path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"--{flag} {shown(path)} cannot be replaced: no permission to write in "
            f"{shown(path.parent)}; choose another place"
        )


def check_folder_place(path: str | os.PathLike[str], flag: str) -> None:
    """`check_place` for a folder: a file in its place is an error too."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"--{flag} {shown(path)} is a file; name a folder")
    check_place(path, flag)
