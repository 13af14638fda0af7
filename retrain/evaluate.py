"""Predictions -> figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 5
RESAMPLES = 1000
_TAILS, _Z = (0.025, 0.975), 1.959964  # of 95 %: quantiles, and that of the normal distribution
_LEAST_GAIN = 1e-3  # nats
_SMALLEST = np.finfo(np.float32).tiny  # so that log never sees 0


@dataclass(frozen=True)
class Score:
    """``accuracy`` in [0, 1], mean ``cross_entropy`` in nats, over ``n`` images."""

    accuracy: float
    cross_entropy: float
    n: int


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % confidence interval, over ``n`` images."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Figures:
    """What a test says of a classifier. All but the cross-entropy, in nats, are in [0, 1]."""

    accuracy: Figure
    top_5_accuracy: Figure
    mean_label_accuracy: Figure  # of the labels' recalls: each label counts the same
    cross_entropy: Figure
    calibration_error: Figure  # mean distance of confidence and accuracy, but for chance's part


@dataclass(frozen=True)
class LabelScore:
    """How the test went for one label; ``support`` is its number of test images."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """``count`` test images of ``label`` got ``predicted`` instead."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Outcomes:
    """Which of n images were given their own label, and the cross-entropy of each: (n,) each."""

    right: np.ndarray
    losses: np.ndarray
    is_finite: bool  # all that they were computed of

    @classmethod
    def of(cls, probabilities: np.ndarray, y: np.ndarray) -> "Outcomes":
        """``probabilities`` (n, C) against labels ``y`` (n,)."""
        guesses = probabilities.argmax(axis=1)  # the first NaN, where there is one
        is_finite = bool(np.isfinite(probabilities[np.arange(len(y)), guesses]).all())
        return cls(guesses == y, losses_of(probabilities, y), is_finite)

    def score(self, rows: np.ndarray | slice = slice(None)) -> Score:
        """Of the images at ``rows`` (k,), k > 0."""
        right, losses = self.right[rows], self.losses[rows]
        return Score(float(right.mean()), float(losses.mean()) + 0.0, len(right))


@dataclass(frozen=True)
class Answers:
    """What a classifier answers for n images of labels ``y``, (n,) each.

    A few numbers of each image say all that figures are made of, so that its scores (n, C) need not
    be kept.
    """

    y: np.ndarray
    given: np.ndarray  # the likeliest label
    confidence: np.ndarray  # and its probability
    own: np.ndarray  # the probability of the image's own label
    is_in_top_5: np.ndarray  # whether that is among the five likeliest

    @classmethod
    def of(cls, probabilities: np.ndarray, y: np.ndarray) -> "Answers":
        """``probabilities`` (n, C) against labels ``y`` (n,)."""
        own = probabilities[np.arange(len(y)), y]
        in_top_5 = (probabilities >= own[:, None]).sum(axis=1) <= 5  # its own among them
        return cls(y, probabilities.argmax(axis=1), probabilities.max(axis=1), own, in_top_5)

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """All ``parts`` as one; at least one of them."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))

    def __len__(self) -> int:
        return len(self.y)

    @property
    def right(self) -> np.ndarray:
        """(n,) bool: whether an image was given its own label."""
        right: np.ndarray = self.given == self.y
        return right

    @property
    def losses(self) -> np.ndarray:
        """(n,) float64 the cross-entropy of each, in nats."""
        return _losses(self.own)

    @property
    def score(self) -> Score:
        return Outcomes(self.right, self.losses, True).score()


def score(probabilities: np.ndarray, y: np.ndarray) -> Score:
    """``probabilities`` (n, C) against labels ``y`` (n,); n > 0."""
    return Outcomes.of(probabilities, y).score()


def losses_of(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) float64 the cross-entropy, in nats, of each image of label ``y`` (n,)."""
    return _losses(probabilities[np.arange(len(y)), y])


def _losses(own: np.ndarray) -> np.ndarray:
    """(n,) float64 the cross-entropy of images whose own labels have the probabilities ``own``."""
    losses: np.ndarray = -np.log(np.clip(own, _SMALLEST, 1.0), dtype=np.float64)
    return losses


