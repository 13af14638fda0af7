"""Refuse a LiteRT model that could do harm: LiteRT trusts what it is given, and dies of some.

What image classifiers are made of is let through, and no more of it than they have.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError, UnsafeGraphError, shown
from retrain.checks.flat import Choice, Flatbuffer, Many, Number, Numbers, One, Table, Text
from retrain.checks.safe_graph import MAX_CONSTANT_ELEMENTS, MAX_RANK

# InceptionV3 in 16 bits has 315 operations and 507 tensors, the largest networks some thousands.
MAX_OPERATIONS = 10_000
MAX_TENSORS = 4 * MAX_OPERATIONS
MAX_STEP = 4096  # pixels: of strides, windows and margins

# What follows are tables and values of tensorflow/compiler/mlir/lite/schema/schema.fbs.
_BYTE, _FLAG = Number("b"), Number("?")
_NO_OPTIONS: Table = {}
_FUSED: Table = {"fused": _BYTE}
_SUM: Table = {"fused": _BYTE, "pot_scale_int16": _FLAG}
_CONV: Table = {
    **{"padding": _BYTE, "stride_w": Number(), "stride_h": Number(), "fused": _BYTE},
    **{"dilation_w": Number(), "dilation_h": Number(), "bias_type": _BYTE},
}
_DEPTHWISE: Table = {
    **{"padding": _BYTE, "stride_w": Number(), "stride_h": Number(), "multiplier": Number()},
    **{"fused": _BYTE, "dilation_w": Number(), "dilation_h": Number()},
}
_POOL: Table = {
    **{"padding": _BYTE, "stride_w": Number(), "stride_h": Number()},
    **{"filter_w": Number(), "filter_h": Number(), "fused": _BYTE},
}
_FULLY_CONNECTED: Table = {
    **{"fused": _BYTE, "format": _BYTE, "keeps_dims": _FLAG, "asymmetric": _FLAG},
    "bias_type": _BYTE,
}
_STRIDED_SLICE: Table = {
    **{"begin": Number(), "end": Number(), "ellipsis": Number(), "new": Number()},
    **{"shrink": Number(), "is_offset": _FLAG},
}
_OPTIONS: dict[int, Table] = {
    **{0: _NO_OPTIONS, 1: _CONV, 2: _DEPTHWISE, 5: _POOL, 8: _FULLY_CONNECTED},
    **{9: {"beta": Number("f")}, 10: {"axis": Number(), "fused": _BYTE}, 11: _SUM, 21: _FUSED},
    **{17: {"shape": Numbers()}, 22: _NO_OPTIONS, 27: {"keeps_dims": _FLAG}, 28: _SUM, 29: _FUSED},
    **{30: {"dims": Numbers()}, 38: _NO_OPTIONS, 39: _NO_OPTIONS, 75: {"alpha": Number("f")}},
    **{32: _STRIDED_SLICE, 55: {"type": _BYTE}, 59: {"count": Number(), "axis": Number()}},
    **{89: _NO_OPTIONS, 91: _NO_OPTIONS},
}
# Code of an operation: its name, the kind of its options, and how many inputs it has at least and
# at most. Those without options may have no kind either.
SAFE_OPERATIONS: Mapping[int, tuple[str, int, int, int]] = {
    0: ("ADD", 11, 2, 2),
    1: ("AVERAGE_POOL_2D", 5, 1, 1),
    2: ("CONCATENATION", 10, 1, 1000),
    3: ("CONV_2D", 1, 2, 3),
    4: ("DEPTHWISE_CONV_2D", 2, 2, 3),
    6: ("DEQUANTIZE", 38, 1, 1),
    9: ("FULLY_CONNECTED", 8, 2, 3),
    14: ("LOGISTIC", 0, 1, 1),
    17: ("MAX_POOL_2D", 5, 1, 1),
    18: ("MUL", 21, 2, 2),
    19: ("RELU", 0, 1, 1),
    21: ("RELU6", 0, 1, 1),
    22: ("RESHAPE", 17, 1, 2),
    25: ("SOFTMAX", 9, 1, 1),
    28: ("TANH", 0, 1, 1),
    34: ("PAD", 22, 2, 2),
    40: ("MEAN", 27, 2, 2),
    41: ("SUB", 28, 2, 2),
    42: ("DIV", 29, 2, 2),
    43: ("SQUEEZE", 30, 1, 1),
    45: ("STRIDED_SLICE", 32, 4, 4),
    55: ("MAXIMUM", 39, 2, 2),
    57: ("MINIMUM", 39, 2, 2),
    77: ("SHAPE", 55, 1, 1),
    83: ("PACK", 59, 1, 1000),
    98: ("LEAKY_RELU", 75, 1, 1),
    114: ("QUANTIZE", 89, 1, 1),
    117: ("HARD_SWISH", 91, 1, 1),
}
# LiteRT believes the shape of what comes out of these.
SAME_SHAPE = frozenset(
    "DEQUANTIZE HARD_SWISH LEAKY_RELU LOGISTIC QUANTIZE RELU RELU6 SOFTMAX TANH".split()  # noqa: SIM905
)
_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("stride_w", "stride_h", "filter_w", "filter_h"), (1, MAX_STEP)),
    **dict.fromkeys(("dilation_w", "dilation_h"), (1, MAX_STEP)),
    **{"multiplier": (0, MAX_STEP), "axis": (-MAX_RANK, MAX_RANK), "fused": (0, 3)},
    **{"padding": (0, 1), "format": (0, 0), "bias_type": (0, 4)},
}
_DEFAULTS = {"dilation_w": 1, "dilation_h": 1}
_SCALES = (2.0**-64, 2.0**64)  # quotients of others led LiteRT out of its tables
_ZEROS = {3: (0, 255), 9: (-128, 127)}  # of uint8 and int8; those of others are 0
_EMPTY = np.empty(0, np.int32)
NONE = -1  # in the place of an input that is left out
# Type of a tensor: bytes of a number
_TYPES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 9: 1}  # float32 float16 int32 uint8 int64 bool int8
FLOAT32 = 0

_QUANTISATION: Table = {
    **{"min": Numbers("<f4"), "max": Numbers("<f4"), "scale": Numbers("<f4")},
    **{"zero_point": Numbers("<i8"), "details_type": None, "details": None},
    "dimension": Number(),
}
_TENSOR: Table = {
    **{"shape": Numbers(), "type": _BYTE, "buffer": Number("I"), "name": Text()},
    **{"quantisation": One(_QUANTISATION), "a variable": None, "sparse numbers": None},
    **{"signature": Numbers(), "has_rank": _FLAG},
}
_OPERATION: Table = {
    **{"code": Number("I"), "inputs": Numbers(), "outputs": Numbers(), "kind": Number("B")},
    **{"options": Choice("kind", _OPTIONS), "custom options": None, "custom_format": _BYTE},
    **{"changed": Numbers("u1"), "intermediates": Numbers()},
}
_CODE: Table = {
    **{"old": _BYTE, "custom": Text(), "version": Number(), "code": Number()},
}
_GRAPH: Table = {
    **{"tensors": Many(_TENSOR), "inputs": Numbers(), "outputs": Numbers()},
    **{"operations": Many(_OPERATION), "name": Text(), "debug": Number()},
}
_NAMED: Table = {"name": Text(), "tensor": Number("I")}
_SIGNATURE: Table = {
    **{"inputs": Many(_NAMED), "outputs": Many(_NAMED), "key": Text(), "tag": None},
    "graph": Number("I"),
}
_MODEL: Table = {
    **{"version": Number("I"), "codes": Many(_CODE), "graphs": Many(_GRAPH), "about": Text()},
    **{"buffers": Many({"data": Numbers("u1")}), "metadata_buffer": Numbers()},
    **{"metadata": Many({"name": Text(), "buffer": Number("I")}), "signatures": Many(_SIGNATURE)},
}


def check_safe(data: bytes) -> None:
    """Raise `UnsafeGraphError` or `GraphError` for a model that is not to be loaded.

    ``data`` begins with it. The message goes on from the file's name: "is broken: ...".
    """
    model = Flatbuffer(data).root(_MODEL)
    if len(model.get("graphs", ())) != 1:
        raise UnsafeGraphError("has parts that call each other, or none; not loading it")
    _Checked(model).check()


class _Checked:
    """The parts of a model, each looked at with those that it names."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        (graph,) = model["graphs"]
        self._model = model
        self._tensors: Sequence[Mapping[str, Any]] = graph.get("tensors", ())
        self._operations: Sequence[Mapping[str, Any]] = graph.get("operations", ())
        self._inputs: list[int] = list(graph.get("inputs", ()))
        self._outputs: list[int] = list(graph.get("outputs", ()))
        self._buffers = [buffer.get("data", ()) for buffer in model.get("buffers", ())]

    def check(self) -> None:
        """Raise `UnsafeGraphError` or `GraphError` for what is not to be loaded."""
        for what, found, most in (
            ("operations", len(self._operations), MAX_OPERATIONS),
            ("tensors", len(self._tensors), MAX_TENSORS),
        ):
            if found > most:
                raise UnsafeGraphError(f"has {found} {what}; at most {most} are loaded")
        known = {i for i in range(len(self._tensors)) if self._check_tensor(i)}
        self._check_places(self._inputs, known, fed=True)
        known |= set(self._inputs)
        for operation in self._operations:
            self._check_operation(operation, known)
            known |= set(operation.get("outputs", ()))
        if not (self._outputs and known.issuperset(self._outputs)):
            raise _broken("nothing computes what comes out")
        self._check_names()

    def _check_tensor(self, number: int) -> bool:
        """Whether it is a constant."""
        tensor = self._tensors[number]
        shape, signature = self._shape(number), tensor.get("signature", _EMPTY).tolist()
        size = _TYPES.get(tensor.get("type", FLOAT32))
        name = shown(tensor.get("name", b"").decode("utf-8", "replace")[:100])
        buffer = tensor.get("buffer", 0)
        if len(shape) > MAX_RANK or min(shape, default=0) < 0:  # before it is multiplied or shown
            raise UnsafeGraphError(f"has a tensor of a shape that no value has ({name})")
        elements = math.prod(shape)
        if size is None:
            raise UnsafeGraphError(f"has a tensor of a type that no classifier needs ({name})")
        if elements > MAX_CONSTANT_ELEMENTS:
            raise UnsafeGraphError(f"has a tensor of {shape} numbers ({name}); not loading it")
        if signature and (len(signature) != len(shape) or min(signature) < -1):
            raise _broken(f"the shapes of its tensor {name} are two")
        if buffer >= len(self._buffers):
            raise _broken(f"its tensor {name} is nowhere")
        data = self._buffers[buffer]
        if len(data) and len(data) != elements * size:
            raise _broken(f"its tensor {name} has {len(data)} bytes, of {shape} numbers")
        zeros = _ZEROS.get(tensor.get("type", FLOAT32), (0, 0))
        _check_quantisation(tensor.get("quantisation", {}), shape, zeros, name)
        return len(data) > 0

    def _check_operation(self, operation: Mapping[str, Any], known: set[int]) -> None:
        name, kind, fewest, most = self._kind_of(operation)
        inputs = list(operation.get("inputs", ()))
        outputs = list(operation.get("outputs", ()))
        if not fewest <= len(inputs) <= most or len(outputs) != 1:
            raise _broken(f"its {name} has {len(inputs)} inputs and {len(outputs)} outputs")
        needed = inputs
        if name == "FULLY_CONNECTED" and inputs[2:] == [NONE]:  # its bias
            needed = inputs[:2]
        self._check_places(needed, known, fed=False)
        self._check_places(outputs, known, fed=True)
        if operation.get("kind", 0) not in (kind, 0):
            raise _broken(f"its {name} has the settings of another operation")
        if name in SAME_SHAPE and self._shape(inputs[0]) != self._shape(outputs[0]):
            raise _broken(f"its {name} has another shape than what goes in")
        _check_options(name, _OPTIONS[kind], operation.get("options", {}))
        if name == "DIV" and self._tensors[outputs[0]].get("type", FLOAT32) != FLOAT32:
            raise UnsafeGraphError("divides whole numbers, which no classifier needs")
        if name == "PAD":
            self._check_margins(inputs[1])

    def _shape(self, tensor: int) -> list[int]:
        shape: list[int] = self._tensors[tensor].get("shape", _EMPTY).tolist()
        return shape

    def _kind_of(self, operation: Mapping[str, Any]) -> tuple[str, int, int, int]:
        """What `SAFE_OPERATIONS` has of it. Raises `UnsafeGraphError` for what is not in there."""
        codes = self._model.get("codes", ())
        if operation.get("code", 0) >= len(codes):
            raise _broken("an operation has no name")
        code = codes[operation.get("code", 0)]
        number = max(code.get("old", 0), code.get("code", 0))
        custom = shown(code.get("custom", b"").decode("utf-8", "replace")[:100])
        if custom or number not in SAFE_OPERATIONS:
            raise UnsafeGraphError(
                f"has the operation {custom or number}, which no image classifier needs; not "
                "loading it"
            )
        return SAFE_OPERATIONS[number]

    def _check_places(self, tensors: Sequence[int], known: set[int], fed: bool) -> None:
        """Tensors that are ``fed`` with numbers are to be empty as yet, all others not."""
        for tensor in tensors:
            if not 0 <= tensor < len(self._tensors) or (tensor in known) == fed:
                raise _broken(f"its operations do not follow from each other (tensor {tensor})")

    def _check_margins(self, tensor: int) -> None:
        margins = self._tensors[tensor]
        data = self._buffers[margins.get("buffer", 0)]
        if margins.get("type") != 2 or not len(data):
            raise UnsafeGraphError("computes margins as it runs; not loading it")
        values = np.frombuffer(data, "<i4")
        if values.min() < 0 or values.max() > MAX_STEP:
            raise UnsafeGraphError(f"has margins of {values.min()} to {values.max()} pixels")

    def _check_names(self) -> None:
        """Those of tensors and buffers that are for programs which ask by name."""
        for signature in self._model.get("signatures", ()):
            ends = [*signature.get("inputs", ()), *signature.get("outputs", ())]
            if any(end.get("tensor", 0) >= len(self._tensors) for end in ends):
                raise _broken("a name of it leads nowhere")
            if signature.get("graph", 0) or any("name" not in end for end in ends):
                raise _broken("a name of it leads nowhere")
        for entry in self._model.get("metadata", ()):
            if "name" not in entry or entry.get("buffer", 0) >= len(self._buffers):
                raise _broken("a name of it leads nowhere")


