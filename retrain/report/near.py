"""Photos that are almost the same: versions of one photo, and frames of one scene."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bottlenecks.parallel import product
from bottlenecks.photos.labels import TESTING, VALIDATION
from bottlenecks.store.vectors import Vectors, blocks
from retrain.data.dataset import Dataset, sample_rows

# Two photos are taken for versions of one if their distance is at most this share of the distance
# to the tenth nearest photo. Of 50 flower photos that were mirrored, cropped by 5 %, or made
# brighter it finds 94 %; of 600 different ones, 6, which show the same flower. Where few photos are
# around, that alone says little; but of those 150 versions 98 % have at least this cosine too, and
# most still have `NEAR_IN_LABEL` when their label's mean is taken off, which in labels with less
# than `_FEW_NEIGHBOURS` images is asked for as well.
NEAR, _NEIGHBOURS, NEAR_COSINE = 0.55, 10, 0.82
NEAR_IN_LABEL, _FEW_NEIGHBOURS = 0.7, 30
# Frames of one scene have each other for their ten nearest, so they are taken for such by what they
# have in common beyond their label: the cosine when their label's centre is taken off. Of series
# of 30 frames (crops, turns, noise) of 6 photos each of flowers, Caltech-101 and renderings, 96, 68
# and all of the held-out frames are found, of series of 8 all, 91 and 90 %. Of the other held-out
# photos of these sets, 12, 3 and 35 % are listed: flowers that look the same to the network,
# versions of one photo, and renderings of one model.
SAME_SCENE = 0.8
_CENTRE_ROWS = 1000  # photos of a label that its centre is taken of
# Photos of a label are alike from this part of the way between its usual cosine and 1. Usual is the
# lower quartile: a label that is one series for five sixths has its median in the series.
_ALIKE, _USUAL = 0.8, 0.25
_PROJECTED = 256  # numbers that neighbours are searched in
_MARGIN = 0.15  # more than a distance in them is off: by 1 / sqrt(2 * 256), that is 4.4 %
_BLOCK_CELLS, _GROUP = 2**25, 64
_TINY = np.finfo(np.float32).tiny


class Pair(NamedTuple):
    """Two rows of different sets with the ``cosine`` of their vectors from the mean of all."""

    row: int
    other: int
    cosine: float


def near_leaks(dataset: Dataset, mean: np.ndarray) -> Iterator[Pair]:
    """Pairs of different files in two sets that show almost the same.

    Either they are much nearer than photos around them are: near is by the cosine of the vectors
    from the ``mean`` (2048,) of all, and at least `NEAR_COSINE`; around a photo whose label has
    few, they are those of its label. Or they are of one scene by `SAME_SCENE`: of a series, each
    held-out photo comes with the nearest that is in another set.

    The search goes through random projections, which nearly keep the cosines (Johnson &
    Lindenstrauss 1984); what it finds is measured on the whole vectors.
    """
    everything, sets = dataset.everything, dataset.set_of
    images, y = everything.images, everything.y
    centres = _centres(dataset, mean)
    search = _Search(everything.vectors, mean, centres, y)
    images_of = np.bincount(y)
    held_out = np.flatnonzero((sets == TESTING) | (sets == VALIDATION))
    count = min(2 * _NEIGHBOURS, len(images) - 1)
    seen = set()
    for rows, nearest, cosines, in_label in search.neighbours(held_out, count):
        distances = np.sort(_distance(cosines), axis=1)
        maybe = distances[:, 0] <= (NEAR + _MARGIN) * distances[:, min(_NEIGHBOURS, count) - 1]
        maybe |= in_label.max(axis=1) >= SAME_SCENE - _MARGIN
        for row, others in zip(rows[maybe], nearest[maybe], strict=True):
            others = others[[images[i].key != images[row].key for i in others]]
            if not len(others):
                continue
            x = everything.vectors.take(np.append(others, row))
            z = _normalised(x, mean)
            exact = z[:-1] @ z[-1]
            apart = _distance(exact)
            far = np.sort(apart)[min(_NEIGHBOURS, len(apart)) - 1 :][:1]
            own = apart[y[others] == y[row]]
            if images_of[y[row]] <= _NEIGHBOURS and len(own) > 1:
                far = np.minimum(far, own.max())  # the tenth nearest is of another label
            near = (apart <= NEAR * far) & (exact >= NEAR_COSINE)
            if near.any() and images_of[y[row]] < _FEW_NEIGHBOURS:
                near &= _cosines_in_label(dataset, int(row), x) >= NEAR_IN_LABEL
            # Of another label, they must be alike beyond that label too.
            same = _cosines_with_last(x, centres[y[row]])
            for label in set(y[others]) - {y[row]}:
                own = y[others] == label
                same[own] = np.minimum(same, _cosines_with_last(x, centres[label]))[own]
            same[sets[others] == sets[row]] = -1.0
            if same.max() >= SAME_SCENE:
                near[same.argmax()] = True
            for i in np.flatnonzero(near & (sets[others] != sets[row])):
                pair = frozenset((int(row), int(others[i])))
                if pair not in seen:
                    seen.add(pair)
                    yield Pair(int(row), int(others[i]), float(exact[i]))


def _cosines_in_label(dataset: Dataset, row: int, x: np.ndarray) -> np.ndarray:
    """(k,) cosines of the last of ``x`` (k + 1, 2048), that of ``row``, with the others.

    The mean of its label is taken off.
    """
    vectors, y = dataset.everything.vectors, dataset.everything.y
    return _cosines_with_last(x, vectors.take(np.flatnonzero(y == y[row])).mean(axis=0))


def _cosines_with_last(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(k,) cosines of the last of ``x`` (k + 1, 2048) with the others, ``centre`` taken off."""
    z = _normalised(x, centre)
    cosines: np.ndarray = z[:-1] @ z[-1]
    return cosines


