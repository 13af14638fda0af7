"""Rows that were appended come back as they were, or not at all."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pytest

from bottlenecks.errors import CacheError, OutputError
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store import cache as cache_module
from bottlenecks.store import shard
from bottlenecks.store.cache import Cache
from tests.conftest import ROOT

FINGERPRINT = "ab" * 32
DESCRIPTION = {"architecture": "a stand-in"}


def key(i: int) -> bytes:
    return i.to_bytes(32, "big")


def vectors(*numbers: int) -> np.ndarray:
    """For each number a vector that only it has, (n, 2048) float32."""
    return np.stack([np.arange(2048, dtype=np.float32) + 10_000 * i for i in numbers])


def open_cache(folder: Path) -> Cache:
    """The cache in ``folder`` as another run finds it."""
    cache = Cache(folder, FINGERPRINT)
    cache.load()
    return cache


def append(cache: Cache, *numbers: int) -> None:
    with cache.writing(DESCRIPTION):
        cache.append([key(i) for i in numbers], vectors(*numbers))


def shards(cache: Cache) -> list[Path]:
    return sorted(cache.folder.glob("*.h5"))


def corrupt_one_shard(cache: Cache) -> Path:
    """Flip a bit in the middle of the first shard."""
    path = shards(cache)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Three shards with the rows 0, 1 | 2 | 3, 4."""
    cache = Cache(tmp_path, FINGERPRINT)
    for numbers in ((0, 1), (2,), (3, 4)):
        append(cache, *numbers)
    assert len(shards(cache)) == 3
    return cache


def assert_rows(cache: Cache, *numbers: int) -> None:
    """Exactly these rows, each with its own vector."""
    assert len(cache) == len(numbers)
    np.testing.assert_array_equal(cache.read(map(key, numbers)), vectors(*numbers))


def test_making_and_loading_one_writes_nothing(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "new")
    assert (len(cache), key(0) in cache) == (0, False)
    assert os.listdir(tmp_path) == []


def test_rows_come_back_in_the_order_asked_for(cache: Cache, tmp_path: Path) -> None:
    for found in (cache, open_cache(tmp_path)):
        assert_rows(found, 0, 1, 2, 3, 4)
        got = found.read([key(4), key(0), key(2), key(4), key(1)])
        np.testing.assert_array_equal(got, vectors(4, 0, 2, 4, 1))
        assert got.dtype == np.float32
        assert key(3) in found
        assert key(5) not in found


def test_reading_nothing(cache: Cache) -> None:
    assert cache.read([]).shape == (0, 2048)


def test_an_unknown_key(cache: Cache) -> None:
    with pytest.raises(KeyError):
        cache.read([key(0), key(99)])


def test_the_folder_is_named_by_the_fingerprint(cache: Cache, tmp_path: Path) -> None:
    assert os.listdir(tmp_path) == ["inception_v3-abababababab"]
    model = json.loads((cache.folder / "model.json").read_text())
    assert model == {**DESCRIPTION, "fingerprint": FINGERPRINT}


def test_a_failing_append_adds_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with cache.writing(DESCRIPTION):
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            cache.append([key(5)], vectors(5))
    monkeypatch.undo()
    assert_rows(cache, 0, 1, 2, 3, 4)
    names = {name for name in os.listdir(cache.folder) if not name.endswith(".keys")}
    assert names == {".lock", "model.json", *(path.name for path in shards(cache))}


def test_merging_leaves_one_file_with_the_same_rows(cache: Cache, tmp_path: Path) -> None:
    with cache.writing(DESCRIPTION):
        cache.merge()
    assert len(shards(cache)) == 1
    assert_rows(cache, 0, 1, 2, 3, 4)
    assert_rows(open_cache(tmp_path), 0, 1, 2, 3, 4)


