"""Fine-tuning by two processes that find each other through TF_CONFIG, on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bottlenecks.network.tensorflow import import_tensorflow
from retrain.training.devices import is_chief, strategy_for
from tests.conftest import ROOT
from tests.waves import make_waves

SECONDS = 120


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free now; else the test is skipped."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        try:
            for own in sockets:
                own.bind(("127.0.0.1", 0))
        except OSError as error:
            pytest.skip(f"no port of the loopback can be had: {error}")
        return [own.getsockname()[1] for own in sockets]


def tf_config(index: int, ports: list[int]) -> str:
    workers = [f"127.0.0.1:{port}" for port in ports]
    cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    return json.dumps(cluster)


class Worker:
    """``python -m tests.tiny retrain`` as one of the workers at ``ports``, in ``folder``."""

    def __init__(self, folder: Path, index: int, ports: list[int], *flags: str, **env: str) -> None:
        self.graph = folder / f"graph{index}.pb"
        self.out, self.err = folder / f"out{index}", folder / f"err{index}"
        arguments = [
            *("--image_dir=Dataset", "--bottleneck_dir=cache", "--model_dir=models"),
            *("--how_many_training_steps=100", "--validation_percentage=20"),
            *("--fine_tune_from=mixed7", "--fine_tune_epochs=10", "--strategy=multi_worker"),
            *(f"--output_graph={self.graph.name}", f"--output_labels=labels{index}.txt"),
            *flags,
        ]
        with open(self.out, "w") as out, open(self.err, "w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.tiny", "retrain", *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "TF_CONFIG": tf_config(index, ports),
                    **env,
                },
                stdout=out,
                stderr=err,
            )

    def wait(self) -> int:
        """Its exit code. A hang is a failure."""
        return self.process.wait(SECONDS)

    def wait_for(self, line: str) -> None:
        """Until it has printed ``line``."""
        deadline = time.monotonic() + SECONDS
        while line not in self.out.read_text().splitlines():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.1)

    def errors(self) -> list[str]:
        return [x for x in self.err.read_text().splitlines() if x.startswith("error: ")]


@contextmanager
def two_workers(folder: Path, *flags: str, **env: str) -> Iterator[list[Worker]]:
    ports = free_ports(2)
    workers = [Worker(folder, index, ports, *flags, **env) for index in range(2)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("workers")
    make_waves(made / "Dataset", per_label=20)
    return made


TWO_AND_ONE = """
import sys
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.training.devices import strategy_for
strategy = strategy_for("multi_worker")
from tests.retrain.training.test_fine_tuning import after_steps, distance, recipe
assert strategy.num_replicas_in_sync == 2, strategy
for changes in ({}, {"batch_size": 7}):
    two = after_steps(20, recipe(**changes), strategy=strategy)
    assert distance(after_steps(20, recipe(**changes)), two) < 1e-4, changes
print("equal")
"""


def test_two_workers_give_the_weights_of_one() -> None:
    ports = free_ports(2)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AND_ONE],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": tf_config(index, ports)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for worker in workers:
            out, err = worker.communicate(timeout=SECONDS)
            assert out.endswith("equal\n"), err
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_a_lost_worker_is_an_error_and_all_of_them_resume(folder: Path) -> None:
    """The first alone writes, in the end."""
    with two_workers(folder, TINY_CHECKPOINTS="0.2") as (first, second):
        first.wait_for("step 4")
        second.process.kill()
        assert first.wait() == 2
        (error,) = first.errors()
        assert "a worker was lost" in error
        assert "they resume" in error
        assert "Traceback" not in first.err.read_text()
        assert not first.graph.exists()
    with two_workers(folder) as (first, second):
        assert first.wait() == second.wait() == 0, (first.errors(), second.errors())
        assert "going on at step " in first.out.read_text()
        assert "the first worker tests and writes" in second.out.read_text()
        assert first.graph.exists()
        assert not second.graph.exists()
        assert not (folder / "labels1.txt").exists()
        assert not list(folder.glob("cache/*/*.checkpoint"))


def test_workers_of_other_flags_do_not_train_together(folder: Path) -> None:
    ports = free_ports(2)
    first = Worker(folder, 0, ports)
    second = Worker(folder, 1, ports, "--fine_tune_weight_decay=0.5")
    try:
        assert first.wait() == second.wait() == 2
        for worker in (first, second):
            (error,) = worker.errors()
            assert "the same flags" in error
    finally:
        for worker in (first, second):
            worker.process.kill()
            worker.process.wait()


def test_a_worker_that_waits_for_the_others_says_so_and_can_be_stopped(folder: Path) -> None:
    ports = free_ports(2)
    lone = Worker(folder, 0, ports)
    try:
        deadline = time.monotonic() + SECONDS
        while "waiting for all workers" not in lone.err.read_text():
            assert time.monotonic() < deadline, lone.err.read_text()
            time.sleep(0.1)
        assert f"127.0.0.1:{ports[1]}" in lone.err.read_text()
        time.sleep(1)  # until TensorFlow waits, and is deaf
        lone.process.send_signal(signal.SIGINT)
        assert lone.process.wait(10) in (130, -signal.SIGINT)
    finally:
        lone.process.kill()
        lone.process.wait()


@pytest.mark.parametrize(("task", "expected"), [(0, True), (None, True), (1, False)])
def test_the_first_worker_is_the_chief(task: int | None, expected: bool) -> None:
    resolver = SimpleNamespace(task_type="worker", task_id=task)
    assert is_chief(SimpleNamespace(cluster_resolver=resolver)) is expected


def test_who_trains_alone_is_the_chief_whatever_tf_config_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(1, [1, 2]))
    for name in ("none", "mirrored"):
        assert is_chief(strategy_for(name))


def test_one_device_is_no_strategy_but_all_of_a_machine_are() -> None:
    assert strategy_for("none") is None
    strategy = strategy_for("mirrored")
    devices = import_tensorflow().config.list_logical_devices("CPU")
    assert np.isin(len(devices), strategy.num_replicas_in_sync)
