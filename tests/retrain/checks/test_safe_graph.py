"""retrain.checks.safe_graph: a graph that is broken or made to do harm is one error line, soon."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError
from bottlenecks.network.messages import message
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.checks.safe_graph import CONSTANT_TYPES, MAX_EDGES, MAX_STRINGS, SAFE_OPS, check_safe
from retrain.engines.engine import Engine
from retrain.engines.settings import GraphSettings

tf: Any = import_tensorflow()
GraphDef = tf.compat.v1.GraphDef


def engine(graph: Path, labels: Path | str | None = None) -> Engine:
    return Engine(GraphSettings(graph=str(graph), labels=None if labels is None else str(labels)))


@pytest.fixture(scope="module")
def sound() -> bytes:
    """A small network: 16 x 16 photos -> scores of 3 labels."""
    random_weights = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 3), name="Mul")
        y = tf.nn.relu6(tf.nn.bias_add(tf.nn.conv2d(x, random_weights, 1, "SAME"), np.ones(8)))
        y = tf.concat([tf.nn.max_pool2d(y, 2, 2, "SAME"), tf.nn.avg_pool2d(y, 2, 2, "SAME")], 3)
        left, right = tf.split(tf.transpose(tf.pad(y, 4 * [[0, 0]]), [0, 2, 1, 3]), 2, 3)
        y = tf.reshape(tf.reduce_mean(left * right, (1, 2)), (-1, 8))
        tf.nn.softmax(y @ np.eye(8, 3, dtype=np.float32), name="final_result")
        tf.constant([b"a", b"b", b"c"], name="retrain/labels")
    data: bytes = graph.as_graph_def().SerializeToString()
    return data


@pytest.fixture
def use(tmp_path: Path) -> Callable[[bytes], np.ndarray]:
    """Scores of two black photos by a graph."""

    def use_graph(data: bytes) -> np.ndarray:
        (tmp_path / "graph.pb").write_bytes(data)
        (tmp_path / "labels.txt").write_text("a\nb\nc\n")
        found = engine(tmp_path / "graph.pb", tmp_path / "labels.txt")
        return found.scores(np.zeros((2, 16, 16, 3), np.uint8))

    return use_graph


def node(graph_def: Any, op: str) -> Any:
    return next(found for found in graph_def.node if found.op == op)


def value(graph_def: Any) -> Any:
    """The value of the convolution's weights."""
    return node(graph_def, "Const").attr["value"].tensor


def no_value(graph_def: Any) -> None:
    del node(graph_def, "Const").attr["value"]


def value_of_another_kind(graph_def: Any) -> None:
    node(graph_def, "Const").attr["value"].i = 3


def unknown_type(graph_def: Any) -> None:
    value(graph_def).dtype = 999
    node(graph_def, "Const").attr["dtype"].type = 999


def no_type(graph_def: Any) -> None:
    del node(graph_def, "Const").attr["dtype"]


def two_types(graph_def: Any) -> None:
    node(graph_def, "Const").attr["dtype"].type = tf.int32.as_datatype_enum


def resource(graph_def: Any) -> None:
    value(graph_def).dtype = tf.resource.as_datatype_enum
    node(graph_def, "Const").attr["dtype"].type = tf.resource.as_datatype_enum


def negative_shape(graph_def: Any) -> None:
    value(graph_def).tensor_shape.dim[0].size = -3


def unknown_shape(graph_def: Any) -> None:
    value(graph_def).tensor_shape.unknown_rank = True


def too_many_sides(graph_def: Any) -> None:
    for _ in range(300):
        value(graph_def).tensor_shape.dim.add().size = 1


def too_few_bytes(graph_def: Any) -> None:
    value(graph_def).tensor_content = value(graph_def).tensor_content[:-1]


def two_of_one_name(graph_def: Any) -> None:
    graph_def.node.append(node(graph_def, "Softmax"))


def a_cycle(graph_def: Any) -> None:
    node(graph_def, "Relu6").input[0] = node(graph_def, "ConcatV2").name


def an_output_that_is_not_there(graph_def: Any) -> None:
    node(graph_def, "Relu6").input[0] += ":7"


def attribute_of_another_kind(graph_def: Any) -> None:
    node(graph_def, "Conv2D").attr["strides"].s = b"two"


def type_of_another_kind(graph_def: Any) -> None:
    node(graph_def, "Relu6").attr["T"].i = 1


def no_strides(graph_def: Any) -> None:
    node(graph_def, "Conv2D").attr["strides"].list.i[:] = [0, 0, 0, 0]


def escapes_in_a_name(graph_def: Any) -> None:
    node(graph_def, "Relu6").name = "\x1b[31m\nred"


def two_thousand_million_inputs(graph_def: Any) -> None:
    node(graph_def, "ConcatV2").attr["N"].i = 2**31 - 1


def very_many_outputs(graph_def: Any) -> None:
    node(graph_def, "Split").attr["num_split"].i = MAX_EDGES


