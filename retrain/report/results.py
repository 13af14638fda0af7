"""Scores of the test images -> what they say; and all that a run or an evaluation has found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bottlenecks.builder import BadImage, CachedImage
from retrain.data.dataset import Dataset, sample_rows
from retrain.evaluate import (
    Confusion,
    Figures,
    LabelScore,
    Score,
    confusion_matrix,
    figures,
    most_confused,
    reliability,
    score,
    score_labels,
)
from retrain.report.health import Problem
from retrain.training.fitting import Fitted, Model
from retrain.training.head import Head
from retrain.training.regularisation import Search
from retrain.training.tuned import FineTuned

_GUESSES = 3


@dataclass(frozen=True)
class Misclassified:
    """A test image that got another label; ``guesses`` are the likeliest with their scores."""

    image: CachedImage
    guesses: tuple[tuple[str, float], ...]

    @property
    def predicted(self) -> str:
        return self.guesses[0][0]


@dataclass(frozen=True)
class Test:
    """What the test images say. ``confusion`` (C, C) int64 has a row for each true label."""

    __test__ = False  # it is not pytest's

    score: Score
    figures: Figures
    labels: tuple[LabelScore, ...]
    confusion: np.ndarray
    most_confused: tuple[Confusion, ...]
    misclassified: tuple[Misclassified, ...]  # the most confident first
    reliability: tuple[tuple[float, float, int], ...]  # confidence, accuracy, images

    @property
    def accuracy(self) -> float:
        """The share of the ``n`` test images that got their own label."""
        return self.score.accuracy

    @property
    def worst_first(self) -> list[LabelScore]:
        """The labels to look at first: the lowest F1, and at the end those without an image."""
        return sorted(self.labels, key=lambda s: (s.support == 0, s.f1, s.label))

    @property
    def n(self) -> int:
        return self.score.n


@dataclass(frozen=True)
class TrainingResult:
    """What `train` made. ``test`` is None without a test set, and of a worker
    that does not write; ``problems`` unless looked for.

    ``model`` is what was exported and tested: the ``fitted`` head, or what ``fine_tuned`` has of
    it. Where that was tried, ``test_before`` is the head's own, and ``test_after`` the other's,
    whichever of them ``test`` is.
    """

    labels: tuple[str, ...]
    images: dict[str, int]  # in each set
    model: Model
    fitted: Fitted
    search: Search | None  # None where the usual strength was taken
    temperature: float  # 1 unless calibrated
    test: Test | None
    problems: tuple[Problem, ...] | None
    fine_tuned: FineTuned | None = None
    test_before: Test | None = None
    test_after: Test | None = None
    precision: str = ""  # that the network has computed in; empty for a stand-in

    @property
    def head(self) -> Head:
        """The softmax layer that was exported."""
        return self.model.head


@dataclass(frozen=True)
class Measurement:
    """What `measure` found of the classifier in the file ``graph``.

    ``set`` is what was measured of the folder, or "all". ``labels`` are the classifier's, with what
    is not printable escaped; ``failed`` the images that could not be read, ``copies`` counts those
    with the content of another one, which count too.
    """

    graph: str
    set: str
    labels: tuple[str, ...]
    images: dict[str, int]  # in each set, as in a `TrainingResult`; those of the test
    test: Test
    failed: tuple[BadImage, ...]
    copies: int

    @property
    def without_images(self) -> list[str]:
        """The labels that no image was measured of."""
        return [score.label for score in self.test.labels if not score.support]


@dataclass(frozen=True)
class Loss:
    """What rounding has cost: the accuracies on the same ``n`` held-out images, in [0, 1].

    They are of the set ``set``. ``before`` is that of what was trained, ``after`` that of the file.
    """

    set: str
    n: int
    before: float
    after: float

    @property
    def points(self) -> float:
        """Percentage points of accuracy that are lost; less than 0 where some are gained."""
        return 100 * (self.before - self.after)


def test_model(dataset: Dataset, model: Model, size: int = -1, seed: int = 0) -> Test | None:
    """Test ``model`` on ``size`` of the test images, drawn by ``seed``; on all of them for -1.

    None where there are none.
    """
    if not len(dataset.testing):
        return None
    sample = dataset.testing.select(sample_of_test(len(dataset.testing), size, seed))
    return tested(model.predict_all(sample.vectors), sample.y, sample.images, dataset.labels, seed)


def sample_of_test(n: int, size: int, seed: int) -> np.ndarray:
    """The rows of ``size`` of n test images, drawn by ``seed``; of all for -1."""
    return sample_rows(n, size, np.random.default_rng((seed, 2)))


def tested(
    probabilities: np.ndarray,
    y: np.ndarray,
    images: Sequence[CachedImage],
    labels: Sequence[str],
    seed: int = 0,
) -> Test:
    """``probabilities`` (n, C) of n ``images`` against their labels ``y`` (n,); n > 0."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    matrix = confusion_matrix(probabilities, y)

    def misclassified(row: int) -> Misclassified:
        best = np.argsort(-probabilities[row], kind="stable")[:_GUESSES]
        guesses = ((labels[i], float(probabilities[row, i])) for i in best)
        return Misclassified(images[row], tuple(guesses))

    return Test(
        score=score(probabilities, y),
        figures=figures(probabilities, y, seed),
        labels=tuple(score_labels(probabilities, y, labels)),
        confusion=matrix,
        most_confused=tuple(most_confused(matrix, labels)),
        misclassified=tuple(
            misclassified(row) for row in wrong[np.argsort(-confidence[wrong], kind="stable")]
        ),
        reliability=tuple(reliability(probabilities, y)),
    )
