"""TensorFlow's SavedModels: the folder, or the ``saved_model.pb`` in it.

A SavedModel is a program, and loading it as TensorFlow does runs what it asks for. So it is not
loaded: of its graph those nodes are taken that lead from the input of ``serving_default`` to its
output, and run as a frozen graph is, if there is nothing but arithmetic among them. Nothing in the
folder but the one file is looked at.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError, UnsafeGraphError, UsageError, one_line, shown
from bottlenecks.network.messages import saved_model
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.checks.reading import read_file
from retrain.checks.safe_graph import check_safe
from retrain.engines.frozen_graph import MAX_GRAPH_BYTES, FrozenGraph
from retrain.engines.program import Feeding, Program, classes_of, feeding_of, wrong_input
from retrain.engines.settings import OPENVINO, GraphSettings
from retrain.export import graph_spec

NAME = "TensorFlow's SavedModel"
_START = b"\x08\x01\x12"  # schema version 1, then a graph; a GraphDef never begins with \x08
_SERVE, _SIGNATURE = "serve", "serving_default"  # as in tf.saved_model


def fits(path: str | os.PathLike[str], start: bytes | None) -> bool:
    """Whether it is a folder, or a file that begins as a SavedModel does."""
    return start is None or start.startswith(_START)


def read(path: str | os.PathLike[str], any_graph: bool = False) -> FrozenGraph:
    """The SavedModel at ``path``, checked unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    file = os.path.join(path, graph_spec.SAVED_MODEL_FILE) if os.path.isdir(path) else path
    saved = saved_model()()
    try:
        saved.ParseFromString(read_file(file, "graph", MAX_GRAPH_BYTES))
    except GraphError:
        raise
    except Exception as error:  # protobuf's DecodeError has no public home
        raise GraphError(
            f"the file {shown(file)} is no SavedModel, or a part of one; --graph takes the folder "
            "that retrain wrote"
        ) from error
    metas = [meta for meta in saved.meta_graphs if _SERVE in meta.meta_info_def.tags]
    try:
        if not metas or _SIGNATURE not in metas[0].signature_def:
            raise GraphError(f"has no signature {_SIGNATURE}, by which a classifier is used")
        if any_graph:
            return Trusted(file, metas[0].graph_def)
        return _checked(file, metas[0].graph_def, metas[0].signature_def[_SIGNATURE])
    except UnsafeGraphError as error:
        raise UnsafeGraphError(
            f"the SavedModel {shown(file)} {error}; a SavedModel is a program, and can do anything "
            "that you can"
        ) from error
    except GraphError as error:
        raise GraphError(f"the SavedModel {shown(file)} {error}") from error


class SavedModel(FrozenGraph):
    """Those nodes of a SavedModel that lead from the tensor ``image`` to ``prediction``."""

    def __init__(
        self, path: str | os.PathLike[str], graph_def: Any, image: str, prediction: str
    ) -> None:
        super().__init__(path, graph_def.SerializeToString())
        self._image, self._prediction = image, prediction

    def start(self, settings: GraphSettings) -> Program:
        """As a `FrozenGraph`, with these tensors where ``settings`` name no others."""
        image = settings.input_layer or self._image
        prediction = settings.output_layer or self._prediction
        return super().start(replace(settings, input_layer=image, output_layer=prediction))


def _checked(path: str | os.PathLike[str], graph_def: Any, signature: Any) -> SavedModel:
    """What ``signature`` needs of a graph. Raises as `check_safe` does."""
    if (len(signature.inputs), len(signature.outputs)) != (1, 1):
        raise GraphError(
            f"has {len(signature.inputs)} inputs and {len(signature.outputs)} outputs in its "
            f"signature {_SIGNATURE}, expected one of photos and one of scores"
        )
    (image,), (prediction,) = signature.inputs.values(), signature.outputs.values()
    carried = (graph_spec.LABELS_NODE, graph_spec.ABOUT_NODE)
    there = [node.name for node in graph_def.node if node.name in carried]
    needed = _between(graph_def, image, (_node_of(prediction.name), *there))
    check_safe(needed)
    return SavedModel(path, needed, image.name, prediction.name)


