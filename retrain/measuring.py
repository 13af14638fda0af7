"""measure(): an exported classifier + a folder of labelled photos -> figures and report."""

import dataclasses
import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bottlenecks import machine
from bottlenecks.builder import BadImage, CachedImage
from bottlenecks.errors import (
    BadImageError,
    GraphError,
    ImageFolderError,
    if_interrupted,
    shown,
)
from bottlenecks.photos.decode import decode
from bottlenecks.photos.labels import ImageFolder, LabeledImage, scan
from bottlenecks.photos.reading import file_bytes, key_of, threads_for
from bottlenecks.pools import in_order, pool_of
from retrain.config import ALL, MeasureConfig
from retrain.data.dataset import LEFT_OUT, counting
from retrain.data.groups import check_groups, members_of
from retrain.data.matching import match
from retrain.data.split import Member, split
from retrain.report import writing
from retrain.report.results import Measurement, Tally, sample_of_test, samples_of

if TYPE_CHECKING:
    from retrain.engines.engine import Engine

_OFF_ONE = 0.01  # that a row of probabilities may add up to, in a graph of 8 bits


@dataclass(frozen=True)
class Choice:
    """The images of ``folder`` that are measured: those of ``set``, or "all".

    They are all that are ``available``, or some drawn of these. ``numbers`` has the classifier's
    label of each, counting in ``labels``; ``left_out`` counts those whose copy or group is in a set
    that counts for more, as in a run.
    """

    folder: ImageFolder
    set: str
    images: Sequence[LabeledImage]
    available: int
    left_out: int
    labels: tuple[str, ...]
    numbers: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Images of each label of the classifier."""
        counts = np.bincount(self.numbers, minlength=len(self.labels)).tolist()
        return dict(zip(self.labels, counts, strict=True))


class MeasureListener:
    """What `measure` tells while it goes on; a subclass shows what it wants to."""

    def chosen(self, choice: Choice) -> None:
        """It is known what is measured; no photo has been through the graph."""

    def progress(self, done: int, total: int) -> None:
        """So many images are read and have their scores."""

    def measured(self, measurement: Measurement) -> None:
        """The figures are there; the report is yet to be written."""


def measure(config: MeasureConfig, *, listener: MeasureListener | None = None) -> Measurement:
    """Measure the classifier in ``config.graph`` on photos with labels; nothing is trained.

    Each photo goes through the graph once, as `label_image` would label it; nothing is kept in a
    cache, and nothing written but the report, for ``config.report_dir``. The images of a set are
    those that a run with the same flags tests, validates or trains on, as long as each can be read.

    Raises `ImageFolderError` for a label that the classifier does not have, where no image is to be
    measured, and where none can be read; `GraphError`; `UsageError`; with ``config.strict``
    `BadImageError`; `OutputError` where the report cannot be made.
    """
    from retrain.engines.engine import Engine  # which a run has no use for

    listener = listener or MeasureListener()
    folder = scan(config.image_dir, validation_dir=config.validation_dir, test_dir=config.test_dir)
    config.check_outputs()
    with if_interrupted("nothing was written"):
        engine = Engine(config)
        choice = _choose(config, folder, tuple(map(shown, engine.labels)))
        listener.chosen(choice)
        measurement = _Measuring(config, engine, choice, listener).run()
    listener.measured(measurement)
    if config.report_dir is not None:
        with if_interrupted("the report is not written"):
            remedy = "run the same command again without --report_dir to see the figures alone"
            writing.write(config.report_dir, dataclasses.asdict(config), measurement, remedy)
    return measurement


def _choose(config: MeasureConfig, folder: ImageFolder, labels: tuple[str, ...]) -> Choice:
    """The images to measure; those of a set as `retrain.data.dataset.assemble` would have them."""
    check_groups(config.group_by, folder.images)
    name = config.set or ("testing" if folder.sets else ALL)
    members = members_of(folder.images, config.group_by)
    sets: Mapping[str, str] = {}
    if name != ALL:
        sets = split(members, config.validation_percentage, config.testing_percentage)
    own = [image for image in folder.images if name == ALL or sets[image.relpath] == name]
    if not own:
        raise ImageFolderError(
            f"no image of {shown(folder.root)} is in the {name} set; choose another --set"
        )
    folders = [image.name.partition("/")[0] for image in own]
    number_of = match(folders, labels, folder.root)
    left_out = _left_out(config, folder, members, sets, name)
    kept = [row for row, image in enumerate(own) if image.relpath not in left_out]
    if not kept:
        raise ImageFolderError(
            f"all {len(own)} images of the {name} set of {shown(folder.root)} have a copy in a "
            "set that counts for more; choose another --set"
        )
    drawn = [kept[i] for i in sample_of_test(len(kept), config.test_batch_size, config.seed)]
    numbers = np.array([number_of[folders[row]] for row in drawn], np.int64)
    images = [own[row] for row in drawn]
    return Choice(folder, name, images, len(kept), len(left_out), labels, numbers)


def _left_out(
    config: MeasureConfig,
    folder: ImageFolder,
    members: Sequence[Member],
    sets: Mapping[str, str],
    name: str,
) -> frozenset[str]:
    """The relpaths of the set ``name`` whose copy or group counts in another set."""
    if name == ALL or name == "testing":
        return frozenset()
    images, names = folder.images, [sets[image.relpath] for image in folder.images]
    with pool_of(_threads(config, images), "photos") as pool:
        hashed = in_order(pool, _key, images, 2 * machine.MOST_THREADS)
        # Those that cannot be read are copies of none.
        keys = [key or image.relpath.encode("utf-8", "replace") for image, key in hashed]
    set_of = counting(names, keys, [member.group for member in members]).tolist()
    return frozenset(
        image.relpath
        for image, own, counts in zip(images, names, set_of, strict=True)
        if own == name and counts == LEFT_OUT
    )


def _threads(config: MeasureConfig, images: Sequence[LabeledImage]) -> int:
    return threads_for(config.decode_threads, (image.path for image in images))


def _key(image: LabeledImage) -> bytes | None:
    """The hash of an image's content; None where it cannot be read."""
    try:
        return None if image.file.problem else key_of(image.path)
    except BadImageError:
        return None


