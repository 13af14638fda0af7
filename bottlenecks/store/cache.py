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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from bottlenecks.errors import LostRowsError
from bottlenecks.row_spec import BOTTLENECK, RowSpec, image_of
from bottlenecks.store import layout
from bottlenecks.store.folder import read_json, write_json
from bottlenecks.store.layout import FOLDER_PREFIX, MODEL_FILE
from bottlenecks.store.remote import store_for
from bottlenecks.store.shelf import OtherKeysError, Shelf

# A shard of this size or more is never rewritten; smaller ones are merged.
LARGE_SHARD_BYTES = 64 * 2**20
_ATTEMPTS = 3  # at rows that are lost while they are in use
log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Committed:
    """A shard on the disk: its ``name``, ``size`` in bytes, and ``keys`` (n, 32 or 64) uint8."""

    name: str
    size: int
    keys: np.ndarray


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

    `load` reads what is there. Rows may be added while somebody is within `writing`: its lock is
    for what is rewritten or removed, and a new shard is neither. So several processes, on several
    machines, may `append` at once to the cache that one of them holds.
    """

    def __init__(
        self,
        bottleneck_dir: str | os.PathLike[str],
        fingerprint: str,
        spec: RowSpec = BOTTLENECK,
    ) -> None:
        self.bottleneck_dir = os.fspath(bottleneck_dir)
        self.fingerprint, self.spec = fingerprint, spec
        self.store = store_for(bottleneck_dir, f"{FOLDER_PREFIX}{fingerprint[:12]}")
        self.damaged: dict[str, str] = {}  # shards that `load` found damaged, and how
        self.foreign: dict[str, str] = {}  # those that are sound, but of other rows
        self._shelf = Shelf(self.store, fingerprint, spec)

    @property
    def folder(self) -> Path:
        """Where it has files on this machine."""
        return self.store.folder

    def path_of(self, name: str) -> str:
        """One of its files, for people."""
        return layout.path_in(self.store.place, name)

    def __len__(self) -> int:
        return len(self._shelf.places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._shelf.places

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._shelf.places)

    def count_images(self) -> int:
        """How many images the rows are of."""
        return len(set(map(image_of, self._shelf.places)))

    def load(self) -> None:
        """Find the rows on disk. A shard that cannot be used is warned of once, and not served.

        The bytes of a shard are checked here where no catalogue says that this was done and that
        it was not touched since, and in any case when its rows are read.
        """
        damaged, foreign = self._shelf.find()
        for problems, known, said in (
            (damaged, self.damaged, "is damaged: %s; its images will be computed again"),
            (foreign, self.foreign, "is sound, but %s; it is left alone and not used"),
        ):
            for name, problem in problems.items():
                if name not in known:
                    known[name] = problem
                    log.warning("the cache file %s " + said, self.path_of(name), problem)

    def check(self, *, every_row: bool = False) -> dict[str, str]:
        """Find the rows on disk and return what is wrong with which file.

        With ``every_row`` all bytes of all shards are read and each vector is looked at, and the
        catalogues are compared with them; else as `load` does.
        """
        damaged, foreign = self._shelf.find(every_row)
        return damaged | foreign | (self._shelf.lies() if every_row else {})

    @contextlib.contextmanager
    def writing(self, description: Mapping[str, Any] | None) -> Iterator[None]:
        """Hold the cache's lock, with the folder made, cleaned up, and loaded again.

        ``description`` goes to ``model.json``, unless it is None. Waits while another process
        writes. Catalogues that are missing at the end are written.
        """
        self.store.make()
        with self.store.exclusive():
            self.store.remove_partials()
            if description is not None:
                self._write_model(description)
            self.load()
            for name in self.damaged:
                self._shelf.set_aside(name)
            yield
            self._shelf.write_catalogues()

    @property
    def is_untidy(self) -> bool:
        """Whether there are partial files of a killed run, shards to merge, or keys to list."""
        to_merge = any(len(names) > 1 for names in self._small_shards())
        return to_merge or not self._shelf.is_listed or self.store.has_partials()

    @contextlib.contextmanager
    def tidying(self) -> Iterator[bool]:
        """Finish what a killed run left to do. Yields False, and does nothing, while one writes."""
        with self.store.exclusive(wait=False) as held:
            if held:
                self.store.remove_partials()
                self.load()
                self.merge()
                self._shelf.write_catalogues()
            yield held

    def append(self, keys: list[bytes], vectors: np.ndarray) -> list[Committed]:
        """Commit rows: ``keys`` are of images or of variants, ``vectors`` (n, ...) of `spec`.

        When this returns they are on the disk, in the shards that it returns; when it raises
        ``OSError`` those of the last shard do not count. A shard has keys of one length, and about
        `LARGE_SHARD_BYTES` at most. It needs no lock of its own, only that the one who has it does
        not let it go: the next who takes it removes partial files, and so an ``OSError`` is all
        that comes of it. Raises ``ValueError`` for what `load` would refuse.
        """
        if len(keys) != len(vectors):
            raise ValueError(f"{len(keys)} keys are not those of {len(vectors)} rows")
        committed = []
        lengths = np.array([len(key) for key in keys], np.int64)
        for length in np.unique(lengths):
            own = np.flatnonzero(lengths == length)
            step = max(1, LARGE_SHARD_BYTES // (self.spec.nbytes + int(length)))
            for start in range(0, len(own), step):
                part = own[start : start + step]
                joined = b"".join(keys[i] for i in part)
                of_keys = np.frombuffer(joined, np.uint8).reshape(len(part), length)
                whole = len(part) == len(keys)  # then the rows need not be copied
                rows = vectors if whole else vectors[part]
                name = self._shelf.commit(of_keys, rows)
                committed.append(Committed(name, self._shelf.shards[name].size, of_keys))
        return committed

    def adopt(self, shards: Iterable[Committed]) -> None:
        """Take in what other processes have committed to this cache; nothing is read for it."""
        for one in shards:
            self._shelf.adopt(one.name, one.size, one.keys)

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
                group_bytes += self._shelf.shards[name].size
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
        except (FileNotFoundError, OtherKeysError):
            self.load()  # another run has merged the shards meanwhile, or a catalogue has lied
        try:
            return read()
        except (FileNotFoundError, KeyError) as error:
            raise LostRowsError(
                f"files of the cache {self.store.place} were removed while they were in use"
            ) from error

    def _read_rows(self, keys: list[bytes]) -> np.ndarray:
        result = self.spec.empty(len(keys))
        for name, (to_rows, from_rows) in self._shelf.places.by_shard(keys).items():
            result[to_rows] = self._shelf.rows(name)[1][from_rows]
        return result

    def _open_rows(self, keys: list[bytes]) -> tuple[list[BinaryIO], np.ndarray, np.ndarray]:
        file_of, offset = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
        with contextlib.ExitStack() as stack:
            files: list[BinaryIO] = []
            for name, (to_rows, from_rows) in self._shelf.places.by_shard(keys).items():
                file, offsets = self._shelf.open(name)
                files.append(stack.enter_context(file))
                file_of[to_rows], offset[to_rows] = len(files) - 1, offsets[from_rows]
            stack.pop_all()  # all is well: they stay open
        return files, file_of, offset

    def discard(self, keys: frozenset[bytes]) -> None:
        """Remove rows; within `writing`. Each shard's other rows are on the disk before it goes."""
        for name in list(self._shelf.shards):
            shard_keys, vectors = self._shelf.rows(name)
            kept = np.array([key.tobytes() not in keys for key in shard_keys])
            if kept.all():
                continue
            if kept.any():
                self._shelf.commit(shard_keys[kept], vectors[kept])
            self._shelf.remove(name)
        self._shelf.places.drop(keys)

    def remove(self) -> None:
        """Remove this cache's files, and its folder if nothing else is in it."""
        with self.store.exclusive():
            self._remove_files()

    def remove_if_empty(self) -> None:
        """`remove`, unless there is a shard, sound or damaged, or another run is writing."""
        if not self.store.exists():
            return
        with self.store.exclusive(wait=False) as held:
            if held and not any(map(layout.is_vectors, self.store.names())):
                self._remove_files()

    def _remove_files(self) -> None:
        self.store.remove_partials()
        for name in filter(layout.is_ours, self.store.names()):
            self.store.remove(name)
        self.store.dismiss()

    def _small_shards(self) -> list[list[str]]:
        """The names of those that are to be merged, apart by the length of their keys."""
        names: dict[int, list[str]] = {}
        for name, found in self._shelf.shards.items():
            if found.size < LARGE_SHARD_BYTES:
                names.setdefault(found.keys.shape[1], []).append(name)
        return list(names.values())

    def _merge(self, names: list[str]) -> None:
        parts = [self._shelf.rows(name) for name in names]
        keys = np.concatenate([keys for keys, _ in parts])
        vectors = np.concatenate([vectors for _, vectors in parts])
        del parts  # 64 MiB and more
        _, first = np.unique(keys, axis=0, return_index=True)  # sorted: same rows, same bytes
        vectors = vectors[first]
        merged = self._shelf.commit(keys[first], vectors)
        for name in names:
            if name != merged:
                self._shelf.remove(name)

    def _write_model(self, description: Mapping[str, Any]) -> None:
        """Write ``model.json`` where it is missing, damaged or of another fingerprint.

        It is for people and for `bottlenecks.store.housekeeping`: the shards check themselves.
        """
        if read_json(self.store, MODEL_FILE).get("fingerprint") != self.fingerprint:
            content = {**description, "fingerprint": self.fingerprint}
            write_json(self.store, MODEL_FILE, content)
