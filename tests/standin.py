"""A stand-in for InceptionV3 that needs no weights: average pooling over a grid.

``python -m tests.standin bottlenecks|retrain FLAGS...`` runs a command with it. With
``STANDIN_SECONDS`` set, each batch takes that long and is announced by a line on stdout.
"""

import hashlib
import os
import sys
from typing import Any

import numpy as np

from bottlenecks.row_spec import BOTTLENECK, RowSpec

GRID = 26  # 26 x 26 x 3 = 2028 of the 2048 numbers; the rest are 0
CELL = 11


class StandIn:
    """An extractor that runs in NumPy, and whose graph gives the same numbers.

    ``tag`` makes another fingerprint of it, ``seconds`` makes each batch slow.
    """

    spec: RowSpec = BOTTLENECK
    precision = "float32"

    def __init__(self, tag: str = "", seconds: float = 0.0) -> None:
        self.description: dict[str, Any] = {
            "architecture": "average pooling",
            "weights": f"none{tag}",
        }
        self.fingerprint = hashlib.sha256(f"average pooling {tag}".encode()).hexdigest()
        self.seconds = seconds
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        import time

        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (299, 299, 3)
        self.batches.append(len(pixels))
        time.sleep(self.seconds)
        side = GRID * CELL
        cells = pixels[:, :side, :side].astype(np.float32) / np.float32(127.5) - 1
        cells = cells.reshape(-1, GRID, CELL, GRID, CELL, 3).mean(axis=(2, 4), dtype=np.float32)
        flat = cells.reshape(len(pixels), -1)
        return np.pad(flat, ((0, 0), (0, 2048 - flat.shape[1])))

    def at(self, cut: str) -> "StandIn":
        raise NotImplementedError("it cannot be cut; tests.tiny has one that can")

    @property
    def frozen(self) -> bytes:
        from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE, NETWORK_SCOPE
        from bottlenecks.network.tensorflow import import_tensorflow

        tf = import_tensorflow()
        side = GRID * CELL
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3), name=INPUT_NODE)
            with tf.name_scope(NETWORK_SCOPE):
                pooled = tf.nn.avg_pool2d(x[:, :side, :side], CELL, CELL, "VALID")
                flat = tf.reshape(pooled, (-1, GRID * GRID * 3))
                padded = tf.pad(flat, ((0, 0), (0, 2048 - GRID * GRID * 3)))
            tf.identity(padded, name=BOTTLENECK_NODE)
        graph_def = graph.as_graph_def()
        graph_def.node.remove(next(node for node in graph_def.node if node.name == INPUT_NODE))
        serialized: bytes = graph_def.SerializeToString(deterministic=True)
        return serialized


class AtCut(StandIn):
    """Rows of a cut, in NumPy: means over another grid, (13, 13, 3) float16."""

    spec = RowSpec("mixed7", (13, 13, 3), "float16", (299, 299))

    def __init__(self, tag: str = "", seconds: float = 0.0) -> None:
        super().__init__(f"{tag} at a cut", seconds)
        self.description |= {"rows": {"name": self.spec.name}}

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        grid = super().__call__(pixels)[:, : GRID * GRID * 3].reshape(-1, 13, 2, 13, 2, 3)
        rows: np.ndarray = grid.mean(axis=(2, 4)).astype(self.spec.dtype)
        return rows


class Announcing(StandIn):
    """Says when it begins a batch, so that a test knows when to interrupt it."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        print("batch", len(self.batches) + 1, flush=True)
        return super().__call__(pixels)


if __name__ == "__main__":
    import importlib

    from bottlenecks.command import as_process

    main = importlib.import_module(f"{sys.argv[1]}.cli").main
    seconds = os.environ.get("STANDIN_SECONDS")
    extractor = Announcing(seconds=float(seconds)) if seconds else StandIn()
    as_process(lambda: main(sys.argv[2:], extractor=extractor))
