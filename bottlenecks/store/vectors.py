"""The rows of some keys of a cache, in memory or on disk: what training reads.

A data set of a million images has 8 GB of vectors. Those stay where they are: rows lie in the
shards as they are, so once a shard has been checked, one row can be read by itself.
"""

import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import BinaryIO, Protocol

import numpy as np

from bottlenecks.errors import CacheError
from bottlenecks.pools import in_order, pool_of
from bottlenecks.row_spec import RowSpec
from bottlenecks.store.cache import Cache

BLOCK_BYTES = 2**25
MAX_IN_MEMORY = 2**30  # bytes; more stay on disk, where training takes longer
READERS = 2  # threads that read batches ahead
AHEAD = 16  # batches
_seeking = threading.Lock()


Stream = Generator[tuple[np.ndarray, np.ndarray], None, None]


class Vectors(Protocol):
    """n rows (n, ...) of ``spec``, of which any may be had in any order."""

    @property
    def spec(self) -> RowSpec: ...

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Those at ``rows`` (k,) int64, (k, ...)."""

    def select(self, rows: np.ndarray) -> "Vectors":
        """Those at ``rows`` (k,) int64 alone; they are not read yet."""

    def stream(self, batches: Iterable[np.ndarray], ahead: int = AHEAD) -> Stream:
        """Each of ``batches`` of rows with what `take` gives for it; ``ahead`` are in memory."""


def blocks(vectors: Vectors) -> Iterator[np.ndarray]:
    """All ``vectors`` in their order, at most `BLOCK_BYTES` at a time, and the next read ahead."""
    rows = np.arange(len(vectors))
    step = vectors.spec.rows_in(BLOCK_BYTES)
    batches = (rows[start : start + step] for start in range(0, len(rows), step))
    return (x for _, x in vectors.stream(batches, ahead=2))


def vectors_of(cache: Cache, keys: Sequence[bytes], most_in_memory: int | None = None) -> "Vectors":
    """The rows of ``keys``: in memory, unless they are more than so many bytes.

    `MAX_IN_MEMORY` unless it is given.
    """
    most = MAX_IN_MEMORY if most_in_memory is None else most_in_memory
    if len(keys) * cache.spec.nbytes > most:
        return OnDisk(cache, keys)
    return InMemory(cache.read(keys), spec=cache.spec)


class InMemory:
    """`Vectors` of an array ``x`` (n, ...), or of some of its ``rows``."""

    def __init__(
        self, x: np.ndarray, rows: np.ndarray | None = None, spec: RowSpec | None = None
    ) -> None:
        self._x = x
        self.spec = spec or RowSpec.of(x)
        self._rows = np.arange(len(x)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = self._x[self._rows[rows]]
        return vectors

    def select(self, rows: np.ndarray) -> Vectors:
        return InMemory(self._x, self._rows[rows], self.spec)

    def stream(self, batches: Iterable[np.ndarray], ahead: int = AHEAD) -> Stream:
        for batch in batches:
            yield batch, self.take(batch)


class OnDisk:
    """`Vectors` of ``keys`` in a cache that is loaded, read from its shards when they are wanted.

    Each shard is checked once, here, and held open, so that no other run can take it away.
    Raises what `Cache.read` raises.
    """

    def __init__(self, cache: Cache, keys: Iterable[bytes]) -> None:
        _allow_many_files()
        self.spec = cache.spec
        files, self._file_of, self._offset = cache.open_rows(keys)
        self._files = _Files(files)

    def __len__(self) -> int:
        return len(self._offset)

    def take(self, rows: np.ndarray) -> np.ndarray:
        result = self.spec.empty(len(rows))
        file_of, offset = self._file_of[rows], self._offset[rows]
        for i in np.lexsort((offset, file_of)):  # in the order in which they lie on the disk
            read_into(self._files[file_of[i]], int(offset[i]), result[i])
        if not np.isfinite(result).all():
            raise CacheError("the cache holds numbers that are not finite; remove it")
        return result

    def select(self, rows: np.ndarray) -> Vectors:
        selected = object.__new__(OnDisk)
        selected._files, selected.spec = self._files, self.spec
        selected._file_of, selected._offset = self._file_of[rows], self._offset[rows]
        return selected

    def stream(self, batches: Iterable[np.ndarray], ahead: int = AHEAD) -> Stream:
        with (
            pool_of(READERS, "vectors") as pool,
            closing(in_order(pool, self.take, batches, ahead)) as results,
        ):
            yield from results


class _Files(list[BinaryIO]):
    """Open files that are closed when nobody has them any more."""

    def __del__(self) -> None:
        for file in self:
            file.close()


def read_into(file: BinaryIO, offset: int, row: np.ndarray) -> None:
    """Fill ``row`` from ``offset``; raises `CacheError` where the file has become shorter."""
    if hasattr(os, "preadv"):
        count = os.preadv(file.fileno(), [row.data], offset)
    else:  # Windows
        with _seeking:
            file.seek(offset)
            count = file.readinto(row)  # type: ignore[attr-defined]
    if count != row.nbytes:
        raise CacheError("a file of the cache was cut off while it was in use; run it again")


def _allow_many_files() -> None:
    """Raise this process's limit of open files as far as it may: a shard is 64 MiB or more."""
    with suppress(ImportError, OSError, ValueError):  # Windows has none
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