def test_merging_again_changes_nothing(cache: Cache) -> None:
    with cache.writing(DESCRIPTION):
        cache.merge()
    (merged,) = shards(cache)
    before = merged.stat()
    with cache.writing(DESCRIPTION):
        cache.merge()
    assert shards(cache) == [merged]
    assert (merged.stat().st_ino, merged.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_order_of_the_shards_does_not_change_the_merged_bytes(tmp_path: Path) -> None:
    merged = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        cache = Cache(tmp_path / name, FINGERPRINT)
        for i in order:
            append(cache, i)
        with cache.writing(DESCRIPTION):
            cache.merge()
        merged += [path.name for path in shards(cache)]
    assert merged[0] == merged[1]
    assert len(merged) == 2


def test_a_kill_between_the_merged_shard_and_the_old_ones_leaves_no_row_twice(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), cache.writing(DESCRIPTION):
        monkeypatch.setattr(Path, "unlink", killed)
        cache.merge()
    monkeypatch.undo()
    assert len(shards(cache)) == 4
    again = open_cache(tmp_path)
    assert_rows(again, 0, 1, 2, 3, 4)
    with again.writing(DESCRIPTION):
        again.merge()
    assert len(shards(again)) == 1
    assert_rows(open_cache(tmp_path), 0, 1, 2, 3, 4)


def test_large_shards_are_not_rewritten(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    small = max(path.stat().st_size for path in shards(cache))
    many = list(range(100, 110))
    append(cache, *many)
    monkeypatch.setattr(cache_module, "LARGE_SHARD_BYTES", small + 1)
    large = max(shards(cache), key=lambda path: path.stat().st_size)
    before = large.stat()
    with cache.writing(DESCRIPTION):
        cache.merge()
    assert large in shards(cache)
    assert (large.stat().st_ino, large.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert 1 < len(shards(cache)) < 4
    assert_rows(cache, 0, 1, 2, 3, 4, *many)


def test_a_damaged_shard_is_one_warning_and_none_of_its_rows(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = corrupt_one_shard(cache)
    found = open_cache(tmp_path)
    lost = {i for i in range(5) if key(i) not in found}
    assert lost in ({0, 1}, {2}, {3, 4})
    assert_rows(found, *sorted(set(range(5)) - lost))
    assert damaged.exists()  # loading alone changes nothing
    with found.writing(DESCRIPTION):
        assert_rows(found, *sorted(set(range(5)) - lost))
        found.append([key(i) for i in lost], vectors(*lost))
    assert not damaged.exists() or shard.name_of(damaged.read_bytes()) == damaged.name
    assert damaged.with_name(damaged.name + ".damaged").exists()
    assert len(caplog.records) == 1
    assert str(damaged) in caplog.records[0].getMessage()
    assert_rows(open_cache(tmp_path), 0, 1, 2, 3, 4)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)) * 20])
