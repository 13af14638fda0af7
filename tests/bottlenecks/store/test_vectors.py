"""Vectors that stay on the disk are those of the cache, whatever happens to its files meanwhile."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from bottlenecks.errors import CacheError
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store import shard, vectors
from bottlenecks.store.cache import Cache
from bottlenecks.store.vectors import InMemory, OnDisk, Vectors, blocks

FINGERPRINT = "ab" * 32
SHARDS = (130, 1, 128, 7)  # rows; a chunk of a shard has 128
ROWS = sum(SHARDS)
X = np.random.default_rng(0).random((ROWS, 2048), np.float32)
KEYS = [i.to_bytes(32, "big") for i in range(ROWS)]

DESCRIPTORS = Path("/proc/self/fd")  # links to what this process has open
needs_proc = pytest.mark.skipif(not DESCRIPTORS.exists(), reason="nothing tells what is open")

Make = Callable[[Cache, Iterable[bytes]], Vectors]


@pytest.fixture(scope="module")
def dealt() -> list[tuple[str, bytes]]:
    """`SHARDS` of `KEYS` and `X`, dealt out to them by chance."""
    parts = np.split(np.random.default_rng(1).permutation(ROWS), np.cumsum(SHARDS)[:-1])
    return [pack([KEYS[i] for i in rows], X[rows]) for rows in parts]


@pytest.fixture
def cache(tmp_path: Path, dealt: list[tuple[str, bytes]]) -> Cache:
    """`KEYS` with the vectors `X`, in several shards."""
    return put_shards(Cache(tmp_path, FINGERPRINT), dealt)


@pytest.fixture(params=["in memory", "on disk"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "on disk":
        return OnDisk
    return lambda cache, keys: InMemory(cache.read(keys))


def shards(cache: Cache) -> list[Path]:
    return sorted(cache.folder.glob("*.h5"))


def pack(keys: list[bytes], x: np.ndarray) -> tuple[str, bytes]:
    rows = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 32)
    return shard.pack(FINGERPRINT, BOTTLENECK, rows, x)


def put_shards(cache: Cache, packed: list[tuple[str, bytes]]) -> Cache:
    """Leave exactly these shards in ``cache``, and load it."""
    cache.folder.mkdir(exist_ok=True)
    for path in shards(cache):
        path.unlink()
    for name, image in packed:
        (cache.folder / name).write_bytes(image)
    cache.load()
    return cache


def put_rows(cache: Cache, x: np.ndarray) -> Path:
    """Leave one shard in ``cache``, of the first of `KEYS` with the vectors ``x``."""
    name, image = pack(KEYS[: len(x)], x)
    return put_shards(cache, [(name, image)]).folder / name


def open_files(cache: Cache) -> list[Path]:
    """The shards that this process has open, each as often as it has it open."""
    found = []
    for descriptor in DESCRIPTORS.iterdir():
        with suppress(FileNotFoundError):  # that of the folder itself
            found.append(descriptor.readlink())
    return sorted(path for path in found if path.parent == cache.folder)


def everything(vectors: Vectors) -> np.ndarray:
    return vectors.take(np.arange(len(vectors)))


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vectors")]


SOME = np.random.default_rng(2).permutation(ROWS)[:200]  # keys in another order, not all of them
CHANCE = np.random.default_rng(3).integers(0, len(SOME), 500)  # with many repeats


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(len(SOME)),
        np.arange(len(SOME))[::-1],
        CHANCE,
        np.array([7]),
        np.array([5, 5, 5]),
        np.array([], np.int64),
    ],
    ids=["all", "backwards", "by chance", "one", "one thrice", "none"],
)
def test_any_rows_are_those_that_the_cache_reads(
    make: Make, cache: Cache, rows: np.ndarray
) -> None:
    keys = [KEYS[i] for i in SOME]
    found = make(cache, keys)
    taken = found.take(rows)
    assert len(found) == len(SOME)
    assert taken.shape == (len(rows), 2048)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, cache.read(keys[i] for i in rows))
    np.testing.assert_array_equal(taken, X[SOME[rows]])


def test_a_key_may_be_there_twice(make: Make, cache: Cache) -> None:
    found = make(cache, [KEYS[3], KEYS[200], KEYS[3]])
    np.testing.assert_array_equal(everything(found), X[[3, 200, 3]])


@pytest.mark.parametrize("count", [1, 127, 128, 129, 256, 257])
def test_the_last_chunk_need_not_be_full(make: Make, cache: Cache, count: int) -> None:
    put_rows(cache, X[:count])
    np.testing.assert_array_equal(everything(make(cache, KEYS[:count])), X[:count])


def test_no_keys(make: Make, cache: Cache) -> None:
    found = make(cache, [])
    assert len(found) == 0
    assert everything(found).shape == (0, 2048)
    assert list(blocks(found)) == []


def test_an_unknown_key(make: Make, cache: Cache) -> None:
    with pytest.raises(KeyError):
        make(cache, [KEYS[0], bytes([9]) * 32])


def test_a_selection_counts_anew_and_can_be_selected_from(make: Make, cache: Cache) -> None:
    found = make(cache, KEYS)
    selected = found.select(SOME)
    assert len(selected) == len(SOME)
    np.testing.assert_array_equal(selected.take(CHANCE), X[SOME[CHANCE]])
    again = selected.select(CHANCE)
    np.testing.assert_array_equal(everything(again), X[SOME[CHANCE]])
    assert len(selected.select(np.array([], np.int64))) == 0
    np.testing.assert_array_equal(found.take(np.array([1])), X[[1]])  # it is as it was


def test_a_selection_from_disk_reads_nothing_and_outlives_its_source(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = OnDisk(cache, KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "read_into", lambda *_: pytest.fail("read a row"))
        selected = found.select(SOME)
    del found
    np.testing.assert_array_equal(everything(selected), X[SOME])


@needs_proc
def test_files_are_closed_when_nobody_reads_from_them_any_more(cache: Cache) -> None:
    found = OnDisk(cache, KEYS)
    assert open_files(cache) == shards(cache)
    selected = found.select(SOME).select(np.arange(5))
    del found
    assert open_files(cache) == shards(cache)  # the selection still needs them
    np.testing.assert_array_equal(everything(selected), X[SOME[:5]])
    del selected
    assert open_files(cache) == []


@needs_proc
def test_a_stream_that_is_not_at_its_end_keeps_the_files_open(cache: Cache) -> None:
    found = OnDisk(cache, KEYS)
    stream = found.stream(np.split(CHANCE, 50))
    next(stream)
    del found
    assert open_files(cache) == shards(cache)
    np.testing.assert_array_equal(np.concatenate([x for _, x in stream]), X[CHANCE[10:]])
    del stream
    assert open_files(cache) == []


@pytest.mark.parametrize("size", [1, 3, 40])
def test_a_stream_gives_each_batch_with_its_vectors_in_order(
    make: Make, cache: Cache, size: int
) -> None:
    batches = np.array_split(CHANCE, len(CHANCE) // size)
    seen = list(make(cache, KEYS).stream(iter(batches)))
    assert len(seen) == len(batches) > 2
    for batch, (rows, x) in zip(batches, seen, strict=True):
        np.testing.assert_array_equal(rows, batch)
        np.testing.assert_array_equal(x, X[batch])
    assert reading_threads() == []


@pytest.mark.parametrize("size", [1, 100, ROWS, ROWS + 1])
def test_blocks_are_all_rows_in_order(
    make: Make, cache: Cache, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(vectors, "BLOCK_BYTES", size * BOTTLENECK.nbytes)
    found = make(cache, KEYS)
    seen = list(blocks(found))
    assert [len(x) for x in seen[:-1]] == [size] * (len(seen) - 1)
    assert 1 <= len(seen[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(seen), X)


def test_a_stream_takes_no_more_batches_ahead_than_it_may(cache: Cache) -> None:
    taken = itertools.count()
    stream = OnDisk(cache, KEYS).stream(np.array([next(taken) % ROWS]) for _ in itertools.repeat(0))
    for i in range(5):
        rows, x = next(stream)
        np.testing.assert_array_equal(x, X[rows])
        assert rows.tolist() == [i]
    assert next(taken) <= 5 + vectors.AHEAD
    stream.close()


@pytest.mark.parametrize("stop", ["close", "forget"])
def test_a_stream_that_is_stopped_early_leaves_no_thread(cache: Cache, stop: str) -> None:
    endless = (np.arange(10) for _ in itertools.repeat(0))
    stream = OnDisk(cache, KEYS).stream(endless)
    assert reading_threads() == []  # it has not begun
    next(stream)
    assert len(reading_threads()) == vectors.READERS
    if stop == "close":
        stream.close()
    else:
        del stream
    assert reading_threads() == []


def test_rows_are_read_in_the_order_in_which_they_lie_on_the_disk(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[tuple[int, int]] = []
    read_into = vectors.read_into

    def seen(file: BinaryIO, offset: int, row: np.ndarray) -> None:
        places.append((file.fileno(), offset))
        read_into(file, offset, row)

    monkeypatch.setattr(vectors, "read_into", seen)
    OnDisk(cache, KEYS).take(SOME)
    assert len(places) == len(SOME)
    files = [number for number, _ in itertools.groupby(places, lambda place: place[0])]
    assert len(files) == len(set(files)) > 2  # one file after the other
    for number in files:
        offsets = [offset for file, offset in places if file == number]
        assert offsets == sorted(offsets)


# What happens to the files meanwhile.


def test_the_shards_may_be_merged_meanwhile(cache: Cache) -> None:
    found = OnDisk(cache, KEYS)
    before = shards(cache)
    other = Cache(cache.folder.parent, FINGERPRINT)
    with other.writing({}):
        other.merge()
    assert len(shards(cache)) == 1
    assert shards(cache)[0] not in before
    np.testing.assert_array_equal(everything(found), X)
    np.testing.assert_array_equal(everything(OnDisk(cache, KEYS)), X)  # of the merged one


def test_the_cache_may_be_removed_meanwhile(cache: Cache) -> None:
    found = OnDisk(cache, KEYS)
    Cache(cache.folder.parent, FINGERPRINT).remove()
    assert not cache.folder.exists()
    np.testing.assert_array_equal(everything(found), X)
    with pytest.raises(CacheError, match="same command"):
        OnDisk(cache, KEYS)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replace_by_a_huge_one(path: Path) -> None:
    os.truncate(path, 2**40)  # sparse


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, replace_by_a_huge_one])
def test_a_shard_that_is_damaged_after_loading_is_set_aside(
    cache: Cache, damage: Callable[[Path], None]
) -> None:
    damaged = shards(cache)[1]
    damage(damaged)
    with pytest.raises(CacheError, match="same command") as caught:
        OnDisk(cache, KEYS)
    assert str(damaged) in str(caught.value)
    assert not damaged.exists()
    assert damaged.with_name(f"{damaged.name}.damaged").exists()
    assert len(shards(cache)) == len(SHARDS) - 1
    cache.load()
    kept = [i for i, key in enumerate(KEYS) if key in cache]
    assert 0 < len(kept) < ROWS
    np.testing.assert_array_equal(everything(OnDisk(cache, [KEYS[i] for i in kept])), X[kept])


@pytest.fixture(params=[True, False], ids=["preadv", "seek"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads as on POSIX, or as on Windows, which has no ``os.preadv``."""
    if not request.param:
        monkeypatch.delattr(os, "preadv", raising=False)
    elif not hasattr(os, "preadv"):
        pytest.skip("there is no os.preadv")


