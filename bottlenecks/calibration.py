"""Photos of a folder -> the network's numbers in 8 bits, which are kept with the rows made by them.

They lie in the folder of their cache, ``<sha256 of their bytes>.int8``, and their hash is in its
fingerprint: photos that are added later, another machine, and a run that goes on after one that was
killed compute with the very same.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import BadImageError, CacheError, OutputError, shown
from bottlenecks.network.engines import int8, with_openvino
from bottlenecks.network.inception import InceptionV3
from bottlenecks.photos.decode import INPUT_SIZE, decode
from bottlenecks.photos.labels import ImageFolder, LabeledImage
from bottlenecks.photos.reading import file_bytes, key_of, threads_for
from bottlenecks.pools import in_order, pool_of
from bottlenecks.store import layout, lock
from bottlenecks.store.cache import Cache
from bottlenecks.store.folder import Store
from bottlenecks.store.remote import cache_names, copies_of, store_for

PHOTOS = 96  # that are calibrated on: those with the smallest keys, so that all runs take the same
FEWEST = 24  # a quarter of them moved vectors by half a percent of their length more
_AT_ONCE = 2  # photos; for little memory
_AHEAD = 64  # files that are read before the first of them is waited for

OnStep = Callable[[int, int], None]  # (steps done, steps in all)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """Numbers that were found with a cache: the ``network`` of them, and what they are of."""

    network: InceptionV3
    photos: frozenset[bytes]  # keys of those that they were calibrated on


def keys_of(
    images: Sequence[LabeledImage],
    threads: int | None,
    known: Callable[[LabeledImage], bytes | None] = lambda _: None,
) -> dict[bytes, str]:
    """The keys of the images that can be read, each with the path of one that has it.

    Those whose key is ``known`` are not read.
    """

    def read(image: LabeledImage) -> bytes | None:
        found = known(image)
        if found is not None or image.file.problem:
            return found
        try:
            return key_of(image.path)
        except BadImageError:
            return None

    with (
        pool_of(threads_for(threads, (image.path for image in images)), "photos") as pool,
        closing(in_order(pool, read, images, _AHEAD)) as results,
    ):
        return {key: image.path for image, key in results if key is not None}


def find(bottleneck_dir: str, network: InceptionV3, warns: bool = True) -> list[Kept]:
    """What was calibrated for the weights of ``network``, and lies whole in its cache's folder.

    ``warns`` of what does not.
    """
    found = []
    for folder in cache_names(bottleneck_dir):
        store = store_for(bottleneck_dir, folder)
        if not store.exists():  # a link
            continue
        for name in filter(layout.is_numbers, store.names()):
            try:
                kept = _read(store, name, network)
            except (CacheError, OSError) as error:
                if warns:
                    message = "%s %s; it is not used, a calibration comes anew"
                    log.warning(message, layout.path_in(store.place, name), error)
                continue
            if kept is None:
                continue
            if Cache(bottleneck_dir, kept.network.fingerprint).folder == store.folder:
                found.append(kept)
    return found


def _read(store: Store, name: str, network: InceptionV3) -> Kept | None:
    """What lies in a cache under ``name``; None where it is of other weights.

    Raises `CacheError`, ``OSError``.
    """
    data, _ = store.read(name, int8.MOST_BYTES)
    if hashlib.sha256(data).hexdigest() != Path(name).stem:
        raise CacheError("is damaged")
    about = int8.about_of(data)
    try:
        photos = frozenset(map(bytes.fromhex, about["photos"]))
        weights, most = about["weights_sha256"], about["most"]
        is_whole = photos and type(most) is int and 1 <= most <= int8.MOST
    except (LookupError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise CacheError("is not of this version of the program")
    if weights != network.weights.sha256:
        return None
    return Kept(network.computed_in("int8", with_openvino.NAME, data), photos)


def calibrate(
    network: InceptionV3,
    folder: ImageFolder,
    bottleneck_dir: str,
    threads: int | None = None,
    on_step: OnStep = lambda *_: None,
) -> InceptionV3 | None:
    """``network`` in 8 bits, calibrated on photos of ``folder`` and kept.

    None where too few of them can be read. ``on_step`` is told how many steps are done, and of how
    many. Of two runs that come at once the second takes what the first has calibrated.

    Raises `WeightsError`, `CacheError`, ``OSError``.
    """
    photos = dict(_photos(keys_of(folder.images, threads)))
    if len(photos) < FEWEST:
        return None
    cache_dir = copies_of(bottleneck_dir)
    is_new = not cache_dir.exists()
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(
            f"cannot make the cache folder {shown(cache_dir)}: a file is in the way; choose "
            "another --bottleneck_dir"
        ) from error
    with lock.exclusive(cache_dir):
        try:
            for kept in find(bottleneck_dir, network, warns=False):
                if kept.photos == photos.keys():
                    return kept.network
            return _keep(_calibrated(network, photos, on_step), bottleneck_dir)
        except BaseException:
            if is_new and [path.name for path in cache_dir.iterdir()] == [lock.NAME]:
                with contextlib.suppress(OSError):
                    (cache_dir / lock.NAME).unlink()
                    cache_dir.rmdir()
            raise


def _calibrated(
    network: InceptionV3, photos: Mapping[bytes, np.ndarray], on_step: OnStep
) -> tuple[InceptionV3, bytes]:
    """The network in 8 bits, and its numbers."""
    graph_def, observe = with_openvino.observe(network.frozen)
    steps = len(photos) + len(int8.convolutions_of(graph_def))
    numbers = int8.calibrated(
        graph_def,
        observe,
        _batches(list(photos.values()), lambda done: on_step(done, steps)),
        machine.most_of_int8(),
        lambda done, _: on_step(len(photos) + done, steps),
    )
    about = {
        "most": machine.most_of_int8(),
        "photos": [key.hex() for key in photos],
        "weights_sha256": network.weights.sha256,
    }
    data = int8.to_bytes(numbers, about)
    return network.computed_in("int8", with_openvino.NAME, data), data


def _keep(calibrated: tuple[InceptionV3, bytes], bottleneck_dir: str) -> InceptionV3:
    """Put the numbers into their cache. Raises `CacheError`, ``OSError``."""
    network, data = calibrated
    cache = Cache(bottleneck_dir, network.fingerprint)
    name = f"{hashlib.sha256(data).hexdigest()}{layout.NUMBERS_SUFFIX}"
    with cache.writing(network.description):
        cache.store.write(name, data)
    return network


def _photos(of_key: Mapping[bytes, str]) -> Iterator[tuple[bytes, np.ndarray]]:
    """The first `PHOTOS` by their keys that can be decoded: (299, 299, 3) uint8."""
    found = 0
    for key in sorted(of_key):
        try:
            with file_bytes(of_key[key]) as (data, _):
                if hashlib.sha256(data).digest() != key:
                    continue  # it is another now
                pixels = decode(data, INPUT_SIZE)
        except BadImageError:
            continue
        yield key, pixels
        found += 1
        if found == PHOTOS:
            return


def _batches(photos: list[np.ndarray], on_done: Callable[[int], None]) -> Iterable[np.ndarray]:
    for start in range(0, len(photos), _AT_ONCE):
        yield np.stack(photos[start : start + _AT_ONCE])
        on_done(min(start + _AT_ONCE, len(photos)))
