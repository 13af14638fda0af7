"""Read a frozen graph and its labels; find its input and output."""

import os
from collections.abc import Sequence
from typing import Any

from bottlenecks.errors import GraphError, shown
from bottlenecks.network.frozen import SCOPE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.reading import NotAFileError, open_file
from retrain.export import graph_spec
from retrain.export.safe import MAX_CONSTANT_ELEMENTS, MAX_STRINGS, check_safe
from retrain.export.settings import MAX_SIDE, GraphSettings

MAX_GRAPH_BYTES = 4 * MAX_CONSTANT_ELEMENTS + 2**26  # float32, and the nodes around them
MAX_LABELS_BYTES = 2**24  # 64 for each label
MAX_LABEL_LENGTH = 1000  # characters; a folder's name has at most 255 bytes
MAX_FIXED_BATCH = 256


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The labels, one per line. Raises `GraphError`."""
    text = _read(path, "labels", MAX_LABELS_BYTES)
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
    longest = max(map(len, labels))
    if longest > MAX_LABEL_LENGTH or len(labels) > MAX_STRINGS:
        raise GraphError(
            f"the labels file {shown(path)} has {len(labels)} lines, the longest of {longest} "
            f"characters; at most {MAX_STRINGS} of {MAX_LABEL_LENGTH} are read: --labels takes "
            "the file that retrain wrote beside the graph"
        )
    return labels


def read_graph(path: str | os.PathLike[str]) -> Any:
    """The GraphDef in ``path``, checked. Raises `GraphError`, `UnsafeGraphError`."""
    data = _read(path, "graph", MAX_GRAPH_BYTES)
    remedy = "--graph takes the .pb file that retrain wrote"
    tf = import_tensorflow()
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise GraphError(f"the file {shown(path)} is no TensorFlow graph; {remedy}") from error
    if not graph_def.node:
        raise GraphError(f"the graph {shown(path)} is empty; {remedy}")
    try:
        check_safe(graph_def)
    except GraphError as error:
        raise type(error)(f"the graph {shown(path)} {error}") from error
    return graph_def


def read_pair(
    graph: str | os.PathLike[str], labels: str | os.PathLike[str]
) -> tuple[Any, list[str]]:
    """The GraphDef in ``graph`` and its labels, which are checked against ``labels``.

    Where ``labels`` is left at its default, and there is no such file, those that the graph
    carries do. Raises `GraphError`, for a file with other labels too.
    """
    given = None
    if os.fspath(labels) != GraphSettings.labels or os.path.lexists(labels):
        given = read_labels(labels)  # first, because it takes no TensorFlow
    graph_def = read_graph(graph)
    carried = carried_labels(graph_def)
    if not carried:
        return graph_def, given or read_labels(labels)
    if given is None:
        return graph_def, carried
    for line, (ours, theirs) in enumerate(zip(given, carried, strict=False), start=1):
        if ours != theirs and len(given) == len(carried):  # other numbers show at the output
            raise GraphError(
                f"the labels file {shown(labels)} was not written with the graph {shown(graph)}: "
                f"its line {line} is '{shown(ours)}', in the graph it is '{shown(theirs)}'; name "
                "the right one with --labels, or run python -m retrain again (if it runs now, wait "
                "until it is done)"
            )
    return graph_def, given


def carried_labels(graph_def: Any) -> list[str]:
    """The labels that retrain put into the graph; none in a graph of another program."""
    for node in graph_def.node:
        if node.name == graph_spec.LABELS_NODE and node.op == "Const":
            texts = node.attr["value"].tensor.string_val
            return [text.decode("utf-8", "backslashreplace") for text in texts]
    return []


def _read(path: str | os.PathLike[str], what: str, most: int) -> bytes:
    """The bytes of a regular file. Raises `GraphError` before it reads more than ``most``."""
    remedy = f"run python -m retrain first, or name the file with --{what}"
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise GraphError(
                    f"the {what} file {shown(path)} has {size / 1e6:.0f} MB, at most "
                    f"{most / 1e6:.0f} are read; {remedy}"
                )
            return file.read(most)
    except FileNotFoundError as error:
        raise GraphError(f"the {what} file {shown(path)} does not exist; {remedy}") from error
    except NotAFileError as error:
        raise GraphError(f"the {what} file {shown(path)} is no file; {remedy}") from error
    except OSError as error:
        raise GraphError(
            f"the {what} file {shown(path)} cannot be read: {error.strerror}; {remedy}"
        ) from error


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
