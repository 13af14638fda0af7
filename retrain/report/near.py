"""Photos that are almost the same: versions of one photo, and frames of one scene."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bottlenecks.parallel import blocks_of, product
from bottlenecks.photos.labels import TESTING, VALIDATION
from bottlenecks.store.vectors import Vectors, blocks
from retrain.data.dataset import Dataset, rows_of_labels, sample_rows

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
# Photos of a label that its centre is taken of, and of many labels fewer: cosines between such, of
# all labels. 500 labels of 1000 photos take half a minute of a core.
_CENTRE_ROWS, _CENTRE_CELLS = 1000, 2**29
# Photos of a label are alike from this part of the way between its usual cosine and 1. Usual is the
# lower quartile: a label that is one series for five sixths has its median in the series.
_ALIKE, _USUAL = 0.8, 0.25
_PROJECTED = 256  # numbers that neighbours are searched in
_MARGIN = 0.15  # more than a distance in them is off: by 1 / sqrt(2 * 256), that is 4.4 %
_BLOCK_CELLS, _GROUP = 2**24, 64
_SEARCHED = 2**16  # photos whose projections are in memory at once: 64 MB
# Pairs of a held-out photo and any other that are compared: two minutes of a core, all in all. Of
# 200,000 photos, a fifth of them held out, all are.
MOST_PAIRS = 2**33
_TINY = np.finfo(np.float32).tiny


class Pair(NamedTuple):
    """Two rows of different sets with the ``cosine`` of their vectors from the mean of all."""

    row: int
    other: int
    cosine: float


def compared(dataset: Dataset, seed: int = 0) -> np.ndarray:
    """(k,) rows of the held-out images that `near_leaks` compares with all others, sorted.

    All of them, or as many drawn by ``seed`` as `MOST_PAIRS` pairs allow.
    """
    held_out = np.flatnonzero(is_held_out(dataset))
    most = max(1, MOST_PAIRS // max(1, len(dataset.everything)))
    drawn: np.ndarray = held_out[
        sample_rows(len(held_out), most, np.random.default_rng((seed, 12)))
    ]
    return drawn


def is_held_out(dataset: Dataset) -> np.ndarray:
    """(n,) bool: whether an image is in the validation or the test set."""
    held_out: np.ndarray = (dataset.set_of == TESTING) | (dataset.set_of == VALIDATION)
    return held_out


def near_leaks(dataset: Dataset, mean: np.ndarray, seed: int = 0) -> Iterator[Pair]:
    """Pairs of different files in two sets that show almost the same.

    Either they are much nearer than photos around them are: near is by the cosine of the vectors
    from the ``mean`` (2048,) of all, and at least `NEAR_COSINE`; around a photo whose label has
    few, they are those of its label. Or they are of one scene by `SAME_SCENE`: of a series, each
    held-out photo comes with the nearest that is in another set. One of each pair is `compared`.

    The search goes through random projections, which nearly keep the cosines (Johnson &
    Lindenstrauss 1984); what it finds is measured on the whole vectors.
    """
    everything, sets = dataset.everything, dataset.set_of
    images, y = everything.images, everything.y
    centres = _centres(dataset, mean)
    search = _Search(everything.vectors, mean, centres, y)
    images_of = np.bincount(y)
    count = min(2 * _NEIGHBOURS, len(images) - 1)
    seen = set()
    for rows, (nearest, cosines, in_label) in search.neighbours(compared(dataset, seed), count):
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
    most = min(_CENTRE_ROWS, max(1, math.isqrt(_CENTRE_CELLS // len(centres))))
    for label, rows in enumerate(rows_of_labels(y, len(centres))):
        x = vectors.take(rows[sample_rows(len(rows), most, random)])
        z = _normalised(x, mean)
        cosines = z @ z.T
        usual = np.quantile(cosines, _USUAL)
        alike = (cosines >= usual + _ALIKE * (1.0 - usual)).sum(axis=1)
        weights = 1.0 / np.maximum(alike, 1)
        centres[label] = weights @ x / weights.sum()
    return centres


class _Neighbours(NamedTuple):
    """Those found so far of some held-out photos, (photos, count) each, in no order.

    Row numbers, cosines from the mean of all, and cosines from the centre of the held-out photo's
    label.
    """

    nearest: np.ndarray
    cosines: np.ndarray
    in_label: np.ndarray

    def nearer_of(self, others: "_Neighbours", count: int) -> "_Neighbours":
        """The ``count`` nearest of both."""
        both = [np.concatenate(pair, axis=1) for pair in zip(self, others, strict=True)]
        best = largest(both[1], min(count, both[1].shape[1]))
        return _Neighbours(*(np.take_along_axis(values, best, axis=1) for values in both))


class _Search:
    """Nearest neighbours in random projections of the vectors, of which few are in memory."""

    def __init__(
        self, vectors: Vectors, mean: np.ndarray, centres: np.ndarray, y: np.ndarray
    ) -> None:
        shape = (len(mean), min(_PROJECTED, len(mean)))
        self._matrix = np.random.default_rng(0).standard_normal(shape, np.float32)
        self._matrix /= np.float32(np.sqrt(shape[1]))
        self._mean = mean.astype(np.float32)
        self._centres = (centres - self._mean) @ self._matrix
        self._vectors, self._y = vectors, y

    def neighbours(
        self, held_out: np.ndarray, count: int
    ) -> Iterator[tuple[np.ndarray, _Neighbours]]:
        """Some of ``held_out`` (rows,), and the ``count`` nearest to each."""
        if not len(held_out):
            return
        own = np.concatenate(list(self._projected(held_out)))
        parts = blocks_of(len(held_out), max(1, _BLOCK_CELLS // min(len(self._y), _SEARCHED)))
        found: list[_Neighbours | None] = [None] * len(parts)
        start = 0
        for others in self._searched():
            lengths = _lengths(others)
            unit = others / np.maximum(lengths, _TINY)
            for i, part in enumerate(parts):
                near = self._nearest(held_out[part], own[part], start, unit, lengths, count)
                before = found[i]
                found[i] = near if before is None else before.nearer_of(near, count)
            start += len(others)
        for part, neighbours in zip(parts, found, strict=True):
            assert neighbours is not None
            yield held_out[part], neighbours

    def _nearest(
        self,
        rows: np.ndarray,
        own: np.ndarray,
        start: int,
        unit: np.ndarray,
        lengths: np.ndarray,
        count: int,
    ) -> _Neighbours:
        """Those of ``rows``, projected to ``own``, among some from ``start``.

        These are ``unit`` (k, at most 256), rows of length 1, and ``lengths`` (k, 1).
        """
        cosines = product(_normalised(own, np.zeros(1)), unit.T)
        here = rows - start
        of_others = np.flatnonzero((here >= 0) & (here < len(unit)))
        cosines[of_others, here[of_others]] = -2.0  # itself
        nearest = largest(cosines, min(count, len(unit)))
        centre = self._centres[self._y[rows]]
        of_own = _normalised(own - centre, np.zeros(1))
        others = unit[nearest] * lengths[nearest] - centre[:, None]
        others /= np.maximum(np.linalg.norm(others, axis=2, keepdims=True), _TINY)
        in_label = np.einsum("rd,rkd->rk", of_own, others)
        return _Neighbours(start + nearest, np.take_along_axis(cosines, nearest, axis=1), in_label)

    def _searched(self) -> Iterator[np.ndarray]:
        """All photos in their order, projected, about `_SEARCHED` at a time."""
        parts: list[np.ndarray] = []
        for projected in self._projected(None):
            parts.append(projected)
            if sum(map(len, parts)) >= _SEARCHED:
                yield np.concatenate(parts)
                parts = []
        if parts:
            yield np.concatenate(parts)

    def _projected(self, rows: np.ndarray | None) -> Iterator[np.ndarray]:
        """Those at ``rows``, or all, from the mean in at most 256 numbers each; in blocks."""
        vectors = self._vectors if rows is None else self._vectors.select(rows)
        return (product(x - self._mean, self._matrix) for x in blocks(vectors))


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
    z: np.ndarray = x - mean.astype(np.float32)
    z /= np.maximum(_lengths(z), _TINY)
    return z


def _lengths(x: np.ndarray) -> np.ndarray:
    """(n, 1) of the rows of ``x``."""
    lengths: np.ndarray = np.linalg.norm(x, axis=1, keepdims=True)
    return lengths
