"""A part of the network is run as it is written, or not at all."""

import pytest

from bottlenecks.network import layers
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.operations import run
from bottlenecks.network.tensorflow import import_tensorflow
from tests.tiny import Tiny


def test_an_input_that_nothing_gives_is_no_input_less() -> None:
    tf = import_tensorflow()
    part = layers.above(tf.compat.v1.GraphDef.FromString(Tiny().frozen), "mixed7")
    constants = {
        node.name: tf.constant(tf.make_ndarray(node.attr["value"].tensor))
        for node in part.node
        if node.op == "Const" and node.attr["value"].tensor.dtype == tf.float32.as_datatype_enum
    }
    cut = {layers.CUT_NODE: tf.zeros((2, 13, 13, 3))}
    assert run(part, cut | constants, {})[BOTTLENECK_NODE].shape == (2, 2048)
    with pytest.raises(AssertionError, match="reads cut, which nothing gives"):
        run(part, constants, {})
