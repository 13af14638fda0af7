"""retrain.report.results: a test of any number of images, whose scores are not kept."""

import gc
import weakref

import numpy as np
import pytest

from bottlenecks.builder import CachedImage
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Dataset, Subset
from retrain.evaluate import Answers
from retrain.report import results
from retrain.report.results import Sample, Tally, samples_of
from retrain.report.results import Test as Tested
from retrain.training import head as head_module
from retrain.training.head import Head, scored_at_once

LABELS = ("ant", "bee", "cat")


def scores(n: int = 90) -> tuple[np.ndarray, np.ndarray, list[CachedImage]]:
    """Probabilities (n, 3), labels and images; many equally confident, half of them wrong."""
    random = np.random.default_rng(0)
    probabilities = random.choice([0.2, 0.3, 0.7, 0.9], (n, 3)).astype(np.float32)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    y = random.integers(0, 3, n)
    return probabilities, y, images_of(y)


def images_of(y: np.ndarray) -> list[CachedImage]:
    return [
        CachedImage(LABELS[label], f"{i}", f"D/{i}", i.to_bytes(32, "big"))
        for i, label in enumerate(y)
    ]


def tallied(part: int) -> Tested:
    probabilities, y, images = scores()
    tally = Tally(LABELS)
    for start in range(0, len(y), part):
        rows = slice(start, start + part)
        tally.add(probabilities[rows], y[rows], images[rows])
    return tally.test()


def assert_same(one: Tested, other: Tested) -> None:
    np.testing.assert_array_equal(one.confusion, other.confusion)
    for name in ("score", "figures", "labels", "most_confused", "misclassified", "reliability"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("part", [1, 7, 89])
def test_scores_in_parts_say_what_all_at_once_say(part: int) -> None:
    assert_same(tallied(part), tallied(90))


def test_misclassified_images_are_in_the_order_of_a_stable_sort() -> None:
    probabilities, y, images = scores()
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y)
    order = wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")]
    test = tallied(7)
    assert [m.image for m in test.misclassified] == [images[row] for row in order]
    assert test.wrong == len(order) > 30


@pytest.mark.parametrize("most", [1, 10, 1000])
def test_the_most_confident_mistakes_are_kept_and_all_counted(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    everything = tallied(7)
    monkeypatch.setattr(results, "MOST_LISTED", most)
    found = tallied(7)
    assert found.misclassified == everything.misclassified[:most]
    assert found.wrong == everything.wrong > 30


def test_no_scores_are_kept() -> None:
    tally = Tally(LABELS)
    alive = []
    for _ in range(3):
        probabilities, y, images = scores()
        tally.add(probabilities, y, images)
        alive.append(weakref.ref(probabilities))
        del probabilities
    gc.collect()
    assert [array() for array in alive] == [None] * 3


def test_a_model_is_asked_for_few_scores_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Model(Head):
        def predict_all(self, vectors: object) -> np.ndarray:
            assert isinstance(vectors, InMemory)
            asked.append(len(vectors))
            return super().predict_all(vectors)

    random = np.random.default_rng(0)
    x = random.standard_normal((200, 8)).astype(np.float32)
    y = random.integers(0, 3, 200)
    dataset = Dataset(LABELS, Subset(images_of(y), InMemory(x), y), np.repeat("testing", 200))
    model = Model(random.standard_normal((8, 3)).astype(np.float32), np.zeros(3, np.float32))
    whole = results.test_model(dataset, model)
    assert asked == [200]
    for cells, rows in ((3 * 30, 10**6), (10**6, 30)):
        monkeypatch.setattr(head_module, "_CELLS", cells)
        monkeypatch.setattr(head_module, "_SCORED_ROWS", rows)
        asked.clear()
        found = results.test_model(dataset, model)
        assert max(asked) <= 30 and sum(asked) == 200
        assert whole is not None and found is not None
        assert_same(found, whole)


def test_parts_have_a_row_whatever_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "_CELLS", 5)
    assert len(scored_at_once(4, 100)) == 4
    assert scored_at_once(0, 100) == []


def test_answers_joined_are_those_of_all() -> None:
    probabilities, y, _ = scores()
    whole = Answers.of(probabilities, y)
    parts = [Answers.of(probabilities[rows], y[rows]) for rows in (slice(40), slice(40, None))]
    joined = Answers.joined(parts)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(joined, name), values)
    assert joined.score == whole.score


def test_what_is_of_all_images_is_no_sample() -> None:
    assert samples_of(test=(5, 5), near_leaks=(3, 8), validation=(0, 4)) == {
        "near leaks": Sample(3, 8)
    }
