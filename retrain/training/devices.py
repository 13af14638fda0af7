"""On which devices fine-tuning runs: one, all of a machine, or those of several machines."""

import contextlib
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

from bottlenecks.errors import UsageError, WorkerError, shown
from bottlenecks.network.engines.devices import gpus
from bottlenecks.network.tensorflow import import_tensorflow

log = logging.getLogger(__name__)


def strategy_for(name: str) -> Any:
    """The ``tf.distribute`` strategy of ``name``, or None for a single device.

    "mirrored" is for the GPUs of this machine, or where it has none for its (logical) processors;
    "multi_worker" for the machines of ``TF_CONFIG``; "auto" for whichever of them there are several
    of. All devices take part in each step, and their gradients are added up.

    Workers wait here for each other. Raises `UsageError` for a ``TF_CONFIG`` that cannot be used,
    `WorkerError` for others that cannot be reached.
    """
    if name == "none":
        return None
    workers = 0 if name == "mirrored" else count_workers()
    if name == "auto" and workers < 2 and not gpus()[1:]:
        return None
    tf = import_tensorflow()
    if name == "multi_worker" or (name == "auto" and workers > 1):
        if not workers:
            raise UsageError(
                "--strategy multi_worker needs TF_CONFIG in the environment: the addresses of the "
                'workers and which of them this is, as {"cluster": {"worker": ["host:port", ...]}, '
                '"task": {"type": "worker", "index": 0}}'
            )
        return _together(tf)
    devices = gpus() or [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices)


def count_workers() -> int:
    """How many workers ``TF_CONFIG`` names; 0 without one. Raises `UsageError`."""
    return len(_cluster()[0])


def is_chief(strategy: Any) -> bool:
    """Whether this process writes what all workers have made: the first, or the only one."""
    resolver = None if strategy is None else strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def is_the_same(strategy: Any, value: int) -> bool:
    """Whether all workers of ``strategy`` call this with one ``value``, in 0 <= value < 2**63."""
    if strategy.cluster_resolver is None:
        return True
    tf = import_tensorflow()
    own = strategy.experimental_distribute_values_from_function(
        lambda _: tf.constant([value], tf.int64)
    )
    return bool((strategy.gather(own, axis=0).numpy() == value).all())


def check_same(strategy: Any, identity: str) -> None:
    """Raise `WorkerError` unless all workers have the same ``identity``, hexadecimal digits."""
    if not is_the_same(strategy, int(identity[:15], 16)):
        raise WorkerError(
            "the workers do not train the same: start all of them with the same flags, the same "
            "images and the same version of this program"
        )


@contextlib.contextmanager
def if_worker_lost(strategy: Any) -> Iterator[None]:
    """Turn what TensorFlow raises where another worker is gone into a `WorkerError`."""
    try:
        yield
    except Exception as error:
        if strategy is None or strategy.cluster_resolver is None:
            raise
        kinds = import_tensorflow().errors
        lost = kinds.UnavailableError, kinds.AbortedError, kinds.CancelledError
        unwell = kinds.FailedPreconditionError, kinds.DeadlineExceededError, kinds.InternalError
        if not isinstance(error, (*lost, *unwell)):
            raise
        raise WorkerError(
            f"a worker was lost ({_first_line(error)}); start all of them again with the same "
            "commands, they resume"
        ) from error


def _together(tf: Any) -> Any:
    """The strategy of the workers, once all of them are there. Raises `WorkerError`."""
    addresses = ", ".join(map(shown, _cluster()[0]))
    log.warning("waiting for all workers to start: %s", addresses)
    try:
        with _deadly_signals():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except Exception as error:
        raise WorkerError(
            f"the workers cannot be reached ({_first_line(error)}); see that the addresses in "
            f"TF_CONFIG are right and free. Received: {addresses}"
        ) from error


@contextlib.contextmanager
def _deadly_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the process at once, within.

    TensorFlow waits without end, and holds the lock that Python's handlers need.
    """
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own = {number: handler for number, handler in found.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        own = {}  # no other may set any
    for number in own:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)


def _first_line(error: Exception) -> str:
    """What an error says, or its type where it says nothing."""
    lines = str(getattr(error, "message", error)).splitlines()
    said = [line for line in lines if line.strip() and "node" not in line]
    return shown(said[-1].strip()[:200]) if said else type(error).__name__


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
            list(config["cluster"]) == [task["type"]] == ["worker"]
            and isinstance(workers, list)
            and all(_has_port(address) for address in workers)
            and type(index) is int
            and 0 <= index < len(workers)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise UsageError(
            'TF_CONFIG must be as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            f'"worker", "index": 0}}}}; other tasks than workers are not used. Received: '
            f"{shown(text[:200])}"
        )
    return workers, index


def _has_port(address: str) -> bool:
    found = re.fullmatch(r".+:([0-9]{1,5})", address)
    return found is not None and 0 < int(found[1]) < 2**16
