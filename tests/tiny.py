"""A small network of real layers that can be cut at mixed7, for tests of what is above a cut.

``python -m tests.tiny retrain FLAGS...`` runs the command with it. With ``TINY_CHECKPOINTS`` set,
a checkpoint is written after every step, and each step is announced by a line on stdout and takes
so many seconds.
"""

import functools
import hashlib
import os
import sys
from typing import Any

import numpy as np

from bottlenecks.network import layers
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.row_spec import BOTTLENECK, RowSpec

CELL = 23  # pixels: mixed7 has 13 x 13 of them
MAPS = 16  # of the layer behind it
CUTS = ("input", "mixed7")


class Tiny:
    """A `NetworkExtractor`: means over a grid (mixed7), and two convolutions behind them.

    Its ``precision`` is that of the fine-tuning alone.
    """

    def __init__(self, cut: str | None = None, precision: str = "float32") -> None:
        assert cut is None or cut in CUTS
        self.cut, self.precision = cut, precision
        self.rows = 0  # that it has computed

    @property
    def spec(self) -> RowSpec:
        if self.cut == "mixed7":
            return RowSpec("mixed7", (13, 13, 3), "float16", (299, 299))
        return BOTTLENECK if self.cut is None else layers.spec_at(self.cut)

    @property
    def description(self) -> dict[str, Any]:
        return {"architecture": "tiny", "weights": "seeded", "rows": {"name": self.spec.name}}

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"tiny {self.cut}".encode()).hexdigest()

    @functools.cache  # noqa: B019
    def at(self, cut: str) -> "Tiny":
        return Tiny(cut, self.precision)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.rows += len(pixels)
        if self.cut == "input":
            return pixels
        rows: np.ndarray = self._run(pixels.astype(np.float32) / 127.5 - 1)
        return rows.astype(self.spec.dtype)

    @functools.cached_property
    def _run(self) -> Any:
        tf = import_tensorflow()
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3))
            network = tf.compat.v1.GraphDef.FromString(self.frozen)
            tf.import_graph_def(network, {f"{INPUT_NODE}:0": x}, name="")
            output = BOTTLENECK_NODE if self.cut is None else layers.node_of(self.cut)
            session = tf.compat.v1.Session(graph=graph)
            return session.make_callable(f"{output}:0", [x.name])

    @property
    def frozen(self) -> bytes:
        tf = import_tensorflow()
        random = np.random.default_rng(0)

        def layer(x: Any, size: int, outputs: int, name: str) -> Any:
            shape = (size, size, x.shape[-1], outputs)
            kernel = random.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape).astype(np.float32)
            bias = random.normal(0, 0.1, outputs).astype(np.float32)
            x = tf.nn.conv2d(x, tf.constant(kernel), 1, "SAME")
            return tf.nn.relu(tf.nn.bias_add(x, tf.constant(bias)), name=name)

        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3), name=INPUT_NODE)
            with tf.name_scope("inception_v3"):
                cells = tf.nn.avg_pool2d(x, CELL, CELL, "VALID", name="mixed7")
                maps = layer(layer(cells, 3, MAPS, "mixed8"), 1, 2048, "mixed10")
                means = tf.reduce_mean(maps, axis=(1, 2), name="global_average_pooling2d")
            tf.identity(means, name=BOTTLENECK_NODE)
        graph_def = graph.as_graph_def()
        graph_def.node.remove(next(node for node in graph_def.node if node.name == INPUT_NODE))
        serialized: bytes = graph_def.SerializeToString(deterministic=True)
        return serialized


def announce(seconds: float) -> None:
    """Write a checkpoint after every step, and say so."""
    import time

    from retrain.training import checkpoint

    checkpoint.SECONDS = 0.0
    save = checkpoint.Checkpoint.save_sometimes

    def slowly(self: Any, loop: Any) -> None:
        save(self, loop)
        print("step", loop.step, flush=True)
        time.sleep(seconds)

    checkpoint.Checkpoint.save_sometimes = slowly  # type: ignore[method-assign]


if __name__ == "__main__":
    import importlib

    from bottlenecks.command import as_process

    if "TINY_CHECKPOINTS" in os.environ:
        announce(float(os.environ["TINY_CHECKPOINTS"]))
    main = importlib.import_module(f"{sys.argv[1]}.cli").main
    as_process(lambda: main(sys.argv[2:], extractor=Tiny()))
