"""What does a cluster cost, and how much do more machines bring?

``--cluster local`` with its one worker against no cluster, both as commands, without the time that
Ray itself takes to start and to end; three nodes of a cluster on this machine against one, with a
stand-in that sleeps 30 ms for each photo; and what a worker and its driver do for a row beside
reading and computing it, against what the disk takes.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import Finding, Inputs, alternate, command, main, of, photos

from bottlenecks import atomic
from bottlenecks.builder import build
from bottlenecks.cluster.connection import connected
from bottlenecks.cluster.crew import crew
from bottlenecks.computing import Computing, Read, here
from bottlenecks.config import Config
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store.cache import LARGE_SHARD_BYTES, Cache

PHOTOS, SECONDS = 600, 0.03
ROWS, BATCH = 100_000, 256
STORE_BYTES = 100 * 2**20
SHARD_BYTES = LARGE_SHARD_BYTES // 2


@dataclass(frozen=True)
class Sleeping:
    """An extractor that takes ``seconds`` for each photo and gives zeros."""

    seconds: float
    spec = BOTTLENECK
    fingerprint = "5" * 64
    description = {"architecture": "none", "weights": "none"}  # noqa: RUF012

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds * len(pixels))
        return np.zeros((len(pixels), *self.spec.shape), self.spec.dtype)


class OfAPixel(Sleeping):
    spec = replace(BOTTLENECK, input_size=(1, 1))


def made_up(number: int, _: object) -> Read[bytes]:
    """Reads nothing: a key of the ``number``, and one pixel."""
    key = number.to_bytes(32, "little")
    return Read(key, {key: np.zeros((1, 1, 3), np.uint8)})


def measure(inputs: Inputs) -> list[Finding]:
    rounds = int(inputs.options["rounds"])
    only = str(inputs.options["only"]).split(",")
    parts: dict[str, Callable[[], list[Finding]]] = {
        "local": lambda: of_local(inputs, rounds),
        "nodes": lambda: of_nodes(inputs, rounds),
        "commit": lambda: of_commit(rounds),
    }
    return [finding for name, part in parts.items() if name in only for finding in part()]


def of_local(inputs: Inputs, rounds: int) -> list[Finding]:
    with photos(inputs.image_dir, PHOTOS) as folder:
        flags = ["--image_dir=photos", f"--weights={inputs.weights}", "--precision=float32"]
        flags += ["--model_dir=models"]

        def run(*more: str) -> None:
            shutil.rmtree(folder / "bottleneck_cache", ignore_errors=True)
            command("-m", "bottlenecks", *flags, *more, folder=folder)()

        def ray_alone() -> None:
            with connected("local"):
                pass

        run()  # freezes the network
        sides = {"one": run, "local": lambda: run("--cluster=local"), "ray": ray_alone}
        seconds = alternate(sides, rounds, warm_up=False)
    overhead = [
        100 * ((local - ray) / one - 1)
        for one, local, ray in zip(seconds["one"], seconds["local"], seconds["ray"], strict=True)
    ]
    return [
        of(
            f"--cluster local, {PHOTOS} photos: overhead beyond Ray's start",
            overhead,
            "%",
            at_most=10,
        ),
        of("  Ray's own start and end", seconds["ray"], "s"),
    ]


def of_nodes(inputs: Inputs, rounds: int) -> list[Finding]:
    rates: dict[int, list[float]] = {1: [], 3: []}
    whole: dict[int, list[float]] = {1: [], 3: []}
    with photos(inputs.image_dir, PHOTOS) as folder:
        for _ in range(rounds):
            for nodes in rates:
                with cluster_of(nodes) as address:
                    config = Config(
                        image_dir=str(folder / "photos"),
                        bottleneck_dir=str(folder / "cache"),
                        cluster=address,
                        decode_threads=1,
                    )
                    started = time.perf_counter()
                    report = build(config, extractor=Sleeping(SECONDS))
                    whole[nodes].append(time.perf_counter() - started)
                    rates[nodes].append(report.images_per_second)
                    shutil.rmtree(folder / "cache")
    scaled = [three / one for one, three in zip(rates[1], rates[3], strict=True)]
    with_start = [one / three for one, three in zip(whole[1], whole[3], strict=True)]
    return [
        of("three nodes / one, 30 ms a photo", scaled, "times", at_least=2.7),
        of("  with the start of the workers", with_start, "times"),
        of("  one", rates[1], "images/s"),
    ]


@contextmanager
def cluster_of(nodes: int) -> Iterator[str]:
    """So many nodes on this machine, with a core each; gives their address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    size = {"object_store_memory": STORE_BYTES}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **size})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, **size)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
        yield str(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def of_commit(rounds: int) -> list[Finding]:
    rates, of_one, of_disk = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            rates.append(commit(Path(folder)))
        with tempfile.TemporaryDirectory() as folder:
            of_one.append(commit(Path(folder), by_cluster=False))
        with tempfile.TemporaryDirectory() as folder:
            of_disk.append(disk(Path(folder)))
    least = min(20_000.0, statistics.median(of_disk))
    return [
        of("commit path alone", rates, "rows/s", at_least=least),
        of("  without a cluster", of_one, "rows/s"),
        of("  the disk, files of 32 MiB, each synced", of_disk, "rows/s"),
    ]


def commit(folder: Path, by_cluster: bool = True) -> float:
    """Rows a second of a worker that has nothing to read or compute, from the first to the last."""
    extractor = OfAPixel(0.0)
    cache = Cache(folder, extractor.fingerprint, extractor.spec)
    nothing = lambda: None  # noqa: E731
    computing: AbstractContextManager[Computing[int, bytes]] = (
        crew("local", cache, extractor, made_up, "", BATCH, 1, 1, nothing)
        if by_cluster
        else here(cache, extractor, made_up, BATCH, 1)
    )
    with cache.writing(extractor.description), computing as rows:
        for _, key in rows.read(range(ROWS)):
            rows.add(key)
        rate = rows.images_per_second
    assert len(cache) == ROWS
    return rate


def disk(folder: Path) -> float:
    """The same bytes as shards, made before."""
    data = os.urandom(SHARD_BYTES)
    count = ROWS * BOTTLENECK.nbytes // SHARD_BYTES
    started = time.perf_counter()
    for i in range(count):
        atomic.write_bytes(folder / f"{i}", data)
    return count * SHARD_BYTES / BOTTLENECK.nbytes / (time.perf_counter() - started)


if __name__ == "__main__":
    main(measure, __doc__, rounds=3, only="local,nodes,commit")
