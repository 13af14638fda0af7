"""An OpenVINO model on this machine's processor: exact, from several threads, and safe to fork."""

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from bottlenecks.machine import usable_cores
from bottlenecks.network.engines.openvino_graph import import_openvino

FLOAT32, BFLOAT16 = "f32", "bf16"  # OpenVINO's names of them
# Parts of a batch that are run beside each other, each by as many cores; of each the activations
# are in memory. On two cores two were 11 to 16 % faster than one in float32, 3 % in 8 bits.
_MOST_STREAMS = 8


class Runner:
    """Runs an ``openvino.Model`` of one input on all cores; floats are of ``bits``.

    A single photo is shared by the cores; of several, if the model takes any number, each core has
    its own. Several threads may call it at once. In a forked child it is of no use, but does no
    harm there. Nothing is kept on disk, and no thread is bound to a core, where another process's
    might be.

    Raises ``RuntimeError`` where OpenVINO cannot do that.
    """

    def __init__(self, model: Any, bits: str = FLOAT32) -> None:
        self._model, self._bits = model, bits
        sizes = model.inputs[0].get_partial_shape()
        self._most_streams = min(usable_cores(), _MOST_STREAMS) if sizes[0].is_dynamic else 1
        # Of one that is for more at once the one before may be in use. It takes a second, so
        # none is made before it is known what for.
        self._compiled: list[_Compiled] = []
        self._compiling = threading.Lock()
        self.busy: list[int] = []  # an element for each batch that is in work
        _alive.add(self)

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """What the outputs are for (n, height, width, 3), each (n, ...) float32.

        Raises ``RuntimeError``.
        """
        self.busy.append(1)
        try:
            if not _exiting.is_set():
                return self._for(len(pixels)).infer(pixels)
        finally:
            self.busy.pop()
        while True:  # in a daemon thread, which Python stops
            time.sleep(60)

    def _for(self, photos: int) -> "_Compiled":
        """The model, compiled for so many photos at once or for more."""
        streams = self._most_streams if photos > 1 else 1
        with self._compiling:
            if not self._compiled or self._compiled[-1].streams < streams:
                self._compiled.append(_Compiled(self._model, self._bits, streams))
            return self._compiled[-1]


class _Compiled:
    """A model that runs up to ``streams`` parts of a batch beside each other."""

    def __init__(self, model: Any, bits: str, streams: int) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": bits,
            "EXECUTION_MODE_HINT": "ACCURACY" if bits == FLOAT32 else "PERFORMANCE",
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": usable_cores(),
            "ENABLE_CPU_PINNING": False,
        }
        self.streams = streams
        self._model = import_openvino().Core().compile_model(model, "CPU", options)
        self._idle: list[Any] = []  # what runs a part, for one thread at a time
        self._requests: list[Any] = []

    def infer(self, pixels: np.ndarray) -> list[np.ndarray]:
        """As `Runner` gives it."""
        if self.streams == 1:
            return self._infer_whole(pixels)
        parts = np.array_split(pixels, min(self.streams, len(pixels)))
        requests = [self._request() for _ in parts]
        with ExitStack() as started:  # all are waited for, whatever becomes of one
            for request, part in zip(requests, parts, strict=True):
                request.start_async([part], share_inputs=True)
                started.callback(request.wait)
        results = [list(request.results.values()) for request in requests]
        joined = [np.concatenate(outputs) for outputs in zip(*results, strict=True)]
        self._idle += requests
        return joined

    def _infer_whole(self, pixels: np.ndarray) -> list[np.ndarray]:
        request = self._request()
        try:
            return list(request.infer([pixels], share_inputs=True).values())
        finally:
            self._idle.append(request)

    def _request(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
            self._requests.append(request)
            return request


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
