"""OpenVINO as the engine of the frozen network: in float32, bfloat16, and 8 bits."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import CacheError, RetrainError, one_line
from bottlenecks.network import layers
from bottlenecks.network.engines import bfloat16
from bottlenecks.network.engines.bfloat16 import FLOAT32_CONVOLUTIONS, diffused
from bottlenecks.network.engines.devices import Run
from bottlenecks.network.engines.int8 import (
    LEVELS,
    MOST,
    Int8,
    about_of,
    convolutions_of,
    from_bytes,
    observed,
)
from bottlenecks.network.engines.openvino_graph import INSTALL as INSTALL
from bottlenecks.network.engines.openvino_graph import (
    OPERATIONS,
    Operation,
    Value,
    import_openvino,
    model_of,
)
from bottlenecks.network.engines.openvino_graph import is_installed as is_installed
from bottlenecks.network.engines.openvino_run import BFLOAT16, FLOAT32, Runner
from bottlenecks.network.messages import constants_of, message
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.photos.decode import INPUT_SIZE

NAME = "openvino"
TITLE = "OpenVINO"
VERSION = 1  # part of the fingerprint: change it with what changes rows that are not float32
_MEAN = _SCALE = 127.5  # pixels of 0 to 255 -> [-1, 1]


def marks(precision: str) -> dict[str, Any]:
    """What of this engine changes a row; that of float32 is TensorFlow's, within rounding."""
    own = {"bfloat16": bfloat16.VERSION} if precision == "bfloat16" else {}
    return {} if precision == "float32" else {"engine": NAME, NAME: VERSION, **own}


def start(frozen: bytes, cut: str | None, precision: str, int8: bytes | None) -> Run:
    """Have OpenVINO load the ``frozen`` network up to ``cut``, see `Engine.start`.

    The numbers ``int8`` are floats that are whole on a processor that lacks what they take.
    """
    graph_def, output = message("GraphDef").FromString(frozen), BOTTLENECK_NODE
    operations: Mapping[str, Operation] = OPERATIONS
    if int8 is not None:
        has_instructions = _most_of(int8) <= machine.most_of_int8()
        operations = of_int8(graph_def, _numbers(int8, graph_def), has_instructions)
    if cut is not None:
        graph_def, output = layers.below(graph_def, cut), layers.CUT_NODE
    if precision == "bfloat16":
        graph_def = with_rounded_kernels(graph_def)
    bits = BFLOAT16 if precision == "bfloat16" else FLOAT32
    run = _runner(graph_def, [output], operations, bits)
    dtype = np.dtype(np.float32 if cut is None else np.float16)
    return lambda pixels: run(pixels)[0].astype(dtype, copy=False)


def _most_of(int8: bytes) -> float:
    """The largest whole number that kernels may have, by what ``int8`` begins with."""
    most = about_of(int8).get("most")
    return most if isinstance(most, int) and 1 <= most <= MOST else math.inf


def _numbers(int8: bytes, graph_def: Any) -> Int8:
    try:
        return from_bytes(int8, graph_def)
    except CacheError as error:
        raise CacheError(
            f"what the cache has of the network in 8 bits {error}; take another --precision, or "
            "remove that cache: python -m bottlenecks --list, then --prune with its fingerprint"
        ) from error


def observe(frozen: bytes) -> tuple[Any, Callable[[np.ndarray], list[np.ndarray]]]:
    """The GraphDef of the network, and what gives what `calibrated` wants to see of it."""
    graph_def = message("GraphDef").FromString(frozen)
    return graph_def, _runner(graph_def, observed(convolutions_of(graph_def)))