def test_a_foreign_file_among_the_shards_is_set_aside(
    cache: Cache, tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = cache.folder / shard.name_of(data)
    foreign.write_bytes(data)
    found = open_cache(tmp_path)
    assert_rows(found, 0, 1, 2, 3, 4)
    with found.writing(DESCRIPTION):
        pass
    assert not foreign.exists()
    assert [foreign.name in record.getMessage() for record in caplog.records] == [True]


def test_a_shard_of_another_fingerprint_is_not_served(cache: Cache, tmp_path: Path) -> None:
    other = Cache(tmp_path, "cd" * 32)
    append(other, 77)
    for path in shards(other):
        os.replace(path, cache.folder / path.name)
    found = open_cache(tmp_path)
    assert key(77) not in found
    assert_rows(found, 0, 1, 2, 3, 4)


def test_two_fingerprints_never_mix(cache: Cache, tmp_path: Path) -> None:
    other = Cache(tmp_path, "cd" * 32)
    append(other, 0)
    assert other.folder != cache.folder
    assert_rows(other, 0)
    assert_rows(open_cache(tmp_path), 0, 1, 2, 3, 4)


@pytest.mark.parametrize("change", [corrupt_one_shard, lambda cache: shards(cache)[0].unlink()])
def test_a_shard_that_is_damaged_after_loading(
    cache: Cache, change: Callable[[Cache], object]
) -> None:
    change(cache)
    with pytest.raises(CacheError, match="same command"):
        cache.read(map(key, range(5)))


def test_numbers_that_are_not_finite_are_healed_not_served_for_ever(
    cache: Cache, tmp_path: Path
) -> None:
    """The remedy in the message must work, even for a shard that somebody made by hand."""
    name, image = shard.pack(
        FINGERPRINT,
        BOTTLENECK,
        np.frombuffer(key(9), np.uint8).reshape(1, 32),
        np.full((1, 2048), np.nan, np.float32),
    )
    (cache.folder / name).write_bytes(image)
    found = open_cache(tmp_path)
    if key(9) in found:
        with pytest.raises(CacheError):
            found.read([key(9)])
        with found.writing(DESCRIPTION):
            pass
        found = open_cache(tmp_path)
    assert key(9) not in found


def test_rows_of_another_fingerprint_are_not_served(cache: Cache) -> None:
    near = Cache(cache.folder.parent, FINGERPRINT[:12] + "0" * 52)
    assert near.folder == cache.folder
    near.load()
    assert len(near) == 0


def test_a_flipped_digit_in_model_json_is_mended(cache: Cache) -> None:
    path = cache.folder / "model.json"
    with cache.writing(DESCRIPTION):
        good = path.read_text()
    path.write_text(good.replace(FINGERPRINT, "f" + FINGERPRINT[1:]))
    with cache.writing(DESCRIPTION):
        assert path.read_text() == good


def test_too_little_memory_is_no_damage(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    before = shards(cache)
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", no_memory)
        with pytest.raises(MemoryError):
            cache.load()
    cache.load()
    assert not cache.damaged
    assert shards(cache) == before


def test_a_file_too_large_to_be_a_shard_is_not_read(cache: Cache) -> None:
    huge = cache.folder / f"{'0' * 64}.h5"
    with open(huge, "wb") as file:
        file.truncate(2**40)  # sparse
    problems = cache.check()
    assert "more than this program writes" in problems[huge.name]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"other": 1}', None])
def test_a_damaged_model_json_is_made_again(cache: Cache, data: bytes | None) -> None:
    path = cache.folder / "model.json"
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with cache.writing(DESCRIPTION):
        pass
    assert json.loads(path.read_text())["fingerprint"] == FINGERPRINT
    assert_rows(cache, 0, 1, 2, 3, 4)


def test_files_of_dead_writers_are_removed(cache: Cache) -> None:
    partial = cache.folder / f".{'0' * 64}.h5.{'1' * 32}.partial"
    partial.write_bytes(b"half a shard")
    cache.load()
    assert partial.exists()  # it may be of a writer that is alive
    with cache.writing(DESCRIPTION):
        assert not partial.exists()


def test_what_another_run_wrote_meanwhile_is_seen(cache: Cache, tmp_path: Path) -> None:
    other = open_cache(tmp_path)
    append(other, 5)
    with other.writing(DESCRIPTION):
        other.merge()
    with cache.writing(DESCRIPTION):
        assert_rows(cache, 0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_is_an_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / place, FINGERPRINT)
    with pytest.raises(OutputError, match="bottleneck_dir"), cache.writing(DESCRIPTION):
        raise AssertionError("wrote below a file")
    with pytest.raises(CacheError, match="bottleneck_dir"):
        cache.load()


WRITER = """
import sys
import numpy as np
from bottlenecks.store.cache import Cache
cache = Cache(sys.argv[1], "ab" * 32)
with cache.writing({}):
    for i in range(100_000):
        row = np.arange(2048, dtype=np.float32) + 10_000 * i
        cache.append([i.to_bytes(32, "big")], row[None])
        print(i, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        committed = 20 + len(writer.stdout.read().split("\n")) - 1
    found = open_cache(tmp_path)
    assert committed <= len(found) <= committed + 1
    assert not found.damaged
    assert_rows(found, *range(len(found)))


# Rows that are read one by one.


def rows_at(files: list[BinaryIO], file_of: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The vectors that `Cache.open_rows` says where to find; closes the files."""
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(file)
        data = [file.read() for file in files if file.seek(0) == 0]
    found = [
        np.frombuffer(data[number], "<f4", 2048, at)
        for number, at in zip(file_of, offset, strict=True)
    ]
    return np.array(found).reshape(-1, 2048)


def test_opened_rows_are_where_it_says(cache: Cache, tmp_path: Path) -> None:
    for found in (cache, open_cache(tmp_path)):
        opened = found.open_rows(map(key, (4, 0, 2, 4, 1, 3)))
        files, file_of, offset = opened
        assert sorted(file.name for file in files) == list(map(str, shards(cache)))
        assert file_of.dtype == np.int32
        assert offset.dtype == np.int64
        np.testing.assert_array_equal(rows_at(*opened), vectors(4, 0, 2, 4, 1, 3))


def test_only_the_shards_of_the_rows_are_opened(cache: Cache) -> None:
    opened = cache.open_rows([key(1), key(0)])
    assert len(opened[0]) == 1
    np.testing.assert_array_equal(rows_at(*opened), vectors(1, 0))
    files, file_of, offset = cache.open_rows([])
    assert (files, len(file_of), len(offset)) == ([], 0, 0)


def test_rows_that_another_run_has_merged_are_opened(cache: Cache, tmp_path: Path) -> None:
    other = open_cache(tmp_path)
    with other.writing(DESCRIPTION):
        other.merge()
    opened = cache.open_rows(map(key, range(5)))
    assert len(opened[0]) == 1
    np.testing.assert_array_equal(rows_at(*opened), vectors(*range(5)))


def open_files() -> int:
    gc.collect()  # not to count those that another test has left
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no shard")])
def test_when_rows_cannot_be_opened_all_files_are_closed(
    cache: Cache, number: int, spoil: Callable[[Path], object]
) -> None:
    """Whichever of the shards it is: those before it were open by then."""
    spoil(shards(cache)[number])
    before = open_files()
    with pytest.raises(CacheError, match="same command") as caught:
        cache.open_rows(map(key, range(5)))
    assert caught.traceback  # it may hold on to the files
    assert open_files() == before


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_opening_an_unknown_key_opens_nothing(cache: Cache) -> None:
    before = open_files()
    with pytest.raises(KeyError):
        cache.open_rows([key(0), key(99)])
    assert open_files() == before


def test_a_damaged_shard_is_set_aside_when_its_rows_are_opened(cache: Cache) -> None:
    damaged = corrupt_one_shard(cache)
    with pytest.raises(CacheError, match="damaged"):
        cache.open_rows(map(key, range(5)))
    assert not damaged.exists()
    assert damaged.with_name(damaged.name + ".damaged").exists()
    assert len(shards(cache)) == 2
