"""Refuse an ONNX model that could do harm, or that ONNX Runtime would die over.

How long a model takes is not looked at: one may have as many multiplications as its maker likes.
As `retrain.checks.safe_graph` does with TensorFlow's graphs, and within the same limits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bottlenecks.errors import GraphError, UnsafeGraphError, one_line, shown
from retrain.checks.safe_graph import (
    MAX_CONSTANT_ELEMENTS,
    MAX_NODES,
    MAX_RANK,
    check_edges,
    check_size,
)

_FLOATS = (1, 10, 11, 16)  # FLOAT FLOAT16 DOUBLE BFLOAT16 of onnx.TensorProto
# Numbers that operations give, for one photo. InceptionV3 has 1.4 million in its largest value and
# 24 million in all; the largest networks of other programs some ten times that.
MAX_VALUE_ELEMENTS = 2**25
MAX_VALUES_ELEMENTS = 2**30
SMALL_ELEMENTS = 1024  # of a constant that may be a shape; larger ones are weights

DOMAINS = ("", "ai.onnx")  # the standard's operations, by both of its names
# Arithmetic on tensors. Loops, branches, text, random numbers and sequences have no place in an
# image classifier.
SAFE_OPS = frozenset(
    """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization LRN LayerNormalization LeakyRelu Less LessOrEqual
    Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean Min Mish Mul Neg
    Not Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceL1
    ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize Round Selu Shape Sigmoid Sign Size Slice Softmax Softplus Softsign SpaceToDepth Split
    Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where
    """.split()  # noqa: SIM905
)
CONSTANT_TYPES = {
    **{"FLOAT": 4, "FLOAT16": 2, "BFLOAT16": 2, "DOUBLE": 8, "BOOL": 1},
    **{"INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8},
    **{"UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8},
}  # bytes of a number of each
_FOREIGN = {
    "FunctionProto": "functions of its own",
    "GraphProto": "a graph within an operation",
    "SparseTensorProto": "sparse constants",
    "TrainingInfoProto": "what trains it",
}


def check_whole(model: Any) -> None:
    """Raise `UnsafeGraphError` for a ModelProto with values in other files, which it may name.

    `GraphError` for names that are no text. The messages go on from the model's name, as those of
    all checks here.
    """
    for message in _messages(model):
        if not all(isinstance(text, str) for text in _texts(message)):
            raise GraphError("is broken: a name in it is no UTF-8")
        if message.DESCRIPTOR.name == "TensorProto" and _is_elsewhere(message):
            raise UnsafeGraphError(
                f"keeps its constant {shown(message.name[:100])} outside of the file; put all "
                "into one file"
            )


def check_safe(model: Any) -> None:
    """Raise `UnsafeGraphError` or `GraphError` for a ModelProto that is not to be loaded."""
    constants = []
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind in _FOREIGN and message is not model.graph:
            raise UnsafeGraphError(f"has {_FOREIGN[kind]}, which no image classifier needs")
        if kind == "TensorProto":
            constants.append(message)
    _check_nodes(model.graph.node)
    _check_constants(constants)


def check_values(model: Any, source: str, shape: Sequence[int]) -> None:
    """Raise `UnsafeGraphError` or `GraphError` where what operations give is too large.

    ``shape`` is that of the input ``source``. All sizes are worked out, and none is computed: a
    model in which one depends on more than on the shape is not to be loaded either.
    """
    import onnx

    try:
        found = onnx.shape_inference.infer_shapes(
            _without_weights(model, source, shape), strict_mode=True, data_prop=True
        )
    except MemoryError:
        raise
    except Exception as error:  # InferenceError, ValueError, what protobuf raises
        raise GraphError(f"does not fit together: {one_line(error)}") from error
    infos = (*found.graph.value_info, *found.graph.output)
    elements = {info.name: _elements(info.type.tensor_type) for info in infos}
    _check_division(model, {info.name: info.type.tensor_type.elem_type for info in infos})
    names = [name for node in model.graph.node for name in node.output if name]
    sizes = [elements.get(name, -1) for name in names]
    photos = max(1, shape[0])
    for name, size in zip(names, sizes, strict=True):
        if size < 0:
            raise UnsafeGraphError(
                f"has a value {shown(name[:100])} whose size is not known before it is computed"
            )
        if size > MAX_VALUE_ELEMENTS * photos:
            raise UnsafeGraphError(
                f"computes {shown(name[:100])} of {size} numbers; at most {MAX_VALUE_ELEMENTS} for "
                "a photo are computed"
            )
    if sum(sizes) > MAX_VALUES_ELEMENTS * photos:
        raise UnsafeGraphError(
            f"computes {sum(sizes)} numbers; at most {MAX_VALUES_ELEMENTS} for a photo are computed"
        )


def _check_division(model: Any, types: Mapping[str, int]) -> None:
    """Raise `UnsafeGraphError` for a division of whole numbers.

    That of the smallest one by -1 ends the process.
    """
    for node in model.graph.node:
        whole = any(types.get(name) not in _FLOATS for name in node.output)
        if node.op_type in ("Div", "Mod") and whole:
            raise UnsafeGraphError(
                f"divides whole numbers ({shown(node.name[:100])}), which no image classifier needs"
            )


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all that are in it."""
    from google.protobuf.message import Message

    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else list(value)


