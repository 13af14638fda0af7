"""Rows of images that are known already: at a cut, and of their distorted variants."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from bottlenecks.builder import CachedImage, OnProgress, Progress
from bottlenecks.computing import Computing, Read
from bottlenecks.config import Config
from bottlenecks.errors import BadImageError, CacheError, if_interrupted, shown
from bottlenecks.network.cuts import TRAINED
from bottlenecks.network.inception import Extractor
from bottlenecks.photos.decode import decode
from bottlenecks.photos.distort import distorted
from bottlenecks.photos.reading import file_bytes
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.row_spec import IMAGE_KEY_BYTES, RowSpec
from bottlenecks.store.cache import Cache
from bottlenecks.who import computing

MOST_AT_ONCE = 8  # variants of a photo that are in memory at once
_ROOM = 1.02  # times the rows' bytes: keys, checksums, HDF5's structure
_MERGED_BYTES = 2**27  # of shards while they are merged
# Of a checkpoint for each number that is trained: itself, its average, two of the optimizer's and
# the best so far, in float32. The old one goes when the new one is whole.
_CHECKPOINT_BYTES = 2 * 5 * 4


@dataclass(frozen=True)
class Wanted:
    """An image, and the keys of the rows that are wanted of it: its own, or those of variants."""

    image: CachedImage
    keys: tuple[bytes, ...]


def complete(
    config: Config,
    extractor: Extractor,
    wanted: Sequence[Wanted],
    distortions: DistortionSettings,
    on_missing: Callable[[int, int], None] = lambda *_: None,
    on_progress: OnProgress = lambda _: None,
) -> Cache:
    """The cache of ``extractor`` with all rows that are ``wanted``: those missing are computed.

    They are committed as they come, at least every 5 seconds, so that an interrupted run goes on
    where it was. ``on_missing`` is told how many rows are missing and their bytes, if any are.

    Raises `CacheError` before anything is computed where there is no room for them, and for an
    image that was changed or removed since it was read first.
    """
    cache = Cache(config.bottleneck_dir, extractor.fingerprint, extractor.spec)
    cache.load()
    missing = _missing(cache, wanted)
    if not missing and not cache.damaged:
        _tidy(cache)
        return cache
    is_new = not cache.store.exists()
    if count := sum(len(one.keys) for one in missing):
        on_missing(count, count * cache.spec.nbytes)
        check_room(cache.folder, cache.spec, count)
    try:
        with (
            if_interrupted("what was computed is kept, and the same command resumes"),
            cache.writing(extractor.description),
        ):
            missing = _missing(cache, wanted)  # another run may have added some
            _compute(config, extractor, cache, missing, distortions, on_progress)
            cache.merge()
    except BaseException:
        if is_new:
            with suppress(OSError):
                cache.remove_if_empty()
        raise
    return cache


def _missing(cache: Cache, wanted: Sequence[Wanted]) -> list[Wanted]:
    """What the cache lacks, a part for every `MOST_AT_ONCE` rows; copies of images but once."""
    seen: set[bytes] = set()
    missing = []
    for one in wanted:
        keys = [key for key in one.keys if key not in cache and key not in seen]
        seen.update(keys)
        missing += [
            Wanted(one.image, tuple(keys[start : start + MOST_AT_ONCE]))
            for start in range(0, len(keys), MOST_AT_ONCE)
        ]
    return missing


def count_missing(cache: Cache, wanted: Sequence[Wanted]) -> int:
    """How many rows `complete` would compute for a cache that is loaded."""
    return sum(len(one.keys) for one in _missing(cache, wanted))


def check_room(folder: Path, spec: RowSpec, rows: int, besides: int = 0) -> None:
    """Raise `CacheError` where so many rows do not fit onto the disk of a cache's ``folder``.

    With those of a cut there must be room for the checkpoints of the training on them. ``besides``
    are the bytes of what is to be written there before them.
    """
    nbytes = rows * spec.nbytes
    checkpoints = _CHECKPOINT_BYTES * TRAINED.get(spec.name, 0)
    needed = nbytes * _ROOM + min(_MERGED_BYTES, nbytes) + checkpoints + besides
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = [f"{rows} rows of {spec.name}"]
        what += ["the checkpoints of their training"] if checkpoints else []
        what += ["what is missing before them"] if besides else []
        raise CacheError(
            f"{' and '.join(what)} take {_size(needed)}, and {shown(folder)} has "
            f"{_size(free)} free: make room, name another --bottleneck_dir, cut at a later "
            "block, or use fewer --distortions_per_image"
        )


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _tidy(cache: Cache) -> None:
    """What a killed run left to do; nothing is lost where the cache cannot be written to."""
    with suppress(OSError):
        if cache.is_untidy:
            with cache.tidying():
                pass


def _compute(
    config: Config,
    extractor: Extractor,
    cache: Cache,
    missing: Sequence[Wanted],
    distortions: DistortionSettings,
    on_progress: OnProgress,
) -> None:
    count = sum(len(one.keys) for one in missing)
    if not missing:
        return
    with ExitStack() as stack:
        rows: Computing[Wanted, CacheError | None] = stack.enter_context(
            computing(
                config,
                cache,
                extractor,
                VariantReader(distortions, cache.spec.input_size),
                missing[0].image.path,
                rows_each=max(len(one.keys) for one in missing),
                on_change=lambda: show(),
            )
        )

        def show() -> None:
            on_progress(Progress(rows.computed, count, rows.computed, rows.machines))

        for number, error in stack.enter_context(closing(rows.read(missing))):
            if error is not None:
                raise error
            for key in missing[number].keys:
                rows.add(key)
            show()
        show()


@dataclass(frozen=True)
class VariantReader:
    """Reads an image, and decodes or distorts it for each of the keys that are wanted of it."""

    distortions: DistortionSettings
    size: tuple[int, int]

    def __call__(self, one: Wanted, _: object) -> Read[CacheError | None]:
        image = one.image
        try:
            with file_bytes(image.path) as (data, _signature):
                if hashlib.sha256(data).digest() != image.key:
                    raise BadImageError("its content is another now")
                variants = [key for key in one.keys if len(key) > IMAGE_KEY_BYTES]
                of_variants = iter(
                    distorted(data, self.distortions, variants, self.size) if variants else ()
                )
                pixels = {
                    key: next(of_variants)
                    if len(key) > IMAGE_KEY_BYTES
                    else decode(data, self.size)
                    for key in one.keys
                }
        except BadImageError as error:
            return Read(
                CacheError(
                    f"the image {shown(image.path)} was changed while this ran ({error}); run the "
                    "same command again"
                )
            )
        return Read(None, pixels)
