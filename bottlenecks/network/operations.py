"""What each operation of the frozen network does, in TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bottlenecks.network.tensorflow import import_tensorflow

Hook = Callable[[Any, Sequence[Any]], Any]


def run(part: Any, values: Mapping[str, Any], changed: Mapping[str, Hook]) -> dict[str, Any]:
    """Run a part of the frozen network; returns what each of its nodes gives, by their names.

    ``values`` are tensors by the names of what the part reads: its inputs, and constants, whose
    own values are not looked at. ``changed`` are operations that are done otherwise: functions of
    the node and of its inputs.

    Raises ``AssertionError`` for an input that is neither among ``values`` nor in the part.
    """
    tensors = dict(values)
    constants = {node.name for node in part.node if node.op == "Const"}  # shapes and axes
    for node in part.node:
        if node.op == "Const":
            continue
        if unknown := [name for name in node.input if name not in tensors.keys() | constants]:
            raise AssertionError(f"{node.name} reads {', '.join(unknown)}, which nothing gives")
        inputs = [tensors[name] for name in node.input if name in tensors]
        tensors[node.name] = changed.get(node.op, apply)(node, inputs)
    return tensors


def apply(node: Any, inputs: Sequence[Any]) -> Any:
    """What ``node`` gives for ``inputs``: those of its own that are not shapes or axes."""
    tf = import_tensorflow()
    padding = node.attr["padding"].s.decode()
    strides, window = (list(node.attr[name].list.i) for name in ("strides", "ksize"))
    match node.op:
        case "Conv2D":
            return tf.nn.conv2d(*inputs, strides, padding)
        case "BiasAdd":
            return tf.nn.bias_add(*inputs)
        case "Relu":
            return tf.nn.relu(*inputs)
        case "MaxPool":
            return tf.nn.max_pool2d(*inputs, window, strides, padding)
        case "AvgPool":
            return tf.nn.avg_pool2d(*inputs, window, strides, padding)
        case "ConcatV2":
            return tf.concat(inputs, axis=-1)
        case "Mean":
            return tf.reduce_mean(*inputs, axis=(1, 2))
        case "Identity":
            return tf.identity(*inputs, name=node.name)
    raise AssertionError(f"{node.op} is no operation of the frozen network")
