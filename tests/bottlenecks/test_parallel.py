"""bottlenecks.parallel: the same blocks, and so the same bytes, on any number of cores."""

import os
import threading
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from bottlenecks import parallel
from bottlenecks.parallel import blocks_of, for_each, product


def set_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


@pytest.mark.parametrize(("n", "size"), [(1, 1), (5, 2), (6, 2), (512, 512), (3000, 512), (7, 99)])
def test_blocks_make_up_all_rows_evenly(n: int, size: int) -> None:
    lengths = [block.stop - block.start for block in blocks_of(n, size)]
    rows = [row for block in blocks_of(n, size) for row in range(n)[block]]
    assert rows == list(range(n))
    assert max(lengths) <= size
    assert len(lengths) == -(-n // size)


def test_nothing_has_no_blocks() -> None:
    assert blocks_of(0, 10) == []


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("cores", [1, 2, 5, 64])
def test_each_block_is_worked_on_once(
    cores: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_cores(monkeypatch, cores)
    counts = np.zeros(1000, np.int64)

    def count(rows: slice) -> None:
        counts[rows] += 1

    for_each(blocks_of(1000, 7), count, shared=shared)
    assert (counts == 1).all()


def test_threads_share_what_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 3)
    together = threading.Barrier(3)  # that three blocks are worked on at once
    for_each(blocks_of(3, 1), lambda _: together.wait(10), shared=True)


def test_small_work_stays_in_the_thread_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 3)
    seen = set()
    for_each(blocks_of(50, 1), lambda _: seen.add(threading.get_ident()), shared=False)
    assert seen == {threading.get_ident()}


def test_threads_that_do_not_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine."""
    set_cores(monkeypatch, 2)
    held = threading.Event()
    try:
        for _ in range(parallel.MOST_THREADS):
            parallel._pool().submit(held.wait, 60)
        done: list[slice] = []
        for_each(blocks_of(10, 1), done.append, shared=True)
        assert len(done) == 10
    finally:
        held.set()


@pytest.mark.parametrize("fails_at", [0, 4, 9])
def test_what_a_block_raises_is_raised(fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 2)

    def work(block: slice) -> None:
        if block.start == fails_at:
            raise MemoryError("none left")

    with pytest.raises(MemoryError, match="none left"):
        for_each(blocks_of(10, 1), work, shared=True)


def test_threads_heed_the_error_state_of_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 2)
    together = threading.Barrier(2)

    def overflow(_: slice) -> None:
        together.wait(10)
        np.exp(np.full(1000, 1e9, np.float32))

    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("error")
        for_each(blocks_of(2, 1), overflow, shared=True)


SHAPES = [(3, 40, 5), (100, 256, 1400), (600, 128, 450), (300, 2048, 1), (1, 2048, 20_000)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_the_product(shape: tuple[int, int, int]) -> None:
    n, k, m = shape
    random = np.random.default_rng(0)
    a, b = (random.normal(0, 1, side).astype(np.float32) for side in ((n, k), (k, m)))
    found = product(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, a.astype(np.float64) @ b, atol=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_the_same_bytes_on_any_number_of_cores(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, k, m = shape
    random = np.random.default_rng(0)
    a, b = (random.normal(0, 1, side).astype(np.float32) for side in ((n, k), (k, m)))
    found = []
    for cores in (1, 2, 3, 8):
        set_cores(monkeypatch, cores)
        found.append(product(a, b).tobytes())
    assert len(set(found)) == 1


def test_a_block_of_a_product_is_one_thread_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what BLAS gives would hang on how many it has."""
    inside: set[int] = set()

    def look(blocks: list[slice], work: object, *, shared: bool) -> None:
        pools = threadpool_info()
        inside.update(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")

    monkeypatch.setattr(parallel, "for_each", look)
    product(np.ones((300, 2048), np.float32), np.ones((2048, 100), np.float32))
    assert inside == {1}
