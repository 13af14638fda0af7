"""ONNX models, by ONNX Runtime and without TensorFlow: of `retrain`, and of other programs."""

import dataclasses
import importlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import GraphError, one_line, shown
from retrain.checks.reading import labels_in, read_file
from retrain.checks.safe_graph import MAX_CONSTANT_ELEMENTS
from retrain.checks.safe_onnx import check_safe, check_values, check_whole
from retrain.engines.program import Feeding, check_engine, classes_of, feeding_of
from retrain.engines.settings import GraphSettings
from retrain.export import graph_spec

NAME = "ONNX"
MAX_MODEL_BYTES = min(4 * MAX_CONSTANT_ELEMENTS + 2**26, 2**31 - 1)  # protobuf's own limit
_FLOAT = 1  # TensorProto.FLOAT
_NOTHING_LOGGED = 4  # of ONNX Runtime's severities: what ends the process
# (mean, std) of pixels in each of the ranges that onnx/onnx, docs/MetadataProps.md names
RANGES = {
    "NominalRange_0_255": (0.0, 1.0),
    "Normalized_0_1": (0.0, 255.0),
    "Normalized_1_1": (127.5, 127.5),
}


def fits(path: str | os.PathLike[str], start: bytes | None) -> bool:
    """Whether the file begins with the version of a ModelProto, which is 3 since 2017.

    The file in a SavedModel's folder begins as one of version 1 would.
    """
    return start is not None and start[:1] == b"\x08" and 3 <= int.from_bytes(start[1:2]) < 0x80


def read(path: str | os.PathLike[str], any_graph: bool = False) -> "Model":
    """The model in ``path``, checked; with ``any_graph`` only for being all in one file.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    data = read_file(path, "graph", MAX_MODEL_BYTES)
    onnx = _import("onnx", path)
    remedy = "--graph takes the file that retrain wrote"
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise GraphError(f"the file {shown(path)} is no ONNX model; {remedy}") from error
    if not proto.graph.node:
        raise GraphError(f"the ONNX model {shown(path)} is empty; {remedy}")
    proto.DiscardUnknownFields()  # ONNX Runtime may know what was not looked at here
    with _naming(path):
        check_whole(proto)
        if not any_graph:
            check_safe(proto)
    return Model(path, proto, any_graph)


@dataclass(frozen=True)
class Model:
    """A ModelProto that was read from ``path``, as `Contents`."""

    path: str | os.PathLike[str]
    proto: Any
    any_graph: bool

    @property
    def labels(self) -> list[str]:
        return labels_in(self._metadata(graph_spec.LABELS_NODE).encode(), self.path)

    @property
    def about(self) -> str:
        return self._metadata(graph_spec.ABOUT_NODE)

    def _metadata(self, key: str) -> str:
        """What the model says of itself under ``key``; empty where it says nothing."""
        return next((str(one.value) for one in self.proto.metadata_props if one.key == key), "")

    def start(self, settings: GraphSettings) -> "Session":
        """Hand it to ONNX Runtime, with no other output than the one in use.

        Raises `GraphError`; `UnsafeGraphError` for what would take too much memory.
        """
        check_engine(settings, NAME)
        graph = self.proto.graph
        source = find_input(graph, settings.input_layer)
        output = find_output(graph, settings.output_layer)
        shape, channels_first = layout_of(source)
        feeding = feeding_of(settings, shape, usual=self._usual(settings, source.name))
        del graph.output[:]
        graph.output.add(name=output)
        if not self.any_graph:
            fed = (feeding.batch or 1, *feeding.size, 3)
            with _naming(self.path):
                check_values(self.proto, source.name, _moved(fed) if channels_first else fed)
        return Session(self, source.name, feeding, channels_first)

    def _usual(self, settings: GraphSettings, source: str) -> Feeding:
        """How the model says that it is fed, or else as a graph of retrain.py's with that input."""
        colours = self._metadata("Image.BitmapPixelFormat") or "Rgb8"
        if colours != "Rgb8":
            raise GraphError(
                f"the ONNX model {shown(self.path)} takes pixels in {shown(colours[:100])}; photos "
                "are fed in Rgb8 alone"
            )
        is_mul = source.removesuffix(":0") == graph_spec.MUL_NODE
        usual = "Normalized_1_1" if is_mul else "Normalized_0_1"
        name = self._metadata("Image.NominalPixelRange") or usual
        if name not in RANGES and None in (settings.input_mean, settings.input_std):
            raise GraphError(
                f"the ONNX model {shown(self.path)} takes pixels in {shown(name[:100])}, expected "
                f"{', '.join(RANGES)}; say how they are fed with --input_mean and --input_std"
            )
        mean, std = RANGES.get(name, RANGES[usual])
        return Feeding(mean=mean, std=std)


