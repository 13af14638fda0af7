"""What a run would do: labels, sets, rows that are missing; nothing is computed or written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bottlenecks import machine, speeds
from bottlenecks.builder import CachedImage
from bottlenecks.errors import BadImageError, UsageError
from bottlenecks.extractors import choose
from bottlenecks.network.cuts import INPUT
from bottlenecks.network.inception import Extractor, NetworkExtractor
from bottlenecks.network.layers import spec_at
from bottlenecks.network.names import AUTO
from bottlenecks.network.weights import are_at_hand
from bottlenecks.photos.labels import (
    TRAINING,
    VALIDATION,
    ImageFolder,
    check_labels,
    scan,
    single_folder,
)
from bottlenecks.photos.reading import key_of
from bottlenecks.row_spec import BOTTLENECK, RowSpec
from bottlenecks.store.cache import Cache
from bottlenecks.store.remote import copies_of
from bottlenecks.store.stat_index import StatIndex
from bottlenecks.variants import Wanted, check_room, count_missing
from retrain.config import Config
from retrain.data.dataset import check_counts, check_few, sets_of
from retrain.data.groups import check_groups, members_of
from retrain.data.split import SETS, split
from retrain.data.variants import variants_of
from retrain.export.formats import check as check_formats
from retrain.report.health import count_folds
from retrain.training.devices import count_workers


@dataclass(frozen=True)
class More:
    """Missing rows beside those of the plain images: of variants, or at the cut ``name``.

    They have ``nbytes`` and are computed in about ``seconds``, 0 where no network is run.
    """

    name: str
    rows: int
    nbytes: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What `retrain.train` would do.

    ``counts`` are images per label, ``sets`` images per set, before copies and unreadable ones
    are left out. ``missing`` vectors would be computed in about ``seconds``: by the ``speed``, in
    images a second, that this machine had, or where that is None by what is usual. Then come
    ``more`` rows, for distortions and for fine-tuning, whose steps take about ``tuning_seconds``,
    None where this machine has not done such yet.
    """

    folder: ImageFolder
    counts: Mapping[str, int]
    sets: Mapping[str, int]
    missing: int
    weights_missing: bool
    speed: float | None
    seconds: float
    more: tuple[More, ...] = ()
    tuning_seconds: float | None = None
    network: str = ""  # precision and engine of what would compute the rows
    calibrates: bool = False  # first, on some of the photos


def checked_folder(config: Config) -> ImageFolder:
    """The images of a run, once all is checked that can be before anything is computed or made.

    Raises `ImageFolderError` for fewer than two labels or three images of one, among others,
    `UsageError` for groups that cannot be meant and for settings that need a validation set where
    there is none, and `OutputError`.
    """
    folder = scan(config.image_dir, validation_dir=config.validation_dir, test_dir=config.test_dir)
    check_labels(folder)
    check_counts(folder.counts, single_folder(folder))
    check_groups(config.group_by, folder.images)
    _check_validation(config, folder)
    if config.checks_data_health:
        count_folds(folder.counts, config.data_health_folds)
    if config.cut is not None and config.strategy in ("auto", "multi_worker"):
        count_workers()
    check_formats(config)
    config.check_outputs()
    return folder


def _check_validation(config: Config, folder: ImageFolder) -> None:
    """Raise `UsageError` for what looks at the validation set where there is none."""
    if config.validation_percentage or VALIDATION in folder.sets:
        return
    for name in ("patience", "calibrate"):
        if getattr(config, name):
            raise UsageError(
                f"--{name} needs a validation set: a --validation_percentage above 0, or photos "
                "in a --validation_dir. Received: --validation_percentage 0"
            )


