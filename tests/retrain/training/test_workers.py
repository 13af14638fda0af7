"""Several workers go on together or not at all."""

import json
import os
import socket
import subprocess
import sys

import pytest

from retrain.training.devices import check_agreement
from tests.conftest import ROOT

AGREE = """
import sys
from bottlenecks.errors import UsageError
from retrain.training.devices import check_agreement, strategy_for

strategy = strategy_for("multi_worker")
try:
    check_agreement(strategy, int(sys.argv[1]))
    print("agreed")
except UsageError as error:
    print(error)
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def said_by_workers(steps: list[int]) -> list[str]:
    """What workers say that would go on from ``steps``."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(steps))]
    workers = []
    for index, step in enumerate(steps):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config), "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-c", AGREE, str(step)]
        workers.append(subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True))
    return [worker.communicate(timeout=120)[0] for worker in workers]


def test_workers_at_one_step_go_on() -> None:
    assert said_by_workers([9, 9]) == ["agreed\n"] * 2


def test_workers_at_different_steps_all_end_with_an_error() -> None:
    for said in said_by_workers([9, 0]):
        assert "would go on from the steps 9, 0; give all of them one --bottleneck_dir" in said


def test_one_process_has_nobody_to_agree_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    check_agreement(None, 9)
