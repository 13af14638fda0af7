"""Write-then-rename: how every file of the project reaches the disk.

A file written here is seen under its name either not at all, or as it was before, or
whole; a process killed in between leaves at most a ``.<name>.<32 hex>.partial`` beside it.
"""

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from bottlenecks.errors import OutputError, shown

PARTIAL_SUFFIX = ".partial"
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial", re.DOTALL)
_CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], follow: bool = True) -> Iterator[Path]:
    """Give a partial file's path to write to; what is there at the end goes under ``path``.

    It is synced to the disk first, and gets the mode of the file that it replaces. When the
    writing raises, the old file is untouched and the partial one is removed; an ``OSError`` then
    names ``path``. Where ``path`` is a link, what it leads to is replaced, or without ``follow``
    the link itself.
    """
    path = Path(os.path.realpath(path) if follow else path)
    partial = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        _keep_mode(path, partial)
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    sync_folder(path.parent)


def _keep_mode(path: Path, partial: Path) -> None:
    """Give ``partial`` the mode, and where it may be the owner, of the file at ``path``, if any."""
    try:
        old = os.lstat(path)
    except OSError:
        return
    if stat.S_ISREG(old.st_mode):
        with contextlib.suppress(OSError, AttributeError):  # another's file; Windows
            os.chown(partial, old.st_uid, old.st_gid)
        with contextlib.suppress(OSError):
            os.chmod(partial, stat.S_IMODE(old.st_mode))


def write_bytes(path: str | os.PathLike[str], data: bytes, follow: bool = True) -> None:
    """Put ``data`` under ``path``, replacing what was there, and sync it to the disk.

    Raises ``OSError`` (disk full, no permission, ...) with the old file untouched and no
    partial file left.
    """
    with replacing(path, follow) as partial, open(partial, "xb") as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str, follow: bool = True) -> None:
    """`write_bytes` of ``text`` in UTF-8; names that were not UTF-8 keep their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), follow)


def check_place(path: str | os.PathLike[str], flag: str) -> None:
    """Raise `OutputError` where nothing could be written under ``path``; makes nothing.

    Its missing parent folders count as writable if the first that exists is.
    """
    path = Path(os.path.realpath(os.path.expanduser(path)))  # where a link leads is written to
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
    path = Path(path).expanduser()
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
    path = Path(path).expanduser()
    if path.exists() and not path.is_dir():
        raise OutputError(f"--{flag} {shown(path)} is a file; name a folder")
    check_place(path, flag)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename in ``folder`` durable, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise


def partials(folder: str | os.PathLike[str]) -> list[Path]:
    """What dead writers left in ``folder``: files that are named as `replacing` names them."""
    return [
        Path(entry.path)
        for entry in os.scandir(folder)
        if _PARTIAL.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False)
    ]


def remove_partials(folder: str | os.PathLike[str]) -> None:
    """Remove `partials`; call it where no writer can be alive."""
    for partial in partials(folder):
        partial.unlink(missing_ok=True)
