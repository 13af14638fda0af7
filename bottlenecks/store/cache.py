"""HDF5 shards on disk: what is there, append, merge, read back.

``<bottleneck_dir>/inception_v3-<12 hex of the fingerprint>/`` holds ``model.json`` and
immutable shards (`bottlenecks.store.shard`), each with a catalogue beside it, so that `load` reads
none (`bottlenecks.store.catalogue`). A row's key is the sha256 of an image file's content, so an
edited image is another row, and a renamed or copied one is the same; a variant's key goes on behind
that of its image.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from bottlenecks import atomic
from bottlenecks.errors import (
    CacheError,
    DamagedShardError,
    LostRowsError,
    OtherRowsError,
    OutputError,
    shown,
)
from bottlenecks.photos.images import Signature, is_settled, signature_of
from bottlenecks.row_spec import BOTTLENECK, RowSpec, image_of
from bottlenecks.store import catalogue, layout, lock, shard
from bottlenecks.store.layout import (
    DAMAGED_SUFFIX,
    FOLDER_PREFIX,
    MODEL_FILE,
    catalogue_of,
    read_json,
    read_shard,
)
from bottlenecks.store.places import Places

# A shard of this size or more is never rewritten; smaller ones are merged.
LARGE_SHARD_BYTES = 64 * 2**20
_ATTEMPTS = 3  # at rows that are lost while they are in use
log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Shard:
    """Its ``keys`` (n, 32 or 64) uint8 and ``size`` in bytes.

    ``seen`` is how it looked when its bytes were checked, None where a change since then might not
    show; ``is_listed`` whether its catalogue says all this.
    """

    keys: np.ndarray
    size: int
    seen: Signature | None = None
    is_listed: bool = False


def again_if_lost(make: Callable[[], T]) -> T:
    """``make()``, which loads a cache and reads rows; once more where rows turn out to be lost.

    A shard whose bytes are first read then may be damaged: it was set aside, so that the next time
    its rows are known to be missing. Raises `LostRowsError` where that does not end.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return make()
        except LostRowsError as error:
            log.warning("%s; its images will be computed again", error.problem)
    return make()