def standard_error(values: np.ndarray, units: np.ndarray) -> float:
    """Of the mean of ``values`` (n,), where those of one of ``units`` (n,) vouch for each other.

    Infinite where all are of one unit. (Kish 1965, "Survey Sampling", section 6.1: a sample of
    clusters.)
    """
    _, unit = np.unique(units, return_inverse=True)
    sums = np.bincount(unit, values - values.mean())
    if len(sums) < 2:
        return math.inf
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))


def is_lower(losses: np.ndarray, than: np.ndarray, units: np.ndarray, errors: float) -> bool:
    """Whether the mean of ``losses`` (n,) is lower than that of others of the same images.

    By more than ``errors`` standard errors of the difference, and by more than anybody could see.
    (Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3.)
    """
    if not len(losses):
        return False
    ahead = than - losses
    return bool(ahead.mean() > max(_LEAST_GAIN, errors * standard_error(ahead, units)))


def figures(answers: Answers, seed: int = 0) -> Figures:
    """What the ``answers`` for one image or more say of a classifier.

    Intervals of shares are Wilson's (1927). That of the mean over labels is the wider of two, one
    for labels of one accuracy and one for labels that differ: Wilson's with the effective number of
    images, (sum of weights)^2 / sum of their squares (Kish 1965, "Survey Sampling"), where an image
    weighs 1 / images of its label; and MOVER of the labels' own (Zou & Donner 2008). The others are
    bootstraps over the images (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter
    13), their percentiles; for the calibration error from 0 where scores that are right as often
    as they say err as much by chance. All are seeded by ``seed``.

    Of the calibration error, what such scores err by chance is taken off, in squares: binned over
    62 images it is 9 % for a calibrated classifier (the bias that Kumar et al. 2019, "Verified
    Uncertainty Calibration", section 5, and Roelofs et al. 2022 describe). In simulations of 62 to
    1,500 images and errors of 0 to 22 % the mean of the rest is within 5 points of the truth: as it
    cannot be below 0, a calibrated classifier's is 4 points with 62 images. Its interval reaches
    to what the mean confidence can be off the accuracy, by the interval of that.
    """
    n, right = len(answers), answers.right
    losses, confidence = answers.losses, answers.confidence
    bins = _bins(confidence)

    def calibration_error(rows: np.ndarray) -> float:
        return _binned_error(bins[rows], confidence[rows] - right[rows])

    bootstrap = _Bootstrap(n, seed)
    binned = bootstrap(calibration_error)
    by_chance = _calibrated_errors(confidence, bins)
    # Chance and a real error add up like independent deviations, in squares; resampling adds
    # chance once more.
    value, low, high = (
        float(np.sqrt(max(0.0, x**2 - times * np.mean(by_chance) ** 2)))
        for x, times in ((binned.value, 1), (binned.low, 2), (binned.high, 2))
    )
    if binned.value <= np.quantile(by_chance, _TAILS[1]):
        low = 0.0
    accuracy = _share(right)
    off = np.abs(confidence.mean() - np.array([accuracy.low, accuracy.high]))
    high = max(high, float(off.max()))
    return Figures(
        accuracy=accuracy,
        top_5_accuracy=_share(answers.is_in_top_5),
        mean_label_accuracy=mean_label_accuracy(right, answers.y),
        cross_entropy=bootstrap(lambda rows: float(losses[rows].mean())),
        calibration_error=_around(value, low, high, n),
    )


