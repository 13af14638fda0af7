"""Look after a cache folder: what is in it, is it whole, remove what is no longer wanted."""

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottlenecks.errors import BadImageError, CacheError, DamagedShardError, shown
from bottlenecks.photos.labels import ImageFolder, scan
from bottlenecks.photos.reading import key_of
from bottlenecks.row_spec import BOTTLENECK, RowSpec, image_of
from bottlenecks.store import shard
from bottlenecks.store.cache import Cache, again_if_lost
from bottlenecks.store.folder import Store, read_json, read_shard
from bottlenecks.store.layout import (
    CHECKPOINT_SECONDS,
    FOLDER_PREFIX,
    MAX_SHARD_BYTES,
    MODEL_FILE,
    checkpoints,
    is_checkpoint,
    is_numbers,
    is_shard,
    is_vectors,
)
from bottlenecks.store.remote import cache_names
from bottlenecks.store.stat_index import StatIndex

NONE, _UNKNOWN = "-", "unknown"


@dataclass(frozen=True)
class CacheInfo:
    """One fingerprint in a cache folder: its ``rows``, the ``images`` that they are of.

    ``cut`` is where in the network the rows are from, "bottleneck" at its end; ``weights`` and
    ``precision`` are `NONE` where the rows have none, as pixels. ``size`` is in bytes, of all its
    files; ``checkpoints`` are the sizes of those of fine-tuning among them.
    """

    cache: Cache
    cut: str
    weights: str
    precision: str
    rows: int
    images: int
    size: int
    damaged: tuple[str, ...]  # what is wrong with which file
    set_aside: int  # *.h5.damaged files of earlier runs
    checkpoints: tuple[int, ...]


def find_caches(bottleneck_dir: str | os.PathLike[str]) -> list[Cache]:
    """The caches below ``bottleneck_dir``, by name. Raises `CacheError` where there is none."""
    caches = [
        Cache(bottleneck_dir, *_identity(bottleneck_dir, name))
        for name in cache_names(bottleneck_dir)
    ]
    if not caches:
        raise CacheError(
            f"there is no bottleneck cache in {shown(bottleneck_dir)}; name the folder with "
            "--bottleneck_dir"
        )
    return caches


def inspect(bottleneck_dir: str | os.PathLike[str], *, every_row: bool = False) -> list[CacheInfo]:
    """What is in a cache folder; with ``every_row`` all data is read and checked too."""
    infos = []
    for cache in find_caches(bottleneck_dir):
        description = read_json(cache.store, MODEL_FILE)
        problems = cache.check(every_row=every_row) | _damaged_numbers(cache.store)
        is_known = str(description.get("fingerprint")).startswith(cache.fingerprint)
        if not is_known:
            problems[MODEL_FILE] = "is missing or damaged; the next run writes it again"
        sizes = {name: version[0] for name, version in cache.store.files().items()}
        infos.append(
            CacheInfo(
                cache=cache,
                cut=_cut_of(cache, description),
                weights=_or_none(description.get("weights", _UNKNOWN)),
                precision=str(description.get("precision", NONE if is_known else _UNKNOWN)),
                rows=len(cache),
                images=cache.count_images(),
                size=sum(sizes.values()),
                damaged=tuple(f"{cache.path_of(name)} {why}" for name, why in problems.items()),
                set_aside=sum(is_vectors(name) and not is_shard(name) for name in sizes),
                checkpoints=tuple(size for name, size in sizes.items() if is_checkpoint(name)),
            )
        )
    return infos


def _damaged_numbers(store: Store) -> dict[str, str]:
    """The files of the network's numbers in 8 bits whose bytes have not the hash of their name."""
    damaged = {}
    for name in filter(is_numbers, store.names()):
        try:
            data, _ = store.read(name, MAX_SHARD_BYTES)
        except OSError as error:
            damaged[name] = f"cannot be read: {error.strerror or error}"
            continue
        if hashlib.sha256(data).hexdigest() != Path(name).stem:
            damaged[name] = "has other bytes than its name says; the next run calibrates anew"
    return damaged


def _cut_of(cache: Cache, description: Mapping[str, Any]) -> str:
    """Where in the network the rows are from, as far as ``model.json`` and the rows tell."""
    rows = description.get("rows")
    if isinstance(rows, dict) and isinstance(rows.get("name"), str):
        return str(rows["name"])
    is_last = (cache.spec.shape, cache.spec.dtype) == (BOTTLENECK.shape, BOTTLENECK.dtype)
    return BOTTLENECK.name if is_last else _UNKNOWN


def _or_none(weights: Any) -> str:
    return NONE if weights == "none" else str(weights)


