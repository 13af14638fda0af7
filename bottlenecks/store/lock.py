"""One writer at a time: a lock on a folder that dies with its process.

In an object store, which has none, a lease.
"""

import contextlib
import errno
import json
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bottlenecks.errors import CacheError, shown

try:
    import fcntl
except ImportError:  # Windows: one writer at a time is then up to the user
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NAME = ".lock"
LEASE_NAME = "lease.json"
LEASE_SECONDS = 60.0  # after which one that nobody renews is nobody's
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


class Objects(Protocol):
    """What a lease needs of an object store."""

    def create(self, data: bytes) -> bool:
        """Write the lease where there is none; False where there is one."""

    def read(self) -> bytes | None: ...

    def write(self, data: bytes) -> None: ...

    def remove(self) -> None: ...


@contextlib.contextmanager
def lease(objects: Objects, place: str, wait: bool = True) -> Iterator[bool]:
    """`exclusive` in an object store, which knows no locks: an object, renewed while it is held.

    One that has not changed for `LEASE_SECONDS`, by the clock of who waits, is nobody's any more.
    Two that take such a one over at once may both hold it. Raises ``OSError``.
    """
    own = Lease(objects)
    if not own.take(place, wait):
        yield False
        return
    stop = threading.Event()
    renewing = threading.Thread(target=own.renew, args=(stop,), name="lease", daemon=True)
    renewing.start()
    try:
        yield True
    finally:
        stop.set()
        renewing.join(LEASE_SECONDS)  # lest it write behind what follows
        with contextlib.suppress(OSError):  # the others will find it old
            own.give_back()


class Lease:
    """One holder's, or who would be."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._owner = uuid.uuid4().hex
        self._renewals = 0

    @property
    def _text(self) -> bytes:
        text = {"owner": self._owner, "process": os.getpid(), "renewals": self._renewals}
        return json.dumps(text).encode()

    def take(self, place: str, wait: bool) -> bool:
        seen, since, noticed = b"", time.monotonic(), False
        while not self._objects.create(self._text):
            found = self._objects.read()
            if found is None:  # it was given back meanwhile
                time.sleep(LEASE_SECONDS / 60)
                continue
            if _owner_of(found) == self._owner:
                return True  # an answer was lost, and the request came twice
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since > LEASE_SECONDS:
                self._objects.remove()
                continue
            if not wait:
                return False
            if not noticed:
                log.warning("another run is writing %s; waiting for it to finish", place)
                noticed = True
            time.sleep(LEASE_SECONDS / 30)
        return True

    def renew(self, stop: threading.Event) -> None:
        """Show every now and then that this run lives, until ``stop`` or somebody else has it."""
        while not stop.wait(LEASE_SECONDS / 6):
            with contextlib.suppress(OSError):
                found = self._objects.read()
                if found is None or _owner_of(found) not in ("", self._owner):
                    return
                self._renewals += 1
                self._objects.write(self._text)

    def give_back(self) -> None:
        found = self._objects.read()
        if found is not None and _owner_of(found) == self._owner:
            self._objects.remove()


def _owner_of(data: bytes) -> str:
    """Whose a lease is; empty where that cannot be told."""
    try:
        return str(json.loads(data)["owner"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
