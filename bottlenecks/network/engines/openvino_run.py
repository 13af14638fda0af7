"""An OpenVINO model on this machine's processor: exact, from several threads, and safe to fork."""

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from bottlenecks.machine import usable_cores
from bottlenecks.network.engines.openvino_graph import import_openvino

FLOAT32, BFLOAT16 = "f32", "bf16"  # OpenVINO's names of them


class Runner:
    """Runs an ``openvino.Model`` of one input, each batch on all cores; floats are of ``bits``.

    Several threads may call it at once. In a forked child it is of no use, but does no harm there.
    Nothing is kept on disk, and no thread is bound to a core, where another process's might be.

    Raises ``RuntimeError`` where OpenVINO cannot do that.
    """

    def __init__(self, model: Any, bits: str = FLOAT32) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": bits,
            "EXECUTION_MODE_HINT": "ACCURACY" if bits == FLOAT32 else "PERFORMANCE",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": usable_cores(),
            "ENABLE_CPU_PINNING": False,
        }
        self._model = import_openvino().Core().compile_model(model, "CPU", options)
        self._idle: list[Any] = []  # what runs a batch, for one thread at a time
        self._requests: list[Any] = []
        self.busy: list[int] = []  # an element for each batch that is in work
        _alive.add(self)

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """What the outputs are for (n, height, width, 3), each (n, ...) float32.

        Raises ``RuntimeError``.
        """
        self.busy.append(1)
        try:
            if not _exiting.is_set():
                return self._infer(pixels)
        finally:
            self.busy.pop()
        while True:  # in a daemon thread, which Python stops
            time.sleep(60)

    def _infer(self, pixels: np.ndarray) -> list[np.ndarray]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
            self._requests.append(request)
        try:
            return list(request.infer([pixels], share_inputs=True).values())
        finally:
            self._idle.append(request)


_alive: weakref.WeakSet[Runner] = weakref.WeakSet()
_exiting = threading.Event()
_keep: Callable[[Any], None] = ctypes.pythonapi.Py_IncRef


@atexit.register
def _let_finish() -> None:
    """A daemon thread that comes out of OpenVINO when Python is gone would abort the process."""
    _exiting.set()
    while any(runner.busy for runner in list(_alive)):
        time.sleep(0.001)


def _keep_for_ever() -> None:
    """Their ends wait for threads that are not there in a forked child, which would never exit."""
    for runner in list(_alive):
        runner.busy.clear()
        _keep(ctypes.py_object(runner))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_keep_for_ever)
