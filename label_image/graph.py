"""Read a frozen graph and labels; refuse an unsafe graph."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlenecks.errors import GraphError, UnsafeGraphError, shown
from bottlenecks.frozen import SCOPE
from bottlenecks.quiet_tensorflow import import_tensorflow
from label_image.config import MAX_SIDE
from retrain import graph_spec

MAX_GRAPH_BYTES = 2**31 - 1  # protobuf's own limit
MAX_CONSTANT_ELEMENTS = 2**28  # 1 GiB of float32, ten times InceptionV3
MAX_FIXED_BATCH = 256

# What image classifiers are made of, those of retrain.py's time too: arithmetic on tensors.
# Whatever else a graph may hold (files, Python, loops, variables) has no place in one.
SAFE_OPS = frozenset(
    """
    Add AddN AddV2 ArgMax AvgPool BatchNormWithGlobalNormalization BiasAdd Cast CheckNumerics
    Concat ConcatV2 Const Conv2D DecodeBmp DecodeGif DecodeJpeg DecodePng DepthwiseConv2dNative
    Dequantize Div DivNoNan Elu Equal Exp ExpandDims FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVars Floor FloorDiv FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
    Greater GreaterEqual Identity IdentityN LRN LeakyRelu Less LessEqual Log LogSoftmax MatMul
    Max MaxPool Maximum Mean Min Minimum Mul Neg NoOp Pack Pad PadV2 Placeholder
    PlaceholderWithDefault Pow QuantizeV2 QuantizedAvgPool QuantizedBiasAdd QuantizedConcat
    QuantizedConv2D QuantizedMatMul QuantizedMaxPool QuantizedRelu QuantizedRelu6
    QuantizedReshape RealDiv Relu Relu6 RequantizationRange Requantize Reshape ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor Round Rsqrt ScaleAndTranslate Selu Shape Sigmoid Slice
    Softmax Softplus Split SplitV Sqrt Square SquaredDifference Squeeze StopGradient
    StridedSlice Sub Sum Swish Tanh TopKV2 Transpose Unpack
    """.split()  # noqa: SIM905
)


def read_labels(path: str | Path) -> list[str]:
    """The labels, one per line. Raises `GraphError`."""
    text = _read(path, "labels")
    try:
        labels = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise GraphError(
            f"the labels file {shown(path)} is no UTF-8 text; --labels takes the file that "
            "retrain wrote beside the graph"
        ) from error
    if labels[-1] == "":
        labels.pop()
    labels = [label.rstrip("\r") for label in labels]
    if not labels or "" in labels or any("\0" in label for label in labels):
        raise GraphError(
            f"the labels file {shown(path)} is empty or has empty lines; it must hold one label "
            "per line, in the order of the graph's output"
        )
    return labels


def read_graph(path: str | Path) -> Any:
    """The GraphDef in ``path``, checked. Raises `GraphError`, `UnsafeGraphError`."""
    data = _read(path, "graph")
    remedy = "--graph takes the .pb file that retrain wrote"
    if len(data) > MAX_GRAPH_BYTES:
        raise GraphError(f"the graph {shown(path)} is larger than 2 GiB; {remedy}")
    tf = import_tensorflow()
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise GraphError(f"the file {shown(path)} is no TensorFlow graph; {remedy}") from error
    if not graph_def.node:
        raise GraphError(f"the graph {shown(path)} is empty; {remedy}")
    _check_safe(graph_def, path)
    return graph_def


def _read(path: str | Path, what: str) -> bytes:
    if not Path(path).is_file():
        problem = "is no file" if Path(path).exists() else "does not exist"
        raise GraphError(
            f"the {what} file {shown(path)} {problem}; run python -m retrain first, or name the "
            f"file with --{what}"
        )
    return Path(path).read_bytes()


def _check_safe(graph_def: Any, path: str | Path) -> None:
    if graph_def.library.function:
        raise UnsafeGraphError(f"the graph {shown(path)} has functions of its own; not loading it")
    elements = 0
    for node in graph_def.node:
        if node.op not in SAFE_OPS:
            raise UnsafeGraphError(
                f"the graph {shown(path)} has the operation {shown(node.op)} "
                f"({shown(node.name)}), which no image classifier needs; not loading it"
            )
        if node.op == "Const":
            sizes = [d.size for d in node.attr["value"].tensor.tensor_shape.dim]
            elements += (
                math.prod(sizes) if min(sizes, default=0) >= 0 else MAX_CONSTANT_ELEMENTS + 1
            )
    if elements > MAX_CONSTANT_ELEMENTS:
        raise UnsafeGraphError(
            f"the graph {shown(path)} declares {elements} constant numbers; at most "
            f"{MAX_CONSTANT_ELEMENTS} are loaded"
        )


def find_input(graph: Any, name: str | None) -> Any:
    """The input tensor ``name`` of a ``tf.Graph``, or the one of the usual names it has."""
    usual = (graph_spec.MUL_NODE, graph_spec.PLACEHOLDER_NODE, "input")
    tensor = _find(graph, [name] if name else usual, "--input_layer")
    shape = tensor.shape if tensor.shape.rank == 4 else (None,) * 4
    limits = (MAX_FIXED_BATCH, MAX_SIDE, MAX_SIDE, 3)
    fits = tensor.shape.rank in (None, 4) and all(
        size is None or 1 <= size <= limit for size, limit in zip(shape, limits, strict=True)
    )
    if tensor.dtype.name != "float32" or not fits or shape[3] not in (None, 3):
        raise GraphError(
            f"the input {tensor.name} is {tensor.dtype.name} {tensor.shape}, expected float32 "
            f"(n, height, width, 3), n up to {limits[0]} and sides up to {MAX_SIDE}; name another "
            "with --input_layer"
        )
    return tensor


def find_output(graph: Any, name: str | None) -> Any:
    """The output tensor ``name`` of a ``tf.Graph``, or final_result, or its only softmax."""
    if name is None and not _has(graph, graph_spec.FINAL_NODE):
        softmaxes = [op.name for op in graph.get_operations() if op.type == "Softmax"]
        if len(softmaxes) == 1:
            name = softmaxes[0]
    tensor = _find(graph, [name or graph_spec.FINAL_NODE], "--output_layer")
    if tensor.dtype.name != "float32":
        raise GraphError(
            f"the output {tensor.name} is {tensor.dtype.name}, expected float32 scores; name "
            "another with --output_layer"
        )
    return tensor


def _find(graph: Any, names: Sequence[str], flag: str) -> Any:
    for name in names:
        if _has(graph, name):
            return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    kind = "Placeholder" if flag == "--input_layer" else "Softmax"
    operations = [op for op in graph.get_operations() if not op.name.startswith(f"{SCOPE}/")]
    there = [op.name for op in operations if op.type.startswith(kind)]
    hint = f"; it has {', '.join(map(shown, there[:5]))}" if there else ""
    raise GraphError(
        f"the graph has no tensor {' or '.join(map(shown, names))}{hint}; name one with {flag}"
    )


def _has(graph: Any, name: str) -> bool:
    try:
        graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError):
        return False
    return True
