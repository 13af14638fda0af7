"""Two runs on one cache: the second waits, neither damages the other, no lock outlives its run."""

import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from bottlenecks import lock
from tests.conftest import make_dataset
from tests.crashing import (
    Child,
    assert_finished,
    build,
    build_and_tell,
    expected_rows,
    loaded,
    trials,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("races") / "Dataset", per_label=8)


def test_two_runs_at_once(dataset: Path, tmp_path: Path) -> None:
    expected = expected_rows(dataset)
    for trial in trials(5, 50):
        cache_dir = tmp_path / f"cache{trial}"
        first = Child(build_and_tell, dataset, cache_dir)
        time.sleep(random.Random(trial).uniform(0, 0.2))
        second = Child(build_and_tell, dataset, cache_dir)
        assert (first.join(), second.join()) == (0, 0)
        assert_finished(cache_dir, expected)
        commits = len(first.messages()) + len(second.messages())
        assert commits == 6  # 24 images in batches of 4: the one that waited computed nothing


def hold(connection: Connection, folder: Path) -> None:
    with lock.exclusive(folder):
        connection.send("locked")
        time.sleep(60)


def test_a_killed_holder_does_not_block(dataset: Path, tmp_path: Path) -> None:
    expected = expected_rows(dataset)
    for trial in trials(5, 20):
        cache_dir = tmp_path / f"cache{trial}"
        folder = loaded(cache_dir).folder
        folder.mkdir(parents=True)
        holder = Child(hold, folder)
        assert holder.connection.recv() == "locked"
        waiter = Child(build_and_tell, dataset, cache_dir)
        time.sleep(random.Random(trial).uniform(0, 0.1))
        assert waiter.messages() == []  # it waits as long as the holder lives
        holder.kill()
        assert waiter.join() == 0
        assert_finished(cache_dir, expected)


def test_a_warm_run_does_not_wait(dataset: Path, tmp_path: Path) -> None:
    build(dataset, tmp_path / "cache")
    holder = Child(hold, loaded(tmp_path / "cache").folder)
    assert holder.connection.recv() == "locked"
    warm = Child(build_and_tell, dataset, tmp_path / "cache")
    assert warm.join() == 0
    holder.kill()
