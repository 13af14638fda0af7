"""Large work in blocks, on all cores.

The blocks follow from the shape of the work alone, so the results are the same bytes on any number
of cores. Threads that are late leave their blocks to the others, so a busy machine delays little.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bottlenecks.forks import PerProcess
from bottlenecks.machine import one_blas_thread, usable_cores

MOST_THREADS = 16
# Multiply-adds of a product from which threads share it: 1 ms of a core. To wake one takes 0.1 ms.
LEAST_SHARED = 2**25
_ROWS, _COLUMNS = 256, 512  # of a block of a product

_pool = PerProcess(lambda: ThreadPoolExecutor(MOST_THREADS, "blocks"))


def blocks_of(n: int, size: int) -> list[slice]:
    """Slices of at most ``size`` that make up n rows, all but the last equally long."""
    count = max(1, -(-n // size))
    even = -(-n // count)
    return [slice(start, min(start + even, n)) for start in range(0, n, max(1, even))]


def for_each(blocks: Iterable[slice], work: Callable[[slice], object], *, shared: bool) -> None:
    """Call ``work`` with each of ``blocks``, by threads where it is ``shared``.

    It may write to what belongs to its block alone. Raises what it raises.
    """
    left = deque(blocks)
    if not shared or len(left) < 2 or usable_cores() < 2:
        for block in left:
            work(block)
        return
    errors = np.geterr()

    def take() -> None:
        with np.errstate(**errors):
            while left:
                try:
                    block = left.popleft()
                except IndexError:
                    return  # another thread was faster
                work(block)

    helpers = min(usable_cores(), MOST_THREADS, len(left)) - 1
    running = [_pool().submit(take) for _ in range(helpers)]
    try:
        take()
    finally:
        left.clear()
        running = [future for future in running if not future.cancel()]
        failures = [error for future in running if (error := future.exception()) is not None]
    for failure in failures:
        raise failure


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a`` (n, k) @ ``b`` (k, m), both float32; each block of a large one by one thread.

    The blocks are of rows, or where there are few of these of columns.
    """
    with one_blas_thread():
        if a.size * b.shape[1] < LEAST_SHARED:
            small: np.ndarray = a @ b
            return small
        result = np.empty((len(a), b.shape[1]), np.float32)
        if len(a) > _ROWS:
            for_each(
                blocks_of(len(a), _ROWS),
                lambda rows: np.matmul(a[rows], b, out=result[rows]),
                shared=True,
            )
        else:
            for_each(
                blocks_of(b.shape[1], _COLUMNS),
                lambda columns: np.matmul(a, b[:, columns], out=result[:, columns]),
                shared=True,
            )
        return result
