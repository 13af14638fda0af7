"""retrain.report.near: what it holds and compares is bounded; what it finds is the same."""

import numpy as np
import pytest

from bottlenecks import parallel
from bottlenecks.store import vectors
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Dataset, rows_of_labels
from retrain.report import health, near
from retrain.report.health import examine
from retrain.report.near import compared, is_held_out, near_leaks
from tests.retrain.report.test_health import SIZE, apart, made_up, of_labels


def with_versions(count: int = 80) -> Dataset:
    """360 images of 3 labels; the first ones have a near version among the training images."""
    x, y = apart(120, 3), of_labels(120, 3)
    noise = 0.05 * np.random.default_rng(1).standard_normal((count, SIZE))
    sets = dict.fromkeys(range(len(x), len(x) + count), "training")
    return made_up(np.concatenate([x, x[:count] + noise]), [*y, *y[:count]], sets=sets)


def found(dataset: Dataset, seed: int = 0) -> set[tuple[int, int]]:
    mean = dataset.everything.x.mean(axis=0)
    return {(pair.row, pair.other) for pair in near_leaks(dataset, mean, seed)}


def test_a_search_in_parts_finds_what_one_of_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = with_versions()
    whole = found(dataset)
    assert len(whole) > 20
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 30 * SIZE * 4)
    monkeypatch.setattr(near, "_SEARCHED", 60)
    monkeypatch.setattr(near, "_BLOCK_CELLS", 600)
    compared_at_once = []

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        compared_at_once.append((len(a), b.shape[1]))
        return parallel.product(a, b)

    monkeypatch.setattr(near, "product", product)
    assert found(dataset) == whole
    assert len(compared_at_once) > 100
    assert all(photos <= 60 for photos, _ in compared_at_once)
    assert all(others <= SIZE for _, others in compared_at_once)


def test_parts_of_fewer_photos_than_neighbours_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = with_versions()
    whole = found(dataset)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 7 * SIZE * 4)
    monkeypatch.setattr(near, "_SEARCHED", 7)
    assert found(dataset) == whole


def test_of_too_many_pairs_a_sample_of_the_held_out_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "STEPS", 5)
    dataset = with_versions()
    whole = found(dataset)
    held_out = set(np.flatnonzero(is_held_out(dataset)).tolist())
    assert set(compared(dataset).tolist()) == held_out
    everything = examine(dataset, 5)
    assert everything.compared == everything.held_out == len(held_out)

    monkeypatch.setattr(near, "MOST_PAIRS", 30 * len(dataset.everything) + 7)
    drawn = [set(compared(dataset, seed).tolist()) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for seed, rows in ((0, drawn[0]), (1, drawn[2])):
        assert len(rows) == 30 and rows < held_out
        assert found(dataset, seed) == {pair for pair in whole if pair[0] in rows}
    some = examine(dataset, 5)
    assert (some.compared, some.held_out) == (30, len(held_out))


def test_one_is_compared_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST_PAIRS", 1)
    assert len(compared(with_versions())) == 1


def test_without_held_out_images_there_is_nothing_to_find() -> None:
    dataset = made_up(apart(30, 2), of_labels(30, 2), sets=dict.fromkeys(range(60), "training"))
    assert found(dataset) == set()


@pytest.mark.parametrize(("cells", "most"), [(2**29, 40), (3 * 10**2, 10), (1, 1)])
def test_centres_are_of_fewer_photos_where_labels_are_many(
    monkeypatch: pytest.MonkeyPatch, cells: int, most: int
) -> None:
    taken: list[int] = []

    class Watched(InMemory):
        def take(self, rows: np.ndarray) -> np.ndarray:
            taken.append(len(rows))
            return super().take(rows)

    dataset = made_up(apart(40, 3), of_labels(40, 3))
    object.__setattr__(dataset.everything, "vectors", Watched(dataset.everything.x))
    monkeypatch.setattr(near, "_CENTRE_CELLS", cells)
    centres = near._centres(dataset, dataset.everything.x.mean(axis=0))
    assert taken[1:] == [most] * 3  # the first is that of the mean
    assert np.isfinite(centres).all()


def test_rows_of_labels() -> None:
    y = np.array([2, 0, 2, 3, 0, 0])
    found = [rows.tolist() for rows in rows_of_labels(y, 5)]
    assert found == [[1, 4, 5], [], [0, 2], [3], []]
