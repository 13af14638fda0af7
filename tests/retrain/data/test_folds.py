"""retrain.data.folds: what belongs together stays together, labels are spread."""

import numpy as np
import pytest

from retrain.data.folds import can_be_judged, deal


def of_labels(per_label: int, labels: int) -> np.ndarray:
    return np.repeat(np.arange(labels), per_label)


def test_each_label_is_spread_over_all_folds() -> None:
    y = np.concatenate([of_labels(7, 3), np.full(5, 3), np.full(100, 4)])
    units = np.random.default_rng(0).permutation(len(y))
    fold_of = deal(units, y, 5)
    for label in range(5):
        counts = np.bincount(fold_of[y == label], minlength=5)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1
    assert can_be_judged(fold_of, y).all()


def test_small_labels_do_not_fill_the_first_fold() -> None:
    y = of_labels(2, 50)
    counts = np.bincount(deal(np.arange(100), y, 5), minlength=5)
    assert counts.max() - counts.min() <= 1


def test_a_unit_stays_whole_whatever_its_labels() -> None:
    random = np.random.default_rng(1)
    units, y = random.integers(0, 60, 300), random.integers(0, 4, 300)
    fold_of = deal(units, y, 5)
    assert set(fold_of.tolist()) == set(range(5))
    for unit in range(60):
        assert len(set(fold_of[units == unit].tolist())) <= 1


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_label_of_two_units_of_its_own_can_be_judged(folds: int) -> None:
    y = of_labels(2, 30)
    fold_of = deal(np.random.default_rng(2).permutation(60), y, folds)
    assert can_be_judged(fold_of, y).all()


def test_a_label_of_a_single_unit_cannot_be_judged() -> None:
    y, units = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 3])
    assert can_be_judged(deal(units, y, 2), y).tolist() == [True] * 3 + [False] * 3


def test_it_hangs_on_the_units_and_not_on_the_order_of_the_images() -> None:
    y, units = of_labels(20, 3), np.random.default_rng(3).permutation(60)
    order = np.random.default_rng(4).permutation(60)
    np.testing.assert_array_equal(deal(units[order], y[order], 5), deal(units, y, 5)[order])