class Session:
    """A session of ONNX Runtime, as a `Program`."""

    def __init__(self, model: Model, source: str, feeding: Feeding, channels_first: bool) -> None:
        onnxruntime = _import("onnxruntime", model.path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _NOTHING_LOGGED
        options.intra_op_num_threads = machine.usable_cores()
        # Threads that wait leave the cores to those that decode photos, and to other programs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._source, self._channels_first = source, channels_first
        try:
            self._session = onnxruntime.InferenceSession(
                model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except MemoryError:
            raise
        except Exception as error:  # its exceptions have no base of their own
            raise GraphError(
                f"cannot load the ONNX model {shown(model.path)}: {one_line(error)}"
            ) from error
        (output,) = self._session.get_outputs()
        if output.type != "tensor(float)":
            raise GraphError(
                f"the output {shown(output.name)} is {output.type}, expected float32 scores; name "
                "another with --output_layer"
            )
        self.feeding = dataclasses.replace(feeding, classes=classes_of(output.shape))

    def __call__(self, fed: np.ndarray) -> np.ndarray:
        if self._channels_first:
            fed = np.ascontiguousarray(fed.transpose(_moved((0, 1, 2, 3))))
        try:
            (scores,) = self._session.run(None, {self._source: fed})
            return np.asarray(scores).reshape(len(fed), -1)
        except MemoryError:
            raise
        except Exception as error:
            raise GraphError(
                f"the ONNX model cannot be run from its input to its output: {one_line(error)}"
            ) from error


def find_input(graph: Any, name: str | None) -> Any:
    """The input ``name`` of a GraphProto, or the one of the usual names, or its only one.

    Constants may be listed as inputs with a default. Raises `GraphError`.
    """
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {one.name: one for one in graph.input if one.name not in constants}
    usual = (graph_spec.MUL_NODE, graph_spec.PLACEHOLDER_NODE, "input")
    wanted = [name] if name else [*usual, *(inputs if len(inputs) == 1 else ())]
    found = _find(inputs, wanted)
    if found is None:
        raise _no_tensor(wanted, inputs, "--input_layer")
    if len(inputs) > 1:
        raise GraphError(
            f"the ONNX model has {len(inputs)} inputs ({_listed(inputs)}); photos are fed to one, "
            "and there is nothing to feed to others"
        )
    return inputs[found]


def find_output(graph: Any, name: str | None) -> str:
    """The value ``name`` of a GraphProto, or final_result, or its only output, or its only softmax.

    Raises `GraphError`.
    """
    values = {value for node in graph.node for value in node.output if value}
    outputs = [one.name for one in graph.output if one.name in values]
    softmaxes = [one.output[0] for one in graph.node if one.op_type == "Softmax" and one.output]
    wanted = [name] if name else [graph_spec.FINAL_NODE]
    if not name:
        wanted += next((some for some in (outputs, softmaxes) if len(some) == 1), [])
    found = _find(values, wanted)
    if found is None:
        raise _no_tensor(wanted, outputs, "--output_layer")
    return found


def layout_of(source: Any) -> tuple[tuple[int | None, ...], bool]:
    """The shape (n, height, width, 3) of an input, None where unknown; and if channels come first.

    They do unless only the last dimension is 3, as in most ONNX models. Raises `GraphError`.
    """
    tensor = source.type.tensor_type
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    if not tensor.HasField("shape"):
        dims = [None] * 4
    if tensor.elem_type != _FLOAT or len(dims) != 4 or 3 not in (dims[1] or 3, dims[3] or 3):
        raise GraphError(
            f"the input {shown(source.name)} has the type {tensor.elem_type} and the shape {dims}, "
            f"expected float32 ({_FLOAT}), (n, 3, height, width) or (n, height, width, 3)"
        )
    channels_first = dims[3] != 3 or dims[1] == 3
    shape = [dims[i] for i in (0, 2, 3, 1)] if channels_first else dims
    return tuple(shape), channels_first


def _moved(fed: Sequence[int]) -> tuple[int, ...]:
    """(n, height, width, 3) as (n, 3, height, width)."""
    n, height, width, channels = fed
    return n, channels, height, width


def _find(there: Iterable[str], wanted: Iterable[str]) -> str | None:
    """The first of the names ``wanted`` that is ``there``, with or without TensorFlow's ``:0``."""
    bare = {name.removesuffix(":0"): name for name in there}
    return next((bare[n.removesuffix(":0")] for n in wanted if n.removesuffix(":0") in bare), None)


def _no_tensor(wanted: Sequence[str], there: Iterable[str], flag: str) -> GraphError:
    return GraphError(
        f"the ONNX model has no tensor {' or '.join(map(shown, wanted))}; it has {_listed(there)}; "
        f"name one with {flag}"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(shown(name[:100]) for name in itertools.islice(names, 5)) or "none"


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Begin the messages of checks with the model's name."""
    try:
        yield
    except GraphError as error:
        raise type(error)(f"the ONNX model {shown(path)} {error}") from error


def _import(name: str, path: str | os.PathLike[str]) -> Any:
    """The module ``name`` of ONNX's. Raises `GraphError` where it is missing."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nothing is sent anywhere from here
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise GraphError(
            f"{shown(path)} is an ONNX model, which needs onnx and onnxruntime: "
            "pip install onnx onnxruntime"
        ) from error
