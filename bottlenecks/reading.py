"""Image files -> bytes, several at once."""

import contextlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bottlenecks.errors import BadImageError
from bottlenecks.forks import PerProcess
from bottlenecks.images import Signature, signature_of

MAX_FILE_BYTES = 256 * 2**20
LARGE_FILE_BYTES = 16 * 2**20


# Held while a large file is read and decoded, so that several threads do not add up in memory.
_one_large = PerProcess(threading.Lock)

T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def file_bytes(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, Signature]]:
    """The bytes of a regular file, and its signature from when it was opened.

    Only one large file at a time is in memory, until its ``with`` block ends.

    Raises `BadImageError` for what cannot be read or is larger than `MAX_FILE_BYTES`.
    """
    with contextlib.ExitStack() as stack:
        try:
            # Not to hang where a pipe has taken the file's place since the folder was listed.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            file = stack.enter_context(open(os.open(path, flags), "rb"))
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("is no regular file (a folder, a pipe or a device)")
            if status.st_size > MAX_FILE_BYTES:
                raise BadImageError(
                    f"has {status.st_size / 1e6:.0f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are "
                    "read; save it smaller"
                )
            if status.st_size > LARGE_FILE_BYTES:
                stack.enter_context(_one_large())
            data = file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror or error}") from error
        yield data, signature_of(status)


@contextlib.contextmanager
def pool_of(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads, none of which Ctrl-C and SIGTERM wait for."""
    pool = ThreadPoolExecutor(threads, name)
    wait = True
    try:
        yield pool
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        wait = False
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
