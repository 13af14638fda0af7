"""Scores of the test images -> what they say; and all that a run or an evaluation has found."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bottlenecks.builder import BadImage, CachedImage
from retrain.data.dataset import Dataset, sample_rows
from retrain.evaluate import (
    Answers,
    Confusion,
    Figures,
    LabelScore,
    Score,
    confusion_matrix,
    figures,
    most_confused,
    reliability,
    score_labels,
)
from retrain.report.health import Problem
from retrain.training.fitting import Fitted, Model
from retrain.training.head import Head, scored_at_once
from retrain.training.regularisation import Search
from retrain.training.tuned import FineTuned

_GUESSES = 3
MOST_LISTED = 10_000  # misclassified images, the most confident first; of more the number is known


# What may be of a sample of the images that there are, and how it is said.
SAMPLES = {
    "regularisation": "the strength of the regularisation was chosen by {} of {} training images",
    "validation": "each evaluation while training is of {} of {} validation images",
    "calibration": "the scores were scaled by {} of {} validation images",
    "test": "the test is of {} of {} test images",
    "near leaks": "near leaks were looked for among {} of {} held-out images",
}


@dataclass(frozen=True)
class Sample:
    """So many images ``drawn`` of those that were ``available``."""

    drawn: int
    available: int


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
    misclassified: tuple[Misclassified, ...]  # the most confident first, at most `MOST_LISTED`
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

    @property
    def wrong(self) -> int:
        """How many test images got another label."""
        return int(self.confusion.sum() - self.confusion.trace())


@dataclass(frozen=True)
class TrainingResult:
    """What `train` made. ``test`` is None without a test set, and of a worker
    that does not write; ``problems`` unless looked for.

    ``model`` is what was exported and tested: the ``fitted`` head, or what ``fine_tuned`` has of
    it. Where that was tried, ``test_before`` is the head's own, and ``test_after`` the other's,
    whichever of them ``test`` is. ``samples`` has those of `SAMPLES` that were of fewer images than
    there are.
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
    samples: Mapping[str, Sample] = field(default_factory=dict)

    @property
    def head(self) -> Head:
        """The softmax layer that was exported."""
        return self.model.head


@dataclass(frozen=True)
class Measurement:
    """What `measure` found of the classifier in the file ``graph``.

    ``set`` is what was measured of the folder, or "all". ``labels`` are the classifier's, with what
    is not printable escaped; ``failed`` the images that could not be read, ``copies`` counts those
    with the content of another one, which count too. ``samples`` are as in a `TrainingResult`.
    """

    graph: str
    set: str
    labels: tuple[str, ...]
    images: dict[str, int]  # in each set, as in a `TrainingResult`; those of the test
    test: Test
    failed: tuple[BadImage, ...]
    copies: int
    samples: Mapping[str, Sample] = field(default_factory=dict)

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

    None where there are none. Few scores are in memory at once.
    """
    if not len(dataset.testing):
        return None
    sample = dataset.testing.select(sample_of_test(len(dataset.testing), size, seed))
    tally = Tally(dataset.labels, seed)
    for part in scored_at_once(len(sample), len(dataset.labels)):
        rows = np.arange(len(sample))[part]
        probabilities = model.predict_all(sample.vectors.select(rows))
        tally.add(probabilities, sample.y[part], sample.images[part])
    return tally.test()


def samples_of(**of_each: tuple[int, int]) -> dict[str, Sample]:
    """Those of ``of_each``, images drawn and available, that are samples indeed."""
    return {
        name.replace("_", " "): Sample(drawn, available)
        for name, (drawn, available) in of_each.items()
        if 0 < drawn < available
    }


def sample_of_test(n: int, size: int, seed: int) -> np.ndarray:
    """The rows of ``size`` of n test images, drawn by ``seed``; of all for -1."""
    return sample_rows(n, size, np.random.default_rng((seed, 2)))


class Tally:
    """Scores of test images, some at a time -> what all of them say.

    Kept are a few numbers of each image, and of the misclassified the `MOST_LISTED` most confident.
    """

    def __init__(self, labels: Sequence[str], seed: int = 0) -> None:
        self._labels, self._seed = labels, seed
        self._answers: list[Answers] = []
        self._n = 0
        # A heap: confidence, minus how many images came before, the image; the first goes first.
        self._wrong: list[tuple[float, int, Misclassified]] = []

    def add(self, probabilities: np.ndarray, y: np.ndarray, images: Sequence[CachedImage]) -> None:
        """``probabilities`` (n, C) of n ``images`` against their labels ``y`` (n,)."""
        answers = Answers.of(probabilities, y)
        self._answers.append(answers)
        for row in np.flatnonzero(~answers.right).tolist():
            confidence = float(answers.confidence[row])
            is_full = len(self._wrong) == MOST_LISTED
            if is_full and confidence <= self._wrong[0][0]:
                continue
            best = np.argsort(-probabilities[row], kind="stable")[:_GUESSES]
            guesses = tuple((self._labels[i], float(probabilities[row, i])) for i in best)
            put = heapq.heappushpop if is_full else heapq.heappush
            put(self._wrong, (confidence, -self._n - row, Misclassified(images[row], guesses)))
        self._n += len(y)

    def test(self) -> Test:
        """What they say; of one image or more."""
        answers = Answers.joined(self._answers)
        matrix = confusion_matrix(answers, len(self._labels))
        return Test(
            score=answers.score,
            figures=figures(answers, self._seed),
            labels=tuple(score_labels(answers, self._labels)),
            confusion=matrix,
            most_confused=tuple(most_confused(matrix, self._labels)),
            misclassified=tuple(wrong for _, _, wrong in sorted(self._wrong, reverse=True)),
            reliability=tuple(reliability(answers)),
        )