def _texts(message: Any) -> Iterator[Any]:
    """The values of its fields of text: ``str``, or ``bytes`` where they are no UTF-8."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else value


def _is_elsewhere(tensor: Any) -> bool:
    return bool(tensor.external_data) or tensor.data_location != tensor.DEFAULT


def _check_nodes(nodes: Sequence[Any]) -> None:
    if len(nodes) > MAX_NODES:
        raise UnsafeGraphError(f"has {len(nodes)} nodes; at most {MAX_NODES} are loaded")
    edges = 0
    for node in nodes:
        if node.op_type not in SAFE_OPS or node.domain not in DOMAINS:
            full = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise UnsafeGraphError(
                f"has the operation {shown(full[:100])} ({shown(node.name[:100])}), which no image "
                "classifier needs; not loading it"
            )
        edges += len(node.input) + len(node.output)
        check_size(node.name, _size(node))
    check_edges(edges)


def _size(node: Any) -> int:
    """About the bytes of a node's names and attributes, constants left out."""
    size = sum(map(len, (node.name, node.doc_string, *node.input, *node.output)))
    return size + sum(
        int(attribute.ByteSize()) for attribute in node.attribute if not attribute.HasField("t")
    )


def _check_constants(constants: Sequence[Any]) -> None:
    numbers = 0
    for tensor in constants:
        sizes = list(tensor.dims)
        width = _width(tensor)
        problem = ""
        if width is None:
            problem = "has a type that no image classifier needs"
        elif len(sizes) > MAX_RANK or min(sizes, default=0) < 0 or tensor.HasField("segment"):
            problem = "has a shape that no value has"
        elif tensor.raw_data and len(tensor.raw_data) != math.prod(sizes) * width:
            problem = f"has another number of bytes than its shape, {sizes}, takes"
        if problem:
            raise GraphError(f"is broken: its constant {shown(tensor.name[:100])} {problem}")
        numbers += math.prod(sizes)
    if numbers > MAX_CONSTANT_ELEMENTS:
        raise UnsafeGraphError(
            f"declares {numbers} constant numbers; at most {MAX_CONSTANT_ELEMENTS} are loaded"
        )


def _width(tensor: Any) -> int | None:
    """The bytes of a number of a TensorProto; None for a type that is not known here."""
    kinds = {tensor.DataType.Value(name): size for name, size in CONSTANT_TYPES.items()}
    return kinds.get(tensor.data_type)


def _without_weights(model: Any, source: str, shape: Sequence[int]) -> Any:
    """The model with an input of ``shape``, and with the shapes of its weights in their place.

    What it says of its values is left out: it may not be true.
    """
    import onnx

    constants = model.graph.initializer
    small = [tensor for tensor in constants if math.prod(tensor.dims) <= SMALL_ELEMENTS]
    given = [(source, onnx.TensorProto.FLOAT, shape)]
    given += [(tensor.name, tensor.data_type, tensor.dims) for tensor in constants]
    is_small = {tensor.name for tensor in small}
    graph = onnx.GraphProto(
        name="values",
        node=model.graph.node,
        initializer=small,
        input=[onnx.helper.make_tensor_value_info(*one) for one in given if one[0] not in is_small],
        output=[onnx.ValueInfoProto(name=output.name) for output in model.graph.output],
    )
    versions = {one.domain: one.version for one in model.opset_import}
    for domain in set(DOMAINS) & set(versions):
        # Sizes are the same in these, and from 15 on those of Reshape can be worked out.
        versions[domain] = {13: 15, 14: 15}.get(versions[domain], versions[domain])
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=opsets, graph=graph)


def _elements(tensor: Any) -> int:
    """How many numbers a value of an inferred type has; -1 where that is not known."""
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    known = tensor.HasField("shape") and min(sizes, default=0) >= 0 and len(sizes) <= MAX_RANK
    return math.prod(sizes) if known else -1
