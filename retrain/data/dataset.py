"""cache + split -> vectors (n, 2048) float32 and y (n,) int64 of each set."""

import functools
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bottlenecks.builder import BuildReport, CachedImage
from bottlenecks.errors import ImageFolderError
from bottlenecks.photos.labels import TESTING, TRAINING, VALIDATION
from bottlenecks.store.vectors import Vectors, vectors_of
from retrain.data.groups import members_of
from retrain.data.split import MIN_IMAGES, split

FEW_IMAGES = 20  # below this retrain.py warned
LEFT_OUT = "left out"
_PRECEDENCE = (TESTING, VALIDATION, TRAINING)  # where images count that are in several

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
        rows = sample_rows(len(self), size, random)
        return self if len(rows) == len(self) else self.select(rows)


@dataclass(frozen=True)
class Variants:
    """The n training images and their distorted variants, as many of each.

    Row v * n + i of ``vectors``, and of their ``keys``, is of image i: plain for v = 0.
    """

    vectors: Vectors
    keys: Sequence[bytes]


def sample_rows(n: int, size: int, random: np.random.Generator) -> np.ndarray:
    """``size`` of n rows drawn without replacement, sorted; all for -1 or too large a size."""
    if size == -1 or size >= n:
        return np.arange(n)
    return np.sort(random.choice(n, size, replace=False))


def rows_of_labels(y: np.ndarray, classes: int) -> list[np.ndarray]:
    """The sorted rows of each label of ``y`` (n,)."""
    order = np.argsort(y, kind="stable")
    return np.split(order, np.bincount(y, minlength=classes).cumsum()[:-1])


@dataclass(frozen=True)
class Dataset:
    """Sorted ``labels`` (y counts in them), all readable images, and the three sets of them.

    ``set_of`` has the name of the set of each image of ``everything``, or `LEFT_OUT` for an image
    whose unit is in another set that counts for more; ``groups`` the name of its group, None where
    each is on its own. ``variants`` are what training draws from instead of plain images alone.
    """

    labels: tuple[str, ...]
    everything: Subset
    set_of: np.ndarray
    groups: Sequence[str] | None = None
    variants: "Variants | None" = None

    @functools.cached_property
    def units(self) -> np.ndarray:
        """(n,) int64: images with the same number are of one group or content, however linked.

        A model that has seen one of them has seen all. The order of the numbers is that of
        the contents' hashes, so it hangs on no name.
        """
        return _linked([image.key for image in self.everything.images], self.groups)

    def units_of(self, name: str) -> np.ndarray:
        """The `units` of the images of the set ``name``, in the order of its rows."""
        units: np.ndarray = self.units[self.set_of == name]
        return units

    @functools.cached_property
    def training(self) -> Subset:
        return self._subset(TRAINING)

    @functools.cached_property
    def validation(self) -> Subset:
        return self._subset(VALIDATION)

    @functools.cached_property
    def testing(self) -> Subset:
        return self._subset(TESTING)

    @property
    def drawn(self) -> Vectors:
        """What training draws from: the rows of the training images, and those of `Variants`."""
        return self.training.vectors if self.variants is None else self.variants.vectors

    @property
    def left_out(self) -> int:
        """How many images are left out."""
        return int((self.set_of == LEFT_OUT).sum())

    @property
    def counts(self) -> dict[str, int]:
        """How many images are in each set, and left out."""
        sets = {name: len(getattr(self, name)) for name in (TRAINING, VALIDATION, TESTING)}
        return sets | {"left_out": self.left_out}

    def _subset(self, name: str) -> Subset:
        return self.everything.select(np.flatnonzero(self.set_of == name))


def _linked(keys: Sequence[bytes], groups: Sequence[str] | None) -> np.ndarray:
    """The units (n,) int64, as of `Dataset.units`, of images by their contents and groups."""
    content = _numbered(keys, sorted(set(keys)))
    if groups is None:
        return content
    component = _joined(content, _numbered(groups, set(groups)))
    _, unit = np.unique(component, return_inverse=True)
    lowest = np.full(int(unit.max(initial=-1)) + 1, len(keys))
    np.minimum.at(lowest, unit, content)
    units: np.ndarray = np.argsort(np.argsort(lowest))[unit]
    return units


