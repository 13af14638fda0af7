"""Image files -> bytes, several at once."""

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from bottlenecks.errors import BadImageError
from bottlenecks.forks import PerProcess
from bottlenecks.photos.images import Signature, signature_of

MAX_FILE_BYTES = 256 * 2**20
LARGE_FILE_BYTES = 16 * 2**20


# Held while a large file is read and decoded, so that several threads do not add up in memory.
_one_large = PerProcess(threading.Lock)

T = TypeVar("T")
R = TypeVar("R")


class NotAFileError(OSError):
    """A folder, a pipe or a device where there should be a file, or a link where none may be."""


def open_file(path: str | os.PathLike[str], follow: bool = True) -> BinaryIO:
    """Open a regular file for reading, unbuffered; without ``follow`` none behind a link.

    Raises `NotAFileError` for what is none, at once: opening a pipe would wait for its writer. And
    ``OSError`` as ``open`` does.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    try:
        opener = lambda name, _: os.open(name, flags)  # noqa: E731
        file = open(path, "rb", buffering=0, opener=opener)  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a socket
            raise NotAFileError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise NotAFileError(errno.EINVAL, "is no regular file", os.fspath(path))


@contextlib.contextmanager
def file_bytes(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, Signature]]:
    """The bytes of a regular file, and its signature from when it was opened.

    Only one large file at a time is in memory, until its ``with`` block ends.

    Raises `BadImageError` for what cannot be read or is larger than `MAX_FILE_BYTES`.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_file(path))
            status = os.fstat(file.fileno())
            if status.st_size > MAX_FILE_BYTES:
                raise BadImageError(
                    f"has {status.st_size / 1e6:.0f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are "
                    "read; save it smaller"
                )
            if status.st_size > LARGE_FILE_BYTES:
                stack.enter_context(_one_large())
            data = file.read(MAX_FILE_BYTES)
        except NotAFileError as error:
            raise BadImageError("is no regular file (a folder, a pipe or a device)") from error
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror or error}") from error
        yield data, signature_of(status)


def key_of(path: str | os.PathLike[str]) -> bytes:
    """The sha256 digest of a file's content, by which its row is known; raises `BadImageError`."""
    with file_bytes(path) as (data, _):
        return hashlib.sha256(data).digest()


@contextlib.contextmanager
def pool_of(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads, none of which Ctrl-C and SIGTERM wait for."""
    pool = ThreadPoolExecutor(threads, name)
    wait = False  # until it is known to be safe: a second Ctrl-C may come at any line
    try:
        yield pool
        wait = True
    except (Exception, GeneratorExit):
        wait = True
        raise
    finally:
        pool.shutdown(wait, cancel_futures=not wait)


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Generator[tuple[T, R], None, None]:
    """Each of ``items`` with its ``function(item)``, computed by ``pool``.

    At most ``ahead`` results are in memory. When the caller stops early, what is queued is
    dropped.
    """
    running: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            running.append((item, pool.submit(function, item)))
            if len(running) >= ahead:
                first, future = running.popleft()
                yield first, future.result()
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        for _, future in running:
            future.cancel()
