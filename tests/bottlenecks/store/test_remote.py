"""A cache behind an address: the same rows and promises as on a disk, and stores that fail."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks import builder, cli
from bottlenecks.config import Config
from bottlenecks.errors import LostRowsError, StoreError, UsageError
from bottlenecks.photos.places import store as requests
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store import layout, lock, remote
from bottlenecks.store.cache import Cache
from bottlenecks.store.housekeeping import inspect
from bottlenecks.store.vectors import OnDisk
from tests.bottlenecks.store.test_cache import FINGERPRINT, append, assert_rows, key, vectors
from tests.conftest import make_dataset, train_colours
from tests.crashing import expected_rows
from tests.places import s3_server
from tests.standin import StandIn

fsspec = pytest.importorskip("fsspec", reason="needs fsspec")


class Faults:
    """What the store of the protocol "failing" does: every ``each``-th request fails, or hangs."""

    each = requests = 0
    hangs = False

    @classmethod
    def meet(cls) -> None:
        cls.requests += 1
        if cls.hangs:
            time.sleep(30)
        if cls.each and cls.requests % cls.each == 0:
            raise OSError("not now: https://host/x?key=not-to-be-shown")


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies of shards are kept in these tests; the pauses between attempts are short."""
    monkeypatch.setattr(remote, "COPIES", str(tmp_path / "copies"))
    monkeypatch.setattr(requests, "_PAUSES", (0.001,) * 5)
    return tmp_path / "copies"


def failing() -> str:
    """An address whose store fails as `Faults` says."""
    from fsspec.implementations.memory import MemoryFileSystem

    def meeting(name: str) -> Callable[..., Any]:
        def request(self: Any, *arguments: Any, **options: Any) -> Any:
            Faults.meet()
            return getattr(MemoryFileSystem, name)(self, *arguments, **options)

        return request

    def strip(path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("failing://", "memory://")))

    names = ("ls", "info", "cat_file", "pipe_file", "rm_file")
    methods: dict[str, Any] = {name: meeting(name) for name in names}
    methods |= {"protocol": "failing", "_strip_protocol": staticmethod(strip)}
    kind = type("Failing", (MemoryFileSystem,), methods)
    fsspec.register_implementation("failing", kind, clobber=True)
    requests._stores().of_origin.pop("failing://tests", None)
    Faults.each = Faults.requests = 0
    Faults.hangs = False
    return "failing://tests/cache"


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's memory, empty."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as name:
        yield name


@pytest.fixture(params=["memory", "s3"])
def address(request: pytest.FixtureRequest, memory: Any) -> str:
    """Of an empty cache, in each kind of store."""
    if request.param == "memory":
        return "memory://tests/cache"
    bucket = request.getfixturevalue("bucket")
    requests._stores().of_origin.pop(f"s3://{bucket}", None)
    name = "".join(c for c in request.node.name if c.isalnum())
    return f"s3://{bucket}/{name}"


def opened(address: str) -> Cache:
    cache = Cache(address, FINGERPRINT)
    cache.load()
    return cache


def objects(address: str) -> dict[str, bytes]:
    """What lies in the cache behind ``address``, by its name."""
    system, path = fsspec.core.url_to_fs(address)
    system.invalidate_cache()
    return {name.rpartition("/")[2]: system.cat_file(name) for name in system.find(path)}


def put(address: str, name: str, data: bytes) -> None:
    system, path = fsspec.core.url_to_fs(f"{Cache(address, FINGERPRINT).store.place}/{name}")
    system.pipe_file(path, data)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those of this program; an S3 server tells of every request."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def the_shard(address: str) -> str:
    (name,) = (name for name in objects(address) if name.endswith(".h5"))
    return name


def test_rows_come_back_and_are_merged(address: str, copies: Path) -> None:
    for numbers in ((0, 1), (2,), (3, 4)):
        append(Cache(address, FINGERPRINT), *numbers)
    assert_rows(opened(address), 0, 1, 2, 3, 4)
    with opened(address).tidying() as held:
        assert held
    names = list(objects(address))
    assert sorted(name.rpartition(".")[2] for name in names) == ["h5", "json", "keys"]
    assert lock.LEASE_NAME not in names
    assert_rows(opened(address), 0, 1, 2, 3, 4)
    assert len(list(copies.rglob("*.h5"))) == 1  # those of what was merged went too


