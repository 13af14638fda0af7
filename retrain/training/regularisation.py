"""How strong the L2 penalty is to be: the usual strength, or what a cross-validation finds.

The usual one suits photos that are labelled rightly. With one label in ten wrong it should be ten
times as strong, and with labels that are easily told apart a tenth; no formula over counts knows
that, images that a model has not seen do.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from retrain.data.dataset import Dataset
from retrain.data.folds import can_be_judged, deal
from retrain.training.head import Standardisation, label_weights, usual_l2

_FOLDS = 5  # Breiman & Spector 1992 found 5 as good as 10, or better
# What strengths are tried, as multiples of the usual one, from weak to strong.
_QUICK = tuple(10.0 ** (i / 2) for i in range(-3, 4))
_THOROUGH = tuple(10.0 ** (i / 4) for i in range(-8, 9))
_QUICK_CELLS = 2**20  # images^2 * labels: half a second at the most
_THOROUGH_CELLS = 2**17  # images * labels
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

    Returns None where it would take long (unless ``thorough``), or where there are too few images
    of a label.
    """
    training, classes = dataset.training, len(dataset.labels)
    if thorough:
        most = max(_THOROUGH_CELLS // classes, _LEAST_PER_LABEL * classes)
    else:
        most = math.isqrt(_QUICK_CELLS // classes)
    if min(most, len(training)) < _LEAST_PER_LABEL * classes and not thorough:
        return None
    units = dataset.units[np.flatnonzero(dataset.set_of == "training")]
    rows = _sample(units, most, np.random.default_rng((seed, 7)))
    x, y, units = training.vectors.take(rows), training.y[rows], units[rows]
    fold_of = deal(units, y, _FOLDS)
    judged = can_be_judged(fold_of, y)
    if not judged.all() or len(np.unique(y)) < classes:
        return None
    factors = _THOROUGH if thorough else _QUICK
    weights = label_weights(training.y, classes, class_balance)[y]
    strengths = [usual_l2(classes, len(rows)) * factor for factor in factors]
    losses = _losses(x, y, fold_of, weights, strengths) * (weights / weights.mean())
    means = losses.mean(axis=1)
    best = losses[means.argmin()]
    error = (losses - best).std(axis=1, ddof=1) / math.sqrt(len(rows))
    near = np.flatnonzero(means - best.mean() <= error)
    chosen = min(near, key=lambda i: abs(math.log(factors[i])))
    usual = usual_l2(classes, len(training))
    trials = tuple(Trial(usual * f, float(m)) for f, m in zip(factors, means, strict=True))
    return Search(trials, trials[chosen].l2, factors[chosen])


def _sample(units: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Rows of at most ``most`` images, drawn by chance."""
    rows = np.arange(len(units))
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def _losses(
    x: np.ndarray,
    y: np.ndarray,
    fold_of: np.ndarray,
    weights: np.ndarray,
    strengths: list[float],
) -> np.ndarray:
    """(strengths, n) the loss of each image under the model that has not seen its fold."""
    from sklearn.linear_model import LogisticRegression

    classes = int(y.max()) + 1
    # scikit-learn has a single column of weights for two labels, half of which is each one's.
    columns = 2.0 if classes == 2 else 1.0
    losses = np.empty((len(strengths), len(y)))
    with threadpool_limits(1), warnings.catch_warnings(action="ignore"):  # nearly converged will do
        z = _rotated(Standardisation.of(x).apply(x))
        for fold in range(int(fold_of.max()) + 1):
            seen, unseen = fold_of != fold, np.flatnonzero(fold_of == fold)
            model = LogisticRegression(warm_start=True, max_iter=_MOST_STEPS)
            # From strong to weak, each from where the last one ended.
            for i in np.argsort(strengths)[::-1]:
                model.C = columns / (strengths[i] * float(weights[seen].sum()))
                model.fit(z[seen], y[seen], weights[seen])
                own = model.predict_log_proba(z[unseen])[np.arange(len(unseen)), y[unseen]]
                losses[i, unseen] = -np.maximum(own, np.log(np.finfo(np.float32).tiny))
    return losses


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
