"""retrain.checks.safe_onnx: refuses ONNX models that could do harm, before they are loaded."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError, UnsafeGraphError
from retrain.checks.safe_graph import MAX_NODES
from retrain.checks.safe_onnx import MAX_VALUE_ELEMENTS
from retrain.engines.onnx import read
from retrain.engines.settings import GraphSettings
from tests.onnx_models import Shape, colours, constant, model_of, node, onnx, write

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SHAPE: Shape = ("n", 3, 64, 64)


def start(folder: Path, model: Any, any_graph: bool = False) -> Any:
    return read(write(folder, model), any_graph).start(GraphSettings())


def a_graph(name: str) -> Any:
    """What a branch or a loop has in it."""
    value = onnx.helper.make_tensor("v", 1, (1,), [1.0])
    inner = onnx.helper.make_node("Constant", [], [name], value=value)
    info = onnx.helper.make_tensor_value_info(name, 1, (1,))
    return onnx.helper.make_graph([inner], name, [], [info])


# what it has


@pytest.mark.parametrize(
    ("added", "named"),
    [
        (("Run", {"domain": "com.example"}), "com.example.Run"),
        (("Gelu", {"domain": "com.microsoft"}), "com.microsoft.Gelu"),
        (("RandomNormalLike", {}), "RandomNormalLike"),
        (("If", {"then_branch": a_graph("a"), "else_branch": a_graph("b")}), "graph within|If"),
        (("Relu", {"body": a_graph("a")}), "a graph within an operation"),
        (("StringNormalizer", {}), "StringNormalizer"),
    ],
    ids=str,
)
def test_an_operation_that_has_no_place_in_a_classifier(
    tmp_path: Path, added: tuple[str, dict[str, Any]], named: str
) -> None:
    model = colours(SHAPE)
    operation, attributes = added
    model.graph.node.append(node(operation, "scores", "more", **attributes))
    with pytest.raises(UnsafeGraphError, match=rf"model\.onnx has .*({named})"):
        read(write(tmp_path, model))
    assert read(write(tmp_path, model), any_graph=True).labels == []


def test_functions_of_its_own(tmp_path: Path) -> None:
    model = colours(SHAPE)
    twice = onnx.helper.make_function(
        *("com.example", "Relu", ["x"], ["y"]),
        [node("Add", "x", "x", "y")],
        [onnx.helper.make_opsetid("", 13)],
    )
    model.functions.append(twice)
    with pytest.raises(UnsafeGraphError, match="functions"):
        read(write(tmp_path, model))


def outside(tensor: Any, where: str) -> None:
    """Let the value of ``tensor`` be the file ``where``."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=where)


@pytest.mark.parametrize("where", ["/etc/passwd", "../secret", "beside.bin", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("any_graph", [False, True])
@pytest.mark.parametrize("place", ["constant", "attribute", "branch", "function"])
def test_values_in_other_files_are_never_read(
    tmp_path: Path, where: str, any_graph: bool, place: str
) -> None:
    model = colours(SHAPE)
    value = onnx.helper.make_node("Constant", [], ["v"], value=constant("v", np.ones(4)))
    outside(value.attribute[0].t, where)
    if place == "constant":
        outside(model.graph.initializer[0], where)
    elif place == "attribute":
        model.graph.node.insert(0, value)
    elif place == "branch":
        inner = onnx.helper.make_graph([value], "inner", [], [])
        model.graph.node.append(node("Relu", "scores", "more", body=inner))
    else:
        imported = [onnx.helper.make_opsetid("", 13)]
        added = onnx.helper.make_function("com.example", "F", [], ["v"], [value], imported)
        model.functions.append(added)
    with pytest.raises(UnsafeGraphError, match="outside of the file"):
        read(write(tmp_path, model), any_graph)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dims": [2**40]}, "another number of bytes"),
        ({"dims": [-1]}, "shape"),
        ({"dims": [1] * 9}, "shape"),
        ({"data_type": 8}, "type"),
        ({"data_type": 77}, "type"),
        ({"raw_data": b"123"}, "another number of bytes"),
        ({"dims": [2**40], "raw_data": b""}, "constant numbers"),
    ],
    ids=str,
)
def test_a_constant_that_cannot_be(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    model = colours(SHAPE)
    tensor = model.graph.initializer[0]
    for name, value in changes.items():
        if name == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, name, value)
    with pytest.raises(GraphError, match=problem):
        read(write(tmp_path, model))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, colours(SHAPE))
    path.write_bytes(path.read_bytes().replace(b"scores", b"\xff\xfe\xfd\xfc\xfb\xfa"))
    with pytest.raises(GraphError, match="no UTF-8"):
        read(path, any_graph=True)


