"""A Ray cluster of several nodes on this machine, and an extractor that tells what it computes."""

import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.standin import StandIn

STORE_BYTES = 80 * 2**20  # the least that Ray takes


class Telling(StandIn):
    """Leaves a line in ``folder`` for each photo that it computes; takes ``seconds`` for each.

    After some it waits until so many ``workers`` have computed.
    """

    def __init__(self, folder: Path, seconds: float = 0.0, workers: int = 0) -> None:
        super().__init__()
        self.folder, self.of_each, self.workers = folder, seconds, workers

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if not pixels.any():  # what the network is started with
            return super().__call__(pixels)
        time.sleep(self.of_each * len(pixels))
        with open(self.folder / f"{os.getpid()}", "a") as file:
            file.writelines(f"{hashlib.sha256(x.tobytes()).hexdigest()}\n" for x in pixels)
        if len(self.batches) > 3:
            wait_until(lambda: len(list(self.folder.iterdir())) >= self.workers)
        return super().__call__(pixels)


def computed(folder: Path) -> Counter[str]:
    """How often which photo was computed, by all workers together."""
    return Counter(line for path in folder.iterdir() for line in path.read_text().split())


@contextmanager
def cluster_of(nodes: int, cores: int = 1) -> Iterator[Any]:
    """A head that computes nothing, and so many nodes; this process is connected to it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            add_node(cluster, cores)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any, cores: int = 1) -> Any:
    return cluster.add_node(num_cpus=cores, object_store_memory=STORE_BYTES)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, all that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            child = int(path.parent.name)
            found += [child, *children(child)]
    return found


def kill_node(node: Any) -> None:
    """``kill -9`` of a node with all of its processes, as when the power goes."""
    (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
    for pid in [raylet, *children(raylet)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it has not come about"
        time.sleep(0.1)
