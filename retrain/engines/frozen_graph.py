"""TensorFlow's frozen graphs: of `retrain`, of retrain.py, and of other programs."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import GraphError, UnsafeGraphError, one_line, shown
from bottlenecks.network.frozen import SCOPE, import_frozen
from bottlenecks.network.messages import message
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.checks.graph_texts import graph_texts
from retrain.checks.reading import MAX_LABELS, read_file
from retrain.checks.safe_graph import MAX_CONSTANT_ELEMENTS, MAX_NODES, check_safe
from retrain.engines import openvino
from retrain.engines.program import (
    USUAL_INPUTS,
    USUAL_OUTPUTS,
    Feeding,
    Program,
    classes_of,
    feeding_of,
    wrong_input,
)
from retrain.engines.settings import AUTO, TENSORFLOW, GraphSettings
from retrain.export import graph_spec

NAME = "TensorFlow's frozen graph"
MAX_GRAPH_BYTES = 4 * MAX_CONSTANT_ELEMENTS + 2**26  # float32, and the nodes around them


def fits(path: str | os.PathLike[str], start: bytes | None) -> bool:
    """Whether the file may be one: all that is nothing else. `read` finds out."""
    return True


def read(path: str | os.PathLike[str], any_graph: bool = False) -> "FrozenGraph":
    """What the graph in ``path`` carries; it is checked before it is run, unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    return FrozenGraph(path, read_file(path, "graph", MAX_GRAPH_BYTES), any_graph)


class FrozenGraph:
    """A serialised GraphDef that was read from ``path``, as `Contents`.

    Raises `GraphError`, `UnsafeGraphError`.
    """

    def __init__(self, path: str | os.PathLike[str], data: bytes, any_graph: bool = False) -> None:
        self._path, self._data, self._any_graph = path, data, any_graph
        names = (graph_spec.LABELS_NODE, graph_spec.ABOUT_NODE)
        try:
            texts = graph_texts(data, names, sys.maxsize if any_graph else MAX_NODES)
        except UnsafeGraphError as error:
            raise UnsafeGraphError(f"the graph {shown(path)} {error}") from error
        except GraphError as error:
            raise _no_graph(path) from error
        labels = texts.get(graph_spec.LABELS_NODE, ())
        if len(labels) > MAX_LABELS:
            raise UnsafeGraphError(
                f"the graph {shown(path)} has {len(labels)} labels; at most {MAX_LABELS} are read"
            )
        self.labels = [text.decode("utf-8", "backslashreplace") for text in labels]
        about = texts.get(graph_spec.ABOUT_NODE, ())
        self.about = about[0].decode("utf-8", "backslashreplace") if about else ""

    def start(self, settings: GraphSettings) -> Program:
        """Check and load it, once: its bytes are not kept. Raises `GraphError`."""
        data = self._taken()
        return self._compiled(data, settings) or self._session(data, settings)

    def _compiled(self, data: bytes, settings: GraphSettings) -> Program | None:
        """It in OpenVINO; None where it is left to TensorFlow. Raises `GraphError`."""
        is_auto = settings.engine == AUTO
        left = self._any_graph or machine.has_gpu() or not openvino.is_installed()
        if settings.engine == TENSORFLOW or (is_auto and left):
            return None
        graph_def = _checked(message("GraphDef"), self._path, data, self._any_graph)
        try:
            return openvino.Compiled(graph_def, settings)
        except GraphError:
            if is_auto:  # TensorFlow may know it, or says what is wrong
                return None
            raise

    def _session(self, data: bytes, settings: GraphSettings) -> "Session":
        """It in TensorFlow. Raises `GraphError`."""
        tf = import_tensorflow()
        graph_def = _checked(tf.compat.v1.GraphDef, self._path, data, self._any_graph)
        with tf.Graph().as_default() as graph:
            try:
                initialise = import_frozen(graph_def, {})
            except MemoryError:
                raise
            except Exception as error:  # TensorFlow raises nearly everything on broken graphs
                raise GraphError(
                    f"cannot load the graph {shown(self._path)}: {one_line(error)}"
                ) from error
        return Session(graph, initialise, settings)

    def _taken(self) -> bytes:
        data, self._data = self._data, b""
        return data


class Session:
    """A ``tf.Graph`` with an input and an output, as a `Program`."""

    def __init__(self, graph: Any, initialise: Any, settings: GraphSettings) -> None:
        tf = import_tensorflow()
        source = find_input(graph, settings.input_layer)
        output = find_output(graph, settings.output_layer)
        shape = tuple(source.shape) if source.shape.rank == 4 else None
        is_mul = source.name == f"{graph_spec.MUL_NODE}:0"
        usual = Feeding(mean=127.5, std=127.5) if is_mul else Feeding()
        classes = classes_of(output.shape) if output.shape.rank else None
        self.feeding = feeding_of(settings, shape, classes, usual)
        session = tf.compat.v1.Session(graph=graph)
        initialise(session)
        self._failures = (tf.errors.OpError, ValueError)
        self._run = session.make_callable(output, [source])

    def __call__(self, fed: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._run(fed)).reshape(len(fed), -1)
        except self._failures as error:
            raise GraphError(
                f"the graph cannot be run from its input to its output: {one_line(error)}; name "
                "others with --input_layer and --output_layer"
            ) from error


def read_graph(path: str | os.PathLike[str], any_graph: bool = False) -> Any:
    """The GraphDef in ``path``, checked unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    data = read_file(path, "graph", MAX_GRAPH_BYTES)
    return _checked(import_tensorflow().compat.v1.GraphDef, path, data, any_graph)


def _checked(kind: Any, path: str | os.PathLike[str], data: bytes, any_graph: bool) -> Any:
    """The GraphDef, a message of ``kind``, that was serialised to ``data``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    try:
        graph_def = kind.FromString(data)
    except Exception as error:  # protobuf's own, or a plain ValueError
        raise _no_graph(path) from error
    if not graph_def.node:
        raise _no_graph(path)
    if any_graph:
        return graph_def
    try:
        check_safe(graph_def)
    except GraphError as error:
        raise type(error)(f"the graph {shown(path)} {error}") from error
    return graph_def


def _no_graph(path: str | os.PathLike[str]) -> GraphError:
    return GraphError(
        f"the file {shown(path)} is no TensorFlow graph; --graph takes the .pb file that retrain "
        "wrote"
    )


def find_input(graph: Any, name: str | None) -> Any:
    """The input tensor ``name`` of a ``tf.Graph``, or the one of the usual names it has."""
    tensor = _find(graph, [name] if name else USUAL_INPUTS, "--input_layer")
    if tensor.dtype.name != "float32" or tensor.shape.rank not in (None, 4):
        raise wrong_input(f"{tensor.dtype.name} {tensor.shape}", tensor.name)
    return tensor


def find_output(graph: Any, name: str | None) -> Any:
    """The output tensor ``name`` of a ``tf.Graph``, or a usual one, or its only softmax."""
    if name is None and not any(_has(graph, one) for one in USUAL_OUTPUTS):
        softmaxes = [op.name for op in graph.get_operations() if op.type == "Softmax"]
        if len(softmaxes) == 1:
            name = softmaxes[0]
    tensor = _find(graph, [name] if name else USUAL_OUTPUTS, "--output_layer")
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