@dataclass(frozen=True)
class _Read:
    """An image of the choice, in its ``row``, and its pixels (height, width, 3) uint8."""

    row: int
    image: CachedImage
    pixels: np.ndarray


@dataclass(frozen=True)
class _Measuring:
    """The photos of a choice on their way through the graph."""

    config: MeasureConfig
    engine: "Engine"
    choice: Choice
    listener: MeasureListener

    def run(self) -> Measurement:
        choice, total = self.choice, len(self.choice.images)
        tally, measured = Tally(choice.labels, self.config.seed), 0
        contents: set[bytes] = set()
        failed: list[BadImage] = []
        with closing(self._batches()) as batches:
            for read, bad in batches:
                failed += bad
                if read:
                    probabilities = self._probabilities([one.pixels for one in read])
                    y = choice.numbers[[one.row for one in read]]
                    tally.add(probabilities, y, [one.image for one in read])
                    contents |= {one.image.key for one in read}
                    measured += len(read)
                self.listener.progress(measured + len(failed), total)
        if not measured:
            raise ImageFolderError(
                f"none of the {total} images of {shown(choice.folder.root)} can be read, for "
                f"example {shown(failed[0].path)} ({failed[0].reason})"
            )
        return Measurement(
            graph=self.config.graph,
            set=choice.set,
            labels=choice.labels,
            images={
                **{"training": 0, "validation": 0, "testing": measured},
                "left_out": choice.left_out,
            },
            test=tally.test(),
            failed=tuple(failed),
            copies=measured - len(contents),
            samples=samples_of(test=(total, choice.available)),
        )

    def _batches(self) -> Generator[tuple[list[_Read], list[BadImage]], None, None]:
        """The images in order, those that can be read and those that cannot; a batch at a time."""
        engine, config = self.engine, self.config
        size = engine.fixed_batch or config.batch_size or engine.batch_size
        read: list[_Read] = []
        bad: list[BadImage] = []
        with pool_of(_threads(config, self.choice.images), "photos") as pool:
            rows = range(len(self.choice.images))
            with closing(in_order(pool, self._read, rows, 2 * size)) as results:
                for _, result in results:
                    if isinstance(result, _Read):
                        read.append(result)
                    else:
                        self._check_strict(result)
                        bad.append(result)
                    if len(read) == size:
                        yield read, bad
                        read, bad = [], []
        yield read, bad

    def _read(self, row: int) -> _Read | BadImage:
        """Read and decode an image of the choice; in a thread."""
        image = self.choice.images[row]
        label = self.choice.labels[self.choice.numbers[row]]
        try:
            if image.file.problem:
                raise BadImageError(image.file.problem)
            with file_bytes(image.path) as (data, _):
                key = hashlib.sha256(data).digest()
                pixels = decode(data, self.engine.input_size)
        except BadImageError as error:
            return BadImage(label, image.path, shown(str(error)))
        place = (image.relpath, image.path, key, image.given, image.name_at)
        return _Read(row, CachedImage(label, *place), pixels)

    def _check_strict(self, bad: BadImage) -> None:
        if self.config.strict:
            raise BadImageError(
                f"cannot read the image {shown(bad.path)}: {bad.reason}; mend or remove it, or "
                "leave out --strict to skip it"
            )

    def _probabilities(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(n, C) float32 scores of n photos, once it is clear that they are probabilities."""
        scores = self.engine.scores(np.stack(pixels))
        sums = scores.sum(axis=1)
        if scores.min() < 0 or np.abs(sums - 1).max() > _OFF_ONE:
            raise GraphError(
                f"the scores of the graph {shown(self.config.graph)} are no probabilities: those "
                f"of a photo go from {scores.min():.3g} and add up to {sums[0]:.3g}, not to 1; "
                "name its softmax with --output_layer"
            )
        return scores
