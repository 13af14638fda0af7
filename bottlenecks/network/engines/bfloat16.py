"""The frozen InceptionV3 with most of its arithmetic in bfloat16, kept as exact as that can be.

Bfloat16 keeps 8 binary digits of a number. TensorFlow's own rewriting
(``auto_mixed_precision_onednn_bfloat16``) moves the vectors of photos by 1.8 % (median relative
L2); what is done here halves that:

- The first convolutions stay in float32: a ninth of the work, but their errors are alike over
  whole areas of a photo and so do not average out.
- Biases are exact. A factor above 0 passes through ReLU, pooling and concatenation, so each
  channel is scaled by that factor within 0.4 % of 1 which makes its bias a bfloat16 number, and the
  next kernel divides by it.
- Kernels are rounded with the error carried on to the next weight (error diffusion), through
  the pixels of the kernel first, because neighbouring activations are alike.

The kernels are held in bfloat16, where TensorFlow's rewriting casts them in every run.
"""

from typing import Any

import numpy as np

from bottlenecks.network.names import INPUT_NODE
from bottlenecks.network.operations import apply
from bottlenecks.network.tensorflow import import_tensorflow

VERSION = 2  # part of the fingerprint: change it with anything here that changes a vector
FLOAT32_CONVOLUTIONS = 4


def to_bfloat16(network: Any) -> Any:
    """Rewrite the GraphDef of `bottlenecks.network.inception`; its input and output stay float32.

    Like ``network``, the result has no node for its input.
    """
    tf = import_tensorflow()
    constants = {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in network.node
        if node.op == "Const"
    }
    biases = {n.input[0]: constants[n.input[1]] for n in network.node if n.op == "BiasAdd"}
    convolutions = 0
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, (None, None, None, 3), name=INPUT_NODE)
        outputs = {INPUT_NODE: (pixels, np.ones(3))}  # with the scale of its channels
        for node in network.node:
            if node.op == "Const":
                continue
            several = [outputs[name] for name in node.input if name in outputs]
            (x, scale), xs = several[0], [x for x, _ in several]
            match node.op:
                case "Conv2D":
                    bias = biases[node.name]
                    kernel = constants[node.input[1]] / scale[:, None]
                    scale = np.ones(len(bias))
                    convolutions += 1
                    if convolutions > FLOAT32_CONVOLUTIONS:
                        scale = scale_for_exact(bias)
                        kernel = diffused(kernel * scale)
                        x = tf.cast(x, tf.bfloat16)
                    x = apply(node, [x, tf.constant(kernel, x.dtype)])
                case "BiasAdd":
                    x = apply(node, [x, tf.constant(biases[node.input[0]] * scale, x.dtype)])
                case "ConcatV2":
                    x = apply(node, xs)
                    scale = np.concatenate([scale for _, scale in several])
                case "Mean":
                    x = apply(node, [tf.cast(x, tf.float32)]) * tf.constant(1 / scale, tf.float32)
                    scale = np.ones(len(scale))
                case "Identity":  # the output
                    x = tf.cast(x, tf.float32)
                    if (scale != 1).any():  # of a part of the network
                        x *= tf.constant(1 / scale, tf.float32)
                    x = apply(node, [x])
                case _:
                    x = apply(node, xs)
            outputs[node.name] = (x, scale)
    graph_def = graph.as_graph_def()
    graph_def.node.remove(next(node for node in graph_def.node if node.name == INPUT_NODE))
    return graph_def


def rounded(x: np.ndarray) -> np.ndarray:
    """``x`` rounded to bfloat16, to nearest and ties to even, as float32."""
    from ml_dtypes import bfloat16  # which TensorFlow brings along

    result: np.ndarray = x.astype(np.float32).astype(bfloat16).astype(np.float32)
    return result


def scale_for_exact(bias: np.ndarray) -> np.ndarray:
    """(C,) float64 factors near 1 that make each ``bias`` a bfloat16 number."""
    normal = np.abs(bias) > 1e-30  # below, 8 digits are not to be had, and nothing is lost
    scale: np.ndarray = np.divide(
        rounded(bias), bias, out=np.ones(len(bias)), where=normal, dtype=float
    )
    return scale


def diffused(kernel: np.ndarray) -> np.ndarray:
    """``kernel`` (height, width, in, out) rounded to bfloat16, as float32."""
    height, width, inputs, outputs = kernel.shape
    flat = kernel.transpose(2, 0, 1, 3).reshape(-1, outputs).astype(np.float32)
    error = np.zeros(outputs, np.float32)
    for row in flat:
        wanted = row + error
        row[:] = rounded(wanted)
        error = wanted - row
    result: np.ndarray = flat.reshape(inputs, height, width, outputs).transpose(1, 2, 0, 3)
    return result
