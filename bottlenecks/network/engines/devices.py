"""The GPUs of a machine, and a batch that is shared out among several."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bottlenecks.machine import has_gpu
from bottlenecks.network.tensorflow import import_tensorflow

Run = Callable[[np.ndarray], np.ndarray]  # pixels (n, height, width, 3) uint8 -> rows (n, ...)


def gpus() -> list[str]:
    """TensorFlow's names of them; without a look at TensorFlow where the machine has none."""
    if not has_gpu():
        return []
    return [device.name for device in import_tensorflow().config.list_logical_devices("GPU")]


def in_parts(runs: Sequence[Run]) -> Run:
    """All of ``runs``, each at the same time on its part of the pixels; rows in their order."""
    threads = ThreadPoolExecutor(len(runs), "network")

    def run(pixels: np.ndarray) -> np.ndarray:
        parts = np.array_split(pixels, min(len(runs), max(1, len(pixels))))
        return np.concatenate(list(threads.map(lambda f, part: f(part), runs, parts)))

    return run