def _centres(dataset: Dataset, mean: np.ndarray) -> np.ndarray:
    """(C, 2048) float32: the mean of each label, to which photos that are alike count as one.

    Else the centre of a label that is half one series would lie in that series.
    """
    vectors, y = dataset.everything.vectors, dataset.everything.y
    random = np.random.default_rng(0)
    centres = np.empty((len(dataset.labels), len(mean)), np.float32)
    for label in range(len(centres)):
        rows = np.flatnonzero(y == label)
        x = vectors.take(rows[sample_rows(len(rows), _CENTRE_ROWS, random)])
        z = _normalised(x, mean)
        cosines = z @ z.T
        usual = np.quantile(cosines, _USUAL)
        alike = (cosines >= usual + _ALIKE * (1.0 - usual)).sum(axis=1)
        weights = 1.0 / np.maximum(alike, 1)
        centres[label] = weights @ x / weights.sum()
    return centres


class _Search:
    """Nearest neighbours in random projections of the vectors."""

    def __init__(
        self, vectors: Vectors, mean: np.ndarray, centres: np.ndarray, y: np.ndarray
    ) -> None:
        shape = (len(mean), min(_PROJECTED, len(mean)))
        matrix = np.random.default_rng(0).standard_normal(shape, np.float32)
        matrix /= np.float32(np.sqrt(shape[1]))
        parts, lengths = [], []
        for x in blocks(vectors):
            projected = product(x - mean.astype(np.float32), matrix)
            lengths.append(np.linalg.norm(projected, axis=1))
            parts.append(_normalised(projected, np.zeros(1)))
        self._unit = np.concatenate(parts)  # (n, at most 256), rows of length 1
        self._length = np.concatenate(lengths)
        self._centres = (centres - mean.astype(np.float32)) @ matrix
        self._y = y

    def neighbours(
        self, held_out: np.ndarray, count: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Some of ``held_out`` (rows,), the ``count`` nearest to each in no order, and cosines.

        (rows, count) each: row numbers, cosines from the mean of all, and cosines from the
        centre of the held-out photo's label.
        """
        block = max(1, _BLOCK_CELLS // len(self._unit))
        for start in range(0, len(held_out), block):
            rows = held_out[start : start + block]
            cosines = product(self._unit[rows], self._unit.T)
            cosines[np.arange(len(rows)), rows] = -2.0
            nearest = largest(cosines, count)
            centre = self._centres[self._y[rows]]
            own = _normalised(self._unit[rows] * self._length[rows, None] - centre, np.zeros(1))
            others = self._unit[nearest] * self._length[nearest][:, :, None] - centre[:, None]
            others /= np.maximum(np.linalg.norm(others, axis=2, keepdims=True), _TINY)
            in_label = np.einsum("rd,rkd->rk", own, others)
            yield rows, nearest, np.take_along_axis(cosines, nearest, axis=1), in_label


def largest(values: np.ndarray, count: int) -> np.ndarray:
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


def _normalised(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    z = x - mean.astype(np.float32)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), _TINY)
    return z
