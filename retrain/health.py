"""What is wrong with the photos themselves, from their cached vectors alone.

A model that has not seen a photo, and the photo's neighbours among the vectors, tell of copies,
of wrong labels and of strangers. Nothing is changed for it: these are places to look at.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
from threadpoolctl import threadpool_limits

from bottlenecks.errors import ImageFolderError, shown
from bottlenecks.vectors import Vectors, blocks
from retrain.config import LEARNING_RATES, Config
from retrain.dataset import FEW_IMAGES, Dataset
from retrain.head import Fit, Standardisation

# Two photos are taken for versions of one if their distance is at most this share of the distance
# to the tenth nearest photo. Of 50 flower photos that were mirrored, cropped by 5 %, or made
# brighter it finds 94 %; of 600 different ones, 6, which show the same flower. Where few photos are
# around, that alone says little; but of those 150 versions 98 % have at least this cosine too, and
# most still have `NEAR_IN_LABEL` when their label's mean is taken off, which in labels with less
# than `_FEW_NEIGHBOURS` images is asked for as well.
NEAR, _NEIGHBOURS, NEAR_COSINE = 0.55, 10, 0.82
NEAR_IN_LABEL, _FEW_NEIGHBOURS = 0.7, 30
# Modified z-score from which a photo is an outlier: Iglewicz & Hoaglin 1993, "How to Detect and
# Handle Outliers", section 3.3.
FAR, _MIN_SPREAD = 3.5, 10  # in labels with fewer images the spread itself is a guess
# A label is doubted if another one is this much likelier. Of 5 % labels that were changed on
# purpose, 87 % of 600 flower photos' and 99 % of 2,020 Caltech photos' came into the list.
UNLIKELY = 0.2
_PROJECTED = 256  # numbers that neighbours are searched in
_MARGIN = 0.15  # more than a distance in them is off: by 1 / sqrt(2 * 256), that is 4.4 %
_STEPS, _BATCH, _FOLDS = 1000, 100, 5
_BLOCK_CELLS, _GROUP = 2**25, 64


@dataclass(frozen=True)
class Problem:
    """Something to look at: a row of the table. ``score`` says how sure, or how far, it is.

    ``kind`` is one of `KINDS`; ``other`` is the photo it is about too, or empty.
    """

    kind: str
    path: str
    label: str
    set: str
    score: float
    other: str = ""
    other_label: str = ""
    other_set: str = ""


KINDS = {
    "label conflict": "the same photo under two labels: one of them is wrong",
    "leak": "the same photo in two sets; the training copy is not trained on",
    "near leak": "almost the same photo in two sets: the test may be flattered",
    "duplicate": "the same photo twice under one label and in one set",
    "wrong label?": "a model that has not seen the photo gives another label",
    "outlier": "unlike the other photos of its label",
    "few images": "too few images to learn from",
}


def count_folds(counts: Mapping[str, int], asked: int | None) -> int:
    """The parts to deal the images into: ``asked``, or 5, or as many as the smallest label has.

    ``counts``: (different) images per label. Raises `ImageFolderError` where it is fewer than that.
    """
    folds = asked or max(2, min(_FOLDS, *counts.values()))
    for label, count in counts.items():
        if count < folds:
            raise ImageFolderError(
                f"the label {label!r} has {count} images, fewer than the {folds} parts of "
                "--data_health_folds (copies count once); add images, or use fewer parts"
            )
    return folds


def different_images(dataset: Dataset) -> dict[str, int]:
    """Images per label, copies counted once."""
    everything = dataset.everything
    contents = {
        (int(y), image.key) for y, image in zip(everything.y, everything.images, strict=True)
    }
    counts = Counter(y for y, _ in contents)
    return {label: counts[i] for i, label in enumerate(dataset.labels)}


def examine(config: Config, dataset: Dataset) -> list[Problem]:
    """All problems of a data set, by kind and then the worst first.

    Raises `ImageFolderError` for a label with fewer images than ``config.data_health_folds``.
    """
    folds = count_folds(different_images(dataset), config.data_health_folds)
    counts = np.bincount(dataset.everything.y, minlength=len(dataset.labels))
    standardisation = Standardisation.of_sample(dataset.everything.vectors, config.seed)
    found = [
        *_copies(dataset),
        *_near_copies(dataset, standardisation.mean),
        *_wrong_labels(dataset, out_of_fold(dataset, folds, config.seed)),
        *_outliers(dataset, standardisation),
        *_few(dataset, counts),
    ]
    order = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(found, key=lambda p: order[p.kind])


def table(problems: Sequence[Problem]) -> str:
    """The problems as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Problem)])
    for problem in problems:
        row = [shown(x) if isinstance(x, str) else f"{x:.4f}" for x in astuple(problem)]
        writer.writerow(row)
    return text.getvalue()