def plan(config: Config, extractor: NetworkExtractor | None = None) -> Plan:
    """Look at the images and the cache; reads those images that no earlier run has.

    Raises what `retrain.train` would raise before it computes anything, and `CacheError` where
    there is no room for the rows of variants and of a cut.
    """
    folder = checked_folder(config)
    check_few(folder.counts)
    members = members_of(folder.images, config.group_by)
    set_of = split(members, config.validation_percentage, config.testing_percentage)
    names = list(set_of.values())
    sets: dict[str, int] = {name: names.count(name) for name in SETS}
    weights_missing = extractor is None and not are_at_hand(config.weights, config.model_dir)
    choice = None
    if extractor is None and not weights_missing:
        choice = choose(config, folder)
        extractor = choice.network
    asked = "float32" if config.precision == AUTO else config.precision
    precision = asked if choice is None else choice.precision
    speed = speeds.remembered(config.model_dir, precision)
    rate = speed or speeds.USUAL_PER_CORE * machine.usable_cores()
    if extractor is None or (choice is not None and choice.is_new):
        missing, more = len(folder.images), _most_missing(config, sets)
    else:
        cache = _loaded(config, extractor)
        images = _readable(folder, cache)
        missing = len({image.key for image in images if image.key not in cache})
        more = _missing(config, extractor, images)
    return Plan(
        folder=folder,
        counts=folder.counts,
        sets=sets,
        missing=missing,
        weights_missing=weights_missing,
        speed=speed,
        seconds=missing / rate,
        network="" if choice is None else choice.name,
        calibrates=choice is not None and choice.is_new,
        more=tuple(_with_room(missing, more, rate)),
        tuning_seconds=_tuning_seconds(
            config, asked if choice is None else choice.network.precision, sets[TRAINING]
        ),
    )


def _tuning_seconds(config: Config, precision: str, images: int) -> float | None:
    if config.cut is None:
        return None
    what = speeds.fine_tuning(config.cut, precision)
    speed = speeds.remembered(config.model_dir, what)
    return speed and config.fine_tune_epochs * images / speed


def _loaded(config: Config, extractor: Extractor) -> Cache:
    cache = Cache(config.bottleneck_dir, extractor.fingerprint, extractor.spec)
    cache.load()
    return cache


def _readable(folder: ImageFolder, cache: Cache) -> list[CachedImage]:
    """The images that can be read, with their keys."""
    index = StatIndex.of(cache)
    found = []
    for image in folder.images:
        if image.file.problem:
            continue
        key = index.get(folder.absolute(image), image.file.signature)
        if key is None:
            try:
                key = key_of(image.path)
            except BadImageError:
                continue
        found.append(
            CachedImage(image.label, image.relpath, image.path, key, image.given, image.name_at)
        )
    return found


_Missing = list[tuple[RowSpec, Path, int]]  # what rows, in the folder of which cache, how many


def _missing(
    config: Config, extractor: NetworkExtractor, images: Sequence[CachedImage]
) -> _Missing:
    """The rows beside those of the plain images that the caches lack."""
    if not config.distorts and config.cut is None:
        return []
    shares = config.validation_percentage, config.testing_percentage
    set_of, _ = sets_of(images, *shares, config.group_by)
    variants = variants_of(images, set_of, config, config.seed)
    found = []
    if config.distorts:
        wanted = [Wanted(i, tuple(own)) for i, own in zip(images, variants, strict=True)]
        cache = _loaded(config, extractor)
        found.append((cache.spec, cache.folder, count_missing(cache, wanted)))
    if config.cut is not None:
        wanted = [Wanted(i, (i.key, *own)) for i, own in zip(images, variants, strict=True)]
        cache = _loaded(config, extractor.at(config.cut))
        found.append((cache.spec, cache.folder, count_missing(cache, wanted)))
    return found


def _most_missing(config: Config, sets: Mapping[str, int]) -> _Missing:
    """`_missing` where the caches are not known yet, as if nothing were in them."""
    folder = copies_of(config.bottleneck_dir)
    variants = config.variants * sets[TRAINING]
    found = [(BOTTLENECK, folder, variants)] if config.distorts else []
    if config.cut is not None:
        found.append((spec_at(config.cut), folder, sum(sets.values()) + variants))
    return found


def _with_room(plain: int, missing: _Missing, rate: float) -> Iterator[More]:
    """``missing`` as they are told, after ``plain`` bottlenecks; raises as `check_room` does."""
    besides = plain * BOTTLENECK.nbytes
    for spec, folder, rows in missing:
        if rows:
            check_room(folder, spec, rows, besides)
        nbytes = rows * spec.nbytes
        seconds = 0.0 if spec.name == INPUT else rows / rate
        yield More(spec.name, rows, nbytes, seconds)
        besides += nbytes
