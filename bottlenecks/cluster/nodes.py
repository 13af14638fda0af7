"""The machines of a cluster, and a worker or more on each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bottlenecks.cluster.worker import Worker

THREADS = 16  # of a worker's calls, most of which wait for one another


@dataclass(frozen=True)
class Place:
    """Where a worker can be: the ``number``-th of a machine, with its share of cores and GPUs."""

    node: str
    number: int
    machine: str
    cores: int
    gpus: int


def places(ray: Any) -> Iterator[Place]:
    """All places of the machines that are there now.

    A machine has a place for each GPU, else one with all of its cores, as the network uses them.
    One that offers neither to Ray has none.
    """
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        cores, gpus = (int(node["Resources"].get(what, 0)) for what in ("CPU", "GPU"))
        machine = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        if gpus:
            share = cores // gpus
            yield from (Place(node["NodeID"], i, machine, share, 1) for i in range(gpus))
        elif cores:
            yield Place(node["NodeID"], 0, machine, cores, 0)


def start(ray: Any, place: Place, exact: bool) -> Any:
    """An actor that is a `Worker`, at its place once that is free.

    ``exact`` float32 is computed as processors do, on GPUs too.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    variables = {"NVIDIA_TF32_OVERRIDE": "0"} if exact else {}
    return (
        ray.remote(Worker)
        .options(
            max_concurrency=THREADS,
            num_cpus=place.cores,
            num_gpus=place.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            runtime_env={"env_vars": variables} if place.gpus and variables else None,
        )
        .remote()
    )
