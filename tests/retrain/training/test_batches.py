"""retrain.training.batches: every row in turn, in another order each time, in little memory."""

import itertools
import tracemalloc

import numpy as np
import pytest

from retrain.training.batches import balanced, epochs, varied


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


def rows_drawn(variants: int, batches: int, seed: int = 0) -> np.ndarray:
    """(batches, 7) rows of ten images and their variants."""
    own = epochs(10, 7, np.random.default_rng(0))
    drawn = varied(own, 10, variants, np.random.default_rng(seed))
    return np.stack(list(itertools.islice(drawn, batches)))


def test_without_variants_the_batches_are_as_they_were_and_chance_is_not_asked() -> None:
    random = np.random.default_rng(0)
    own = [np.array([3, 1]), np.array([0, 2])]
    passed_on = list(varied(iter(own), 4, 0, random))
    assert [batch is given for batch, given in zip(passed_on, own, strict=True)] == [True, True]
    assert random.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("variants", [1, 4])
def test_each_version_of_each_image_is_drawn_about_as_often(variants: int) -> None:
    rows = rows_drawn(variants, 4000)
    counts = np.bincount(rows.ravel(), minlength=10 * (1 + variants))
    assert len(counts) == 10 * (1 + variants)
    expected = rows.size / len(counts)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_the_images_of_a_batch_are_those_that_they_were_without_variants() -> None:
    np.testing.assert_array_equal(rows_drawn(3, 50) % 10, rows_drawn(0, 50))


def test_the_same_seed_draws_the_same_versions() -> None:
    np.testing.assert_array_equal(rows_drawn(3, 50), rows_drawn(3, 50))
    assert (rows_drawn(3, 50) != rows_drawn(3, 50, seed=1)).any()


def test_balanced_batches_keep_their_labels_with_variants() -> None:
    y = np.array([0] * 8 + [1] * 2)
    own = balanced(y, np.bincount(y), 10, np.random.default_rng(0))
    drawn = varied(own, 10, 2, np.random.default_rng(1))
    rows = np.concatenate(list(itertools.islice(drawn, 500)))
    assert rows.max() == 29
    assert abs(y[rows % 10].mean() - 0.5) < 0.05