@pytest.mark.usefixtures("reading")
def test_both_ways_of_reading_give_the_same_rows(cache: Cache) -> None:
    batches = np.array_split(CHANCE, 50)
    for rows, x in OnDisk(cache, KEYS).stream(batches):
        np.testing.assert_array_equal(x, X[rows])


class SlowToSeek:
    """A file that lets another thread in between seeking and reading."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def seek(self, offset: int) -> None:
        self._file.seek(offset)
        time.sleep(0.001)

    def readinto(self, row: np.ndarray) -> int:
        count: int = self._file.readinto(row)
        return count

    def close(self) -> None:
        self._file.close()


def test_without_preadv_one_thread_at_a_time_seeks_and_reads(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    open_rows = cache.open_rows

    def slow_to_seek(keys: Iterable[bytes]) -> tuple[list[SlowToSeek], np.ndarray, np.ndarray]:
        files, file_of, offset = open_rows(keys)
        return [SlowToSeek(file) for file in files], file_of, offset

    monkeypatch.setattr(cache, "open_rows", slow_to_seek)
    found = OnDisk(cache, KEYS)
    for rows, x in found.stream(CHANCE[:60].reshape(20, 3)):
        np.testing.assert_array_equal(x, X[rows])


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("left", [0, 1, 2048 * 4 - 1])
def test_a_file_that_is_cut_off_while_it_is_open(cache: Cache, left: int) -> None:
    """``left`` bytes of row 2 are still there."""
    path = put_rows(cache, X[:5])
    found = OnDisk(cache, KEYS[:5])
    row = path.read_bytes().index(X[2].tobytes())
    os.truncate(path, row + left)
    np.testing.assert_array_equal(found.take(np.array([1, 0])), X[[1, 0]])
    with pytest.raises(CacheError, match="cut off"):
        found.take(np.array([2]))
    with pytest.raises(CacheError, match="cut off"):
        list(found.stream([np.array([1]), np.array([4, 0])]))
    assert reading_threads() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_not_served(cache: Cache, value: float) -> None:
    """``load`` does not read vectors, so a crafted shard with its own name gets as far as this."""
    x = X[:5].copy()
    x[3, 2047] = value
    put_rows(cache, x)
    found = OnDisk(cache, KEYS[:5])
    np.testing.assert_array_equal(found.take(np.array([4, 2])), x[[4, 2]])
    with pytest.raises(CacheError, match="finite"):
        found.take(np.array([4, 3]))
    with pytest.raises(CacheError, match="finite"):
        list(blocks(found))
    assert reading_threads() == []


# The limit of open files.

resource = pytest.importorskip("resource")


@pytest.fixture
def low_limit() -> Iterator[int]:
    """A limit of open files that is below what this process may have; yields the latter."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, most))
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def test_as_many_files_as_may_be_are_allowed(cache: Cache, low_limit: int) -> None:
    OnDisk(cache, KEYS)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low_limit, low_limit)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_limit_that_cannot_be_raised_is_no_error(
    cache: Cache, low_limit: int, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise error("not allowed")

    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        np.testing.assert_array_equal(everything(OnDisk(cache, KEYS)), X)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, low_limit)
