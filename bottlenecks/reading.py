"""Image files -> bytes, several at once."""

import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bottlenecks.errors import BadImageError
from bottlenecks.images import Signature, signature_of

MAX_FILE_BYTES = 256 * 2**20

T = TypeVar("T")
R = TypeVar("R")


def read_file(path: str | os.PathLike[str]) -> tuple[bytes, Signature]:
    """The bytes of a regular file, and its signature from when it was opened.

    Raises `BadImageError` for what cannot be read or is larger than `MAX_FILE_BYTES`.
    """
    try:
        # Not to hang where a pipe has taken the file's place since the folder was listed.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("is no regular file (a folder, a pipe or a device)")
            if status.st_size > MAX_FILE_BYTES:
                raise BadImageError(
                    f"has {status.st_size / 1e6:.0f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are "
                    "read; save it smaller"
                )
            return file.read(MAX_FILE_BYTES), signature_of(status)
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror or error}") from error


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
