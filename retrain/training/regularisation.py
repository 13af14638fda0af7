"""How strong the L2 penalty is to be: the usual strength, or what a cross-validation finds.

The usual one suits photos that are labelled rightly. With one label in ten wrong it should be ten
times as strong, and with labels that are easily told apart a tenth; no formula over counts knows
that, images that a model has not seen do.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bottlenecks.machine import one_blas_thread
from bottlenecks.photos.labels import TRAINING
from retrain.data.dataset import Dataset
from retrain.data.folds import can_be_judged, deal
from retrain.evaluate import is_lower
from retrain.training.head import Standardisation, label_weights, usual_l2

_FOLDS = 5  # Breiman & Spector 1992 found 5 as good as 10, or better
# What strengths are tried, as multiples of the usual one, from weak to strong.
_QUICK = tuple(10.0 ** (i / 2) for i in range(-3, 4))
_THOROUGH = tuple(10.0 ** (i / 4) for i in range(-8, 9))
QUICK_CELLS = 2**20  # images^2 * labels: half a second at the most
THOROUGH_CELLS = 2**17  # images * labels
# Where the strongest is the best, a stronger one is tried, so many times: as with a third of the
# labels wrong. (Weaker ones only make the scores of labels that are easily told apart extreme.)
_WIDER, _MOST_WIDENINGS = 10.0**0.5, 4
_LEAST_PER_LABEL = 5
# Of the optimiser: nearly converged will do.
_MOST_STEPS, _SMALL_GRADIENT = 300, 1e-7
_REMEMBERED, _DECREASE, _SHORTEST = 10, 1e-4, 1e-8


@dataclass(frozen=True)
class Trial:
    """What a strength of the L2 penalty gave: the cross-entropy of images not seen, in nats."""

    l2: float
    cross_entropy: float


@dataclass(frozen=True)
class Search:
    """The ``trials`` of a cross-validation, and the strength ``l2`` that it chose.

    It was of so many ``images`` of those that are trained on.
    """

    trials: tuple[Trial, ...]
    l2: float
    times_the_usual: float
    images: int


def search(
    dataset: Dataset, *, thorough: bool = False, class_balance: str = "none", seed: int = 0
) -> Search | None:
    """Cross-validate strengths of the L2 penalty on training images, or on a sample of them.

    Chosen is the strength nearest to the usual one of those whose loss is within one standard
    error, of the paired difference, of the lowest (Breiman et al. 1984, "Classification and
    Regression Trees", section 3.4.3). ``thorough`` takes more images and strengths. Losses are
    weighed by ``class_balance`` as in training.

    Returns None where it would take long (unless ``thorough``), where there are too few images of
    the labels, and where all images of each belong together.
    """
    training, classes = dataset.training, len(dataset.labels)
    if thorough:
        most = max(THOROUGH_CELLS // classes, _LEAST_PER_LABEL * classes)
    else:
        most = math.isqrt(QUICK_CELLS // classes)
    if min(most, len(training)) < _LEAST_PER_LABEL * classes and not thorough:
        return None
    units = dataset.units_of(TRAINING)
    rows = _sample(training.y, units, most, np.random.default_rng((seed, 7)))
    x, y, units = training.vectors.take(rows), training.y[rows], units[rows]
    folds = _Folds(x, y, units, label_weights(training.y, classes, class_balance)[y])
    if not folds.judged.any():
        return None
    usual = usual_l2(classes, len(rows))
    factors = _THOROUGH if thorough else _QUICK
    losses = dict(zip(factors, folds.losses([usual * factor for factor in factors]), strict=True))
    for _ in range(_MOST_WIDENINGS):
        best = min(losses, key=lambda factor: losses[factor].mean())
        if best < max(losses):
            break
        losses[best * _WIDER] = folds.losses([usual * best * _WIDER])[0]
    tried = sorted(losses)
    chosen = _nearest_of_the_best(losses, units[folds.judged])
    usual = usual_l2(classes, len(training))
    trials = tuple(Trial(usual * factor, float(losses[factor].mean())) for factor in tried)
    return Search(trials, usual * chosen, chosen, len(rows))


def _nearest_of_the_best(losses: Mapping[float, np.ndarray], units: np.ndarray) -> float:
    """The factor nearest to 1 of those whose losses are within one standard error of the lowest."""
    best = min(losses.values(), key=np.mean)
    near = [factor for factor, own in losses.items() if not is_lower(best, own, units, 1.0)]
    return min(near, key=lambda factor: abs(math.log(factor)))


def _sample(y: np.ndarray, units: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Sorted rows of at most ``most`` images: of each label some, by its share beyond these.

    Of images that belong together one comes first, before a second of any.
    """
    order = random.permutation(len(y))
    within_unit = np.empty(len(y), np.int64)  # the how-manieth of its label and unit it is
    within_label = np.empty(len(y), np.int64)
    within_unit[order] = _counted(y[order] * (int(units.max()) + 1) + units[order])
    order = order[np.argsort(within_unit[order], kind="stable")]
    within_label[order] = _counted(y[order])
    share = within_label / np.bincount(y)[y]
    first = np.where(within_label < _LEAST_PER_LABEL, -1.0, share)
    return np.sort(np.lexsort((within_label, first))[:most])


def _counted(values: np.ndarray) -> np.ndarray:
    """(n,) how many of the same value there are before each of ``values`` (n,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counted = np.empty(len(values), np.int64)
    counted[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    return counted


class _Folds:
    """A cross-validation of images ``x`` (n, 2048), ``y``, ``units``, ``weights`` (n,) each.

    ``judged`` (n,) are those of whose label there are images outside their fold.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, units: np.ndarray, weights: np.ndarray
    ) -> None:
        self._y, self._weights = y, weights
        self._fold_of = deal(units, y, _FOLDS)
        self.judged = can_be_judged(self._fold_of, y)
        with one_blas_thread():
            self._z = _rotated(Standardisation.of(x).apply(x))

    def losses(self, strengths: Sequence[float]) -> np.ndarray:
        """(strengths, judged) the weighed loss of each under the model that has not seen it."""
        y, weights = self._y, self._weights
        losses = np.zeros((len(strengths), len(y)))
        with one_blas_thread():
            for fold in range(_FOLDS):
                seen = self._fold_of != fold
                unseen = np.flatnonzero(~seen & self.judged)
                known = np.unique(y[seen])
                if not len(unseen) or len(known) < 2:
                    continue
                own = np.searchsorted(known, y[unseen])
                model = _Softmax(self._z[seen], np.searchsorted(known, y[seen]), weights[seen])
                # From strong to weak, each from where the last one ended.
                for i in np.argsort(strengths)[::-1]:
                    model.fit(strengths[i])
                    log = model.log_probabilities(self._z[unseen])[np.arange(len(unseen)), own]
                    losses[i, unseen] = -np.maximum(log, np.log(np.finfo(np.float32).tiny))
        weighed = losses * (weights / weights[self.judged].mean())
        result: np.ndarray = weighed[:, self.judged]
        return result


