"""What is wrong with the photos themselves, from their cached vectors alone.

A model that has not seen a photo, and the photo's neighbours among the vectors, tell of copies,
of wrong labels and of strangers. Nothing is changed for it: these are places to look at.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np

from bottlenecks.errors import ImageFolderError, shown
from bottlenecks.machine import one_blas_thread
from bottlenecks.store.vectors import blocks
from retrain.data.dataset import FEW_IMAGES, Dataset, Subset, rows_of_labels
from retrain.data.folds import can_be_judged, deal
from retrain.report.near import compared, is_held_out, near_leaks
from retrain.training.head import Fit, Head, Standardisation, scored_at_once
from retrain.training.settings import LEARNING_RATES

# Modified z-score from which a photo is an outlier: Iglewicz & Hoaglin 1993, "How to Detect and
# Handle Outliers", section 3.3.
FAR, _MIN_SPREAD = 3.5, 10  # in labels with fewer images the spread itself is a guess
# A label is doubted if another one is this much likelier. Of 5 % labels that were changed on
# purpose, 87 % of 600 flower photos' and 99 % of 2,020 Caltech photos' came into the list.
UNLIKELY = 0.2
STEPS, _EPOCHS = 1000, 2
_BATCH, _FOLDS = 100, 5
_USUAL_LABELS = 500  # up to which `STEPS` are taken, which take longer the more labels there are


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
    "leak": "the same photo in two sets; only one of them is used",
    "near leak": "looks much like a photo in another set: if it is one, the test is flattered",
    "duplicate": "the same photo twice under one label and in one set",
    "wrong label?": "a model that has not seen the photo gives another label",
    "outlier": "unlike the other photos of its label",
    "few images": "too few images to learn from",
}


def count_folds(counts: Mapping[str, int], asked: int | None) -> int:
    """The parts to deal the images into: ``asked``, or 5, or as many as the smallest label has.

    ``counts``: (different) images per label. A label of one cannot be judged, and does not count.
    Raises `ImageFolderError` where ``asked`` is more than a label has.
    """
    if asked is None:
        return max(2, min([_FOLDS, *(count for count in counts.values() if count > 1)]))
    for label, count in counts.items():
        if count < asked:
            raise ImageFolderError(
                f"the label {label!r} has {count} images, fewer than the {asked} parts of "
                "--data_health_folds (copies and groups count once); add images, or use fewer parts"
            )
    return asked


@dataclass(frozen=True)
class Health:
    """All ``problems`` of a data set, by kind and then the worst first.

    Near leaks are those of ``compared`` of the ``held_out`` images, drawn: of all where they are
    not too many.
    """

    problems: tuple[Problem, ...]
    compared: int
    held_out: int


def different_images(dataset: Dataset) -> dict[str, int]:
    """Images per label; those that belong together, as copies do, counted once."""
    units = dataset.units
    different = np.unique(dataset.everything.y * (int(units.max()) + 1) + units)
    labels = different // (int(units.max()) + 1)
    counts = np.bincount(labels, minlength=len(dataset.labels)).tolist()
    return dict(zip(dataset.labels, counts, strict=True))


def examine(dataset: Dataset, folds: int, seed: int = 0) -> Health:
    """Look for all kinds of problems, `KINDS`.

    Wrong labels are looked for with the images dealt into ``folds`` parts, see `count_folds`.
    """
    with one_blas_thread():
        standardisation = Standardisation.of_sample(dataset.everything.vectors, seed)
        found = [
            *_copies(dataset),
            *(
                _problem(dataset, "near leak", pair.row, pair.cosine, pair.other)
                for pair in near_leaks(dataset, standardisation.mean, seed)
            ),
            *_wrong_labels(dataset, out_of_fold(dataset, folds, seed)),
            *_outliers(dataset, standardisation),
            *_few(dataset),
        ]
    order = {kind: i for i, kind in enumerate(KINDS)}
    return Health(
        tuple(sorted(found, key=lambda p: order[p.kind])),
        len(compared(dataset, seed)),
        int(is_held_out(dataset).sum()),
    )


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
    first_of: dict[bytes, int] = {}
    copies = []
    for row, image in enumerate(dataset.everything.images):
        if (first := first_of.setdefault(image.key, row)) != row:
            copies.append((first, row))
    for first, row in sorted(copies):
        if dataset.everything.y[row] != dataset.everything.y[first]:
            kind = "label conflict"
        elif dataset.set_of[row] != dataset.set_of[first]:
            kind = "leak"
        else:
            kind = "duplicate"
        yield _problem(dataset, kind, row, 1.0, first)


@dataclass(frozen=True)
class OutOfFold:
    """What models that have not seen an image say of it, (n,) each; NaN where there is none."""

    own: np.ndarray  # probability of its own label
    guess: np.ndarray  # the likeliest label
    confidence: np.ndarray  # and its probability


def out_of_fold(dataset: Dataset, folds: int, seed: int) -> OutOfFold:
    """Train on all folds but one and predict that one, ``folds`` times.

    All images take part, whatever their set; those that belong together share a fold. What all
    other images of its label belong together with has no model that knows its label: its figures
    are NaN.
    """
    everything = dataset.everything
    fold_of = deal(dataset.units, everything.y, folds)
    judged = can_be_judged(fold_of, everything.y)
    n = len(everything)
    result = OutOfFold(np.full(n, np.nan), everything.y.copy(), np.full(n, np.nan))
    with one_blas_thread():
        for fold in range(folds):
            seen = np.flatnonzero(fold_of != fold)
            rows = np.flatnonzero((fold_of == fold) & judged)
            if not len(rows):
                continue
            known, numbers = np.unique(everything.y[seen], return_inverse=True)
            steps = steps_for(len(known), len(seen))
            fit = Fit(
                everything.vectors.select(seen),
                numbers,
                len(known),
                steps=steps,
                batch_size=_BATCH,
                learning_rate=LEARNING_RATES["adam"] * STEPS / steps,
                seed=seed,
            )
            for _ in range(steps):
                fit.step()
            _judge(fit.model(), known, everything, rows, result)
    return result


def steps_for(labels: int, images: int) -> int:
    """The steps of a model: fewer and larger ones for many labels, but through all images twice."""
    fewer = max(STEPS * _USUAL_LABELS // labels, _EPOCHS * images // _BATCH)
    return max(1, min(STEPS, fewer))


def _judge(
    head: Head, known: np.ndarray, everything: Subset, rows: np.ndarray, result: OutOfFold
) -> None:
    """Fill in ``result`` at ``rows`` what ``head`` says of them, whose labels are ``known``.

    Some at a time: there may be thousands of labels.
    """
    for part in scored_at_once(len(rows), len(known)):
        own_rows = rows[part]
        probabilities = head.predict_all(everything.vectors.select(own_rows))
        own = np.searchsorted(known, everything.y[own_rows])
        result.own[own_rows] = probabilities[np.arange(len(own)), own]
        result.guess[own_rows] = known[probabilities.argmax(axis=1)]
        result.confidence[own_rows] = probabilities.max(axis=1)


def _wrong_labels(dataset: Dataset, model: OutOfFold) -> Iterator[Problem]:
    """Images for which another label is much likelier than their own, worst first."""
    suspicious = model.own < UNLIKELY * model.confidence  # never where they are NaN
    rows = np.flatnonzero(suspicious)
    for row in rows[np.argsort(model.own[rows], kind="stable")]:
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
        order = np.argsort(y, kind="stable")
        labels, first = np.unique(y[order], return_index=True)
        sums[labels] += np.add.reduceat(z[order], first, axis=0)
        start += len(x)
    centres = sums / np.bincount(everything.y, minlength=classes)[:, None]
    distances, start = np.empty(len(everything)), 0
    for x in blocks(everything.vectors):
        rows = slice(start, start + len(x))
        apart = standardisation.apply(x) - centres[everything.y[rows]].astype(np.float32)
        distances[rows] = np.linalg.norm(apart, axis=1)
        start += len(x)
    scores = np.zeros(len(everything))
    for own in rows_of_labels(everything.y, classes):
        if len(own) < _MIN_SPREAD:
            continue
        median = np.median(distances[own])
        spread = np.median(np.abs(distances[own] - median))
        scores[own] = 0.6745 * (distances[own] - median) / spread if spread else 0.0
    far = np.flatnonzero(scores >= FAR)
    for row in far[np.argsort(-scores[far], kind="stable")]:
        yield _problem(dataset, "outlier", int(row), float(scores[row]))


def _few(dataset: Dataset) -> Iterator[Problem]:
    """Labels with few images, or with none that differ; copies and groups count once."""
    counts = np.bincount(dataset.everything.y, minlength=len(dataset.labels)).tolist()
    different = different_images(dataset)
    for label, count in zip(dataset.labels, counts, strict=True):
        if count < FEW_IMAGES or different[label] == 1:
            yield Problem("few images", "", label, "", min(count, different[label]))
