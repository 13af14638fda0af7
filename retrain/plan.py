"""What a run would do: labels, sets, vectors that are missing; nothing is computed or written."""

from collections.abc import Mapping
from dataclasses import dataclass

from bottlenecks import machine, speeds
from bottlenecks.errors import BadImageError, UsageError
from bottlenecks.network.inception import Extractor, InceptionV3
from bottlenecks.network.weights import are_at_hand
from bottlenecks.photos.labels import (
    VALIDATION,
    ImageFolder,
    check_labels,
    scan,
    single_folder,
)
from bottlenecks.photos.reading import key_of
from bottlenecks.store.cache import Cache
from bottlenecks.store.stat_index import StatIndex
from retrain.config import Config
from retrain.data.dataset import check_counts, check_few
from retrain.data.groups import check_groups, members_of
from retrain.data.split import SETS, split
from retrain.report.health import count_folds


@dataclass(frozen=True)
class Plan:
    """What `retrain.train` would do.

    ``counts`` are images per label, ``sets`` images per set, before copies and unreadable ones
    are left out. ``missing`` vectors would be computed in about ``seconds``: by the ``speed``, in
    images a second, that this machine had, or where that is None by what is usual.
    """

    folder: ImageFolder
    counts: Mapping[str, int]
    sets: Mapping[str, int]
    missing: int
    weights_missing: bool
    speed: float | None
    seconds: float


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


def plan(config: Config, extractor: Extractor | None = None) -> Plan:
    """Look at the images and the cache; reads those images that no earlier run has.

    Raises what `retrain.train` would raise before it computes anything.
    """
    folder = checked_folder(config)
    check_few(folder.counts)
    members = members_of(folder.images, config.group_by)
    set_of = split(members, config.validation_percentage, config.testing_percentage)
    names = list(set_of.values())
    weights_missing = extractor is None and not are_at_hand(config.weights, config.model_dir)
    if not weights_missing:
        extractor = extractor or InceptionV3(config.weights, config.model_dir, config.precision)
    missing = _missing(config, folder, None if weights_missing else extractor)
    speed = speeds.remembered(config.model_dir, config.precision)
    usual = speeds.USUAL_PER_CORE * machine.usable_cores()
    return Plan(
        folder=folder,
        counts=folder.counts,
        sets={name: names.count(name) for name in SETS},
        missing=missing,
        weights_missing=weights_missing,
        speed=speed,
        seconds=missing / (speed or usual),
    )


def _missing(config: Config, folder: ImageFolder, extractor: Extractor | None) -> int:
    """How many different images have no vector in the cache."""
    if extractor is None:
        return len(folder.images)
    cache = Cache(config.bottleneck_dir, extractor.fingerprint, extractor.spec)
    cache.load()
    index = StatIndex.of(cache)
    keys = set()
    for image in folder.images:
        if image.file.problem:
            continue
        key = index.get(folder.absolute(image), image.file.signature)
        if key is None:
            try:
                key = key_of(image.path)
            except BadImageError:
                continue
        keys.add(key)
    return sum(key not in cache for key in keys)