def _runner(
    graph_def: Any,
    outputs: Sequence[str],
    operations: Mapping[str, Operation] = OPERATIONS,
    bits: str = FLOAT32,
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """From pixels (n, 299, 299, 3) uint8 to what the nodes ``outputs`` give."""
    try:
        ov = import_openvino()
    except (ImportError, OSError) as error:
        raise RetrainError(
            f"the network cannot be run by OpenVINO: {one_line(error)}; {INSTALL}, or take "
            "another with --engine tensorflow"
        ) from error
    made = model_of(graph_def, INPUT_NODE, outputs, (None, *INPUT_SIZE, 3), operations)
    scaled = ov.preprocess.PrePostProcessor(made)
    scaled.input().tensor().set_element_type(ov.Type.u8)
    scaled.input().preprocess().convert_element_type(ov.Type.f32).mean(_MEAN).scale(_SCALE)
    try:
        runner = Runner(scaled.build(), bits)
    except RuntimeError as error:
        raise _cannot_run(error) from error

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        try:
            return runner(np.ascontiguousarray(pixels))
        except RuntimeError as error:
            raise _cannot_run(error) from error

    return run


def _cannot_run(error: RuntimeError) -> RetrainError:
    return RetrainError(
        f"OpenVINO cannot run the network: {one_line(error)}; take another with --engine tensorflow"
    )


def with_rounded_kernels(graph_def: Any) -> Any:
    """``graph_def`` with the kernels of its convolutions rounded to bfloat16, see `diffused`.

    The first ones stay: OpenVINO rounds theirs as it does, to the nearest.
    """
    rounded = type(graph_def)()
    rounded.CopyFrom(graph_def)
    kernels = [node.input[1] for node in graph_def.node if node.op == "Conv2D"]
    constants = constants_of(graph_def)
    nodes = {node.name: node for node in rounded.node}
    for name in kernels[FLOAT32_CONVOLUTIONS:]:
        tensor = nodes[name].attr["value"].tensor
        tensor.ClearField("float_val")
        tensor.tensor_content = np.ascontiguousarray(diffused(constants[name])).tobytes()
    return rounded


@dataclass(frozen=True)
class _Pooled(Value):
    """A mean pool that is still to come: ``pool`` does it to what the convolution gives."""

    pool: Callable[[Value], Value]


def of_int8(graph_def: Any, int8: Int8, has_instructions: bool) -> Mapping[str, Operation]:
    """Operations for `model_of` that compute with the numbers of ``int8``.

    Levels are what flows between convolutions. Where the processor ``has_instructions`` for them,
    OpenVINO is told so by its FakeQuantize; elsewhere, where it might add up in 16 bits and cut
    off what is larger, they are floats that are whole.
    """
    convolutions = {one.name: one for one in convolutions_of(graph_def)}
    behind = {node.input[0]: node.name for node in graph_def.node if node.op in ("BiasAdd", "Relu")}
    ops = import_openvino().opset13
    reading = [(name, node.name) for node in graph_def.node for name in node.input]
    small = {x.name for x in convolutions.values() if x.kernel.shape[:2] == x.strides == (1, 1)}
    pooled_later = {name for name, _ in reading} - {
        name for name, reader in reading if reader not in small
    }

    def level_behind(name: str, channels: int) -> np.ndarray:
        """Of the ReLU that comes after a node, (C,)."""
        while name in behind:
            name = behind[name]
        return int8.levels.get(name, np.ones(channels, np.float32))

    def conv(node: Any, inputs: Sequence[Any]) -> Value:
        x, kernel = inputs
        if node.name not in convolutions:  # the one that reads pixels
            return OPERATIONS["Conv2D"](
                node, [x, kernel / level_behind(node.name, kernel.shape[3])]
            )
        whole, steps = int8.kernels[node.name], int8.steps[node.name]
        found = OPERATIONS["Conv2D"](node, [x, whole * steps])
        if has_instructions:
            numbers = ops.constant(np.ascontiguousarray(whole.transpose(3, 2, 0, 1)))
            floats = ops.convert(numbers, "f32")
            scaled = ops.multiply(floats, ops.constant(steps.reshape(-1, 1, 1, 1)))
            found.output.input(1).replace_source_output(scaled.output(0))
        return x.pool(found) if isinstance(x, _Pooled) else found

    def bias_add(node: Any, inputs: Sequence[Any]) -> Value:
        x, bias = inputs
        return OPERATIONS["BiasAdd"](node, [x, bias / level_behind(node.name, len(bias))])

    def relu(node: Any, inputs: Sequence[Any]) -> Value:
        found = OPERATIONS["Relu"](node, inputs)
        if node.name not in int8.levels:
            return found
        if has_instructions:
            least, most = (ops.constant(np.full((1, 1, 1, 1), x, np.float32)) for x in (0, LEVELS))
            rounded = ops.fake_quantize(found.output, least, most, least, most, LEVELS + 1)
        else:
            rounded = ops.round(ops.clamp(found.output, 0.0, float(LEVELS)), "half_to_even")
        return Value(rounded, found.shape)

    def pool(node: Any, inputs: Sequence[Any]) -> Value:
        """A mean of levels is not whole: it comes behind the 1x1 convolution that reads it."""
        if node.name not in pooled_later:
            return OPERATIONS["AvgPool"](node, inputs)
        (x,) = inputs
        return _Pooled(x.output, x.shape, lambda found: OPERATIONS["AvgPool"](node, [found]))

    changed = {"Conv2D": conv, "BiasAdd": bias_add, "Relu": relu, "AvgPool": pool}
    return {**OPERATIONS, **changed}