def test_very_many_nodes(tmp_path: Path) -> None:
    """As many as are loaded take seconds: with anything quadratic, this test takes minutes."""
    model = colours(SHAPE)

    def lengthen(count: int) -> None:
        for _ in range(count):
            last = model.graph.node[-1].output[0]
            model.graph.node.append(node("Identity", last, f"n{len(model.graph.node)}"))
        model.graph.output[0].name = model.graph.node[-1].output[0]

    lengthen(MAX_NODES - len(model.graph.node))
    assert start(tmp_path, model)(np.ones((1, 64, 64, 3), np.float32)).shape == (1, 3)
    lengthen(1)
    with pytest.raises(UnsafeGraphError, match=f"{MAX_NODES + 1} nodes; at most {MAX_NODES}"):
        read(write(tmp_path, model))


def test_a_node_with_a_huge_attribute(tmp_path: Path) -> None:
    model = colours(SHAPE)
    model.graph.node[0].doc_string = "x" * 2**17
    with pytest.raises(UnsafeGraphError, match="a node of 131"):
        read(write(tmp_path, model))


def test_very_many_inputs_of_nodes(tmp_path: Path) -> None:
    model = colours(SHAPE)
    for i in range(130):
        model.graph.node.append(node("Sum", *["s"] * 1000, f"o{i}"))
    with pytest.raises(UnsafeGraphError, match="inputs and outputs"):
        read(write(tmp_path, model))


# what it computes

WHOLE = np.int64


def growing(count: int) -> list[Any]:
    """Each twice as large as the one before."""
    names = ["input", *(f"x{i}" for i in range(count))]
    return [node("Concat", a, a, b, axis=1) for a, b in itertools.pairwise(names)]


HUGE: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "ConstantOfShape": (
        [node("ConstantOfShape", "s", "huge")],
        [constant("s", np.array([2**20, 2**20], WHOLE))],
    ),
    "Expand": (
        [node("Expand", "input", "s", "huge")],
        [constant("s", np.array([2**20, 3, 64, 64], WHOLE))],
    ),
    "Tile": (
        [node("Tile", "input", "s", "huge")],
        [constant("s", np.array([1, 1, 2**10, 2**10], WHOLE))],
    ),
    "Resize": (
        [node("Resize", "input", "", "s", "huge")],
        [constant("s", np.array([1, 1, 1e4, 1e4], np.float32))],
    ),
    "Pad": (
        [node("Pad", "input", "s", "huge")],
        [constant("s", np.array([0, 0, 0, 0, 0, 0, 2**20, 2**20], WHOLE))],
    ),
    "Range": (
        [node("Range", "a", "b", "c", "huge")],
        [
            constant(name, np.array(value, WHOLE))
            for name, value in zip("abc", (0, 2**50, 1), strict=True)
        ],
    ),
    "ConvTranspose": (
        [node("ConvTranspose", "input", "w", "huge", strides=[2**15, 2**15])],
        [constant("w", np.ones((3, 3, 2, 2), np.float32))],
    ),
    "product": (
        [node("MatMul", "a", "b", "huge")],
        [
            constant("a", np.ones((2**16, 1), np.float32)),
            constant("b", np.ones((1, 2**16), np.float32)),
        ],
    ),
    "Concat": (growing(30), []),
    "a sum of many": (
        [node("ConstantOfShape", "s", f"x{i}") for i in range(40)],
        [constant("s", np.array([MAX_VALUE_ELEMENTS], WHOLE))],
    ),
}


@pytest.mark.parametrize("operation", HUGE)
def test_a_value_that_would_fill_the_memory(tmp_path: Path, operation: str) -> None:
    nodes, constants = HUGE[operation]
    model = colours(SHAPE)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    with pytest.raises(UnsafeGraphError, match=r"computes .* at most|not known before"):
        start(tmp_path, model)


