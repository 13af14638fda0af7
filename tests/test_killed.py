"""Killed at any moment, the cache loses at most what was not committed, and never lies."""

import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.conftest import make_dataset
from tests.crashing import (
    BOTTLENECKS,
    KINDS,
    Child,
    Kind,
    Steps,
    assert_finished,
    assert_only_right_rows,
    build,
    build_and_tell,
    expected_rows,
    kill_self,
    loaded,
    trials,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("killed") / "Dataset", per_label=16)


@pytest.fixture(scope="module")
def duration(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that an undisturbed build takes here, to kill at moments all over it."""
    started = time.monotonic()
    child = Child(build_and_tell, dataset, tmp_path_factory.mktemp("undisturbed"))
    assert child.join() == 0
    return time.monotonic() - started


def test_killed_at_random_moments(dataset: Path, duration: float, tmp_path: Path) -> None:
    expected = expected_rows(dataset)
    survived = 0
    for trial in trials(20, 300):
        cache_dir = tmp_path / f"cache{trial}"
        child = Child(build_and_tell, dataset, cache_dir)
        time.sleep(random.Random(trial).uniform(0, duration))
        child.kill()
        committed = max(child.messages(), default=0)
        cache = loaded(cache_dir)
        assert not cache.damaged
        assert len(cache) >= committed
        assert_only_right_rows(cache, expected)
        survived += 0 < len(cache) < len(expected)
        report = build(dataset, cache_dir)
        assert report.cached == len(cache)
        assert_finished(cache_dir, expected)
    assert survived > 0, "no kill hit a build between its first and its last commit"


def test_chains_of_kills_end_as_an_undisturbed_run(
    dataset: Path, duration: float, tmp_path: Path
) -> None:
    expected = expected_rows(dataset)
    for trial in trials(4, 20):
        chance = random.Random(trial)
        cache_dir = tmp_path / f"cache{trial}"
        for _ in range(chance.randint(1, 5)):
            child = Child(build_and_tell, dataset, cache_dir)
            time.sleep(chance.uniform(0, duration / 2))
            child.kill()
        build(dataset, cache_dir)
        assert_finished(cache_dir, expected)


def killed_at_step(
    connection: Connection, dataset: Path, cache_dir: Path, step: int, kind: Kind
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        steps = Steps(patch, step, kill_self)
        build_and_tell(connection, dataset, cache_dir, kind)
        connection.send(("steps", steps.count))


@KINDS
def test_killed_at_every_step_of_the_writing(kind: Kind, tmp_path: Path) -> None:
    """Of rows of a cut at 25 of the steps, which are more of the same; in the soak at all."""
    dataset = make_dataset(tmp_path / "Dataset", per_label=3 if kind is BOTTLENECKS else 2)
    expected = kind.expected(dataset)
    undisturbed = Child(killed_at_step, dataset, tmp_path / "all", -1, kind)
    assert undisturbed.join() == 0
    steps = undisturbed.messages()[-1][1]
    assert steps > 30  # three commits of five steps each, a merge, and the smaller files
    chosen = trials(steps if kind is BOTTLENECKS else 25, steps)
    for trial in chosen:
        step = trial * steps // len(chosen)
        cache_dir = tmp_path / f"cache{step}"
        child = Child(killed_at_step, dataset, cache_dir, step, kind)
        assert child.join() == -9
        committed = max(child.messages(), default=0)
        cache = loaded(cache_dir, kind)
        assert not cache.damaged
        assert len(cache) >= committed
        assert_only_right_rows(cache, expected)
        kind.fill(dataset, cache_dir)
        assert_finished(cache_dir, expected, kind)
