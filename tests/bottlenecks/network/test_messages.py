"""TensorFlow's messages without TensorFlow: the same bytes, and the same values."""

import numpy as np
import pytest

from bottlenecks.errors import GraphError
from bottlenecks.network.messages import constants_of, message
from bottlenecks.network.tensorflow import import_tensorflow

VALUES = {
    "kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
    "equal": np.full((3, 5), 0.5, np.float32),
    "scalar": np.array(2.5, np.float32),
    "zeros": np.zeros(7, np.float32),
    "axis": np.array(-1, np.int32),
    "axes": np.array([1, 2], np.int32),
    "nothing": np.empty((0, 3), np.float32),
}


def serialised() -> bytes:
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        for name, value in VALUES.items():
            tf.constant(value, name=name)
        tf.constant("text", name="text")
    return bytes(graph.as_graph_def().SerializeToString(deterministic=True))


def test_the_constants_have_the_values_that_tensorflow_gave_them() -> None:
    found = constants_of(message("GraphDef").FromString(serialised()))
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_the_bytes_are_those_of_tensorflow() -> None:
    data = serialised()
    assert message("GraphDef").FromString(data).SerializeToString(deterministic=True) == data


def test_a_constant_of_another_size_is_an_error() -> None:
    graph_def = message("GraphDef").FromString(serialised())
    graph_def.node[0].attr["value"].tensor.tensor_content = b"\0" * 12
    with pytest.raises(GraphError, match="kernel"):
        constants_of(graph_def)
