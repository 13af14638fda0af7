"""A cache with catalogues: the same rows and the same promises, without reading shards at load."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bottlenecks import cli
from bottlenecks.errors import CacheError, LostRowsError
from bottlenecks.photos.images import signature_of
from bottlenecks.row_spec import BOTTLENECK, RowSpec
from bottlenecks.store import cache as cache_module
from bottlenecks.store import catalogue, folder, lock, shelf
from bottlenecks.store.cache import Cache, again_if_lost
from bottlenecks.store.folder import Store
from bottlenecks.store.housekeeping import Pruning, inspect, prune
from tests.bottlenecks.store.test_cache import (
    DESCRIPTION,
    FINGERPRINT,
    append,
    assert_rows,
    key,
    open_cache,
    rows_at,
    shards,
    vectors,
)
from tests.conftest import make_dataset
from tests.crashing import assert_finished, build, expected_rows, loaded
from tests.standin import StandIn


def catalogue_of(shard: Path) -> Path:
    return shard.with_suffix(".keys")


def catalogues(place: Path) -> list[Path]:
    return sorted(place.rglob("*.keys"))


def tidy(cache: Cache) -> None:
    with cache.tidying() as held:
        assert held


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Three shards with the rows 0, 1 | 2 | 3, 4 that are not merged, and their catalogues."""
    cache = Cache(tmp_path / "cache", FINGERPRINT)
    for numbers in ((0, 1), (2,), (3, 4)):
        append(cache, *numbers)
    monkeypatch.setattr(cache_module, "LARGE_SHARD_BYTES", 100)
    time.sleep(0.05)  # a shard as young as its reading has none
    tidy(cache)
    assert [path.stem for path in catalogues(tmp_path)] == [path.stem for path in shards(cache)]
    return cache


@contextmanager
def counting_reads() -> Iterator[list[str]]:
    """The names of the shards that are read."""
    read: list[str] = []

    def read_shard(store: Store, name: str) -> object:
        read.append(name)
        return folder.read_shard(store, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelf, "read_shard", read_shard)
        yield read


def listed_keys(path: Path) -> np.ndarray:
    """What a catalogue of images says, (n, 32) uint8."""
    head, keys = path.read_bytes()[32:].split(b"\n", 1)
    assert head.startswith(b"{")
    return np.frombuffer(keys, np.uint8).reshape(-1, 32)


def relist(
    shard: Path,
    keys: np.ndarray | None = None,
    fingerprint: str = FINGERPRINT,
    spec: RowSpec = BOTTLENECK,
) -> None:
    """Make the catalogue of ``shard`` fit it as it is now, as if it had been checked so."""
    path = catalogue_of(shard)
    if keys is None:
        keys = listed_keys(path)
    signature = signature_of(os.lstat(shard))
    path.write_bytes(catalogue.pack(fingerprint, spec, signature, keys))


def rot(shard: Path, extractor: StandIn | None = None) -> None:
    """Flip a bit of a shard as a failing disk does: nothing tells."""
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    if extractor is None:
        relist(shard)
    else:
        relist(shard, None, extractor.fingerprint, extractor.spec)


def lie(shard: Path, *numbers: int) -> None:
    """Let the catalogue of ``shard`` list the keys of these numbers."""
    keys = np.frombuffer(b"".join(map(key, numbers)), np.uint8).reshape(-1, 32)
    relist(shard, keys)


def shard_of(cache: Cache, *numbers: int) -> Path:
    """The shard of exactly these rows."""
    for path in shards(cache):
        if listed_keys(catalogue_of(path)).tobytes() == b"".join(map(key, numbers)):
            return path
    raise AssertionError(numbers)


def test_loading_reads_no_shard(cache: Cache, tmp_path: Path) -> None:
    with counting_reads() as read:
        found = open_cache(tmp_path / "cache")
        assert set(found) == set(map(key, range(5)))
        assert not found.is_untidy
        with found.writing(DESCRIPTION):
            pass
        assert read == []
    assert_rows(found, 0, 1, 2, 3, 4)


def test_what_was_checked_once_is_not_read_again_to_list_it(cache: Cache, tmp_path: Path) -> None:
    for path in catalogues(tmp_path):
        path.unlink()
    with counting_reads() as read:
        found = open_cache(tmp_path / "cache")
        assert found.is_untidy
        tidy(found)
        assert len(read) == 3
    assert len(catalogues(tmp_path)) == 3
    assert not found.is_untidy


