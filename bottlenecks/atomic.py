"""Write-then-rename: how every file of the project reaches the disk.

A file written here is seen under its name either not at all, or as it was before, or
whole; a process killed in between leaves at most a ``.<name>.<32 hex>.partial`` beside it, which
the next one that writes the file removes, or after a day one that writes any file there.
"""

import contextlib
import errno
import os
import platform
import re
import stat
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
_TAG_LETTERS = 32
_OLD_SECONDS = 24 * 3600.0
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial", re.DOTALL)
_CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], follow: bool = True, sync: bool = True
) -> Iterator[Path]:
    """Give a partial file's path to write to; what is there at the end goes under ``path``.

    It is synced to the disk first, unless a loss of power may take it (``sync``), and gets the mode
    of the file that it replaces. When the writing raises, the old file is untouched and the partial
    one is removed; an ``OSError`` then names ``path``, unless it is of another file. Where ``path``
    is a link, what it leads to is replaced, or without ``follow`` the link itself.
    """
    path = Path(os.path.realpath(path) if follow else path)
    _remove_left_behind(path)
    partial = path.with_name(f".{path.name[:50]}.{_own_tag()}{PARTIAL_SUFFIX}")
    try:
        yield partial
        if sync:
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
        _keep_mode(path, partial)
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(partial), partial):
            error.filename, error.filename2 = str(path), None
        raise
    if sync:
        sync_folder(path.parent)


def _own_tag() -> str:
    """32 hex digits: this process, its machine since that was started, and chance."""
    return f"{os.getpid() & 0xFFFFFFFF:08x}{_this_machine():08x}{uuid.uuid4().hex[:16]}"


def _this_machine() -> int:
    """Of a machine since its start, and of a container in it, whose processes have own numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink(
            "/proc/self/ns/pid"
        )
    except OSError:
        boot = ""
    return zlib.crc32(f"{platform.node()} {boot}".encode())


def _remove_left_behind(path: Path) -> None:
    """Remove partial files of ``path`` whose writers are dead: killed, they could not do it.

    Of another machine's, and where process numbers are used again, a day's age tells; and so it
    does of those of other files beside ``path``, which may never be written again.
    """
    try:
        found = partials(path.parent)
    except OSError:
        return
    for partial in found:
        with contextlib.suppress(OSError):  # it is gone, or another user's
            is_old = time.time() - partial.lstat().st_mtime > _OLD_SECONDS
            if is_old or (_is_of(partial, path) and _is_of_the_dead(partial)):
                partial.unlink(missing_ok=True)


def _is_of(partial: Path, path: Path) -> bool:
    return partial.name[1 : -(_TAG_LETTERS + len(PARTIAL_SUFFIX) + 1)] == path.name[:50]


def _is_of_the_dead(partial: Path) -> bool:
    """Whether its writer was a process of this machine that has ended."""
    tag = partial.name.removesuffix(PARTIAL_SUFFIX)[-_TAG_LETTERS:]
    return int(tag[8:16], 16) == _this_machine() and not _is_alive(int(tag[:8], 16))


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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


def write_bytes(
    path: str | os.PathLike[str], data: bytes, follow: bool = True, sync: bool = True
) -> None:
    """Put ``data`` under ``path``, replacing what was there, and ``sync`` it to the disk.

    Raises ``OSError`` (disk full, no permission, ...) with the old file untouched and no
    partial file left.
    """
    with replacing(path, follow, sync) as partial, open(partial, "xb") as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str, follow: bool = True) -> None:
    """`write_bytes` of ``text`` in UTF-8; names that were not UTF-8 keep their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), follow)


def make_parents(path: str | os.PathLike[str]) -> None:
    """Make the folders that the file at ``path``, or where it leads as a link, is to lie in."""
    Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)


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
