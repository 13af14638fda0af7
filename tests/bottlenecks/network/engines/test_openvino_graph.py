"""A graph as OpenVINO runs it is the graph as TensorFlow does; what is not known is refused."""

import random
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError
from bottlenecks.network.engines.openvino_graph import OPERATIONS, import_openvino, model_of
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.layers import below, node_of
from bottlenecks.network.messages import message
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow

# `pytest.importorskip` would import it whole, which sends telemetry.
pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="needs openvino")

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
Make = Callable[[Any, Any], Any]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_message(graph: Any) -> Any:
    """A ``tf.Graph`` as the message that is read without TensorFlow."""
    return message("GraphDef").FromString(graph.as_graph_def().SerializeToString())


def run(graph_def: Any, pixels: np.ndarray, output: str = "out", batch: int | None = None) -> Any:
    """What OpenVINO gives for ``pixels`` at ``output``."""
    model = model_of(graph_def, "in", [output], (batch, *pixels.shape[1:]))
    return import_openvino().Core().compile_model(model, "CPU", FLOAT32)(pixels)[0]


def assert_same(make: Make, pixels: np.ndarray) -> None:
    """The arithmetic that ``make`` adds to a graph is the same in both."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, *pixels.shape[1:]), name="in")
        out = tf.identity(make(tf, x), name="out")
        with tf.compat.v1.Session() as session:
            expected = session.run(out, {x: pixels})
    for batch in (None, len(pixels)):
        found = run(as_message(graph), pixels, batch=batch)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


def convolution(size: tuple[int, int], stride: int, padding: str) -> Make:
    return lambda tf, x: tf.nn.conv2d(x, normal(*size, 3, 5, seed=1), stride, padding)


def pool(kind: str, size: int, stride: int, padding: str) -> Make:
    return lambda tf, x: getattr(tf.nn, kind)(x, size, stride, padding)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [7, 8])
def test_what_slides_over_pixels(side: int, stride: int, padding: str) -> None:
    pixels = normal(2, side, side + 2, 3)
    for size in (1, 2, 3, 5):
        assert_same(convolution((size, 1), stride, padding), pixels)
        assert_same(convolution((size, size), stride, padding), pixels)
        assert_same(pool("max_pool2d", size, stride, padding), pixels - 5)  # none above 0
        assert_same(pool("avg_pool2d", size, stride, padding), pixels)


@pytest.mark.parametrize(
    "make",
    [
        lambda tf, x: tf.nn.bias_add(x, normal(3)),
        lambda tf, x: tf.nn.relu(x),
        lambda tf, x: tf.nn.softmax(x),
        lambda tf, x: tf.concat([x, tf.nn.relu(x), x - 1.0], axis=-1),
        lambda tf, x: tf.concat([x, x * 2.0], axis=3),
        lambda tf, x: tf.reduce_mean(x, (1, 2)),
        lambda tf, x: tf.reduce_mean(x, (2, 1), keepdims=True),
        lambda tf, x: x + normal(3),
        lambda tf, x: normal(3) - x,
        lambda tf, x: x - 0.5,
        lambda tf, x: 2.0 * x,
        lambda tf, x: x * normal(1, 1, 1, 3),
        lambda tf, x: tf.raw_ops.Add(x=x, y=tf.constant(normal(3))),
    ],
)
def test_what_is_done_to_pixels(make: Make) -> None:
    assert_same(make, normal(2, 6, 7, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda tf, x: tf.matmul(x, normal(3, 4)),
        lambda tf, x: tf.nn.softmax(tf.matmul(x, normal(3, 4)) + normal(4)),
        lambda tf, x: tf.nn.bias_add(x, normal(3)),
        lambda tf, x: tf.concat([x, x], axis=1),
        lambda tf, x: normal(1, 3) * x,
    ],
)
def test_what_is_done_to_vectors(make: Make) -> None:
    assert_same(lambda tf, x: make(tf, tf.reduce_mean(x, (1, 2))), normal(2, 4, 5, 3))


def test_the_network_and_a_part_of_it(model_dir: Any) -> None:
    tf = import_tensorflow()
    frozen = InceptionV3("random", model_dir).frozen
    network = message("GraphDef").FromString(frozen)
    names = [BOTTLENECK_NODE, node_of("mixed1")]
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3))
        parsed = tf.compat.v1.GraphDef.FromString(frozen)
        outputs = tf.import_graph_def(parsed, {f"{INPUT_NODE}:0": x}, [f"{n}:0" for n in names])
        with tf.compat.v1.Session() as session:
            expected = session.run(outputs, {x: pixels})
    model = model_of(network, INPUT_NODE, names, (None, 299, 299, 3))
    found = import_openvino().Core().compile_model(model, "CPU", FLOAT32)(pixels)
    for i, rows in enumerate(expected):
        np.testing.assert_allclose(found[i], rows, rtol=0, atol=1e-5 * abs(rows).max())
    part = model_of(below(network, "mixed1"), INPUT_NODE, ["cut"], (2, 299, 299, 3))
    (rows,) = import_openvino().Core().compile_model(part, "CPU", FLOAT32)(pixels).values()
    np.testing.assert_array_equal(rows.shape, expected[1].shape)


def test_no_telemetry_is_imported_with_openvino() -> None:
    code = (
        "import sys; from bottlenecks.network.engines.openvino_graph import import_openvino; "
        "import_openvino(); import_openvino().opset13; "
        "print(*(m for m in sys.modules if 'telemetry' in m or m.split('.')[0] == 'tensorflow'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def graph_of(*nodes: dict[str, Any]) -> Any:
    """A GraphDef of nodes that read "in", with a kernel (3, 3, 3, 5)."""
    graph = message("GraphDef")()
    kernel = graph.node.add(name="kernel", op="Const").attr["value"].tensor
    kernel.dtype = 1
    for size in (3, 3, 3, 5):
        kernel.tensor_shape.dim.add(size=size)
    kernel.tensor_content = normal(3, 3, 3, 5).tobytes()
    for given in nodes:
        node = graph.node.add(name=given["name"], op=given["op"], input=given.get("input", ["in"]))
        node.attr["T"].type = given.get("T", 1)
        for name in ("strides", "ksize", "dilations"):
            if name in given:
                node.attr[name].list.i.extend(given[name])
        for name in ("padding", "data_format"):
            if name in given:
                node.attr[name].s = given[name]
    return graph


ONES = [1, 1, 1, 1]
CONV = {
    "name": "out",
    "op": "Conv2D",
    "input": ["in", "kernel"],
    "strides": ONES,
    "padding": b"SAME",
}
POOL = {"name": "out", "op": "MaxPool", "ksize": ONES, "strides": ONES, "padding": b"VALID"}
RELU = {"name": "out", "op": "Relu"}


@pytest.mark.parametrize("good", [CONV, POOL, RELU])
def test_what_is_broken_below_is_whole_otherwise(good: dict[str, Any]) -> None:
    assert len(run(graph_of(good), normal(2, 8, 8, 3))) == 2


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({**CONV, "strides": [1, 0, 1, 1]}, r"strides are \[1, 0, 1, 1\]"),
        ({**CONV, "strides": [1, -1, 1, 1]}, "strides are"),
        ({**CONV, "strides": [2, 1, 1, 1]}, "strides are"),
        ({**CONV, "strides": [1, 2**40, 1, 1]}, "strides are"),
        ({**CONV, "strides": []}, "strides are"),
        ({**CONV, "dilations": [1, 0, 0, 1]}, "dilations are"),
        ({**CONV, "padding": b"EXPLICIT"}, "padding is EXPLICIT"),
        ({**CONV, "padding": b""}, "padding is"),
        ({**CONV, "data_format": b"NCHW"}, "data_format is NCHW"),
        ({**CONV, "T": 2}, "not of float32"),
        ({**CONV, "input": ["in"]}, "inputs are 1"),
        ({**CONV, "input": ["kernel", "kernel"]}, "not a tensor and a constant"),
        ({**CONV, "input": ["in", "in"]}, "not a tensor and a constant"),
        ({**CONV, "input": ["kernel", "in"]}, "not a tensor and a constant"),
        ({**POOL, "ksize": [1, 9, 9, 1]}, "window is larger"),
        ({**POOL, "ksize": [1, 0, 3, 1]}, "ksize are"),
        ({**POOL, "ksize": [1, 2**31, 3, 1], "padding": b"SAME"}, "ksize are"),
        ({**POOL, "ksize": []}, "ksize are"),
        ({**POOL, "input": ["kernel"]}, "a constant"),
        ({**POOL, "input": []}, "inputs are 0"),
        ({**RELU, "input": ["nowhere"]}, "nowhere, which is not there"),
        ({**RELU, "input": ["in:1"]}, "in:1, which is not a node's first output"),
        ({**RELU, "input": ["^in"]}, "not a node's first output"),
        ({**RELU, "input": ["out"]}, "reads its own output"),
        ({**RELU, "op": "WriteFile"}, "WriteFile"),
        ({**RELU, "op": "ConcatV2", "input": []}, "inputs are 0"),
        ({**RELU, "op": "ConcatV2", "input": ["in", "kernel"]}, "axis is no constant of int32"),
        ({**RELU, "op": "MatMul", "input": ["in", "kernel"]}, "constant has the shape"),
        ({**RELU, "op": "BiasAdd", "input": ["in", "kernel"]}, "constant has the shape"),
        ({**RELU, "op": "Add", "input": ["in", "kernel"]}, "constant has the shape"),
        ({**RELU, "op": "Mean", "input": ["in", "kernel"]}, "axis is no constant"),
    ],
)
def test_what_is_broken_is_refused(node: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        run(graph_of(node), normal(2, 8, 8, 3))


def chain() -> Any:
    """A network of each kind of operation."""
    graph = graph_of(
        {"name": "less", "op": "Sub", "input": ["in", "number"]},
        {**CONV, "name": "conv", "input": ["less", "kernel"], "dilations": ONES},
        {"name": "relu", "op": "Relu", "input": ["conv"]},
        {**POOL, "name": "most", "input": ["relu"], "ksize": [1, 2, 2, 1], "padding": b"SAME"},
        {**POOL, "name": "average", "op": "AvgPool", "input": ["relu"], "data_format": b"NHWC"},
        {"name": "both", "op": "ConcatV2", "input": ["most", "average", "axis"]},
        {"name": "mean", "op": "Mean", "input": ["both", "axes"]},
        {"name": "product", "op": "MatMul", "input": ["mean", "matrix"]},
        {"name": "sum", "op": "BiasAdd", "input": ["product", "bias"]},
        {"name": "out", "op": "Softmax", "input": ["sum"]},
    )
    values = {
        "number": np.array(0.5, np.float32),
        "axis": np.array(3, np.int32),
        "axes": np.array([1, 2], np.int32),
        "matrix": normal(10, 4),
        "bias": normal(4),
    }
    for name, value in values.items():
        tensor = graph.node.add(name=name, op="Const").attr["value"].tensor
        tensor.dtype = 1 if value.dtype == np.float32 else 3
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = value.tobytes()
    return graph


SIZES = (0, 1, -1, 2, 3, 4, 5, 64, 65, 1000, 2**31 - 1, 2**31, 2**62, -(2**63))


def mutate(graph: Any, draw: random.Random) -> None:
    """Change one thing about a graph."""
    node = draw.choice(graph.node)
    names = [each.name for each in graph.node]
    lists = [value.list.i for value in node.attr.values() if value.list.i]
    dims = node.attr["value"].tensor.tensor_shape.dim if node.op == "Const" else ()
    match draw.randrange(7):
        case 0:
            node.op = draw.choice([*OPERATIONS, "Const", "Placeholder", "Elu"])
        case 1 if node.input:
            name = draw.choice([*names, "in", "in:1", "^in", "", "nowhere"])
            node.input[draw.randrange(len(node.input))] = name
        case 2:
            node.input.append(draw.choice([*names, "in"]))
        case 3 if node.input:
            del node.input[draw.randrange(len(node.input))]
        case 4 if node.attr:
            del node.attr[draw.choice(sorted(node.attr))]
        case 5 if lists:
            numbers = draw.choice(lists)
            numbers[draw.randrange(len(numbers))] = draw.choice(SIZES)
        case 6 if dims:
            dims[draw.randrange(len(dims))].size = draw.choice(SIZES)


def test_a_graph_that_was_tampered_with_runs_or_is_an_error() -> None:
    ran = refused = 0
    for seed in range(400):
        draw, graph = random.Random(seed), chain()
        for _ in range(draw.choice((1, 1, 2, 3))):
            mutate(graph, draw)
        side = draw.choice((1, 2, 9))
        try:
            run(graph, normal(2, side, side, 3))
            ran += 1
        except GraphError:
            refused += 1
    assert ran > 40 and refused > 100
