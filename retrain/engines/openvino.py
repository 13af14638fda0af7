"""TensorFlow's graphs by OpenVINO and without TensorFlow, where all operations are known."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError, one_line, shown
from bottlenecks.network.engines.openvino_graph import INSTALL, model_of, node_of
from bottlenecks.network.engines.openvino_graph import is_installed as is_installed
from bottlenecks.network.engines.openvino_run import Runner
from bottlenecks.network.messages import FLOAT32
from retrain.engines.program import (
    USUAL_INPUTS,
    USUAL_OUTPUTS,
    Feeding,
    classes_of,
    feeding_of,
)
from retrain.engines.settings import GraphSettings
from retrain.export import graph_spec

_INPUTS = ("Placeholder", "PlaceholderWithDefault")
_OF_SAME_SHAPE = ("Add", "AddV2", "Identity", "Mul", "RealDiv", "Sub")  # with a number


class Compiled:
    """A checked GraphDef of `bottlenecks.network.messages` in OpenVINO, as a `Program`.

    Raises `GraphError` for one that is not known to be run as TensorFlow runs it, where
    ``settings`` ask for what cannot be, and without OpenVINO.
    """

    def __init__(self, graph_def: Any, settings: GraphSettings) -> None:
        nodes = {node.name: node for node in graph_def.node}
        with _naming(settings):
            source = find_input(nodes, settings.input_layer)
            output = find_output(nodes, settings.output_layer)
            shape = shape_of(nodes, source)
        usual = Feeding(mean=127.5, std=127.5) if source == graph_spec.MUL_NODE else Feeding()
        feeding = feeding_of(settings, shape, usual=usual)
        with _naming(settings):
            model = model_of(graph_def, source, [output], (feeding.batch, *feeding.size, 3))
            self._run = Runner(model)
        sizes = model.outputs[0].get_partial_shape()
        classes = classes_of([None if size.is_dynamic else size.get_length() for size in sizes])
        self.feeding = dataclasses.replace(feeding, classes=classes)

    def __call__(self, fed: np.ndarray) -> np.ndarray:
        try:
            (scores,) = self._run(fed)
        except RuntimeError as error:
            raise GraphError(f"the graph cannot be run by OpenVINO: {one_line(error)}") from error
        return scores.reshape(len(fed), -1)


@contextmanager
def _naming(settings: GraphSettings) -> Iterator[None]:
    """Make errors of a graph and of OpenVINO lines that begin with the graph's name."""
    cause: Exception
    try:
        yield
        return
    except GraphError as error:
        problem, cause = str(error), error
    except ImportError as error:
        problem, cause = f"needs OpenVINO, which is not there: {INSTALL}", error
    except RuntimeError as error:  # OpenVINO's only kind
        problem, cause = f"is not taken by OpenVINO: {one_line(error)}", error
    raise GraphError(
        f"the graph {shown(settings.graph)} {problem}; or leave out --engine {settings.engine}"
    ) from cause


def find_input(nodes: Mapping[str, Any], name: str | None) -> str:
    """The node ``name``, or the one of the usual names that is there. Raises `GraphError`."""
    return _find(nodes, [name] if name else USUAL_INPUTS, "--input_layer")


def find_output(nodes: Mapping[str, Any], name: str | None) -> str:
    """The node ``name``, or a usual one, or the only softmax. Raises `GraphError`."""
    softmaxes = [node.name for node in nodes.values() if node.op == "Softmax"]
    only = softmaxes if len(softmaxes) == 1 else []
    return _find(nodes, [name] if name else [*USUAL_OUTPUTS, *only], "--output_layer")


def _find(nodes: Mapping[str, Any], names: Sequence[str], flag: str) -> str:
    for name in map(node_of, names):
        if name in nodes:
            return name
    raise GraphError(
        f"has no tensor {' or '.join(shown(name[:100]) for name in names)}; name one with {flag}"
    )


def shape_of(nodes: Mapping[str, Any], name: str) -> tuple[int | None, ...] | None:
    """The shape (n, height, width, channels) of an input, None where unknown.

    It is a placeholder, or what arithmetic with single numbers makes of one. Raises `GraphError`.
    """
    for _ in nodes:  # no further, as there may be a circle
        node = nodes.get(name)
        if node is None or node.op not in (*_INPUTS, *_OF_SAME_SHAPE):
            break
        if node.op in _INPUTS:
            return _placed(node)
        read = [one for one in map(node_of, node.input) if not _is_number(nodes.get(one))]
        if len(read) != 1:
            break
        (name,) = read
    raise GraphError(f"is fed at {shown(name[:100])}, whose shape only TensorFlow can tell")


def _is_number(node: Any) -> bool:
    """Whether it is a constant without a shape."""
    is_constant = node is not None and node.op == "Const"
    return is_constant and not node.attr["value"].tensor.tensor_shape.dim


def _placed(node: Any) -> tuple[int | None, ...] | None:
    shape = node.attr["shape"].shape
    sizes = tuple(None if size.size == -1 else size.size for size in shape.dim)
    known = "shape" in node.attr and not shape.unknown_rank
    if node.attr["dtype"].type != FLOAT32 or (known and len(sizes) != 4):
        raise GraphError(
            f"is fed at {shown(node.name[:100])} with the type {node.attr['dtype'].type} and the "
            f"shape {sizes}, expected float32 ({FLOAT32}) and four dimensions"
        )
    return sizes if known else None
