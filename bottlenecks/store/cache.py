"""HDF5 shards on disk: what is there, append, merge, read back.

``<bottleneck_dir>/inception_v3-<12 hex of the fingerprint>/`` holds ``model.json`` and
immutable shards (`bottlenecks.store.shard`). A row's key is the sha256 of an image file's content,
so an edited image is another row, and a renamed or copied one is the same; a variant's key goes on
behind that of its image.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from bottlenecks import atomic
from bottlenecks.errors import (
    CacheError,
    DamagedShardError,
    OtherRowsError,
    OutputError,
    shown,
)
from bottlenecks.row_spec import BOTTLENECK, RowSpec, image_of
from bottlenecks.store import layout, lock, shard
from bottlenecks.store.layout import (
    DAMAGED_SUFFIX,
    FOLDER_PREFIX,
    MODEL_FILE,
    read_json,
    read_shard,
)

# A shard of this size or more is never rewritten; smaller ones are merged.
LARGE_SHARD_BYTES = 64 * 2**20
log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Shard:
    size: int  # in bytes
    key_bytes: int  # of each row: of images, or of variants of them


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
        self._place: dict[bytes, tuple[str, int]] = {}  # key -> (shard, row)

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, key: bytes) -> bool:
        return key in self._place

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._place)

    def count_images(self) -> int:
        """How many images the rows are of."""
        return len(set(map(image_of, self._place)))

    def load(self) -> None:
        """Find the rows on disk. A shard that cannot be used is warned of once, and not served."""
        damaged, foreign = self._find()
        for problems, known, said in (
            (damaged, self.damaged, "is damaged: %s; its images will be computed again"),
            (foreign, self.foreign, "is sound, but %s; it is left alone and not used"),
        ):
            for name, problem in problems.items():
                if name not in known:
                    known[name] = problem
                    log.warning("the cache file %s " + said, shown(self.folder / name), problem)

    def check(self, *, every_row: bool = False) -> dict[str, str]:
        """Find the rows on disk and return what is wrong with which shard.

        With ``every_row`` the vectors are read too, not only each file's hash, structure and keys.
        """
        damaged, foreign = self._find(every_row)
        return damaged | foreign

    def _find(self, every_row: bool = False) -> tuple[dict[str, str], dict[str, str]]:
        """`check`, with the shards that are damaged apart from those of other rows."""
        found = Cache(self.folder.parent, self.fingerprint, self.spec)
        damaged, foreign = {}, {}
        for path in self.shard_paths():
            try:
                image = read_shard(path)
                if every_row:
                    keys, _ = shard.unpack(path.name, image, self.fingerprint, self.spec)
                else:
                    keys = shard.unpack_keys(path.name, image, self.fingerprint, self.spec)
            except FileNotFoundError:
                continue  # merged away by another run; its rows are in a shard of that run
            except DamagedShardError as error:
                damaged[path.name] = str(error)
            except OtherRowsError as error:
                foreign[path.name] = str(error)
            else:
                found._add(path.name, len(image), keys)
        self._shards, self._place = found._shards, found._place
        return damaged, foreign

    @contextlib.contextmanager
    def writing(self, description: Mapping[str, Any] | None) -> Iterator[None]:
        """Hold the cache's lock, with the folder made, cleaned up, and loaded again.

        ``description`` goes to ``model.json``, unless it is None. Waits while another process
        writes.
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

    @property
    def is_untidy(self) -> bool:
        """Whether a killed run has left partial files, or shards to merge."""
        to_merge = any(len(names) > 1 for names in self._small_shards())
        return to_merge or bool(atomic.partials(self.folder))

    @contextlib.contextmanager
    def tidying(self) -> Iterator[bool]:
        """Finish what a killed run left to do. Yields False, and does nothing, while one writes."""
        with lock.exclusive(self.folder, wait=False) as held:
            if held:
                atomic.remove_partials(self.folder)
                self.load()
                self.merge()
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
        return self._with_reload(lambda: self._read(keys))

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
        except FileNotFoundError:
            self.load()  # another run has merged the shards meanwhile
        try:
            return read()
        except (FileNotFoundError, KeyError) as error:
            raise CacheError(
                f"files of the cache {shown(self.folder)} were removed while they were in use; run "
                "the same command again"
            ) from error

    def _read(self, keys: list[bytes]) -> np.ndarray:
        result = self.spec.empty(len(keys))
        for name, (to_rows, from_rows) in self._by_shard(keys).items():
            result[to_rows] = self._rows(name)[1][from_rows]
        return result

    def _open_rows(self, keys: list[bytes]) -> tuple[list[BinaryIO], np.ndarray, np.ndarray]:
        file_of, offset = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
        with contextlib.ExitStack() as stack:
            files: list[BinaryIO] = []
            for name, (to_rows, from_rows) in self._by_shard(keys).items():
                file = stack.enter_context(layout.open_own(self.folder / name))
                with self._one_error(name):
                    offsets = shard.row_offsets(
                        name, layout.read_whole(file), self.fingerprint, self.spec
                    )
                file_of[to_rows], offset[to_rows] = len(files), offsets[from_rows]
                files.append(file)
            stack.pop_all()  # all is well: they stay open
        return files, file_of, offset

    def _by_shard(self, keys: list[bytes]) -> dict[str, tuple[list[int], list[int]]]:
        """Shard -> where in ``keys`` its own are, and the rows that these have in it."""
        wanted: dict[str, tuple[list[int], list[int]]] = {}
        for i, (name, row) in enumerate(self._place[key] for key in keys):
            to_rows, from_rows = wanted.setdefault(name, ([], []))
            to_rows.append(i)
            from_rows.append(row)
        return wanted

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
        self._place = {key: place for key, place in self._place.items() if key not in keys}

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
                names.setdefault(found.key_bytes, []).append(name)
        return list(names.values())

    def shard_paths(self) -> list[Path]:
        """The files that are named as shards are; links to some are none."""
        layout.refuse_link(self.folder)
        try:
            with os.scandir(self.folder) as entries:
                return sorted(
                    Path(entry.path)
                    for entry in entries
                    if layout.is_shard(entry.name) and entry.is_file(follow_symlinks=False)
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

    def _add(self, name: str, size: int, keys: np.ndarray) -> None:
        self._shards[name] = _Shard(size, keys.shape[1])
        for row, key in enumerate(keys):
            self._place[key.tobytes()] = (name, row)

    def _commit(self, keys: np.ndarray, vectors: np.ndarray) -> str:
        name, image = shard.pack(self.fingerprint, self.spec, keys, vectors)
        atomic.write_bytes(self.folder / name, image, follow=False)
        self._add(name, len(image), keys)
        return name

    def _rows(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        with self._one_error(name):
            return shard.unpack(name, read_shard(self.folder / name), self.fingerprint, self.spec)

    @contextlib.contextmanager
    def _one_error(self, name: str) -> Iterator[None]:
        """Set a shard that turns out to be damaged aside, and raise `CacheError`."""
        try:
            yield
        except DamagedShardError as error:
            self._set_aside(name)
            raise CacheError(
                f"the cache file {shown(self.folder / name)} is damaged: {error}; it was set aside "
                f"as *{DAMAGED_SUFFIX}: run the same command again to compute its images anew"
            ) from error

    def _set_aside(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.folder / name, self.folder / (name + DAMAGED_SUFFIX))

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
