"""What computes the rows of a folder: which precision and engine, where the flags leave it open."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bottlenecks import calibration, machine
from bottlenecks.config import Config
from bottlenecks.errors import UsageError
from bottlenecks.network.engines import with_openvino
from bottlenecks.network.engines.engine import ENGINES
from bottlenecks.network.inception import Extractor, InceptionV3
from bottlenecks.network.names import AUTO, RANDOM
from bottlenecks.network.weights import OnDownload
from bottlenecks.photos.labels import ImageFolder, LabeledImage
from bottlenecks.store.cache import Cache
from bottlenecks.store.stat_index import StatIndex

# Photos from which on a calibration, of about half a minute, is made up for by the speed after it,
# on two cores; where the processor has bfloat16 it is made up for later.
PAYS_FROM, PAYS_FROM_BFLOAT16 = 800, 1600
_SAMPLE = 500  # images by which it is told whether a cache is of a folder
# The share of them that it must have rows of. Others' calibrations are worse than one's own.
_ENOUGH, _HALF = 0.1, 0.5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What the rows of a folder are computed by.

    Where ``is_new`` it is to be calibrated in 8 bits first, on photos of the folder; ``network`` is
    what is taken where that cannot be.
    """

    network: InceptionV3
    is_new: bool = False

    @property
    def precision(self) -> str:
        return "int8" if self.is_new else self.network.row_precision

    @property
    def name(self) -> str:
        """As `name_of` says it."""
        return f"int8, by {with_openvino.TITLE}" if self.is_new else name_of(self.network)


def choose(config: Config, folder: ImageFolder, on_download: OnDownload | None = None) -> Choice:
    """What ``config`` asks for, else what the cache was made with, else what is fastest here.

    Downloads the weights if need be, and reads photos that no cache knows where there are caches of
    several kinds. Raises `UsageError` for an engine that is not there, `WeightsError`, ``OSError``.
    """
    if config.weights == RANDOM:
        log.warning("--weights random is an UNTRAINED network: for trials, not for real photos")
    base = InceptionV3(config.weights, config.model_dir, on_download=on_download)
    engines = _engines(config)
    if config.precision == "float32":  # the same rows by any engine
        return Choice(base.computed_in("float32", engines[0]))
    ways = list(_ways(config, base, engines))
    if config.precision != AUTO and len(ways) == 1 and config.precision != "int8":
        return Choice(ways[0])
    takes_int8 = "int8" in _allowed(config) and with_openvino.NAME in engines
    kept = calibration.find(config.bottleneck_dir, base) if takes_int8 else []
    if found := _with_rows(config, folder, ways, kept):
        return Choice(found)
    return Choice(ways[0], is_new=_calibrates(config, folder, engines))


def made(
    choice: Choice,
    config: Config,
    folder: ImageFolder,
    on_step: calibration.OnStep = lambda *_: None,
) -> InceptionV3:
    """The network of a choice, calibrated if need be. Raises `WeightsError`, ``OSError``."""
    if not choice.is_new:
        return choice.network
    found = calibration.calibrate(
        choice.network, folder, config.bottleneck_dir, config.decode_threads, on_step
    )
    if found is not None:
        return found
    log.warning(
        "too few photos can be read to calibrate 8 bits on (%d are needed); going on with %s",
        calibration.FEWEST,
        choice.network.row_precision,
    )
    return choice.network


def extractor_for(
    config: Config,
    folder: ImageFolder,
    on_download: OnDownload | None = None,
    on_step: calibration.OnStep = lambda *_: None,
) -> InceptionV3:
    """`choose` and `made` in one."""
    return made(choose(config, folder, on_download), config, folder, on_step)


def name_of(extractor: Extractor, computed: bool = True) -> str:
    """The precision of one that is InceptionV3, for people, and if it ``computed`` its engine."""
    if not isinstance(extractor, InceptionV3):
        return ""
    engine = f", by {ENGINES[extractor.engine].TITLE}" if computed else ""
    return f"{extractor.row_precision}{engine}"