def test_a_size_that_depends_on_what_is_in_the_photo(tmp_path: Path) -> None:
    """The brightest pixel as a size."""
    nodes = [
        node("ReduceMax", "input", "most", keepdims=0),
        node("Cast", "most", "whole", to=onnx.TensorProto.INT64),
        node("Reshape", "whole", "one", "s"),
        node("ConstantOfShape", "s", "unknown"),
        node("ReduceSum", "unknown", "sum", keepdims=0),
        node("Add", "means", "sum", "scores"),
    ]
    nodes.insert(0, node("ReduceMean", "input", "means", axes=[2, 3], keepdims=0))
    model = model_of(nodes, SHAPE, [constant("one", np.array([1], WHOLE))])
    with pytest.raises(UnsafeGraphError, match=r"a value unknown .*not known before"):
        start(tmp_path, model)
    program = start(tmp_path, model, any_graph=True)
    assert program(np.ones((1, 64, 64, 3), np.float32)).tolist() == [[1.0] * 3]


def test_sizes_that_are_worked_out_from_the_shape_are_fine(tmp_path: Path) -> None:
    """As PyTorch writes ``x.view(x.shape[0], -1)``."""
    nodes = [
        node("GlobalAveragePool", "input", "means"),
        node("Shape", "means", "shape"),
        node("Gather", "shape", "zero", "n", axis=0),
        node("Unsqueeze", "n", "axes", "ns"),
        node("Concat", "ns", "rest", "both", axis=0),
        node("Reshape", "means", "both", "scores"),
    ]
    constants = [
        constant("zero", np.array(0, WHOLE)),
        constant("axes", np.array([0], WHOLE)),
        constant("rest", np.array([-1], WHOLE)),
    ]
    program = start(tmp_path, model_of(nodes, SHAPE, constants))
    assert program(np.ones((5, 64, 64, 3), np.float32)).shape == (5, 3)


def test_what_the_model_says_of_its_sizes_is_not_believed(tmp_path: Path) -> None:
    model = colours(SHAPE)
    nodes, constants = HUGE["Tile"]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    said = onnx.helper.make_tensor_value_info("huge", 1, (1, 3, 2, 2))
    model.graph.value_info.append(said)
    model.graph.output.append(said)
    with pytest.raises(UnsafeGraphError, match="huge"):
        start(tmp_path, model)


@pytest.mark.parametrize(
    "wrong",
    [
        node("Conv", "input", "w", "more", strides=[0, 0]),
        node("Conv", "input", "w", "more", group=0),
        node("AveragePool", "input", "more", kernel_shape=[0, 0]),
        node("Concat", "input", "input", "more", axis=99),
        node("Transpose", "input", "more", perm=[0, 7, 1, 2]),
        node("SpaceToDepth", "input", "more", blocksize=0),
        node("Split", "input", "a", "more", outputs=2, axis=9),
    ],
    ids=str,
)
def test_numbers_that_an_operation_cannot_have(tmp_path: Path, wrong: Any) -> None:
    """Older programs divided by some of them."""
    model = colours(SHAPE)
    model.graph.node.append(wrong)
    model.graph.initializer.append(constant("w", np.ones((3, 3, 3, 3), np.float32)))
    with pytest.raises(GraphError, match="ONNX model"):
        read(write(tmp_path, model)).start(GraphSettings(output_layer="more"))(
            np.ones((1, 64, 64, 3), np.float32)
        )


def test_nodes_that_do_not_fit_together(tmp_path: Path) -> None:
    for change in ("nowhere", "scores"):  # nothing makes it; it is made of itself
        model = colours(SHAPE)
        model.graph.node[-1].input[0] = change
        with pytest.raises(GraphError, match=r"model\.onnx"):
            start(tmp_path, model)
    model = colours(SHAPE)
    model.graph.node.append(model.graph.node[-1])
    with pytest.raises(GraphError, match=r"model\.onnx"):
        start(tmp_path, model)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_division_of_whole_numbers_which_can_end_the_process(
    tmp_path: Path, dtype: type[np.integer[Any]]
) -> None:
    model = colours(SHAPE)
    least = constant("least", np.array([np.iinfo(dtype).min], dtype))
    model.graph.initializer.extend([least, constant("less", np.array([-1], dtype))])
    model.graph.node.append(node("Div", "least", "less", "huge"))
    with pytest.raises(UnsafeGraphError, match="divides whole numbers"):
        start(tmp_path, model)
