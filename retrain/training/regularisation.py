"""How strong the L2 penalty is to be: the usual strength, or what a cross-validation finds.

The usual one suits photos that are labelled rightly. With one label in ten wrong it should be ten
times as strong, and with labels that are easily told apart a tenth; no formula over counts knows
that, images that a model has not seen do.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
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
_MOST_STEPS = 300  # of the optimiser


@dataclass(frozen=True)
class Trial:
    """What a strength of the L2 penalty gave: the cross-entropy of images not seen, in nats."""

    l2: float
    cross_entropy: float


@dataclass(frozen=True)
class Search:
    """The ``trials`` of a cross-validation, and the strength ``l2`` that it chose."""

    trials: tuple[Trial, ...]
    l2: float
    times_the_usual: float


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
    return Search(trials, usual * chosen, chosen)


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
        from sklearn.linear_model import LogisticRegression

        y, weights = self._y, self._weights
        losses = np.zeros((len(strengths), len(y)))
        with (
            one_blas_thread(),
            warnings.catch_warnings(action="ignore"),
        ):  # nearly converged will do
            for fold in range(_FOLDS):
                seen = self._fold_of != fold
                unseen = np.flatnonzero(~seen & self.judged)
                known = np.unique(y[seen])
                if not len(unseen) or len(known) < 2:
                    continue
                # Of two labels scikit-learn has one column of weights, half of it each one's.
                columns = 2.0 if len(known) == 2 else 1.0
                own = np.searchsorted(known, y[unseen])
                model = LogisticRegression(warm_start=True, max_iter=_MOST_STEPS)
                # From strong to weak, each from where the last one ended.
                for i in np.argsort(strengths)[::-1]:
                    model.C = columns / (strengths[i] * float(weights[seen].sum()))
                    model.fit(self._z[seen], y[seen], weights[seen])
                    log = model.predict_log_proba(self._z[unseen])[np.arange(len(unseen)), own]
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
