"""One writer at a time: a lock on a folder that dies with its process."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from bottlenecks.errors import shown

try:
    import fcntl
except ImportError:  # Windows: one writer at a time is then up to the user
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NAME = ".lock"
_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # some network file systems


@contextlib.contextmanager
def exclusive(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of ``folder``; waits, with one notice, while another process has it.

    Yields True; with ``wait=False`` False at once where another process has the lock.

    The kernel frees it when the process ends, however it ends. The lock file stays: removing
    it would let two processes lock two files of one name.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            log.warning(
                "another run (process %s) is writing %s; waiting for it to finish",
                owner,
                shown(folder),
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            log.warning("%s cannot be locked; start only one run at a time", shown(folder))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield True
    finally:
        os.close(descriptor)
