"""On which devices fine-tuning runs: one, all of a machine, or those of several machines."""

import json
import os
from typing import Any

from bottlenecks.errors import UsageError, shown
from bottlenecks.network.tensorflow import import_tensorflow


def strategy_for(name: str) -> Any:
    """The ``tf.distribute`` strategy of ``name``, or None for a single device.

    "mirrored" is for the GPUs of this machine, or where it has none for its (logical) processors;
    "multi_worker" for the machines of ``TF_CONFIG``; "auto" for whichever of them there are several
    of. All devices take part in each step, and their gradients are added up.

    Raises `UsageError` for a ``TF_CONFIG`` that cannot be used.
    """
    workers = count_workers()
    if name == "none" or (name == "auto" and workers < 2 and not _gpus()[1:]):
        return None
    tf = import_tensorflow()
    if name == "multi_worker" or (name == "auto" and workers > 1):
        if not workers:
            raise UsageError(
                "--strategy multi_worker needs TF_CONFIG in the environment: the addresses of the "
                'workers and which of them this is, as {"cluster": {"worker": ["host:port", ...]}, '
                '"task": {"type": "worker", "index": 0}}'
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = _gpus() or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def count_workers() -> int:
    """How many workers ``TF_CONFIG`` names; 0 without one. Raises `UsageError`."""
    return len(_cluster()[0])


def is_chief() -> bool:
    """Whether this process writes what all workers have made: the first, or the only one."""
    return _cluster()[1] == 0


def _cluster() -> tuple[list[str], int]:
    """The addresses of all workers, and which of them this is. Raises `UsageError`."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return [], 0
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        index = task["index"]
        is_whole = (
            task["type"] == "worker"
            and all(isinstance(address, str) for address in workers)
            and isinstance(index, int)
            and 0 <= index < len(workers)
        )
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise UsageError(
            'TF_CONFIG must be as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            f'"worker", "index": 0}}}}; other tasks than workers are not used. Received: '
            f"{shown(text[:200])}"
        )
    return workers, index


def _gpus() -> list[Any]:
    """TensorFlow's GPUs; without a look at TensorFlow where the machine has none."""
    from bottlenecks.machine import has_gpu

    return import_tensorflow().config.list_logical_devices("GPU") if has_gpu() else []
