"""TensorFlow's frozen graphs: of `retrain`, of retrain.py, and of other programs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError, shown
from bottlenecks.network.frozen import SCOPE, import_frozen
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.engines.program import Feeding, feeding_of, wrong_input
from retrain.engines.reading import read_file
from retrain.engines.safe import MAX_CONSTANT_ELEMENTS, check_safe
from retrain.engines.settings import GraphSettings
from retrain.export import graph_spec

NAME = "TensorFlow's frozen graph"
MAX_GRAPH_BYTES = 4 * MAX_CONSTANT_ELEMENTS + 2**26  # float32, and the nodes around them


def fits(path: str | os.PathLike[str], start: bytes | None) -> bool:
    """Whether the file may be one: all that is nothing else. `read` finds out."""
    return True


def read(path: str | os.PathLike[str], any_graph: bool = False) -> "FrozenGraph":
    """The graph in ``path``, checked unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    return FrozenGraph(path, read_graph(path, any_graph))


@dataclass(frozen=True)
class FrozenGraph:
    """A GraphDef that was read from ``path``, as `Contents`."""

    path: str | os.PathLike[str]
    graph_def: Any

    @property
    def labels(self) -> list[str]:
        return [
            text.decode("utf-8", "backslashreplace") for text in self._texts(graph_spec.LABELS_NODE)
        ]

    @property
    def about(self) -> str:
        texts = self._texts(graph_spec.ABOUT_NODE)
        return texts[0].decode("utf-8", "backslashreplace") if texts else ""

    def _texts(self, name: str) -> Sequence[bytes]:
        """The strings of the constant ``name``; none where there is no such constant."""
        for node in self.graph_def.node:
            if node.name == name and node.op == "Const":
                texts: Sequence[bytes] = node.attr["value"].tensor.string_val
                return texts
        return ()

    def start(self, settings: GraphSettings) -> "Session":
        """Import it, which empties ``graph_def``. Raises `GraphError`."""
        tf = import_tensorflow()
        with tf.Graph().as_default() as graph:
            try:
                initialise = import_frozen(self.graph_def, {})
            except MemoryError:
                raise
            except Exception as error:  # TensorFlow raises nearly everything on broken graphs
                raise GraphError(
                    f"cannot load the graph {shown(self.path)}: {_why(error)}"
                ) from error
        return Session(graph, initialise, settings)


class Session:
    """A ``tf.Graph`` with an input and an output, as a `Program`."""

    def __init__(self, graph: Any, initialise: Any, settings: GraphSettings) -> None:
        tf = import_tensorflow()
        source = find_input(graph, settings.input_layer)
        output = find_output(graph, settings.output_layer)
        shape = tuple(source.shape) if source.shape.rank == 4 else None
        is_mul = source.name == f"{graph_spec.MUL_NODE}:0"
        usual = Feeding(mean=127.5, std=127.5) if is_mul else Feeding()
        classes = output.shape[-1] if output.shape.rank else None
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
                f"the graph cannot be run from its input to its output: {_why(error)}; name others "
                "with --input_layer and --output_layer"
            ) from error


def _why(error: Exception) -> str:
    """What TensorFlow says, in a line that is safe to print."""
    return shown(" ".join(str(error).split())[:300])


def read_graph(path: str | os.PathLike[str], any_graph: bool = False) -> Any:
    """The GraphDef in ``path``, checked unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    data = read_file(path, "graph", MAX_GRAPH_BYTES)
    remedy = "--graph takes the .pb file that retrain wrote"
    tf = import_tensorflow()
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise GraphError(f"the file {shown(path)} is no TensorFlow graph; {remedy}") from error
    if not graph_def.node:
        raise GraphError(f"the graph {shown(path)} is empty; {remedy}")
    if any_graph:
        return graph_def
    try:
        check_safe(graph_def)
    except GraphError as error:
        raise type(error)(f"the graph {shown(path)} {error}") from error
    return graph_def


def find_input(graph: Any, name: str | None) -> Any:
    """The input tensor ``name`` of a ``tf.Graph``, or the one of the usual names it has."""
    usual = (graph_spec.MUL_NODE, graph_spec.PLACEHOLDER_NODE, "input")
    tensor = _find(graph, [name] if name else usual, "--input_layer")
    if tensor.dtype.name != "float32" or tensor.shape.rank not in (None, 4):
        raise wrong_input(f"{tensor.dtype.name} {tensor.shape}", tensor.name)
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
