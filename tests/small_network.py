"""A frozen network of the operations of InceptionV3, small enough to be calibrated in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.network import inception
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow

CONVOLUTIONS = 5  # that read levels: all but the first


def small_frozen() -> bytes:
    """A serialized GraphDef as `bottlenecks.network.inception.freeze` writes it; of seeded weights.

    A stem, a block with a mean pool before a 1x1 convolution, and one that gives 2048 channels.
    """
    tf = import_tensorflow()
    random = np.random.default_rng(0)

    def conv(x: Any, name: str, shape: tuple[int, ...], stride: int = 1) -> Any:
        kernel = random.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[:3]))
        padding = "VALID" if stride > 1 else "SAME"
        x = tf.nn.conv2d(x, tf.constant(kernel, tf.float32), stride, padding, name=f"s/{name}")
        bias = tf.constant(random.normal(0, 0.1, shape[3]), tf.float32)
        return tf.nn.relu(tf.nn.bias_add(x, bias, name=f"s/{name}_bias"), name=f"s/{name}_relu")

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3), name=INPUT_NODE)
        x = conv(x, "stem", (7, 7, 3, 8), 8)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID", name="s/pool")
        pooled = tf.nn.avg_pool2d(x, 3, 1, "SAME", name="s/mean")
        x = tf.concat(
            [conv(x, "one", (1, 1, 8, 16)), conv(pooled, "two", (1, 1, 8, 16))], -1, name="s/mixed"
        )
        x = conv(x, "wide", (1, 3, 32, 24))
        x = conv(x, "high", (3, 1, 24, 16), 2)
        x = conv(x, "last", (1, 1, 16, 2048))
        tf.identity(tf.reduce_mean(x, (1, 2), name="s/all"), name=BOTTLENECK_NODE)
    graph_def = graph.as_graph_def()
    graph_def.node.remove(next(node for node in graph_def.node if node.name == INPUT_NODE))
    return bytes(graph_def.SerializeToString(deterministic=True))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], InceptionV3]:
    """Makes an InceptionV3 with "random" weights, whose network is the small one."""
    frozen = small_frozen()
    monkeypatch.setattr(inception, "keras_model", lambda *_: None)
    monkeypatch.setattr(inception, "freeze", lambda _: frozen)
    return lambda: InceptionV3("random", tmp_path / "models")