def _engines(config: Config) -> list[str]:
    """Those that may be used, the fastest first. Raises `UsageError` for one that is missing."""
    if config.engine != AUTO:
        if not ENGINES[config.engine].is_installed():
            raise UsageError(
                f"--engine {config.engine} is not installed: {with_openvino.INSTALL}, or leave it "
                "out"
            )
        return [config.engine]
    installed = [name for name, engine in ENGINES.items() if engine.is_installed()]
    # OpenVINO uses the processor alone.
    return installed if machine.has_gpu() else installed[::-1]


def _allowed(config: Config) -> tuple[str, ...]:
    """The precisions that may be taken, the fastest first."""
    if config.precision in (AUTO, "int8"):  # where 8 bits cannot be had, the next best
        return ("int8", "bfloat16", "float32")
    return (config.precision,)


def _ways(config: Config, base: InceptionV3, engines: list[str]) -> Iterator[InceptionV3]:
    """All ways that need no calibration, the fastest first."""
    asked, has_it = config.precision == "bfloat16", machine.cpu_has_bfloat16()
    if asked and not has_it:  # which says so once
        yield base.computed_in("bfloat16", engines[0])
        return
    if asked or ("bfloat16" in _allowed(config) and has_it and not machine.has_gpu()):
        yield from (base.computed_in("bfloat16", engine) for engine in engines)
    if not asked:
        yield base.computed_in("float32", engines[0])


def _calibrates(config: Config, folder: ImageFolder, engines: list[str]) -> bool:
    """Whether new rows are computed in 8 bits; where they were asked for, says why not."""
    images, asked = len(folder.images), config.precision == "int8"
    if "int8" not in _allowed(config):
        return False
    why = ""
    if with_openvino.NAME not in engines:
        how = with_openvino.INSTALL if config.engine == AUTO else "leave out --engine"
        why = f"--precision int8 needs OpenVINO ({how})"
    elif not machine.most_of_int8():
        why = "this processor has no instructions for int8"
    elif images < calibration.FEWEST:
        why = f"--precision int8 is calibrated on {calibration.FEWEST} photos or more"
    if asked and why:
        other = "bfloat16" if machine.cpu_has_bfloat16() else "float32"
        log.warning("%s; going on with %s", why, other)
    pays = PAYS_FROM_BFLOAT16 if machine.cpu_has_bfloat16() else PAYS_FROM
    gains = machine.most_of_int8() > 0 and not machine.has_gpu() and images >= pays
    return not why and (asked or gains)


def _with_rows(
    config: Config, folder: ImageFolder, ways: list[InceptionV3], kept: list[calibration.Kept]
) -> InceptionV3 | None:
    """The one whose cache has the most rows of the folder's images, if any has enough.

    What was calibrated on photos of this folder may have few: the folder has grown, or the run was
    killed. With ``--precision int8`` nothing else is looked at.
    """
    networks = [one.network for one in kept] + (ways if config.precision != "int8" else [])
    caches = {one: Cache(config.bottleneck_dir, one.fingerprint, one.spec) for one in networks}
    caches = {one: cache for one, cache in caches.items() if cache.store.exists()}
    if not caches:
        return None
    sample = folder.images[:: -(-len(folder.images) // _SAMPLE)]
    indexes = [StatIndex.of(cache) for cache in caches.values()]

    def known(image: LabeledImage) -> bytes | None:
        """By the bookkeeping; else the photo was moved or is new, and is read."""
        place, signature = folder.absolute(image), image.file.signature
        return next((key for x in indexes if (key := x.get(place, signature)) is not None), None)

    keys = calibration.keys_of(sample, config.decode_threads, known)
    for cache in caches.values():
        cache.load()
    shares = {x: sum(key in c for key in keys) / max(len(keys), 1) for x, c in caches.items()}
    own = {one.network for one in kept if _is_of(one, folder, known, config, shares[one.network])}
    enough = [x for x in networks if x in own or (x in ways and shares.get(x, 0.0) >= _ENOUGH)]
    return max(enough, key=lambda x: shares[x], default=None)


def _is_of(
    kept: calibration.Kept,
    folder: ImageFolder,
    known: Callable[[LabeledImage], bytes | None],
    config: Config,
    share: float,
) -> bool:
    """Whether it was calibrated on photos of this folder, or has rows of half of it."""
    if share >= _HALF:
        return True
    everything = calibration.keys_of(folder.images, config.decode_threads, known)
    return len(kept.photos & everything.keys()) >= _HALF * len(kept.photos)
