"""A frozen GraphDef -> an OpenVINO model of the same arithmetic, in float32.

OpenVINO's own reader of TensorFlow's graphs is native code that takes whatever there is, and has
ended the process on graphs that were made to. It is not used: each node is checked here, its
shape is worked out here, and only then is OpenVINO's operation made, with values that are in range.

Photos come as (n, height, width, 3) and are transposed once; within, what has four dimensions is
held as OpenVINO wants it, channels first. Shapes here are TensorFlow's, without the n in front.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError, shown
from bottlenecks.network.messages import FLOAT32, constants_of

MAX_NODES = 1000  # between the input and the outputs, constants left out: three times InceptionV3's
MAX_ELEMENTS = 2**24  # of a photo's values anywhere in the graph, 12 times InceptionV3's
MAX_WINDOW = 64  # pixels, of a kernel's or a pool's side, and from one to the next
INSTALL = "pip install openvino"
_TELEMETRY = "openvino.tools.ovc"  # is imported with OpenVINO, and sends word of that
_PADDINGS = {"SAME": "same_upper", "VALID": "valid"}


@dataclass(frozen=True)
class Value:
    """What a node gives for a photo: its ``shape`` (height, width, channels) or (channels,)."""

    output: Any  # OpenVINO's node: (n, channels, height, width) or (n, channels)
    shape: tuple[int, ...]


def is_installed() -> bool:
    """Whether there is an OpenVINO to be imported; it is not imported for that."""
    spec = importlib.util.find_spec("openvino")
    return spec is not None and spec.origin is not None  # as a mere folder of that name has none


def import_openvino() -> Any:
    """The ``openvino`` module without its converters, whose import sends telemetry.

    Raises ``ImportError``.
    """
    is_first = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if is_first:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # its import fails
    try:
        module = importlib.import_module("openvino")
    finally:
        if is_first:
            del sys.modules[_TELEMETRY]
    if not hasattr(module, "Core"):  # Python takes a folder of that name for a package
        raise ImportError("there is a folder called openvino, but no OpenVINO")
    return module


def model_of(
    graph_def: Any,
    input_node: str,
    output_nodes: Sequence[str],
    input_shape: Sequence[int | None],
    operations: "Mapping[str, Operation] | None" = None,
) -> Any:
    """An ``openvino.Model`` from (n, height, width, 3) float32 to what ``output_nodes`` give.

    ``graph_def`` is one of `bottlenecks.network.messages`, with or without ``input_node``, and
    ``input_shape`` has None where n varies. Outputs have their shapes in TensorFlow. ``operations``
    are done instead of `OPERATIONS`.

    Raises `GraphError` for what is not of the operations here; the message goes on from the graph's
    name. Needs OpenVINO.
    """
    nodes = {node.name: node for node in graph_def.node}
    try:
        constants = constants_of(graph_def)
    except ValueError as error:
        raise GraphError("has a constant that is broken") from error
    constants.pop(input_node, None)
    ov = import_openvino()
    batch, *sides = input_shape
    pixels = ov.opset13.parameter([-1 if batch is None else batch, *sides], np.float32)
    moved = ov.opset13.transpose(pixels, np.array([0, 3, 1, 2]))
    values = {input_node: Value(moved, tuple(int(side or 0) for side in sides))}
    for node in in_order(nodes, values.keys() | constants.keys(), output_nodes):
        values[node.name] = _value(node, values, constants, operations or OPERATIONS)
    outputs = []
    for name in map(node_of, output_nodes):
        if name not in values:
            raise GraphError(f"gives a constant at {shown(name[:100])}")
        output = values[name].output
        if len(values[name].shape) == 3:
            output = ov.opset13.transpose(output, np.array([0, 2, 3, 1]))
        outputs.append(ov.opset13.result(output))
    return ov.Model(outputs, [pixels], "graph")


def node_of(tensor: str) -> str:
    """The node whose only output ``tensor`` is. Raises `GraphError` for another output."""
    name, _, index = tensor.partition(":")
    if index not in ("", "0") or name.startswith("^"):
        raise GraphError(f"reads {shown(tensor[:100])}, which is not a node's first output")
    return name


def in_order(nodes: Mapping[str, Any], given: Any, outputs: Sequence[str]) -> list[Any]:
    """The nodes that ``outputs`` need and that are not ``given``, each behind those it reads.

    Raises `GraphError` for one that is not there, for a circle and for too many.
    """
    found: dict[str, Any] = {}
    entered: set[str] = set()
    to_do = [(node_of(name), False) for name in outputs]
    while to_do:
        name, is_left = to_do.pop()
        if name in given or name in found:
            continue
        if name not in nodes:
            raise GraphError(f"reads {shown(name[:100])}, which is not there")
        if is_left:
            found[name] = nodes[name]
            continue
        if name in entered:
            raise GraphError(f"reads its own output at {shown(name[:100])}")
        entered.add(name)
        if len(entered) > MAX_NODES:
            raise GraphError(f"has more than {MAX_NODES} nodes from its input to its output")
        to_do.append((name, True))
        to_do += [(node_of(one), False) for one in nodes[name].input]
    return list(found.values())


def _value(
    node: Any,
    values: Mapping[str, Value],
    constants: Mapping[str, np.ndarray],
    operations: "Mapping[str, Operation]",
) -> Value:
    """What ``node`` gives. Raises `GraphError`."""
    name = f"{shown(node.name[:100])} ({shown(node.op[:100])})"
    operation = operations.get(node.op)
    if operation is None:
        raise GraphError(f"has {name}, an operation that is not run by OpenVINO")
    if node.attr["T" if node.op != "PlaceholderWithDefault" else "dtype"].type != FLOAT32:
        raise GraphError(f"has {name}, which is not of float32")
    read = [node_of(one) for one in node.input]
    try:
        value = operation(node, [constants[x] if x in constants else values[x] for x in read])
    except _UnfitError as error:
        raise GraphError(f"has {name}, whose {error} that OpenVINO is not given") from error
    layout = value.shape if len(value.shape) == 1 else [value.shape[i] for i in (2, 0, 1)]
    if list(value.output.get_output_partial_shape(0))[1:] != list(layout):
        raise GraphError(f"has {name}, of which OpenVINO makes another shape than TensorFlow")
    return value


class _UnfitError(Exception):
    """Something about a node that is not let through: "strides are [0]"."""


def _ops() -> Any:
    return import_openvino().opset13


def _constant(values: Any) -> Any:
    """OpenVINO's node of it, which has the numbers copied."""
    return _ops().constant(np.ascontiguousarray(values))