def test_loading_reads_no_shard_and_writes_nothing(
    address: str, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(Cache(address, FINGERPRINT), 0, 1)
    before = objects(address)
    read: list[str] = []
    get = remote._Objects.get

    def noted(self: remote._Objects, name: str, *arguments: int, **part: int) -> bytes:
        read.append(name)
        return get(self, name, *arguments, **part)

    monkeypatch.setattr(remote._Objects, "get", noted)
    found = opened(address)
    assert set(found) == {key(0), key(1)}
    assert [name.rpartition(".")[2] for name in read] == ["keys"]
    assert not found.is_untidy
    assert objects(address) == before


def test_rows_are_read_one_by_one_from_a_copy(address: str, copies: Path) -> None:
    append(Cache(address, FINGERPRINT), 0, 1, 2)
    for change in ("none", "lost", "damaged"):
        for copy in copies.rglob("*.h5"):
            if change == "lost":
                copy.unlink()
            elif change == "damaged":
                copy.write_bytes(b"no shard")
        rows = OnDisk(opened(address), map(key, (2, 0, 1)))
        np.testing.assert_array_equal(rows.take(np.arange(3)), vectors(2, 0, 1))
        assert_rows(opened(address), 0, 1, 2)


@pytest.mark.parametrize("has_copy", [True, False])
def test_a_shard_that_is_changed_is_seen_at_load(
    address: str, copies: Path, has_copy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    append(Cache(address, FINGERPRINT), 0, 1)
    name = the_shard(address)
    data = bytearray(objects(address)[name])
    data[len(data) // 2] ^= 1
    put(address, name, bytes(data))
    for copy in copies.rglob("*.h5") if not has_copy else ():
        copy.unlink()
    found = opened(address)
    assert list(found.damaged) == [name]
    append(found, 0, 1)
    assert objects(address)[f"{name}.damaged"] == bytes(data)
    assert_rows(opened(address), 0, 1)
    assert len(warnings(caplog)) == 1


def test_a_shard_that_rots_is_found_when_its_rows_are_read(
    address: str, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(Cache(address, FINGERPRINT), 0, 1)
    found = opened(address)
    name = the_shard(address)
    put(address, name, b"rotten" * 1000)
    for copy in copies.rglob("*.h5"):
        copy.unlink()
    for read in (found.read, found.open_rows):
        with pytest.raises(LostRowsError):
            read([key(0)])
    names = list(objects(address))
    assert f"{name}.damaged" in names
    assert not [name for name in names if name.endswith(".keys")]


def test_a_cache_is_removed_with_its_copies(address: str, copies: Path) -> None:
    cache = Cache(address, FINGERPRINT)
    append(cache, 0)
    put(address, "notes.txt", b"yours")
    cache.remove()
    assert objects(address) == {"notes.txt": b"yours"}
    assert not list(copies.rglob("*.h5"))


def test_housekeeping(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=2)
    flags = [f"--bottleneck_dir={address}"]
    images = [f"--image_dir={dataset}"]
    assert cli.main([*flags, *images], extractor=StandIn()) == 0
    assert f"cache           {address}/inception_v3-" in capsys.readouterr().out
    assert cli.main([*flags, "--list"]) == 0
    assert cli.main([*flags, "--verify"]) == 0
    assert "verified" in capsys.readouterr().out
    (dataset / "cyan" / "cyan_000.jpg").unlink()
    assert cli.main([*flags, *images, "--prune", "--yes"]) == 0
    assert "1 of 6 rows" in capsys.readouterr().out
    (info,) = inspect(address)
    assert info.rows == 5
    assert cli.main([*flags, "--prune", info.cache.fingerprint[:12], "--yes"]) == 0
    assert objects(address) == {}


def test_a_run_is_that_of_a_local_cache(address: str, tmp_path: Path) -> None:
    time.sleep(0.05)  # the stat index trusts no file as young as its reading
    local = train_colours(tmp_path, how_many_training_steps=10)
    graph = local.labels.read_bytes()
    for computed in (90, 0):
        run = train_colours(tmp_path, how_many_training_steps=10, bottleneck_dir=address)
        assert run.report.computed == computed
        assert run.dataset.everything.x.tobytes() == local.dataset.everything.x.tobytes()
        assert run.labels.read_bytes() == graph


def config(dataset: Path, address: str) -> Config:
    return Config(image_dir=str(dataset), bottleneck_dir=address, batch_size=4)


def test_two_runs_at_once_lose_and_mix_nothing(address: str, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=4)
    errors: list[Exception] = []

    def run() -> None:
        try:
            builder.build(config(dataset, address), extractor=StandIn(seconds=0.05))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    expected = expected_rows(dataset)
    cache = Cache(address, StandIn().fingerprint)
    cache.load()
    assert set(cache) == set(expected)
    for one in cache:
        np.testing.assert_allclose(cache.read([one])[0], expected[one], atol=1e-6)


def test_a_store_that_fails_one_request_in_five(
    memory: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, dataset = failing(), make_dataset(tmp_path / "Dataset", per_label=6)
    Faults.each = 5
    report = builder.build(config(dataset, address), extractor=StandIn())
    assert (report.computed, len(report.images)) == (18, 18)
    assert builder.build(config(dataset, address), extractor=StandIn()).cached == 18
    assert Faults.requests > 10
    assert "not-to-be-shown" not in caplog.text


@pytest.mark.parametrize("hangs", [True, False])
def test_a_store_that_never_answers_is_one_error_line(
    memory: Any,
    tmp_path: Path,
    hangs: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, dataset = failing(), make_dataset(tmp_path / "Dataset", per_label=2)
    monkeypatch.setattr(remote, "SECONDS", 0.2)
    monkeypatch.setattr(requests, "CONTACT_SECONDS", 5)
    Faults.hangs, Faults.each = hangs, 1
    flags = [f"--image_dir={dataset}", f"--bottleneck_dir={address}"]
    assert cli.main(flags, extractor=StandIn()) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert len(errors) == 1
    assert "failing://tests/cache" in errors[0]
    assert "the same command resumes" in errors[0]
    assert ("does not answer in time" in errors[0]) == hangs
    assert "not-to-be-shown" not in errors[0]


def test_what_was_committed_before_a_store_fails_is_kept(memory: Any, tmp_path: Path) -> None:
    address = failing()
    append(Cache(address, FINGERPRINT), 0, 1)
    cache = opened(address)
    with pytest.raises(StoreError), cache.writing(None):
        Faults.each = 1
        cache.append([key(2)], vectors(2))
    Faults.each = 0
    fsspec.filesystem("memory").rm_file(f"/tests/cache/{cache.folder.name}/{lock.LEASE_NAME}")
    assert_rows(opened(address), 0, 1)


@pytest.mark.parametrize(
    "place", ["s3://key:not-to-be-shown@bucket/cache", "s3://bucket/cache?x=1", "s3://"]
)
def test_addresses_that_are_not_followed(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--bottleneck_dir"):
        Config(image_dir=str(tmp_path), bottleneck_dir=place)
    assert cli.main([f"--bottleneck_dir={place}", "--list"]) == 2


def test_an_object_too_large_is_not_fetched(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "memory://tests/cache"
    put(address, f"{'0' * 64}.h5", bytes(2000))
    monkeypatch.setattr(layout, "MAX_SHARD_BYTES", 1000)

    def get(*_: object, **__: object) -> bytes:
        raise AssertionError("it was fetched")

    monkeypatch.setattr(remote._Objects, "get", get)
    found = opened(address)
    assert "more than this program writes" in found.damaged[f"{'0' * 64}.h5"]


def test_what_has_no_version_is_never_listed(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "memory://tests/cache"
    monkeypatch.setattr(remote, "_TOKENS", ())
    append(Cache(address, FINGERPRINT), 0)
    assert not [name for name in objects(address) if name.endswith(".keys")]
    assert_rows(opened(address), 0)


# The lease.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)


def test_a_second_holder_waits_and_says_so(
    address: str, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (Cache(address, FINGERPRINT).store for _ in range(2))
    order: list[str] = []

    def wait() -> None:
        with second.exclusive():
            order.append("second")

    with first.exclusive():
        thread = threading.Thread(target=wait)
        thread.start()
        with second.exclusive(wait=False) as held:
            assert not held
        time.sleep(2.0)  # longer than a lease lasts that nobody renews
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert len(warnings(caplog)) == 1
    assert "waiting for it to finish" in caplog.text


def test_the_lease_of_a_killed_run_is_taken_over(address: str, quick: None) -> None:
    put(address, lock.LEASE_NAME, b'{"owner": "of a run that was killed"}')
    store = Cache(address, FINGERPRINT).store
    with store.exclusive(wait=False) as held:
        assert not held
    with store.exclusive() as held:
        assert held
    assert lock.LEASE_NAME not in objects(address)


def test_the_lease_of_another_is_not_given_back(address: str) -> None:
    with Cache(address, FINGERPRINT).store.exclusive():
        put(address, lock.LEASE_NAME, b'{"owner": "another"}')
    assert objects(address)[lock.LEASE_NAME] == b'{"owner": "another"}'


def test_local_paths_ask_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "store_of", lambda _: pytest.fail("a store was asked"))
    cache = Cache(tmp_path / "cache", FINGERPRINT)
    append(cache, 0)
    assert cache.spec == BOTTLENECK
    assert os.listdir(tmp_path / "cache") == [cache.folder.name]