def _rotated(z: np.ndarray) -> np.ndarray:
    """``z`` (n, 2048) in at most n numbers with the same products: the penalised fit is the same.

    (Hastie & Tibshirani 2004, "Efficient quadratic regularization for expression arrays".)
    """
    if len(z) >= z.shape[1]:
        return z
    values, vectors = np.linalg.eigh((z @ z.T).astype(np.float64))
    kept = values > values[-1] * 1e-7
    rotated: np.ndarray = (vectors[:, kept] * np.sqrt(values[kept])).astype(np.float32)
    return rotated


class _Softmax:
    """Softmax regression of ``z`` (n, d) float32 on labels ``y`` (n,), weighed by (n,).

    Minimised is the weighed mean of the cross-entropy + ``l2`` / 2 * |W|^2.
    """

    def __init__(self, z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
        self._z, self._y = z, y
        self._weights = (weights / weights.sum()).astype(np.float64)
        self._squares = np.einsum("n,nd,nd->d", self._weights, z, z)
        # W (d, C), and below it the bias (C,)
        self._layer = np.zeros((z.shape[1] + 1, int(y.max()) + 1))

    def fit(self, l2: float) -> None:
        """Go on from what is there to the minimum for another strength."""
        rows = np.arange(len(self._y))
        # In units in which the function is about as bent in one direction as in another: the
        # products of different columns of `_rotated` are 0.
        classes = self._layer.shape[1]
        curvature = np.append(self._squares, 1.0) * (1 - 1 / classes) / classes
        curvature[:-1] += l2
        unit = 1 / np.sqrt(curvature)[:, None]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            self._layer = layer = flat.reshape(self._layer.shape) * unit
            log = self.log_probabilities(self._z)
            value = -(self._weights @ log[rows, self._y]) + l2 / 2 * (layer[:-1] ** 2).sum()
            error = np.exp(log)
            error[rows, self._y] -= 1.0
            error *= self._weights[:, None]
            gradient = np.vstack((self._z.T @ error.astype(np.float32), error.sum(axis=0)))
            gradient[:-1] += l2 * layer[:-1]
            return float(value), (gradient * unit).ravel()

        found = _minimised(loss, (self._layer / unit).ravel())
        self._layer = found.reshape(self._layer.shape) * unit

    def log_probabilities(self, z: np.ndarray) -> np.ndarray:
        """(n, C) float64 of ``z`` (n, d)."""
        product = z @ self._layer[:-1].astype(np.float32)
        logits: np.ndarray = product.astype(np.float64) + self._layer[-1]
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits


def _minimised(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray
) -> np.ndarray:
    """Where a convex ``function``, which gives its value and gradient, is lowest; or near to it.

    L-BFGS (Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 and 7.5), each step
    halved until the value is lower by enough (algorithm 3.1).
    """
    x, (value, gradient) = start, function(start)
    changes: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_REMEMBERED)
    for _ in range(_MOST_STEPS):
        if gradient @ gradient <= _SMALL_GRADIENT:
            break
        direction = _direction(gradient, changes)
        slope, step = gradient @ direction, 1.0
        while True:
            new = x + step * direction
            new_value, new_gradient = function(new)
            if new_value <= value + _DECREASE * step * slope:
                break
            step /= 2
            if step < _SHORTEST:  # rounding leaves nothing to find
                return x
        moved, bent = new - x, new_gradient - gradient
        if (curvature := float(moved @ bent)) > 0:
            changes.append((moved, bent, curvature))
        x, value, gradient = new, new_value, new_gradient
    return x


def _direction(
    gradient: np.ndarray, changes: Sequence[tuple[np.ndarray, np.ndarray, float]]
) -> np.ndarray:
    """Minus ``gradient`` over the curvature that the last ``changes`` of both have shown."""
    direction: np.ndarray = -gradient
    if not changes:
        return direction
    shares = []
    for moved, bent, curvature in reversed(changes):
        shares.append(moved @ direction / curvature)
        direction = direction - shares[-1] * bent
    _, bent, curvature = changes[-1]
    direction *= curvature / (bent @ bent)
    for (moved, bent, curvature), share in zip(changes, reversed(shares), strict=True):
        direction += (share - bent @ direction / curvature) * moved
    return direction
