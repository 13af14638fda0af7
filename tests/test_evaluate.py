"""retrain.evaluate: the figures are scikit-learn's own."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from retrain.evaluate import LabelScore, score, score_labels

LABELS = ("ant", "bee", "cat", "dog")


def predictions(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 4) float32 that are right about half of the time, and labels (n,)."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n)
    logits = random.normal(0, 1, (n, 4))
    logits[np.arange(n), y] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), y


def test_accuracy_and_cross_entropy() -> None:
    probabilities, y = predictions()
    found = score(probabilities, y)
    assert found.accuracy == accuracy_score(y, probabilities.argmax(axis=1))
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    assert found.cross_entropy == pytest.approx(log_loss(y, exact), rel=1e-5)
    assert found.n == 200


def test_one_image() -> None:
    found = score(np.float32([[0.25, 0.75]]), np.array([0]))
    assert (found.accuracy, found.n) == (0.0, 1)
    assert found.cross_entropy == pytest.approx(np.log(4), rel=1e-6)


def test_a_probability_of_zero_has_a_finite_cross_entropy() -> None:
    found = score(np.float32([[1, 0], [1, 0]]), np.array([0, 1]))
    assert found.accuracy == 0.5
    assert 40 < found.cross_entropy < 50  # half of -log of float32's smallest normal number


def test_certainty_has_none() -> None:
    assert score(np.float32([[1, 0], [0, 1]]), np.array([0, 1])).cross_entropy == 0


def test_scores_of_each_label() -> None:
    probabilities, y = predictions()
    found = score_labels(probabilities, y, LABELS)
    columns = precision_recall_fscore_support(y, probabilities.argmax(axis=1))
    expected = [LabelScore(*row) for row in zip(LABELS, *columns, strict=True)]
    assert found == expected
    assert sum(label.support for label in found) == 200


def test_labels_without_a_test_image_or_a_prediction() -> None:
    probabilities = np.float32([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0.9, 0.1, 0, 0]])
    assert score_labels(probabilities, np.array([0, 0, 2]), LABELS) == [
        LabelScore("ant", 0.5, 0.5, 0.5, 2),
        LabelScore("bee", 0.0, 0.0, 0.0, 0),  # predicted, never there
        LabelScore("cat", 0.0, 0.0, 0.0, 1),  # there, never predicted
        LabelScore("dog", 0.0, 0.0, 0.0, 0),  # neither
    ]
