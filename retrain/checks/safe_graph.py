"""Refuse a graph that could do harm, or that TensorFlow would take minutes or die over.

What image classifiers are made of is let through, and no more of it than they have.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bottlenecks.errors import GraphError, UnsafeGraphError, shown
from bottlenecks.network.messages import message
from retrain.checks.reading import MAX_LABELS

MAX_CONSTANT_ELEMENTS = 2**28  # 1 GiB of float32, ten times InceptionV3
MAX_STRINGS = MAX_LABELS
# A graph of retrain has 550 nodes, the largest networks of other programs (NASNet-A) some ten
# thousand. 30,000 take TensorFlow about two seconds.
MAX_NODES = 30_000
MAX_EDGES = 4 * MAX_NODES  # inputs and outputs of all nodes; most have two or three
MAX_NODE_BYTES = 2**16  # of a node's name, inputs and attributes, without a constant's value
MAX_RANK = 8  # as far as most of TensorFlow's operations go

# Arithmetic on tensors, of retrain.py's time too. Whatever else a graph may hold (files, Python,
# loops, variables) has no place in an image classifier.
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
_COUNTS = ("N", "num", "num_split")  # attributes that say how many inputs or outputs a node has
# The types of constants: how they are called in types.proto, and the bytes of one number. Strings
# have no bytes of their own: they are not in a constant's content.
CONSTANT_TYPES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8", "QINT8", "QUINT8"), 1),
    **dict.fromkeys(("BFLOAT16", "HALF", "INT16", "UINT16", "QINT16", "QUINT16"), 2),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32", "QINT32"), 4),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64"), 8),
    "STRING": 0,
}


def check_safe(graph_def: Any) -> None:
    """Raise `UnsafeGraphError` or `GraphError` for a GraphDef that is not to be loaded.

    It may be TensorFlow's message or one of `bottlenecks.network.messages`. What is said goes on
    from the graph's name: "has functions of its own, ...".
    """
    if graph_def.library.function:
        raise UnsafeGraphError("has functions of its own, so it is not loaded")
    if len(graph_def.node) > MAX_NODES:
        raise UnsafeGraphError(f"has {len(graph_def.node)} nodes; at most {MAX_NODES} are loaded")
    names = set()
    edges = 0
    for node in graph_def.node:
        if node.op not in SAFE_OPS:
            raise UnsafeGraphError(
                f"has the operation {shown(node.op[:100])} ({shown(node.name[:100])}), which no "
                "image classifier needs, so it is not loaded"
            )
        if node.name in names:
            raise GraphError(f"is broken: two nodes are called {shown(node.name[:100])}")
        names.add(node.name)
        counts = [node.attr[name].i for name in _COUNTS if name in node.attr]
        types = [len(value.list.type) for value in node.attr.values()]
        edges += len(node.input) + sum(map(abs, counts)) + sum(types)
        check_size(node.name, _size(node))
    check_edges(edges)
    _check_constants([node for node in graph_def.node if node.op == "Const"])


def check_size(name: str, nbytes: int) -> None:
    """Raise `UnsafeGraphError` for a node of too many bytes, a constant's value left out."""
    if nbytes > MAX_NODE_BYTES:
        raise UnsafeGraphError(
            f"has a node of {nbytes} bytes ({shown(name[:100])}); at most {MAX_NODE_BYTES} are "
            "loaded"
        )


def check_edges(edges: int) -> None:
    """Raise `UnsafeGraphError` where all nodes together have too many inputs and outputs."""
    if edges > MAX_EDGES:
        raise UnsafeGraphError(
            f"has {edges} inputs and outputs of nodes; at most {MAX_EDGES} are loaded"
        )


def _size(node: Any) -> int:
    """About the bytes of a node's names and attributes, a constant's value left out."""
    size = sum(map(len, (node.name, node.device, *node.input)))
    for name, attribute in node.attr.items():
        if (node.op, name) != ("Const", "value"):  # ByteSize makes a copy: not of the weights
            size += len(name) + int(attribute.ByteSize())
    return size


def _check_constants(constants: Sequence[Any]) -> None:
    number_of = message("DataType", "types").Value
    types = {number_of(f"DT_{name}"): size for name, size in CONSTANT_TYPES.items()}
    string = number_of("DT_STRING")
    numbers = strings = 0
    for node in constants:
        attribute = node.attr["value"]
        tensor = attribute.tensor
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        size = types.get(tensor.dtype)
        # Of millions of sizes the product alone would take minutes.
        is_shape = len(sizes) <= MAX_RANK and min(sizes, default=0) >= 0
        elements = math.prod(sizes) if is_shape else 0
        content = len(tensor.tensor_content)
        problem = ""
        if attribute.WhichOneof("value") != "tensor":
            problem = "has no value"
        elif size is None or node.attr["dtype"].type != tensor.dtype:
            problem = "has a type that no image classifier needs"
        elif tensor.tensor_shape.unknown_rank or not is_shape:
            problem = "has a shape that no value has"
        elif content and content != elements * size:
            problem = f"has another number of bytes than its shape, {sizes}, takes"
        if problem:
            raise GraphError(f"is broken: its constant {shown(node.name[:100])} {problem}")
        if tensor.dtype == string:
            strings += elements
        else:
            numbers += elements
    for what, found, limit in (
        ("constant numbers", numbers, MAX_CONSTANT_ELEMENTS),
        ("constant strings", strings, MAX_STRINGS),
    ):
        if found > limit:
            raise UnsafeGraphError(f"declares {found} {what}; at most {limit} are loaded")
