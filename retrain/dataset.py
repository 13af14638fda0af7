"""cache + split -> vectors (n, 2048) float32 and y (n,) int64 of each set."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bottlenecks.builder import BuildReport, CachedImage
from bottlenecks.errors import ImageFolderError
from bottlenecks.vectors import InMemory, OnDisk, Vectors
from retrain.split import MIN_IMAGES, SetName, split_label

FEW_IMAGES = 20  # below this retrain.py warned
LEFT_OUT = "left out"
MAX_IN_MEMORY = 2**17  # vectors, 1 GiB; more stay on disk, where training takes longer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subset:
    """The images of one set with their vectors and labels y (n,) int64."""

    images: Sequence[CachedImage]
    vectors: Vectors
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def x(self) -> np.ndarray:
        """All vectors (n, 2048) float32, in memory."""
        return self.vectors.take(np.arange(len(self)))

    def select(self, rows: np.ndarray) -> "Subset":
        """The images at ``rows`` (k,) int64."""
        images = [self.images[i] for i in rows]
        return Subset(images, self.vectors.select(rows), self.y[rows])

    def sample(self, size: int, random: np.random.Generator) -> "Subset":
        """``size`` images drawn without replacement; all of them for -1 or too large a size."""
        if size == -1 or size >= len(self):
            return self
        return self.select(np.sort(random.choice(len(self), size, replace=False)))


@dataclass(frozen=True)
class Dataset:
    """Sorted ``labels`` (y counts in them), all readable images, and the three sets of them.

    ``set_of`` has the name of the set of each image of ``everything``, or `LEFT_OUT` for a
    training image whose very content is in another set too: trained on, it would flatter the test.
    """

    labels: tuple[str, ...]
    everything: Subset
    set_of: np.ndarray

    @functools.cached_property
    def training(self) -> Subset:
        return self._subset("training")

    @functools.cached_property
    def validation(self) -> Subset:
        return self._subset("validation")

    @functools.cached_property
    def testing(self) -> Subset:
        return self._subset("testing")

    @property
    def left_out(self) -> int:
        """How many training images are left out."""
        return int((self.set_of == LEFT_OUT).sum())

    def _subset(self, name: str) -> Subset:
        return self.everything.select(np.flatnonzero(self.set_of == name))


def check_counts(counts: Mapping[str, int]) -> None:
    """Raise `ImageFolderError` unless there are two labels, of `MIN_IMAGES` images or more.

    ``counts``: images per label. Warns of labels with few.
    """
    if len(counts) < 2:
        raise ImageFolderError(
            f"found one label only, {next(iter(counts))!r}; a classifier needs at least two: "
            "put photos of something else into a second sub-folder"
        )
    for label, count in counts.items():
        if count < MIN_IMAGES:
            raise ImageFolderError(
                f"the label {label!r} has {count} readable image{'s' * (count != 1)}; at least "
                f"{MIN_IMAGES} are needed (to train, validate and test), and {FEW_IMAGES} or more "
                "are better: add some, or remove the folder"
            )


def assemble(report: BuildReport, validation_percentage: int, testing_percentage: int) -> Dataset:
    """Split the readable images of ``report`` and read their vectors.

    Raises `ImageFolderError` for too few images or labels.
    """
    check_counts(report.counts)
    for label, count in report.counts.items():
        if count < FEW_IMAGES:
            log.warning(
                "the label %r has only %d images; with fewer than %d expect poor results",
                label,
                count,
                FEW_IMAGES,
            )
    by_label: dict[str, list[CachedImage]] = {label: [] for label in report.counts}
    for image in report.images:
        by_label[image.label].append(image)
    sets: dict[str, SetName] = {}
    for images in by_label.values():
        relpaths = [image.relpath for image in images]
        sets |= split_label(relpaths, validation_percentage, testing_percentage)

    held_out = {image.key for image in report.images if sets[image.relpath] != "training"}

    def set_of(image: CachedImage) -> str:
        name = sets[image.relpath]
        return LEFT_OUT if name == "training" and image.key in held_out else name

    number = {label: i for i, label in enumerate(by_label)}
    keys = [image.key for image in report.images]
    everything = Subset(
        report.images,
        OnDisk(report.cache, keys)
        if len(keys) > MAX_IN_MEMORY
        else InMemory(report.cache.read(keys)),
        np.array([number[image.label] for image in report.images], np.int64),
    )
    dataset = Dataset(tuple(by_label), everything, np.array([set_of(i) for i in report.images]))
    trained_on = np.bincount(dataset.training.y, minlength=len(number))
    if not trained_on.all():
        label = dataset.labels[int(trained_on.argmin())]
        raise ImageFolderError(
            f"no image of the label {label!r} is left to train on: all that are not held out are "
            "copies of validation or test images; add different ones"
        )
    return dataset
