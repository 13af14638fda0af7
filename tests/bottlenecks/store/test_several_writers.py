"""Shards may be added by several processes at once, to a cache that one of them holds."""

import multiprocessing
from pathlib import Path

import numpy as np

from bottlenecks.store.cache import Cache, Committed
from tests.crashing import shard_paths

FINGERPRINT = "ab" * 32
WRITERS, SHARDS, ROWS = 4, 5, 3
_fork = multiprocessing.get_context("fork")


def rows_of(writer: int, number: int) -> tuple[list[bytes], np.ndarray]:
    """Rows of a writer; those of number 0 are the same of all."""
    first = 0 if number == 0 else (writer + 1) * 1000 + number * ROWS
    keys = [(first + i).to_bytes(32, "big") for i in range(ROWS)]
    values = np.arange(first, first + ROWS, dtype=np.float32)
    return keys, np.repeat(values[:, None], 2048, axis=1)


def write(folder: Path, writer: int, told: "multiprocessing.Queue[list[Committed]]") -> None:
    cache = Cache(folder, FINGERPRINT)
    for number in range(SHARDS):
        told.put(cache.append(*rows_of(writer, number)))


def test_they_need_no_lock(tmp_path: Path) -> None:
    cache, told = Cache(tmp_path, FINGERPRINT), _fork.Queue()
    with cache.writing({}):
        writers = [_fork.Process(target=write, args=(tmp_path, i, told)) for i in range(WRITERS)]
        for process in writers:
            process.start()
        for _ in range(WRITERS * SHARDS):
            cache.adopt(told.get(timeout=60))
        for process in writers:
            process.join(60)
            assert process.exitcode == 0
        cache.merge()
    everything = [rows_of(i, number) for i in range(WRITERS) for number in range(SHARDS)]
    assert set(cache) == {key for keys, _ in everything for key in keys}
    as_loaded = Cache(tmp_path, FINGERPRINT)
    as_loaded.load()
    assert not as_loaded.damaged
    assert set(as_loaded) == set(cache)
    assert len(shard_paths(as_loaded)) == 1
    for keys, vectors in everything:
        np.testing.assert_array_equal(as_loaded.read(keys), vectors)


def test_a_writer_that_outlives_the_holder_of_the_lock_harms_nothing(tmp_path: Path) -> None:
    """A worker goes on for a moment when its driver was killed; the next driver begins."""
    straggler = Cache(tmp_path, FINGERPRINT)
    cache = Cache(tmp_path, FINGERPRINT)
    with cache.writing({}):
        pass
    keys, vectors = rows_of(0, 1)
    with cache.writing({}):
        straggler.append(keys, vectors)
        assert keys[0] not in cache
        cache.append(*rows_of(0, 2))
        cache.merge()
    cache.load()
    np.testing.assert_array_equal(cache.read(keys), vectors)
