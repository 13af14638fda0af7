"""A graph whose constants are held in variables gives the same numbers."""

from typing import Any

import numpy as np
import pytest

from bottlenecks.network import frozen
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.tensorflow import import_tensorflow

tf: Any = import_tensorflow()
v1 = tf.compat.v1


def frozen_graph() -> tuple[Any, np.ndarray, np.ndarray]:
    """y = x @ weights + bias, with weights that are large and a bias that is small."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(64, 32)).astype(np.float32)
    bias = random.normal(size=32).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, (None, 64), name="x")
        tf.add(x @ tf.constant(weights, name="weights"), tf.constant(bias, name="bias"), name="y")
    return graph.as_graph_def(), weights, bias


def test_it_computes_the_same_with_its_large_constants_in_variables() -> None:
    graph_def, weights, bias = frozen_graph()
    given = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        half = v1.placeholder(tf.float32, (None, 64))
        initialise = import_frozen(graph_def, {"x:0": half * 2})
        initialise(session)
        y = session.run("y:0", {half: given / 2})
        constants = [op.name for op in graph.get_operations() if op.type == "Const"]
        assert [v.shape for v in v1.global_variables()] == [(64, 32)]
    np.testing.assert_allclose(y, given @ weights + bias, rtol=1e-5, atol=1e-5)
    assert "weights" not in constants
    assert "bias" in constants
    assert len(graph_def.node) == 0


def test_a_broken_graph_is_a_value_error() -> None:
    graph_def, _, _ = frozen_graph()
    next(node for node in graph_def.node if node.name == "y").input[0] = "missing"
    with tf.Graph().as_default(), pytest.raises(ValueError, match="missing"):
        import_frozen(graph_def, {})


def test_of_very_many_large_constants_the_largest_become_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen, "MOST_VARIABLES", 10)
    with tf.Graph().as_default() as graph:
        for i in range(15):
            tf.identity(tf.constant(np.full((32, 32 + (i >= 5)), i, np.float32)))
    with tf.Graph().as_default():
        import_frozen(graph.as_graph_def(), {})
        assert [tuple(v.shape) for v in v1.global_variables()] == [(32, 33)] * 10
