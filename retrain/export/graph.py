"""head + InceptionV3 -> one graph."""

from collections.abc import Sequence
from typing import Any

from bottlenecks.errors import UsageError
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.export import graph_spec
from retrain.export.decoding import resized
from retrain.training.head import Head


def graph_bytes(
    frozen: bytes,
    head: Head,
    labels: Sequence[str],
    final_tensor_name: str = graph_spec.FINAL_NODE,
    about: str = "",
) -> bytes:
    """A serialized GraphDef of the whole classifier, as `retrain.export.graph_spec` lays it out.

    ``frozen`` is the network of a `NetworkExtractor`, without its input. Image bytes flow through
    decoder, resize, network and head; each of the three inputs may be fed instead of what
    is before it. The C ``labels`` of the head go with it, so that a label file of another graph can
    be told, and so does ``about``, what made it. Raises `UsageError` for a name that is taken.
    """
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        contents = tf.compat.v1.placeholder(tf.string, (), name=graph_spec.CONTENTS_NODE)
        image = tf.io.decode_jpeg(
            contents, channels=3, dct_method="INTEGER_ACCURATE", name="DecodeJpeg"
        )
        with tf.name_scope(graph_spec.PREPROCESS_SCOPE):
            unit_range = resized(image[tf.newaxis]) / 255.0
        add_classifier(unit_range, head, labels, final_tensor_name, about)
    return frozen + without(graph, BOTTLENECK_NODE)


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
    with tf.name_scope(graph_spec.LOGITS_NODE.rpartition("/")[0]):
        product = tf.matmul(bottleneck, tf.constant(head.weights))
        bias = tf.constant(head.bias)
    logits = tf.add(product, bias, name=graph_spec.LOGITS_NODE)
    final = tf.nn.softmax(logits, name=final_tensor_name)
    tf.constant([label.encode() for label in labels], tf.string, name=graph_spec.LABELS_NODE)
    if about:
        tf.constant(about.encode(), tf.string, name=graph_spec.ABOUT_NODE)
    if final.op.name != final_tensor_name:
        raise UsageError(f"--final_tensor_name {final_tensor_name} is taken; choose another")
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