def _between(graph_def: Any, source: Any, names: Iterable[str]) -> Any:
    """The nodes that ``names`` need, in a GraphDef of their own, with a placeholder as ``source``.

    ``source`` is a TensorInfo. Raises `GraphError` for nodes that are not there.
    """
    nodes = {node.name: node for node in graph_def.node}
    needed = type(graph_def)(versions=graph_def.versions)
    placeholder = needed.node.add(name=_node_of(source.name), op="Placeholder")
    placeholder.attr["dtype"].type = source.dtype
    placeholder.attr["shape"].shape.CopyFrom(source.tensor_shape)
    left, seen = list(names), {placeholder.name}
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in nodes:
            raise GraphError(f"is broken: it has no node {shown(name[:100])}")
        needed.node.append(nodes[name])
        left += map(_node_of, nodes[name].input)
    return needed


def _node_of(tensor: str) -> str:
    """The node that an input of a node, or the tensor of a signature, is of."""
    return tensor.removeprefix("^").partition(":")[0]


class Trusted(FrozenGraph):
    """A SavedModel that is run as it is, whatever it does."""

    def __init__(self, path: str | os.PathLike[str], graph_def: Any) -> None:
        super().__init__(path, graph_def.SerializeToString(), any_graph=True)

    def start(self, settings: GraphSettings) -> Program:
        """Load it. Raises `GraphError`."""
        if settings.engine == OPENVINO:
            raise UsageError(
                "--allow_any_graph runs a SavedModel as it is, which TensorFlow alone can; leave "
                f"out one of both. Received: --engine {settings.engine}"
            )
        folder, name = os.path.split(os.path.abspath(self._path))
        if name != graph_spec.SAVED_MODEL_FILE or _has_another(folder):
            raise GraphError(
                f"TensorFlow would load another SavedModel than {shown(self._path)}; put it into a "
                f"folder of its own as {graph_spec.SAVED_MODEL_FILE}, and name the folder"
            )
        tf = import_tensorflow()
        self._taken()
        try:
            loaded = tf.saved_model.load(folder)
            return Signature(loaded, settings)
        except (GraphError, MemoryError):
            raise
        except Exception as error:  # TensorFlow raises nearly everything
            raise GraphError(
                f"cannot load the SavedModel {shown(self._path)}: {one_line(error)}"
            ) from error


class Signature:
    """The signature ``serving_default`` of a loaded SavedModel, as a `Program`."""

    def __init__(self, loaded: Any, settings: GraphSettings) -> None:
        self._loaded = loaded  # its variables live as long as it does
        self._run = loaded.signatures[_SIGNATURE]
        self._input = _only(self._run.structured_input_signature[1], settings.input_layer, "input")
        self._output = _only(self._run.structured_outputs, settings.output_layer, "output")
        source = self._run.structured_input_signature[1][self._input]
        if source.dtype.name != "float32" or source.shape.rank not in (None, 4):
            raise wrong_input(f"{source.dtype.name} {source.shape}", self._input)
        shape = self._run.structured_outputs[self._output].shape
        self.feeding: Feeding = feeding_of(
            settings,
            tuple(source.shape) if source.shape.rank else None,
            classes_of(shape) if shape.rank else None,
        )

    def __call__(self, fed: np.ndarray) -> np.ndarray:
        tf = import_tensorflow()
        try:
            outputs = self._run(**{self._input: tf.constant(fed)})
            return np.asarray(outputs[self._output], np.float32).reshape(len(fed), -1)
        except (tf.errors.OpError, ValueError) as error:
            raise GraphError(f"the SavedModel cannot be run: {one_line(error)}") from error


def _has_another(folder: str) -> bool:
    """Whether one in chunks lies in ``folder`` too, which TensorFlow prefers."""
    return os.path.lexists(os.path.join(folder, "saved_model.cpb"))


def _only(tensors: Any, name: str | None, what: str) -> str:
    """The name of the only one of ``tensors``, or ``name``. Raises `GraphError`."""
    names = sorted(tensors)
    if name in names or (name is None and len(names) == 1):
        return name or str(names[0])
    raise GraphError(
        f"the SavedModel has the {what}s {', '.join(map(shown, names))}; name one of these with "
        f"--{what}_layer. Received: {shown(str(name))}"
    )