class Cache:
    """The rows of one fingerprint. Making one reads and writes nothing.

    `load` reads what is there; only within `writing` may rows be added.
    """

    def __init__(
        self,
        bottleneck_dir: str | os.PathLike[str],
        fingerprint: str,
        spec: RowSpec = BOTTLENECK,
    ) -> None:
        self.fingerprint, self.spec = fingerprint, spec
        self.folder = Path(bottleneck_dir) / f"{FOLDER_PREFIX}{fingerprint[:12]}"
        self.damaged: dict[str, str] = {}  # shards that `load` found damaged, and how
        self.foreign: dict[str, str] = {}  # those that are sound, but of other rows
        self._shards: dict[str, _Shard] = {}  # by name
        self._places = Places()
        self._believes = True  # what catalogues say

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._places)

    def count_images(self) -> int:
        """How many images the rows are of."""
        return len(set(map(image_of, self._places)))

    def load(self) -> None:
        """Find the rows on disk. A shard that cannot be used is warned of once, and not served.

        The bytes of a shard are checked here where no catalogue says that this was done and that
        it was not touched since, and in any case when its rows are read.
        """
        damaged, foreign = self._find(self._believes)
        for problems, known, said in (
            (damaged, self.damaged, "is damaged: %s; its images will be computed again"),
            (foreign, self.foreign, "is sound, but %s; it is left alone and not used"),
        ):
            for name, problem in problems.items():
                if name not in known:
                    known[name] = problem
                    log.warning("the cache file %s " + said, shown(self.folder / name), problem)

    def check(self, *, every_row: bool = False) -> dict[str, str]:
        """Find the rows on disk and return what is wrong with which file.

        With ``every_row`` all bytes of all shards are read and each vector is looked at, and the
        catalogues are compared with them; else as `load` does.
        """
        damaged, foreign = self._find(self._believes and not every_row, every_row)
        lies = self._lying_catalogues() if every_row else {}
        return damaged | foreign | lies

    def _find(
        self, believes: bool, every_row: bool = False
    ) -> tuple[dict[str, str], dict[str, str]]:
        """`check`, with the shards that are damaged apart from those of other rows."""
        shards, places = {}, Places()
        damaged, foreign = {}, {}
        for path in self.shard_paths():
            try:
                found = (self._listed(path) if believes else None) or self._read(path, every_row)
            except FileNotFoundError:
                continue  # merged away by another run; its rows are in a shard of that run
            except DamagedShardError as error:
                damaged[path.name] = str(error)
            except OtherRowsError as error:
                foreign[path.name] = str(error)
            else:
                shards[path.name] = found
                places.add(path.name, found.keys)
        self._shards, self._places = shards, places
        return damaged, foreign

    def _listed(self, path: Path) -> _Shard | None:
        """A shard as this process or its catalogue knows it; None unless it looks as it did."""
        signature = signature_of(os.lstat(path))
        known = self._shards.get(path.name)
        if known is not None and known.seen == signature:
            return known
        keys = catalogue.read(catalogue_of(path), self.fingerprint, self.spec, signature)
        return None if keys is None else _Shard(keys, signature[0], signature, is_listed=True)

    def _read(self, path: Path, every_row: bool) -> _Shard:
        """A shard as its bytes are."""
        read_ns = time.time_ns()
        image, signature = read_shard(path)
        if every_row:
            keys, _ = shard.unpack(path.name, image, self.fingerprint, self.spec)
        else:
            keys = shard.unpack_keys(path.name, image, self.fingerprint, self.spec)
        return _Shard(keys, len(image), signature if is_settled(signature, read_ns) else None)

    def _lying_catalogues(self) -> dict[str, str]:
        """The catalogues that would be believed and say other keys than their shards have."""
        lies = {}
        for name, found in self._shards.items():
            path = catalogue_of(self.folder / name)
            with contextlib.suppress(FileNotFoundError):
                signature = signature_of(os.lstat(self.folder / name))
                keys = catalogue.read(path, self.fingerprint, self.spec, signature)
                if keys is not None and not np.array_equal(keys, found.keys):
                    lies[path.name] = "says other keys than its shard has; remove it"
        return lies

    @contextlib.contextmanager
    def writing(self, description: Mapping[str, Any] | None) -> Iterator[None]:
        """Hold the cache's lock, with the folder made, cleaned up, and loaded again.

        ``description`` goes to ``model.json``, unless it is None. Waits while another process
        writes. Catalogues that are missing at the end are written.
        """
        layout.refuse_link(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"cannot make the cache folder {shown(self.folder)}: a file is in the way; "
                "choose another --bottleneck_dir"
            ) from error
        with lock.exclusive(self.folder):
            atomic.remove_partials(self.folder)
            if description is not None:
                self._write_model(description)
            self.load()
            for name in self.damaged:
                self._set_aside(name)
            yield
            self._write_catalogues()

    @property
    def is_untidy(self) -> bool:
        """Whether there are partial files of a killed run, shards to merge, or keys to list."""
        to_merge = any(len(names) > 1 for names in self._small_shards())
        to_list = bool(self._unlisted() or self._orphans())
        return to_merge or to_list or bool(atomic.partials(self.folder))

    @contextlib.contextmanager
    def tidying(self) -> Iterator[bool]:
        """Finish what a killed run left to do. Yields False, and does nothing, while one writes."""
        with lock.exclusive(self.folder, wait=False) as held:
            if held:
                atomic.remove_partials(self.folder)
                self.load()
                self.merge()
                self._write_catalogues()
            yield held

    def append(self, keys: list[bytes], vectors: np.ndarray) -> None:
        """Commit rows: ``keys`` are of images or of variants, ``vectors`` (n, ...) of `spec`.

        When this returns they are on the disk; when it raises ``OSError`` those of the last shard
        do not count. A shard has keys of one length, and about `LARGE_SHARD_BYTES` at most. Raises
        ``ValueError`` for what `load` would refuse.
        """
        if len(keys) != len(vectors):
            raise ValueError(f"{len(keys)} keys are not those of {len(vectors)} rows")
        lengths = np.array([len(key) for key in keys], np.int64)
        for length in np.unique(lengths):
            own = np.flatnonzero(lengths == length)
            step = max(1, LARGE_SHARD_BYTES // (self.spec.nbytes + int(length)))
            for start in range(0, len(own), step):
                part = own[start : start + step]
                joined = b"".join(keys[i] for i in part)
                of_keys = np.frombuffer(joined, np.uint8).reshape(len(part), length)
                whole = len(part) == len(keys)  # then the rows need not be copied
                self._commit(of_keys, vectors if whole else vectors[part])

    def merge(self) -> None:
        """Put the small shards together, so that an ordinary data set is one HDF5 file.

        The merged shard is on the disk before the first small one goes; a kill in between
        leaves rows twice, which is harmless.
        """
        for names in self._small_shards():
            group: list[str] = []
            group_bytes = 0
            for name in names:
                group.append(name)
                group_bytes += self._shards[name].size
                if group_bytes >= LARGE_SHARD_BYTES:
                    self._merge(group)
                    group, group_bytes = [], 0
            if len(group) > 1:
                self._merge(group)

    def read(self, keys: Iterable[bytes]) -> np.ndarray:
        """The rows of ``keys`` in their order, (n, ...) of `spec`.

        Raises ``KeyError`` for a key that is not there, `CacheError` for a shard that was
        damaged since `load`; it is then set aside, so that the next run computes its images.
        """
        keys = list(keys)
        return self._with_reload(lambda: self._read_rows(keys))

    def open_rows(self, keys: Iterable[bytes]) -> tuple[list[BinaryIO], np.ndarray, np.ndarray]:
        """Open the shards of ``keys``, for reading their vectors one by one.

        Returns the files, and for each key the number of its file (n,) int32 and where in it its
        row begins (n,) int64, in bytes. Each shard was checked after it was opened.
        Raises as `read` does.
        """
        keys = list(keys)
        return self._with_reload(lambda: self._open_rows(keys))

    def _with_reload(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (FileNotFoundError, _OtherKeysError):
            self.load()  # another run has merged the shards meanwhile, or a catalogue has lied
        try:
            return read()
        except (FileNotFoundError, KeyError) as error:
            raise LostRowsError(
                f"files of the cache {shown(self.folder)} were removed while they were in use"
            ) from error

    def _read_rows(self, keys: list[bytes]) -> np.ndarray:
        result = self.spec.empty(len(keys))
        for name, (to_rows, from_rows) in self._places.by_shard(keys).items():
            result[to_rows] = self._rows(name)[1][from_rows]
        return result

    def _open_rows(self, keys: list[bytes]) -> tuple[list[BinaryIO], np.ndarray, np.ndarray]:
        file_of, offset = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
        with contextlib.ExitStack() as stack:
            files: list[BinaryIO] = []
            for name, (to_rows, from_rows) in self._places.by_shard(keys).items():
                file = stack.enter_context(layout.open_own(self.folder / name))
                with self._one_error(name):
                    own, offsets = shard.unpack_offsets(
                        name, layout.read_whole(file), self.fingerprint, self.spec
                    )
                self._check_keys(name, own)
                file_of[to_rows], offset[to_rows] = len(files), offsets[from_rows]
                files.append(file)
            stack.pop_all()  # all is well: they stay open
        return files, file_of, offset

    def discard(self, keys: frozenset[bytes]) -> None:
        """Remove rows; within `writing`. Each shard's other rows are on the disk before it goes."""
        for name in list(self._shards):
            shard_keys, vectors = self._rows(name)
            kept = np.array([key.tobytes() not in keys for key in shard_keys])
            if kept.all():
                continue
            if kept.any():
                self._commit(shard_keys[kept], vectors[kept])
            self._remove_shard(name)
        self._places.drop(keys)

    def remove(self) -> None:
        """Remove this cache's files, and its folder if nothing else is in it."""
        layout.refuse_link(self.folder)
        with lock.exclusive(self.folder):
            self._remove_files()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def remove_if_empty(self) -> None:
        """`remove`, unless there is a shard, sound or damaged, or another run is writing."""
        if not self.folder.exists() or self.folder.is_symlink():
            return
        with lock.exclusive(self.folder, wait=False) as held:
            if not held or any(layout.is_vectors(p.name) for p in self.folder.iterdir()):
                return
            self._remove_files()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _remove_files(self) -> None:
        atomic.remove_partials(self.folder)
        for path in list(self.folder.iterdir()):
            if layout.is_ours(path.name) and layout.can_go(path):
                path.unlink()
        (self.folder / lock.NAME).unlink(missing_ok=True)

    def _small_shards(self) -> list[list[str]]:
        """The names of those that are to be merged, apart by the length of their keys."""
        names: dict[int, list[str]] = {}
        for name, found in self._shards.items():
            if found.size < LARGE_SHARD_BYTES:
                names.setdefault(found.keys.shape[1], []).append(name)
        return list(names.values())

    def shard_paths(self) -> list[Path]:
        """The files that are named as shards are; links to some are none."""
        return self._files(layout.is_shard)

    def _files(self, is_one: Callable[[str], bool]) -> list[Path]:
        layout.refuse_link(self.folder)
        try:
            with os.scandir(self.folder) as entries:
                return sorted(
                    Path(entry.path)
                    for entry in entries
                    if is_one(entry.name) and entry.is_file(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise CacheError(
                f"the cache folder {shown(self.folder)} is a file; choose another --bottleneck_dir"
            ) from error

    def _write_model(self, description: Mapping[str, Any]) -> None:
        """Write ``model.json`` where it is missing, damaged or of another fingerprint.

        It is for people and for `bottlenecks.store.housekeeping`: the shards check themselves.
        """
        path = self.folder / MODEL_FILE
        if read_json(path).get("fingerprint") != self.fingerprint:
            layout.write_json(path, {**description, "fingerprint": self.fingerprint})

    def _unlisted(self) -> list[str]:
        """The shards whose bytes were checked, and whose catalogues do not say so."""
        return [
            name
            for name, found in self._shards.items()
            if found.seen is not None
            and not found.is_listed
            and layout.can_go(catalogue_of(self.folder / name))
        ]

    def _orphans(self) -> list[Path]:
        """The catalogues of shards that are not there."""
        return [
            path
            for path in self._files(layout.is_catalogue)
            if not os.path.lexists(path.with_suffix(shard.SUFFIX))
        ]

    def _write_catalogues(self) -> None:
        """Write those that are missing, and remove those of shards that are gone. With the lock."""
        for name in self._unlisted():
            found = self._shards[name]
            assert found.seen is not None
            data = catalogue.pack(self.fingerprint, self.spec, found.seen, found.keys)
            path = catalogue_of(self.folder / name)
            atomic.write_bytes(path, data, follow=False, sync=False)
            self._shards[name] = replace(found, is_listed=True)
        for path in self._orphans():
            path.unlink(missing_ok=True)

    def _commit(self, keys: np.ndarray, vectors: np.ndarray) -> str:
        name, image = shard.pack(self.fingerprint, self.spec, keys, vectors)
        atomic.write_bytes(self.folder / name, image, follow=False)
        self._shards[name] = _Shard(keys, len(image))
        self._places.add(name, keys)
        return name

    def _rows(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        with self._one_error(name):
            image, _ = read_shard(self.folder / name)
            keys, vectors = shard.unpack(name, image, self.fingerprint, self.spec)
        self._check_keys(name, keys)
        return keys, vectors

    def _check_keys(self, name: str, keys: np.ndarray) -> None:
        """Raise `_OtherKeysError` unless they are what the shard's catalogue said."""
        if not np.array_equal(keys, self._shards[name].keys):
            self._disbelieve()
            raise _OtherKeysError(
                f"{shown(catalogue_of(self.folder / name))} says other keys than its shard has"
            )

    def _disbelieve(self) -> None:
        """From now on check the bytes of all shards: where one is bad, others may be."""
        self._believes = False
        with contextlib.suppress(OSError):
            for path in self._files(layout.is_catalogue):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _one_error(self, name: str) -> Iterator[None]:
        """Set a shard that turns out to be damaged aside, and raise `LostRowsError`."""
        try:
            yield
        except DamagedShardError as error:
            self._disbelieve()
            self._set_aside(name)
            raise LostRowsError(
                f"the cache file {shown(self.folder / name)} is damaged: {error}; it was set aside "
                f"as *{DAMAGED_SUFFIX}"
            ) from error

    def _set_aside(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.folder / name, self.folder / (name + DAMAGED_SUFFIX))
            self._remove_catalogue(name)

    def _merge(self, names: list[str]) -> None:
        parts = [self._rows(name) for name in names]
        keys = np.concatenate([keys for keys, _ in parts])
        vectors = np.concatenate([vectors for _, vectors in parts])
        del parts  # 64 MiB and more
        _, first = np.unique(keys, axis=0, return_index=True)  # sorted: same rows, same bytes
        vectors = vectors[first]
        merged = self._commit(keys[first], vectors)
        for name in names:
            if name != merged:
                self._remove_shard(name)

    def _remove_shard(self, name: str) -> None:
        del self._shards[name]
        (self.folder / name).unlink(missing_ok=True)
        self._remove_catalogue(name)

    def _remove_catalogue(self, name: str) -> None:
        path = catalogue_of(self.folder / name)
        if layout.can_go(path):
            path.unlink(missing_ok=True)


class _OtherKeysError(LostRowsError):
    """A catalogue that was believed and has not said what its shard says."""