def _calibrated_errors(confidence: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """(100,) binned calibration errors of scores that are right as often as they say."""
    random = np.random.default_rng(6)
    return np.array(
        [
            _binned_error(bins, confidence - (random.random(len(confidence)) < confidence))
            for _ in range(100)
        ]
    )


def _binned_error(bins: np.ndarray, excess: np.ndarray) -> float:
    """The mean over bins, by their images, of how far confidence is off being right.

    ``excess`` (n,) is by how much each image's confidence is above being right, 0 or 1.
    """
    return float(np.abs(np.bincount(bins, excess)).sum() / len(excess))


def score_labels(answers: Answers, labels: Sequence[str]) -> list[LabelScore]:
    """Precision, recall and F1 of each label (0 where undefined), in the order of ``labels``."""
    right, predicted, support = (
        np.bincount(rows, minlength=len(labels))
        for rows in (answers.y[answers.right], answers.given, answers.y)
    )
    columns = (
        right / np.maximum(predicted, 1),
        right / np.maximum(support, 1),
        2 * right / np.maximum(predicted + support, 1),
        support,
    )
    return [
        LabelScore(label, float(p), float(r), float(f), int(n))
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    ]


def confusion_matrix(answers: Answers, classes: int) -> np.ndarray:
    """(C, C) int64 for C ``classes``: how many images of each (row) got which (column)."""
    cells = answers.y * classes + answers.given
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def most_confused(matrix: np.ndarray, labels: Sequence[str], count: int = 5) -> list[Confusion]:
    """The ``count`` largest cells of a confusion matrix beside its diagonal."""
    largest = _mistakes(matrix)[:count].tolist()
    return [Confusion(labels[true], labels[given], n) for true, given, n in largest]


def cells(matrix: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, column, number) of all that are not 0 in a confusion matrix, row by row."""
    rows, columns = np.nonzero(matrix)
    numbers = matrix[rows, columns]
    return list(zip(rows.tolist(), columns.tolist(), numbers.tolist(), strict=True))


def most_mistaken(matrix: np.ndarray, count: int) -> list[int]:
    """At most ``count`` labels of the largest cells of a confusion matrix beside its diagonal.

    Each comes with one that it is confused with, so there is something to see between them. In
    the order of the matrix.
    """
    chosen: set[int] = set()
    for true, given, _ in _mistakes(matrix).tolist():
        new = {true, given} - chosen
        if len(chosen) + len(new) <= count:
            chosen |= new
        if len(chosen) == count:
            break
    return sorted(chosen)


def _mistakes(matrix: np.ndarray) -> np.ndarray:
    """(k, 3) int64: row, column and number of what a confusion matrix has beside its diagonal.

    The largest first.
    """
    found = np.stack([*np.nonzero(matrix), matrix[np.nonzero(matrix)]], axis=1)
    wrong = found[found[:, 0] != found[:, 1]]
    largest_first: np.ndarray = wrong[np.argsort(-wrong[:, 2], kind="stable")]
    return largest_first


def reliability(answers: Answers) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, images) of each bin of confidence that has images."""
    confidence, right = answers.confidence, answers.right
    bins = _bins(confidence)
    return [
        (
            float(confidence[bins == i].mean()),
            float(right[bins == i].mean()),
            int((bins == i).sum()),
        )
        for i in np.unique(bins)
    ]


def _bins(confidence: np.ndarray) -> np.ndarray:
    """(n,) the bin of each confidence in [0, 1]; all are equally wide."""
    return np.minimum((confidence * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)


def _share(right: np.ndarray) -> Figure:
    share = float(right.mean())
    return _around(share, *_wilson(share, len(right)), len(right))


def mean_label_accuracy(right: np.ndarray, y: np.ndarray) -> Figure:
    images, rights = np.bincount(y), np.bincount(y, right)
    rights, images = rights[images > 0], images[images > 0]
    shares = rights / images
    value = float(shares.mean())
    low, high = _wilson(value, len(images) ** 2 / (1 / images).sum())
    lows, highs = _wilson(shares, images)
    below = np.sqrt(((shares - lows) ** 2).sum()) / len(images)
    above = np.sqrt(((highs - shares) ** 2).sum()) / len(images)
    return _around(value, min(low, value - below), max(high, value + above), len(y))


def _wilson(share: Any, n: Any) -> tuple[Any, Any]:
    """The interval of a share of ``n`` images; of one, or of each in an array."""
    z2 = _Z**2 / n
    centre = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return centre - half, centre + half


def _around(value: float, low: float, high: float, n: int) -> Figure:
    """A share with an interval that rounding keeps off neither it nor [0, 1]."""
    return Figure(value, float(max(0.0, min(low, value))), float(min(1.0, max(high, value))), n)


class _Bootstrap:
    """Turns a function of rows into a `Figure`, with the same resamples for every function."""

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._seed = n, seed
        self._resamples = max(100, min(RESAMPLES, 10_000_000 // n))  # seconds at the most

    def __call__(self, statistic: Callable[[np.ndarray], float]) -> Figure:
        random = np.random.default_rng((self._seed, 5))
        found = [statistic(random.integers(0, self._n, self._n)) for _ in range(self._resamples)]
        low, high = np.quantile(found, _TAILS)
        return Figure(statistic(np.arange(self._n)), float(low), float(high), self._n)