def _check_quantisation(
    found: Mapping[str, Any], shape: Sequence[int], allowed: tuple[int, int], name: str
) -> None:
    """The scale of a whole tensor, or those of its parts along a ``dimension``."""
    scales, zeros = found.get("scale", _EMPTY), found.get("zero_point", _EMPTY)
    if not (len(scales) or len(zeros)):
        return
    dimension = found.get("dimension", 0)
    parts = shape[dimension : dimension + 1] if dimension >= 0 else []
    if len(scales) not in (1, *parts) or len(zeros) not in (1, len(scales)):
        raise _broken(f"the scales of its tensor {name} are not those of its shape")
    for values, (smallest, largest) in ((scales, _SCALES), (zeros, allowed)):
        if not (values.min() >= smallest and values.max() <= largest):  # which no NaN is
            raise _broken(f"the scales of its tensor {name} are no scales")


def _check_options(name: str, fields: Table, options: Mapping[str, Any]) -> None:
    for field in fields:
        value = options.get(field, _DEFAULTS.get(field, 0))
        low, high = _RANGES.get(field, (-math.inf, math.inf))
        if np.ndim(value) == 0 and not low <= value <= high:
            raise _broken(f"its {name} has the {field} {value}")


def _broken(why: str) -> GraphError:
    return GraphError(f"is broken: {why}")