def _joined(content: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n,) a group for each image, the same for all that contents in several ``group`` join."""
    order = np.lexsort((group, content))
    same = np.flatnonzero(content[order[1:]] == content[order[:-1]])
    pairs = np.stack((group[order[same]], group[order[same + 1]]), axis=1)
    joined = np.arange(int(group.max(initial=-1)) + 1)

    def first(one: int) -> int:
        while (other := int(joined[one])) != one:
            joined[one] = one = int(joined[other])
        return one

    for one, other in pairs[pairs[:, 0] != pairs[:, 1]].tolist():
        joined[first(one)] = first(other)
    firsts = np.array([first(one) for one in range(len(joined))], np.int64)
    joined_of: np.ndarray = firsts[group]
    return joined_of


def _numbered(names: Sequence[Hashable], different: Iterable[Hashable]) -> np.ndarray:
    """(n,) int64: the place of each of ``names`` among the ``different`` ones."""
    number = {name: i for i, name in enumerate(different)}
    return np.array([number[name] for name in names], np.int64)


def check_counts(counts: Mapping[str, int], single_folder: str = "") -> None:
    """Raise `ImageFolderError` unless there are two labels, of `MIN_IMAGES` images or more.

    ``counts``: images per label; ``single_folder`` holds them all, in folders of its own.
    """
    if len(counts) < 2 and single_folder:
        raise ImageFolderError(
            f"found one label only, {next(iter(counts))!r}, whose photos lie in folders of their "
            f"own; if these are the labels, or the sets of a split: --image_dir {single_folder}"
        )
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


def check_few(counts: Mapping[str, int]) -> None:
    """Warn of labels with few images: once, whatever their number."""
    few = {label: count for label, count in counts.items() if count < FEW_IMAGES}
    if few:
        fewest = min(few, key=lambda label: few[label])
        log.warning(
            "%s fewer than %d images (the label %r has %d): expect poor results; add photos, and "
            "see --class_balance",
            "1 label has" if len(few) == 1 else f"{len(few)} labels have",
            FEW_IMAGES,
            fewest,
            few[fewest],
        )


def assemble(
    report: BuildReport,
    validation_percentage: int,
    testing_percentage: int,
    group_by: str | None = None,
) -> Dataset:
    """Split the readable images of ``report`` and read their vectors.

    ``group_by`` is that of `retrain.data.groups.grouping`. Images that are linked, as copies or by
    their groups, count in one set, and those of them elsewhere are left out: before all in testing,
    then in validation, so that neither the training nor the choices made by the validation set know
    a test image. A ready-made split can put a group into two sets, and any split a copy.

    Raises `ImageFolderError` for too few images or labels, and for a label without an image to
    train on; `UsageError` for a ``group_by`` that cannot be used.
    """
    check_counts(report.counts)
    keys = [image.key for image in report.images]
    set_of, groups = sets_of(report.images, validation_percentage, testing_percentage, group_by)
    number = {label: i for i, label in enumerate(report.counts)}
    everything = Subset(
        report.images,
        vectors_of(report.cache, keys),
        np.array([number[image.label] for image in report.images], np.int64),
    )
    check_few(report.counts)
    dataset = Dataset(tuple(number), everything, set_of, groups)
    _check_sets(dataset, validation_percentage, testing_percentage)
    return dataset


def sets_of(
    images: Sequence[CachedImage],
    validation_percentage: int,
    testing_percentage: int,
    group_by: str | None = None,
) -> tuple[np.ndarray, list[str]]:
    """The set of each image as `Dataset.set_of` has it, (n,) str, and the names of their groups."""
    members = members_of(images, group_by)
    sets = split(members, validation_percentage, testing_percentage)
    groups = [member.group for member in members]
    names = [sets[image.relpath] for image in images]
    return counting(names, [image.key for image in images], groups), groups


def counting(names: Sequence[str], keys: Sequence[bytes], groups: Sequence[str]) -> np.ndarray:
    """The ``names`` of the images' sets, (n,) str; `LEFT_OUT` outside the one of its unit.

    ``keys`` and ``groups`` are those of the images.
    """
    units = _linked(keys, groups)
    rank = np.array([_PRECEDENCE.index(name) for name in names])
    first = np.full(len(names), len(_PRECEDENCE))
    np.minimum.at(first, units, rank)
    return np.where(rank == first[units], names, LEFT_OUT)


def _check_sets(dataset: Dataset, validation_percentage: int, testing_percentage: int) -> None:
    """Raise `ImageFolderError` for a label that is not trained on; warn of one that is not tested.

    Both can come of copies, and of labels that are one group or two.
    """
    for name, share in ((TRAINING, 100), (TESTING, testing_percentage)):
        counts = np.bincount(getattr(dataset, name).y, minlength=len(dataset.labels))
        if not share or counts.all():
            continue
        missing = [dataset.labels[i] for i in np.flatnonzero(counts == 0)]
        if name == TRAINING:
            raise ImageFolderError(
                f"no image of the label {missing[0]!r} is left to train on: all that are not held "
                "out are copies of validation or test images, or linked to such by their groups; "
                "add different ones"
            )
        log.warning(
            "no image of %s is tested on: it has too few groups, or copies alone",
            ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else ""),
        )
    if validation_percentage and not len(dataset.validation):
        log.warning(
            "there is no image to validate on: each label has too few groups, or copies alone"
        )