def very_many_inputs(graph_def: Any) -> None:
    names = ["^Mul"] * 10_000
    for _ in range(1 + MAX_EDGES // len(names)):
        graph_def.node.add(name=f"n{len(graph_def.node)}", op="NoOp", input=names)


def a_huge_attribute(graph_def: Any) -> None:
    node(graph_def, "Conv2D").attr["_output_shapes"].list.i.extend(range(2**16))


def very_many_strings(graph_def: Any) -> None:
    labels = next(found for found in graph_def.node if found.name == "retrain/labels")
    labels.attr["value"].tensor.tensor_shape.dim[0].size = MAX_STRINGS + 1


@pytest.mark.parametrize(
    "breaking",
    [
        *(no_value, value_of_another_kind, unknown_type, no_type, two_types, resource),
        *(negative_shape, unknown_shape, too_many_sides, too_few_bytes, two_of_one_name, a_cycle),
        *(an_output_that_is_not_there, attribute_of_another_kind, type_of_another_kind),
        *(no_strides, escapes_in_a_name, two_thousand_million_inputs, very_many_outputs),
        *(very_many_inputs, a_huge_attribute, very_many_strings),
    ],
)
def test_a_broken_graph_is_one_line(
    sound: bytes, use: Callable[[bytes], np.ndarray], breaking: Callable[[Any], None]
) -> None:
    assert use(sound).shape == (2, 3)
    graph_def = GraphDef.FromString(sound)
    breaking(graph_def)
    with pytest.raises(GraphError, match=r"graph.*") as caught:
        use(graph_def.SerializeToString())
    assert str(caught.value).isprintable()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The graph with a few bytes, or with parts of its nodes, replaced by others."""
    if chance.random() < 0.2:
        changed = bytearray(data)
        for _ in range(3):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    graph_def = GraphDef.FromString(data)
    for _ in range(chance.choice((1, 1, 2))):
        one, other = chance.choice(graph_def.node), chance.choice(graph_def.node)
        name = chance.choice(sorted(one.attr))
        what = chance.randrange(6)
        if what == 0:
            one.op = chance.choice(sorted(SAFE_OPS))
        elif what == 1:
            one.input.append(chance.choice(("", "^")) + other.name)
        elif what == 2 and one.input:
            one.input[chance.randrange(len(one.input))] = other.name
        elif what == 3:
            del one.attr[name]
        elif what == 4:
            one.attr[name].CopyFrom(other.attr[chance.choice(sorted(other.attr))])
        else:
            number = chance.choice((0, -1, 1, 3, 2**31 - 1, -(2**31), 2**62))
            attribute = one.attr[name]
            for numbers in (attribute.list.i, attribute.tensor.int_val):
                numbers[:1] = [max(-(2**31), min(number, 2**31 - 1))] if numbers else []
            for dimension in [*attribute.shape.dim, *attribute.tensor.tensor_shape.dim][:1]:
                dimension.size = number
    return bytes(graph_def.SerializeToString())


@pytest.mark.parametrize("seed", range(4))
def test_mutated_graphs_work_or_are_one_line(
    sound: bytes, use: Callable[[bytes], np.ndarray], seed: int
) -> None:
    chance = random.Random(seed)
    worked = 0
    for _ in range(75):
        data = mutated(sound, chance)
        try:
            worked += use(data).shape == (2, 3)
        except GraphError as error:
            assert str(error).isprintable()
    assert 0 < worked < 75


def test_a_shape_of_a_million_sizes_is_refused_at_once(
    sound: bytes, use: Callable[[bytes], np.ndarray]
) -> None:
    graph_def = tf.compat.v1.GraphDef.FromString(sound)
    shape = value(graph_def).tensor_shape
    shape.ClearField("dim")
    shape.dim.extend([type(shape).Dim(size=2**62)] * 10**6)
    with pytest.raises(GraphError, match="has a shape that no value has"):
        use(graph_def.SerializeToString())


def test_the_types_of_constants_are_as_tensorflow_has_them() -> None:
    number_of = message("DataType", "types").Value
    for name, size in CONSTANT_TYPES.items():
        assert tf.as_dtype(number_of(f"DT_{name}")).size == size
    assert len(CONSTANT_TYPES) == 19


def test_what_is_refused_is_refused_without_tensorflow_s_messages_too(sound: bytes) -> None:
    random_ = random.Random(0)
    found = []
    for _ in range(2000):
        mutated = bytearray(sound)
        for _ in range(random_.choice((1, 1, 3))):
            mutated[random_.randrange(len(mutated))] = random_.randrange(256)
        outcomes = [outcome(kind, bytes(mutated)) for kind in (GraphDef, message("GraphDef"))]
        assert outcomes[0] == outcomes[1]
        found.append(outcomes[0])
    assert sum(one not in ("", "unreadable") for one in found) > 20


def outcome(kind: Any, data: bytes) -> str:
    """What `check_safe` says of a graph in a message of ``kind``."""
    try:
        check_safe(kind.FromString(data))
    except GraphError as error:
        return str(error)
    except Exception:  # protobuf's
        return "unreadable"
    return ""