def _require(condition: bool, what: str, received: object) -> None:
    if not condition:
        raise _UnfitError(f"{what} {shown(str(received)[:100])}")


def _values_only(inputs: Sequence[Any], rank: int | None = None) -> None:
    """All of ``inputs`` are what flows, none is a constant."""
    for one in inputs:
        _require(isinstance(one, Value), "input is", "a constant")
        _require(rank is None or len(one.shape) == rank, "input has the shape", one.shape)


def _checked(output: Any, shape: Sequence[int]) -> Value:
    ok = len(shape) in (1, 3) and min(shape) >= 1 and math.prod(shape) <= MAX_ELEMENTS
    _require(ok, "output has the shape", list(shape))
    return Value(output, tuple(shape))


def _text(node: Any, name: str, default: str = "") -> str:
    return node.attr[name].s.decode("utf-8", "replace") if name in node.attr else default


def _ints(node: Any, name: str, default: Sequence[int] = ()) -> list[int]:
    return list(node.attr[name].list.i) if name in node.attr else list(default)


def _sides(node: Any, name: str) -> list[int]:
    """(height, width) of a window or of strides, within limits."""
    found = _ints(node, name)
    ok = len(found) == 4 and found[0] == found[3] == 1
    _require(ok and all(1 <= side <= MAX_WINDOW for side in found[1:3]), f"{name} are", found)
    return found[1:3]