@dataclass(frozen=True)
class Pruning:
    """What `plan_pruning` would remove: whole caches, and rows and checkpoints of the others."""

    caches: tuple[Cache, ...]
    rows: tuple[tuple[Cache, frozenset[bytes]], ...]
    checkpoints: tuple[tuple[Cache, tuple[Path, ...]], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.caches and not self.rows and not self.checkpoints


def plan_pruning(
    bottleneck_dir: str | os.PathLike[str],
    fingerprints: Iterable[str],
    image_dir: str | os.PathLike[str] | None,
    *,
    validation_dir: str | os.PathLike[str] | None = None,
    test_dir: str | os.PathLike[str] | None = None,
) -> Pruning:
    """Decide what to remove, and remove nothing yet.

    ``fingerprints`` (6 hex digits of each or more) name caches to remove whole. With
    ``image_dir``, a row of the others goes if no file in that folder, or in the sets that lie
    elsewhere, has its content, and a checkpoint of fine-tuning if no run has gone on with it for
    `CHECKPOINT_SECONDS`; whose images it is of cannot be told.

    Raises `CacheError` for an unknown fingerprint, and for an image that cannot be read, as its
    row could not be told from those to remove.
    """
    caches = find_caches(bottleneck_dir)
    doomed = [_by_fingerprint(caches, fingerprint) for fingerprint in fingerprints]
    rows, old = [], []
    if image_dir is not None:
        kept = [cache for cache in caches if cache not in doomed]
        folder = scan(image_dir, validation_dir=validation_dir, test_dir=test_dir)
        wanted = _keys_in(folder, kept)
        for cache in kept:
            cache.check()
            if gone := frozenset(key for key in cache if image_of(key) not in wanted):
                rows.append((cache, gone))
            if paths := checkpoints(cache.folder, CHECKPOINT_SECONDS):
                old.append((cache, tuple(paths)))
    return Pruning(tuple(doomed), tuple(rows), tuple(old))


def prune(pruning: Pruning) -> None:
    """Carry it out; waits for runs that write to these caches. Raises ``OSError``."""
    for cache in pruning.caches:
        cache.remove()
    for cache, keys in pruning.rows:
        again_if_lost(functools.partial(_discard, cache, keys))
    for cache, paths in pruning.checkpoints:
        with cache.store.exclusive():
            for path in set(paths) & set(checkpoints(cache.folder, CHECKPOINT_SECONDS)):
                path.unlink()  # else a run has gone on with it meanwhile


def _discard(cache: Cache, keys: frozenset[bytes]) -> None:
    with cache.writing(None):
        cache.discard(keys)


def _identity(bottleneck_dir: str | os.PathLike[str], folder: str) -> tuple[str, RowSpec]:
    """The whole fingerprint of a cache folder and what its rows are, from its largest sound shard.

    Else the 12 digits of its name, and bottlenecks.

    Not from ``model.json``, which nothing protects.
    """
    digits = folder.removeprefix(FOLDER_PREFIX)
    store = Cache(bottleneck_dir, digits).store
    sizes = {name: version[0] for name, version in store.files().items() if is_shard(name)}
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        try:
            return shard.describe(name, read_shard(store, name)[0], digits)
        except DamagedShardError:
            continue
    return digits, BOTTLENECK


def _by_fingerprint(caches: list[Cache], fingerprint: str) -> Cache:
    digits = fingerprint.lower().removeprefix(FOLDER_PREFIX)
    found = [c for c in caches if c.fingerprint.startswith(digits[:64]) and len(digits) >= 6]
    if len(found) != 1:
        there = ", ".join(cache.fingerprint[:12] for cache in caches)
        problem = "more than one cache has" if found else "no cache has"
        raise CacheError(
            f"{problem} the fingerprint {shown(fingerprint)}; give 6 hex digits or more of one of "
            f"{there}"
        )
    return found[0]


def _keys_in(folder: ImageFolder, caches: list[Cache]) -> set[bytes]:
    """The keys of all images of ``folder``; opens those that no stat index knows."""
    indexes = [StatIndex.of(cache) for cache in caches]
    keys = set()
    for image in folder.images:
        known = (index.get(folder.absolute(image), image.file.signature) for index in indexes)
        key = next((key for key in known if key is not None), None)
        if key is None:
            if image.file.is_folder:
                raise CacheError(
                    f"{shown(image.path)} {image.file.problem}, so the rows of its images cannot "
                    "be told from those to remove; make it readable or remove it, then prune again"
                )
            if image.file.problem:
                continue
            try:
                key = key_of(image.path)
            except BadImageError as error:
                raise CacheError(
                    f"the image {shown(image.path)} cannot be read ({error}), so its row cannot be "
                    "told from those to remove; make it readable or remove it, then prune again"
                ) from error
        keys.add(key)
    return keys