def test_loading_alone_writes_none(cache: Cache, tmp_path: Path) -> None:
    for path in catalogues(tmp_path):
        path.unlink()
    open_cache(tmp_path / "cache")
    assert catalogues(tmp_path) == []


def test_none_is_written_while_another_run_writes(cache: Cache, tmp_path: Path) -> None:
    for path in catalogues(tmp_path):
        path.unlink()
    found = open_cache(tmp_path / "cache")
    with lock.exclusive(found.folder), found.tidying() as held:
        assert not held
    assert catalogues(tmp_path) == []


def test_a_run_that_writes_lists_too(cache: Cache, tmp_path: Path) -> None:
    for path in catalogues(tmp_path):
        path.unlink()
    append(open_cache(tmp_path / "cache"), 5)
    assert len(catalogues(tmp_path)) == 3  # the fourth shard is too young


def test_a_shard_as_young_as_its_reading_is_not_listed(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in catalogues(tmp_path):
        path.unlink()
    young = shards(cache)[1]
    at = max(young.stat().st_mtime_ns, young.stat().st_ctime_ns) + 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: at)
    found = open_cache(tmp_path / "cache")
    tidy(found)
    assert young.stem not in [path.stem for path in catalogues(tmp_path)]
    monkeypatch.setattr(time, "time_ns", lambda: at + 2_100_000_000)
    tidy(open_cache(tmp_path / "cache"))
    assert young.stem in [path.stem for path in catalogues(tmp_path)]


def touched(path: Path) -> None:
    os.utime(path)


