"""head + InceptionV3 -> one graph."""

from collections.abc import Sequence

from bottlenecks.errors import UsageError
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.export import graph_spec
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
        with tf.name_scope("preprocess"):
            resized = tf.image.resize(image[tf.newaxis], INPUT_SIZE, antialias=True)
            unit_range = tf.round(resized) / 255.0
        placeholder = tf.compat.v1.placeholder_with_default(
            unit_range, (None, *INPUT_SIZE, 3), name=graph_spec.PLACEHOLDER_NODE
        )
        with tf.name_scope("preprocess/"):  # the same scope again
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
    around = graph.as_graph_def()
    around.node.remove(next(node for node in around.node if node.name == BOTTLENECK_NODE))
    # The network has the node removed here, and lacks the Mul made here. Serialized messages that
    # are put together parse as their union, so the network's 87 MB need not be parsed.
    return frozen + bytes(around.SerializeToString(deterministic=True))
