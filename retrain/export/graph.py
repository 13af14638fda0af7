"""head + InceptionV3 -> one graph."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bottlenecks.errors import UsageError
from bottlenecks.network import kept
from bottlenecks.network.messages import message
from bottlenecks.network.names import BOTTLENECK_NODE, TEMPLATE
from bottlenecks.network.tensorflow import import_tensorflow, version
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.export import graph_spec
from retrain.export.decoding import resized
from retrain.training.head import Head

TEMPLATE_VERSION = "around-1"  # part of the file's name: change it with `new_template`
_SCOPE = graph_spec.LOGITS_NODE.rpartition("/")[0]
_WEIGHTS_NODE, _BIAS_NODE = f"{_SCOPE}/Const", f"{_SCOPE}/Const_1"
_STAND_INS = {
    _WEIGHTS_NODE: "Const",
    _BIAS_NODE: "Const",
    graph_spec.FINAL_NODE: "Softmax",
    graph_spec.LABELS_NODE: "Const",
    graph_spec.ABOUT_NODE: "Const",
}


def graph_bytes(
    frozen: bytes,
    head: Head,
    labels: Sequence[str],
    final_tensor_name: str = graph_spec.FINAL_NODE,
    about: str = "",
    template: bytes | None = None,
) -> bytes:
    """A serialized GraphDef of the whole classifier, as `retrain.export.graph_spec` lays it out.

    ``frozen`` is the network of a `NetworkExtractor`, without its input. Image bytes flow through
    decoder, resize, network and head; each of the three inputs may be fed instead of what
    is before it. The C ``labels`` of the head go with it, so that a label file of another graph can
    be told, and so does ``about``, what made it. Raises `UsageError` for a name that is taken.

    ``template`` is what `new_template` once gave; without it TensorFlow is imported to make one.
    """
    around = message("GraphDef").FromString(template or new_template())
    nodes = {node.name: node for node in around.node}
    taken = {*nodes, BOTTLENECK_NODE} - {graph_spec.FINAL_NODE}
    # TensorFlow takes names that differ in case alone for the same.
    if final_tensor_name.lower() in {name.lower() for name in taken}:
        raise _is_taken(final_tensor_name)
    _put_numbers(nodes[_WEIGHTS_NODE], head.weights)
    _put_numbers(nodes[_BIAS_NODE], head.bias)
    _put_texts(nodes[graph_spec.LABELS_NODE], labels, (len(labels),))
    _put_texts(nodes[graph_spec.ABOUT_NODE], [about], ())
    if not about:
        around.node.remove(nodes[graph_spec.ABOUT_NODE])
    nodes[graph_spec.FINAL_NODE].name = final_tensor_name
    return frozen + bytes(around.SerializeToString(deterministic=True))


def new_template() -> bytes:
    """The graph around the network, serialized, with stand-ins for what `graph_bytes` puts there.

    These are the head, the labels, ``about``, and the usual name of the output.
    """
    tf = import_tensorflow()
    head = Head(np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
    with tf.Graph().as_default() as graph:
        contents = tf.compat.v1.placeholder(tf.string, (), name=graph_spec.CONTENTS_NODE)
        image = tf.io.decode_jpeg(
            contents, channels=3, dct_method="INTEGER_ACCURATE", name="DecodeJpeg"
        )
        with tf.name_scope(graph_spec.PREPROCESS_SCOPE):
            unit_range = resized(image[tf.newaxis]) / 255.0
        add_classifier(unit_range, head, ("a", "b"), graph_spec.FINAL_NODE, "about")
    return without(graph, BOTTLENECK_NODE)


def template_in(model_dir: str | os.PathLike[str]) -> bytes:
    """What `new_template` gives with the TensorFlow that is installed.

    It is taken from ``model_dir``, and put there if there is such a folder; TensorFlow is imported
    only where it is missing. A damaged one is made again, with a warning.
    """
    source = f"{TEMPLATE_VERSION} {version()}"
    with contextlib.suppress(OSError):
        data = kept.read(model_dir, source, TEMPLATE)
        if data is not None and is_template(data):
            return data
    data = new_template()
    if os.path.isdir(model_dir):
        with contextlib.suppress(OSError):  # the next run makes it again
            kept.keep(model_dir, source, data, TEMPLATE)
    return data


def is_template(data: bytes) -> bool:
    """Whether ``data`` is a GraphDef with all that `graph_bytes` fills."""
    from google.protobuf.message import DecodeError

    try:
        around = message("GraphDef").FromString(data)
    except DecodeError:
        return False
    return _STAND_INS.items() <= {node.name: node.op for node in around.node}.items()


def _is_taken(name: str) -> UsageError:
    return UsageError(f"--final_tensor_name {name} is taken; choose another")


def _put_numbers(node: Any, values: np.ndarray) -> None:
    """Give a constant other ``values``, float32 of any shape, as TensorFlow writes them."""
    tensor = _emptied(node, values.shape)
    if values.size == 1:
        tensor.float_val.append(values.item())
    else:
        tensor.tensor_content = values.astype("<f4", copy=False).tobytes()


def _put_texts(node: Any, texts: Sequence[str], shape: tuple[int, ...]) -> None:
    """The same with strings."""
    _emptied(node, shape).string_val.extend(text.encode() for text in texts)


def _emptied(node: Any, shape: tuple[int, ...]) -> Any:
    """A constant's tensor with another ``shape`` and no values."""
    tensor = node.attr["value"].tensor
    for field in ("tensor_shape", "tensor_content", "float_val", "string_val"):
        tensor.ClearField(field)
    tensor.tensor_shape.SetInParent()  # it is there even where it has no dimension
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def add_classifier(
    unit_range: Any, head: Head, labels: Sequence[str], final_tensor_name: str, about: str
) -> Any:
    """Add all that is behind the decoding of photos to the default graph, but for the network.

    ``unit_range`` is (n, 299, 299, 3) float32 in [0, 1]. Returns the scores (n, C); the network's
    output is a placeholder, to be taken out by `without`. Raises `UsageError`.
    """
    tf = import_tensorflow()
    placeholder = tf.compat.v1.placeholder_with_default(
        unit_range, (None, *INPUT_SIZE, 3), name=graph_spec.PLACEHOLDER_NODE
    )
    with tf.name_scope(f"{graph_spec.PREPROCESS_SCOPE}/"):  # the same scope again
        centred = placeholder - 0.5
    tf.multiply(centred, 2.0, name=graph_spec.MUL_NODE)
    bottleneck = tf.compat.v1.placeholder(
        tf.float32, (None, head.weights.shape[0]), name=BOTTLENECK_NODE
    )
    with tf.name_scope(_SCOPE):
        product = tf.matmul(bottleneck, tf.constant(head.weights))
        bias = tf.constant(head.bias)
    logits = tf.add(product, bias, name=graph_spec.LOGITS_NODE)
    final = tf.nn.softmax(logits, name=final_tensor_name)
    tf.constant([label.encode() for label in labels], tf.string, name=graph_spec.LABELS_NODE)
    if about:
        tf.constant(about.encode(), tf.string, name=graph_spec.ABOUT_NODE)
    if final.op.name != final_tensor_name:
        raise _is_taken(final_tensor_name)
    return final


def without(graph: Any, *names: str) -> bytes:
    """A ``tf.Graph``, serialized without the nodes ``names``, that another graph has.

    Serialized messages that are put together parse as their union. The network has the bottleneck,
    and lacks the Mul that is made here; so its 87 MB need not be parsed.
    """
    graph_def = graph.as_graph_def()
    for node in [node for node in graph_def.node if node.name in names]:
        graph_def.node.remove(node)
    return bytes(graph_def.SerializeToString(deterministic=True))
