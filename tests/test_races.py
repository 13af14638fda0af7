"""Two runs on one cache: the second waits, neither damages the other, no lock outlives its run."""

import logging
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.store import lock
from tests.conftest import make_dataset
from tests.crashing import (
    KINDS,
    Child,
    Kind,
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


@KINDS
def test_two_runs_at_once(kind: Kind, dataset: Path, tmp_path: Path) -> None:
    expected = kind.expected(dataset)
    batches = -(-len(expected) // 4)
    for trial in trials(5, 50):
        cache_dir = tmp_path / f"cache{trial}"
        first = Child(build_and_tell, dataset, cache_dir, kind)
        time.sleep(random.Random(trial).uniform(0, 0.2))
        second = Child(build_and_tell, dataset, cache_dir, kind)
        assert (first.join(), second.join()) == (0, 0)
        assert_finished(cache_dir, expected, kind)
        commits = len(first.messages()) + len(second.messages())
        assert commits == batches  # of 4 rows: the one that waited computed nothing


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


def build_and_fail_while_waiting(connection: Connection, dataset: Path, cache_dir: Path) -> None:
    """Gets as far as the lock that another run has, and is interrupted as it says so."""

    def interrupted(_: logging.LogRecord) -> bool:
        connection.send("waiting")
        connection.recv()
        raise KeyboardInterrupt

    lock.log.addFilter(interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(dataset, cache_dir)


def test_an_interrupted_wait_removes_nothing_of_the_other_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began without a cache folder, so each might take it for its own to remove."""
    expected = expected_rows(dataset)
    exists = Path.exists
    hidden: set[Path] = set()

    def not_yet(path: Path) -> bool:
        """The waiting run looks, once, before the other makes the folders."""
        if path in hidden:
            hidden.remove(path)
            return False
        return exists(path)

    monkeypatch.setattr(Path, "exists", not_yet)
    for finished_first in (True, False):
        cache_dir = tmp_path / f"cache{finished_first}"
        cache = loaded(cache_dir)
        with lock.exclusive(cache.folder):
            hidden.update((cache.folder, cache.folder.parent))
            waiting = Child(build_and_fail_while_waiting, dataset, cache_dir)
            hidden.clear()  # in this process
            assert waiting.connection.recv() == "waiting"
            cache.append(list(expected), np.stack(list(expected.values())))
            if not finished_first:
                waiting.connection.send("go on")
                assert waiting.join() == 0
        if finished_first:
            waiting.connection.send("go on")
            assert waiting.join() == 0
        assert_finished(cache_dir, expected)
