"""Work for several threads, in order, which none waits for that is interrupted."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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
