"""A worker, without Ray: what it refuses, reads, computes, and commits."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks import __version__
from bottlenecks.builder import PhotoReader
from bottlenecks.cluster.worker import KnownKeys, NotSharedError, Setup, Worker
from bottlenecks.errors import BadImageError
from bottlenecks.photos.images import ImageFile
from bottlenecks.photos.reading import key_of
from bottlenecks.store.cache import Cache
from tests.standin import StandIn

Start = Callable[..., Worker]
NONE = np.empty((0, 32), np.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache", StandIn().fingerprint)
    made.folder.mkdir(parents=True)
    (made.folder / "token").touch()
    return made


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)  # a worker leaves it
    return {
        "version": __version__,
        "folder": str(tmp_path),
        "bottleneck_dir": "cache",
        "reader": PhotoReader((299, 299)),
        "sample": None,
        "batch_size": 2,
        "threads": 2,
        "commit_seconds": 100.0,
    }


def started(settings: dict[str, Any], known: np.ndarray = NONE) -> Worker:
    worker = Worker()
    assert worker.start(Setup(**settings), StandIn(), known, 1).problem == ""
    return worker


def files_of(dataset: Path) -> list[ImageFile]:
    return [ImageFile(str(path)) for path in sorted(dataset.rglob("*.jpg"))]


def test_rows_are_committed_whole(
    settings: dict[str, Any], cache: Cache, small_dataset: Path
) -> None:
    worker, files = started(settings), files_of(small_dataset)
    bad = ImageFile(files[0].path, problem="is nothing")
    answers = worker.read(0, [*files[:5], bad])
    assert isinstance(answers[5][0], BadImageError)
    keys = [key_of(file.path) for file in files[:5]]
    assert [own for _, own in answers] == [*([key] for key in keys), []]
    done = worker.compute(0, keys, "token")
    assert (done.computed, done.shards) == (4, ())  # one waits for a batch
    done = worker.finish()
    assert done.computed == 5
    cache.adopt(done.shards)
    assert set(cache) == set(keys)
    assert worker.finish().shards == ()
    other = Cache(cache.folder.parent, cache.fingerprint)
    other.load()
    np.testing.assert_array_equal(other.read(keys), cache.read(keys))


def test_what_is_cached_is_not_decoded(
    settings: dict[str, Any], cache: Cache, small_dataset: Path
) -> None:
    files = files_of(small_dataset)
    key = key_of(files[0].path)
    worker = started(settings, np.frombuffer(key, np.uint8).reshape(1, 32))
    assert worker.read(0, files[:1])[0][1] == []


def test_a_piece_that_is_taken_back_is_not_computed(
    settings: dict[str, Any], cache: Cache, small_dataset: Path
) -> None:
    worker, files = started(settings), files_of(small_dataset)[:2]
    assert not worker.drop(0)
    keys = [key for _, own in worker.read(0, files) for key in own]
    assert worker.drop(0)
    assert worker.compute(0, keys, "token").computed == 0


def test_stopped_it_commits_what_is_computed(
    settings: dict[str, Any], cache: Cache, small_dataset: Path
) -> None:
    worker, files = started(settings), files_of(small_dataset)
    keys = [key for _, own in worker.read(0, files[:3]) for key in own]
    worker.compute(0, keys, "token")
    worker.stop()
    (shard,) = worker.finish().shards
    assert len(shard.keys) == 2


def test_a_cache_that_is_not_shared_is_refused(
    settings: dict[str, Any], cache: Cache, small_dataset: Path
) -> None:
    worker, files = started(settings), files_of(small_dataset)[:1]
    keys = [key for _, own in worker.read(0, files) for key in own]
    with pytest.raises(NotSharedError, match=r"does not see the cache .*where all machines see it"):
        worker.compute(0, keys, "another token")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"version": "0.0.1"}, "it has version .* of this program, not 0.0.1"),
        ({"sample": ("no.jpg", 7)}, "it does not see the photo .*no.jpg; photos must lie where"),
        ({"folder": "/nowhere", "sample": ("token", 0)}, "does not see the photo /token"),
    ],
)
def test_who_cannot_take_part_says_why(
    changed: dict[str, Any], problem: str, settings: dict[str, Any]
) -> None:
    found = Worker().start(Setup(**(settings | changed)), StandIn(), NONE, 1).problem
    assert re.search(problem, found)


def test_known_keys(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "0" * 64)
    keys = [bytes([i]) * 32 for i in (9, 0, 200, 17)]
    cache.folder.mkdir()
    cache.append(keys, np.zeros((4, 2048), np.float32))
    known = KnownKeys(KnownKeys.of(cache))
    assert len(known) == 4
    assert all(key in known for key in keys)
    assert bytes([1]) * 32 not in known
    assert bytes([255]) * 32 not in known
    assert b"" not in KnownKeys(NONE)
