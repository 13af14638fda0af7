"""TensorFlow as the engine of the frozen network: in float32 and bfloat16, on GPUs too."""

import os
from typing import Any

import numpy as np

from bottlenecks import machine
from bottlenecks.network import layers
from bottlenecks.network.engines import bfloat16
from bottlenecks.network.engines.devices import Run, gpus, in_parts
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import INPUT_SIZE

NAME = "tensorflow"
TITLE = "TensorFlow"


def is_installed() -> bool:
    """Always: the program needs it."""
    return True


def marks(precision: str) -> dict[str, Any]:
    """What of this engine changes a row.

    NVIDIA's GPUs multiply float32 with 10 binary digits (TF32), unless they are told not to.
    """
    if precision == "bfloat16":
        return {"bfloat16": bfloat16.VERSION}
    is_exact = os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
    return {} if is_exact or not machine.has_gpu() else {"gpu": "TF32"}


def start(frozen: bytes, cut: str | None, precision: str, int8: bytes | None) -> Run:
    """The network on the usual device, or on each of several GPUs with a part of a batch.

    See `Engine.start`; ``int8`` is None.
    """
    devices = gpus()
    if len(devices) < 2:
        return _on(None, frozen, cut, precision)
    return in_parts([_on(device, frozen, cut, precision) for device in devices])


def _on(device: str | None, frozen: bytes, cut: str | None, precision: str) -> Run:
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(frozen)
    if cut is not None:
        graph_def = layers.below(graph_def, cut)
    if precision == "bfloat16":
        graph_def = bfloat16.to_bfloat16(graph_def)
    with tf.Graph().as_default() as graph, tf.device(device):
        pixels = tf.compat.v1.placeholder(tf.uint8, (None, *INPUT_SIZE, 3))
        scaled = tf.cast(pixels, tf.float32) / 127.5 - 1.0
        initialise = import_frozen(graph_def, {f"{INPUT_NODE}:0": scaled})
        output = BOTTLENECK_NODE if cut is None else layers.CUT_NODE
        dtype = tf.float32 if cut is None else layers.spec_at(cut).dtype
        rows = tf.cast(graph.get_tensor_by_name(f"{output}:0"), dtype)
    session = tf.compat.v1.Session(graph=graph)
    initialise(session)
    run = session.make_callable(rows, [pixels])
    exhausted = tf.errors.ResourceExhaustedError

    def checked(pixels: np.ndarray) -> np.ndarray:
        try:
            rows: np.ndarray = run(pixels)
        except exhausted as error:
            raise MemoryError("TensorFlow is out of memory") from error
        return rows

    return checked