def _problem(dataset: Dataset, kind: str, row: int, score: float, other: int = -1) -> Problem:
    def describe(row: int) -> tuple[str, str, str]:
        image = dataset.everything.images[row]
        return image.path, image.label, str(dataset.set_of[row])

    path, label, set_ = describe(row)
    return Problem(kind, path, label, set_, score, *(describe(other) if other >= 0 else ()))


def _copies(dataset: Dataset) -> Iterator[Problem]:
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(dataset.everything.images):
        by_key[image.key].append(row)
    for first, *others in by_key.values():
        for row in others:
            if dataset.everything.y[row] != dataset.everything.y[first]:
                kind = "label conflict"
            elif dataset.set_of[row] != dataset.set_of[first]:
                kind = "leak"
            else:
                kind = "duplicate"
            yield _problem(dataset, kind, row, 1.0, first)


def _near_copies(dataset: Dataset, mean: np.ndarray) -> Iterator[Problem]:
    """Pairs of different files in two sets that are much nearer than photos around them are.

    Near is by the cosine of the centred vectors, and at least `NEAR_COSINE`. The search goes
    through random projections, which nearly keep it (Johnson & Lindenstrauss 1984); what it finds
    is measured on the whole vectors. Around a photo whose label has few, they are those of its
    label.
    """
    images, y, sets = dataset.everything.images, dataset.everything.y, dataset.set_of
    images_of = np.bincount(y)
    projected = _projected(dataset.everything.vectors, mean)
    held_out = np.flatnonzero((sets == "testing") | (sets == "validation"))
    count = min(2 * _NEIGHBOURS, len(images) - 1)
    seen = set()
    block = max(1, _BLOCK_CELLS // len(images))
    for start in range(0, len(held_out), block):
        rows = held_out[start : start + block]
        cosines = projected[rows] @ projected.T
        cosines[np.arange(len(rows)), rows] = -2.0
        nearest = _largest(cosines, count)
        distances = np.sort(_distance(np.take_along_axis(cosines, nearest, axis=1)), axis=1)
        maybe = distances[:, 0] <= (NEAR + _MARGIN) * distances[:, min(_NEIGHBOURS, count) - 1]
        for row, others in zip(rows[maybe], nearest[maybe], strict=True):
            others = others[[images[i].key != images[row].key for i in others]]
            x = _normalised(dataset.everything.vectors.take(np.append(others, row)), mean)
            exact = x[:-1] @ x[-1]
            apart = _distance(exact)
            far = np.sort(apart)[min(_NEIGHBOURS, len(apart)) - 1 :][:1]
            own = apart[y[others] == y[row]]
            if images_of[y[row]] <= _NEIGHBOURS and len(own) > 1:
                far = np.minimum(far, own.max())  # the tenth nearest is of another label
            for i in np.flatnonzero((apart <= NEAR * far) & (exact >= NEAR_COSINE)):
                other = int(others[i])
                pair = frozenset((int(row), other))
                if sets[row] != sets[other] and pair not in seen:
                    seen.add(pair)
                    few = images_of[y[row]] < _FEW_NEIGHBOURS
                    if few and _cosine_in_label(dataset, int(row), other) < NEAR_IN_LABEL:
                        continue
                    yield _problem(dataset, "near leak", int(row), float(exact[i]), other)


def _cosine_in_label(dataset: Dataset, row: int, other: int) -> float:
    """Cosine of two vectors from which the mean of the first one's label is taken off."""
    vectors, y = dataset.everything.vectors, dataset.everything.y
    mean = vectors.take(np.flatnonzero(y == y[row])).mean(axis=0)
    x = _normalised(vectors.take(np.array([row, other])), mean)
    return float(x[0] @ x[1])


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """(rows, count) columns of the largest ``values`` of each row, in no order.

    They lie in the ``count`` groups of columns whose own maxima are the largest, which spares most
    of the sorting.
    """
    rows, columns = values.shape
    groups = columns // _GROUP
    whole = groups * _GROUP
    if groups <= count:
        return np.argpartition(-values, count - 1, axis=1)[:, :count]
    maxima = values[:, :whole].reshape(rows, groups, _GROUP).max(axis=2)
    best = np.argpartition(-maxima, count - 1, axis=1)[:, :count]
    within = (best[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(whole, columns), (rows, columns - whole))
    candidates = np.concatenate([within, rest], axis=1)
    found = np.take_along_axis(values, candidates, axis=1)
    order = np.argpartition(-found, count - 1, axis=1)[:, :count]
    return np.take_along_axis(candidates, order, axis=1)


def _distance(cosines: np.ndarray) -> np.ndarray:
    """Between vectors of length 1."""
    return np.sqrt(np.maximum(2.0 - 2.0 * cosines, 0.0))


def _projected(vectors: Vectors, mean: np.ndarray) -> np.ndarray:
    """(n, at most `_PROJECTED`) float32 rows of length 1 whose products are nearly the cosines."""
    matrix = None
    parts = []
    for x in blocks(vectors):
        if matrix is None:
            shape = (x.shape[1], _PROJECTED)
            matrix = np.random.default_rng(0).standard_normal(shape, np.float32)
        parts.append(_normalised(_normalised(x, mean) @ matrix, np.zeros(1)))
    return np.concatenate(parts)


def _normalised(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    z = x - mean.astype(np.float32)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return z


@dataclass(frozen=True)
class OutOfFold:
    """What models that have not seen an image say of it, (n,) each."""

    own: np.ndarray  # probability of its own label
    guess: np.ndarray  # the likeliest label
    confidence: np.ndarray  # and its probability


def out_of_fold(dataset: Dataset, folds: int, seed: int) -> OutOfFold:
    """Train on all folds but one and predict that one, ``folds`` times.

    All images take part, whatever their set. Copies of one photo share a fold.
    """
    everything = dataset.everything
    fold_of = _folds(dataset, folds)
    n = len(everything)
    result = OutOfFold(np.empty(n), np.empty(n, np.int64), np.empty(n))
    with threadpool_limits(1):
        for fold in range(folds):
            seen = everything.select(np.flatnonzero(fold_of != fold))
            rows = np.flatnonzero(fold_of == fold)
            fit = Fit(
                *(seen.vectors, seen.y, len(dataset.labels)),
                steps=_STEPS,
                batch_size=_BATCH,
                learning_rate=LEARNING_RATES["adam"],
                seed=seed,
            )
            for _ in range(_STEPS):
                fit.step()
            probabilities = fit.head().predict_all(everything.vectors.select(rows))
            result.own[rows] = probabilities[np.arange(len(rows)), everything.y[rows]]
            result.guess[rows] = probabilities.argmax(axis=1)
            result.confidence[rows] = probabilities.max(axis=1)
    return result


def _folds(dataset: Dataset, folds: int) -> np.ndarray:
    """(n,) the fold of each image: those of a label are dealt out by their content's hash."""
    keys = [image.key for image in dataset.everything.images]
    fold_of: dict[bytes, int] = {}
    dealt = [0] * len(dataset.labels)
    for row in sorted(range(len(keys)), key=lambda row: keys[row]):
        if keys[row] not in fold_of:
            y = dataset.everything.y[row]
            fold_of[keys[row]] = dealt[y] % folds
            dealt[y] += 1
    return np.array([fold_of[key] for key in keys])


def _wrong_labels(dataset: Dataset, model: OutOfFold) -> Iterator[Problem]:
    """Images for which another label is much likelier than their own, worst first."""
    suspicious = model.own < UNLIKELY * model.confidence
    for row in np.argsort(model.own, kind="stable"):
        if suspicious[row]:
            guess = dataset.labels[model.guess[row]]
            problem = _problem(dataset, "wrong label?", int(row), float(model.own[row]))
            yield replace(problem, other_label=guess)


def _outliers(dataset: Dataset, standardisation: Standardisation) -> Iterator[Problem]:
    """Images far from the centre of their label, by the modified z-score of the distance."""
    everything = dataset.everything
    classes, size = len(dataset.labels), len(standardisation.mean)
    sums, start = np.zeros((classes, size)), 0
    for x in blocks(everything.vectors):
        z = standardisation.apply(x)
        y = everything.y[start : start + len(x)]
        sums += np.equal.outer(np.arange(classes), y).astype(np.float32) @ z
        start += len(x)
    centres = sums / np.bincount(everything.y, minlength=classes)[:, None]
    distances, start = np.empty(len(everything)), 0
    for x in blocks(everything.vectors):
        rows = slice(start, start + len(x))
        apart = standardisation.apply(x) - centres[everything.y[rows]].astype(np.float32)
        distances[rows] = np.linalg.norm(apart, axis=1)
        start += len(x)
    scores = np.zeros(len(everything))
    for label in range(classes):
        own = everything.y == label
        if own.sum() < _MIN_SPREAD:
            continue
        median = np.median(distances[own])
        spread = np.median(np.abs(distances[own] - median))
        scores[own] = 0.6745 * (distances[own] - median) / spread if spread else 0.0
    for row in np.argsort(-scores, kind="stable"):
        if scores[row] < FAR:
            return
        yield _problem(dataset, "outlier", int(row), float(scores[row]))


def _few(dataset: Dataset, counts: np.ndarray) -> Iterator[Problem]:
    for label, count in zip(dataset.labels, counts.tolist(), strict=True):
        if count < FEW_IMAGES:
            yield Problem("few images", "", label, "", count)