def written_anew(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def put_back_in_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    other.rename(path)


@pytest.mark.parametrize("touch", [touched, written_anew, put_back_in_time, replaced])
def test_a_shard_that_was_touched_is_read_once(
    cache: Cache, tmp_path: Path, touch: Callable[[Path], None]
) -> None:
    path = shards(cache)[1]
    touch(path)
    for expected in ([path.name], []):
        time.sleep(0.05)
        with counting_reads() as read:
            found = open_cache(tmp_path / "cache")
            tidy(found)
            assert read == expected
    assert_rows(found, 0, 1, 2, 3, 4)


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_shard_that_a_program_damages_is_seen_at_load(
    cache: Cache, tmp_path: Path, is_same_process: bool
) -> None:
    path = shards(cache)[1]
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = cache if is_same_process else Cache(tmp_path / "cache", FINGERPRINT)
    found.load()
    assert list(found.damaged) == [path.name]
    with found.writing(DESCRIPTION):
        pass
    assert path.stem not in [listed.stem for listed in catalogues(tmp_path)]


def test_a_copied_cache_is_read_once(cache: Cache, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    time.sleep(0.05)
    for expected in (3, 0):
        with counting_reads() as read:
            found = open_cache(tmp_path / "copy")
            tidy(found)
            assert len(read) == expected
    assert_rows(found, 0, 1, 2, 3, 4)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_sparse_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(50 * 2**30)


def as_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("what", [as_pipe, as_sparse_file, as_loop])
def test_what_is_no_catalogue_is_not_read_and_replaced(
    cache: Cache, tmp_path: Path, what: Callable[[Path], None]
) -> None:
    path = catalogues(tmp_path)[1]
    good = path.read_bytes()
    path.unlink()
    what(path)
    with counting_reads() as read:
        found = open_cache(tmp_path / "cache")
        assert read == [path.with_suffix(".h5").name]
    tidy(found)
    assert not path.is_symlink()
    assert path.read_bytes() == good


@pytest.mark.parametrize("data", [b"", b"text", bytes(1000), None])
def test_a_damaged_catalogue_is_made_again(
    cache: Cache, tmp_path: Path, data: bytes | None
) -> None:
    path = catalogues(tmp_path)[1]
    good = path.read_bytes()
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    found = open_cache(tmp_path / "cache")
    assert found.is_untidy
    tidy(found)
    assert path.read_bytes() == good
    assert not found.damaged
    assert_rows(found, 0, 1, 2, 3, 4)


def test_a_folder_in_the_place_of_a_catalogue_stays(cache: Cache, tmp_path: Path) -> None:
    path = catalogues(tmp_path)[1]
    path.unlink()
    (path / "yours").mkdir(parents=True)
    found = open_cache(tmp_path / "cache")
    tidy(found)
    with found.writing(DESCRIPTION):
        found.discard(frozenset(map(key, range(5))))
    assert (path / "yours").is_dir()
    assert shards(found) == []


def test_a_link_in_the_place_of_a_catalogue_is_replaced(cache: Cache, tmp_path: Path) -> None:
    path = catalogues(tmp_path)[1]
    yours = tmp_path / "yours"
    path.rename(yours)
    path.symlink_to(yours)
    before = yours.read_bytes()
    found = open_cache(tmp_path / "cache")
    tidy(found)
    assert not path.is_symlink()
    assert yours.read_bytes() == before


def test_they_are_not_synced_and_shards_are(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in catalogues(tmp_path):
        path.unlink()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    tidy(open_cache(tmp_path / "cache"))
    assert (len(catalogues(tmp_path)), synced) == (3, [])
    append(cache, 5)
    assert synced


# They go with their shards.


def test_merging_leaves_none_of_the_merged(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LARGE_SHARD_BYTES", 2**26)
    tidy(cache)
    assert (len(shards(cache)), catalogues(tmp_path)) == (1, [])


def test_discarding_rows_leaves_none_of_their_shard(cache: Cache, tmp_path: Path) -> None:
    with cache.writing(DESCRIPTION):
        cache.discard(frozenset([key(0), key(2)]))
        (kept,) = catalogues(tmp_path)
    assert kept.with_suffix(".h5") in shards(cache)


@pytest.mark.parametrize("use", ["writing", "tidying"])
def test_orphans_are_removed(cache: Cache, tmp_path: Path, use: str) -> None:
    """A kill between a shard and its catalogue leaves one."""
    orphan = shards(cache)[1]
    orphan.unlink()
    found = open_cache(tmp_path / "cache")
    assert found.is_untidy
    with found.writing(DESCRIPTION) if use == "writing" else found.tidying():
        pass
    assert len(catalogues(tmp_path)) == 2
    assert not catalogue_of(orphan).exists()


def test_removing_a_cache_removes_them(cache: Cache) -> None:
    cache.remove()
    assert not cache.folder.exists()


# What only reading the rows shows.


@pytest.mark.parametrize("opens", [False, True])
def test_rot_is_found_when_rows_are_read(cache: Cache, tmp_path: Path, opens: bool) -> None:
    rotten = shards(cache)[1]
    rot(rotten)
    found = open_cache(tmp_path / "cache")
    assert len(found) == 5
    with pytest.raises(LostRowsError, match=r"damaged.*same command"):
        (found.open_rows if opens else found.read)(map(key, range(5)))
    assert rotten.with_name(f"{rotten.name}.damaged").exists()
    assert catalogues(tmp_path) == []


def test_rot_of_a_second_shard_is_known_after_the_first(cache: Cache, tmp_path: Path) -> None:
    first, second, _ = shards(cache)
    rot(first)
    rot(second)
    found = open_cache(tmp_path / "cache")
    with pytest.raises(LostRowsError):
        found.read(map(key, range(5)))
    found.load()
    assert list(found.damaged) == [second.name]
    assert list(open_cache(tmp_path / "cache").damaged) == [second.name]


@pytest.mark.parametrize("can_remove", [True, False])
@pytest.mark.parametrize("opens", [True, False])
def test_a_lying_catalogue_serves_no_row_under_another_key(
    cache: Cache, tmp_path: Path, can_remove: bool, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie(shard_of(cache, 3, 4), 4, 3)
    if not can_remove:
        monkeypatch.setattr(Path, "unlink", refuse)
    found = open_cache(tmp_path / "cache")
    wanted = [key(i) for i in (4, 0, 2, 1, 3)]
    got = rows_at(*found.open_rows(wanted)) if opens else found.read(wanted)
    np.testing.assert_array_equal(got, vectors(4, 0, 2, 1, 3))
    assert (catalogues(tmp_path) == []) == can_remove


def refuse(path: Path, missing_ok: bool = False) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_keys_that_are_in_no_shard_are_lost(cache: Cache, tmp_path: Path) -> None:
    lie(shard_of(cache, 3, 4), 3, 4, 5)
    found = open_cache(tmp_path / "cache")
    assert key(5) in found
    with pytest.raises(LostRowsError):
        found.read([key(5)])
    found.load()
    assert key(5) not in found
    assert_rows(found, 0, 1, 2, 3, 4)


def test_merging_believes_no_catalogue(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie(shard_of(cache, 3, 4), 4, 3)
    monkeypatch.setattr(cache_module, "LARGE_SHARD_BYTES", 2**26)

    def merged() -> Cache:
        found = open_cache(tmp_path / "cache")
        tidy(found)
        return found

    assert_rows(again_if_lost(merged), 0, 1, 2, 3, 4)


def test_it_ends_where_rows_are_lost_again_and_again() -> None:
    tries = []

    def lost() -> None:
        tries.append(1)
        raise LostRowsError("a file is damaged")

    with pytest.raises(LostRowsError):
        again_if_lost(lost)
    assert len(tries) == 3


def test_other_errors_are_not_tried_again() -> None:
    tries = []

    def fails() -> None:
        tries.append(1)
        raise CacheError("no")

    with pytest.raises(CacheError, match="no"):
        again_if_lost(fails)
    assert len(tries) == 1


# Housekeeping, and whole runs.


def test_verify_reads_everything_and_finds_lies(cache: Cache, tmp_path: Path) -> None:
    lie(shard_of(cache, 3, 4), 4, 3)
    (info,) = inspect(tmp_path / "cache")
    assert info.damaged == ()
    with counting_reads() as read:
        (info,) = inspect(tmp_path / "cache", every_row=True)
        assert len(read) == 3
    (problem,) = info.damaged
    assert problem.endswith("says other keys than its shard has; remove it")
    assert info.rows == 5


def test_verify_minds_none_that_nobody_would_believe(cache: Cache, tmp_path: Path) -> None:
    os.utime(shards(cache)[0])
    catalogues(tmp_path)[1].write_bytes(b"damaged")
    catalogues(tmp_path)[2].unlink()
    (info,) = inspect(tmp_path / "cache", every_row=True)
    assert info.damaged == ()


def test_verify_finds_rot(cache: Cache, tmp_path: Path) -> None:
    rot(shards(cache)[1])
    (info,) = inspect(tmp_path / "cache", every_row=True)
    (problem,) = info.damaged
    assert shards(cache)[1].name in problem


def test_their_size_is_counted(cache: Cache, tmp_path: Path) -> None:
    (info,) = inspect(tmp_path / "cache")
    files = [path for path in cache.folder.iterdir() if path.is_file()]
    assert info.size == sum(path.stat().st_size for path in files)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Whose rows are in a cache that is listed."""
    dataset = make_dataset(tmp_path / "Dataset", per_label=4)
    for _ in range(2):
        build(dataset, tmp_path / "cache")
        time.sleep(0.05)
    assert len(catalogues(tmp_path)) == 1
    return dataset


def rot_all(place: Path, extractor: StandIn | None = None) -> None:
    """`rot` the shards of images that have a catalogue."""
    for path in catalogues(place):
        rot(path.with_suffix(".h5"), extractor or StandIn())


def test_rot_is_healed_by_a_run_that_merges(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rot_all(tmp_path)
    make_dataset(dataset, per_label=5)
    report = build(dataset, tmp_path / "cache")
    assert (report.computed, report.cached, len(report.images)) == (15, 0, 15)
    assert [record.getMessage().count("is damaged") for record in caplog.records] == [1]
    assert_finished(tmp_path / "cache", expected_rows(dataset))


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_rot_is_healed_by_a_run_that_exports(
    dataset: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rot_all(tmp_path)
    flags = [f"--image_dir={dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
    exported = tmp_path / f"out.{suffix}"
    assert cli.main([*flags, f"--export_{suffix}={exported}"], extractor=StandIn()) == 0
    assert capsys.readouterr().err.count("warning:") == 1
    assert exported.exists()
    assert_finished(tmp_path / "cache", expected_rows(dataset))


def test_a_warm_build_reads_no_shard(dataset: Path, tmp_path: Path) -> None:
    with counting_reads() as read:
        report = build(dataset, tmp_path / "cache")
    assert (report.computed, report.cached, read) == (0, 12, [])
    assert set(loaded(tmp_path / "cache")) == set(expected_rows(dataset))


@pytest.mark.parametrize("harm", [rot, lambda path: lie(path, 4, 3)])
def test_pruning_goes_on_where_a_shard_or_what_is_said_of_it_is_wrong(
    cache: Cache, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    harm(shard_of(cache, 3, 4))
    found = open_cache(tmp_path / "cache")
    prune(Pruning((), ((found, frozenset([key(0), key(3)])),)))
    left = set(open_cache(tmp_path / "cache"))
    assert left <= {key(1), key(2), key(4)}
    assert {key(1), key(2)} <= left
    assert (key(4) in left) == (harm is not rot)
