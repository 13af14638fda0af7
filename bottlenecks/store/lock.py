"""One writer at a time: a lock on a folder that dies with its process."""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bottlenecks.errors import CacheError, shown

try:
    import fcntl
except ImportError:  # Windows: one writer at a time is then up to the user
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NAME = ".lock"
_NO_LOCKS_HERE = (
    errno.ENOLCK,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.ENOSYS,
)  # some network file systems


@contextlib.contextmanager
def exclusive(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of ``folder``; waits, with one notice, while another process has it.

    Yields True; with ``wait=False`` False at once where another process has the lock. The kernel
    frees it when the process ends, however it ends. The folder is made if need be.
    """
    if fcntl is None:
        folder.mkdir(parents=True, exist_ok=True)
        yield True
        return
    descriptor, owner = _acquire(folder, wait), os.getpid()
    if descriptor is None:
        yield False
        return
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield True
    finally:
        # A child that was forked meanwhile has it too: there it is not freed, here it is.
        if os.getpid() == owner:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _acquire(folder: Path, wait: bool) -> int | None:
    """A descriptor that holds the lock, or None."""
    noticed = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(folder / NAME)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    os.close(descriptor)
                    return None
                if not noticed:
                    _notice(folder, descriptor)
                    noticed = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise
                log.warning("%s cannot be locked; start only one run at a time", shown(folder))
            if _is_still_there(folder, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the cache was removed while this run waited: begin anew


def _open(path: Path) -> int:
    """A descriptor of the lock's file, made if need be; never of what a link leads to."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise CacheError(f"{shown(path)} is a link, a folder or a pipe and no lock; remove it")


def _notice(folder: Path, descriptor: int) -> None:
    owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
    log.warning(
        "another run (process %s) is writing %s; waiting for it to finish", owner, shown(folder)
    )


def _is_still_there(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(folder / NAME))
    except FileNotFoundError:
        return False
