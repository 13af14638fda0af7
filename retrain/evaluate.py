"""Predictions -> figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SMALLEST = np.finfo(np.float32).tiny  # so that log never sees 0


@dataclass(frozen=True)
class Score:
    """``accuracy`` in [0, 1], mean ``cross_entropy`` in nats, over ``n`` images."""

    accuracy: float
    cross_entropy: float
    n: int


@dataclass(frozen=True)
class LabelScore:
    """How the test went for one label; ``support`` is its number of test images."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def score(probabilities: np.ndarray, y: np.ndarray) -> Score:
    """``probabilities`` (n, C) against labels ``y`` (n,); n > 0."""
    own = probabilities[np.arange(len(y)), y]
    return Score(
        accuracy=float((probabilities.argmax(axis=1) == y).mean()),
        cross_entropy=float(-np.log(np.clip(own, _SMALLEST, 1.0), dtype=np.float64).mean()) + 0.0,
        n=len(y),
    )


def score_labels(
    probabilities: np.ndarray, y: np.ndarray, labels: Sequence[str]
) -> list[LabelScore]:
    """Precision, recall and F1 of each label (0 where undefined), in the order of ``labels``."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        y, probabilities.argmax(axis=1), labels=range(len(labels)), zero_division=0.0
    )
    return [
        LabelScore(label, float(p), float(r), float(f), int(n))
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    ]
