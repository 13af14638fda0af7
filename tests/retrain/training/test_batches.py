"""retrain.training.batches: every row in turn, in another order each time, in little memory."""

import tracemalloc

import numpy as np
import pytest

from retrain.training.batches import epochs


@pytest.mark.parametrize("size", [1, 3, 7, 10, 6, 9])
def test_each_epoch_uses_every_row_once(size: int) -> None:
    batches = epochs(10, size, np.random.default_rng(0))
    taken = np.concatenate([next(batches) for _ in range(200)])
    walked = taken[: len(taken) // 10 * 10].reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(walked), np.tile(np.arange(10), (len(walked), 1)))
    assert len({tuple(epoch) for epoch in walked}) > len(walked) / 2  # shuffled each time


def test_batches_need_no_more_memory_as_they_go_on() -> None:
    batches = epochs(1_999, 1_000, np.random.default_rng(0))
    tracemalloc.start()
    try:
        for _ in range(500):
            next(batches)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 1_999 * 8