def _slid(
    node: Any, shape: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], str]:
    """(height, width) of what a ``window`` that slides over ``shape`` gives, and the padding.

    As TensorFlow has it: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    padding = _text(node, "padding")
    _require(padding in _PADDINGS, "padding is", padding)
    layout = _text(node, "data_format", "NHWC")
    _require(layout == "NHWC", "data_format is", layout)
    _require(max(window) <= MAX_WINDOW, "window is", list(window))
    lost = [0 if padding == "SAME" else side - 1 for side in window]
    left = [side - gone for side, gone in zip(shape, lost, strict=False)]
    _require(min(left) >= 1, "window is larger than its input:", list(window))
    return [-(-side // by) for side, by in zip(left, strides, strict=True)], _PADDINGS[padding]


def _conv(node: Any, inputs: Sequence[Any]) -> Value:
    x, kernel = _one_and_constant(inputs, 4)
    _require(len(x.shape) == 3, "input has the shape", x.shape)
    height, width, channels, filters = kernel.shape
    _require(channels == x.shape[2] and min(kernel.shape) >= 1, "kernel is", kernel.shape)
    dilations = _ints(node, "dilations", (1, 1, 1, 1))
    _require(dilations == [1, 1, 1, 1], "dilations are", dilations)
    strides = _sides(node, "strides")
    sides, padding = _slid(node, x.shape, (height, width), strides)
    shape = (*sides, filters)
    moved = _constant(kernel.transpose(3, 2, 0, 1))
    none = [0, 0]
    _checked(None, shape)
    return _checked(
        _ops().convolution(x.output, moved, strides, none, none, [1, 1], padding), shape
    )


def _pool(node: Any, inputs: Sequence[Any]) -> Value:
    _require(len(inputs) == 1, "inputs are", len(inputs))
    _values_only(inputs, 3)
    (x,) = inputs
    window, strides = _sides(node, "ksize"), _sides(node, "strides")
    sides, padding = _slid(node, x.shape, window, strides)
    shape, none = (*sides, x.shape[2]), [0, 0]
    if node.op == "AvgPool":  # TensorFlow's mean is of the pixels that are there
        output = _ops().avg_pool(x.output, strides, none, none, window, True, "floor", padding)
    else:
        max_pool = import_openvino().opset1.max_pool  # whose only output are the maxima
        output = max_pool(x.output, strides, none, none, window, "floor", padding)
    return _checked(output, shape)


def _one_and_constant(inputs: Sequence[Any], rank: int | None = None) -> tuple[Value, np.ndarray]:
    """What flows and a float32 constant, which is finite."""
    _require(len(inputs) == 2, "inputs are", len(inputs))
    x, constant = inputs
    ok = isinstance(x, Value) and isinstance(constant, np.ndarray) and constant.dtype == np.float32
    _require(ok, "inputs are not", "a tensor and a constant of float32")
    _require(rank is None or constant.ndim == rank, "constant has the shape", constant.shape)
    _require(bool(np.isfinite(constant).all()), "constant is", "not finite")
    return x, constant


def _axes(constant: Any) -> list[int]:
    ok = isinstance(constant, np.ndarray) and constant.dtype == np.int32 and constant.size <= 4
    _require(ok, "axis is", "no constant of int32")
    axes = [int(axis) for axis in constant.ravel()]
    _require(all(-4 <= axis < 4 for axis in axes), "axes are", axes)
    return axes


def _per_channel(x: Value, constant: np.ndarray) -> np.ndarray:
    """A constant for each channel, or for all, with the dimensions of ``x``."""
    last = constant.shape[-1] if constant.ndim else 1
    ok = constant.size == last in (1, x.shape[-1]) and constant.ndim <= len(x.shape) + 1
    _require(ok, "constant has the shape", constant.shape)
    return constant.reshape((1, -1, 1, 1) if len(x.shape) == 3 else (1, -1))


def _bias_add(node: Any, inputs: Sequence[Any]) -> Value:
    x, bias = _one_and_constant(inputs, 1)
    layout = _text(node, "data_format", "NHWC")
    _require(layout == "NHWC", "data_format is", layout)
    _require(bias.shape[0] == x.shape[-1], "bias has the shape", bias.shape)
    return Value(_ops().add(x.output, _constant(_per_channel(x, bias))), x.shape)


def _arithmetic(node: Any, inputs: Sequence[Any]) -> Value:
    """With a constant for each channel or for all, in either order."""
    is_first = len(inputs) == 2 and isinstance(inputs[0], np.ndarray)
    x, constant = _one_and_constant(inputs[::-1] if is_first else inputs)
    both = [x.output, _constant(_per_channel(x, constant))]
    make = {"Sub": "subtract", "Mul": "multiply"}.get(node.op, "add")
    return Value(getattr(_ops(), make)(*(both[::-1] if is_first else both)), x.shape)


def _alone(node: Any, inputs: Sequence[Any]) -> Value:
    """What has one input and the shape of it."""
    _require(len(inputs) == 1, "inputs are", len(inputs))
    _values_only(inputs)
    (x,) = inputs
    match node.op:
        case "Relu":
            return Value(_ops().relu(x.output), x.shape)
        case "Softmax":
            return Value(_ops().softmax(x.output, 1), x.shape)
    return Value(x.output, x.shape)


def _concat(node: Any, inputs: Sequence[Any]) -> Value:
    *several, axis = inputs or [None]
    _values_only(several)
    _require(len(several) >= 1, "inputs are", len(several))
    rank = len(several[0].shape)
    _require(_axes(axis) in ([-1], [rank]), "axis is", axis)
    same = len({x.shape[:-1] for x in several}) == 1 and len({len(x.shape) for x in several}) == 1
    _require(same, "inputs have the shapes", [x.shape for x in several])
    shape = (*several[0].shape[:-1], sum(x.shape[-1] for x in several))
    _checked(None, shape)
    return Value(_ops().concat([x.output for x in several], 1), shape)


def _mean(node: Any, inputs: Sequence[Any]) -> Value:
    """Over all pixels."""
    _require(len(inputs) == 2, "inputs are", len(inputs))
    x, axes = inputs
    _values_only([x], 3)
    _require(sorted(axis % 4 for axis in _axes(axes)) == [1, 2], "axes are", axes)
    keep = "keep_dims" in node.attr and bool(node.attr["keep_dims"].b)
    shape = (1, 1, x.shape[2]) if keep else (x.shape[2],)
    return Value(_ops().reduce_mean(x.output, np.array([2, 3]), keep), shape)


def _matmul(node: Any, inputs: Sequence[Any]) -> Value:
    x, matrix = _one_and_constant(inputs, 2)
    _require(len(x.shape) == 1, "input has the shape", x.shape)
    for name in ("transpose_a", "transpose_b", "adj_x", "adj_y"):
        _require(name not in node.attr or not node.attr[name].b, f"{name} is", True)
    ok = matrix.shape[0] == x.shape[0] and min(matrix.shape) >= 1
    _require(ok, "matrix has the shape", matrix.shape)
    return _checked(_ops().matmul(x.output, _constant(matrix), False, False), (matrix.shape[1],))


# What makes OpenVINO's node of a node and of what it reads: values, and constants as arrays.
Operation = Callable[[Any, Sequence[Any]], Value]
OPERATIONS: Mapping[str, Operation] = {
    "Add": _arithmetic,
    "AddV2": _arithmetic,
    "AvgPool": _pool,
    "BiasAdd": _bias_add,
    "ConcatV2": _concat,
    "Conv2D": _conv,
    "Identity": _alone,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mean": _mean,
    "Mul": _arithmetic,
    "Relu": _alone,
    "Softmax": _alone,
    "Sub": _arithmetic,
}
