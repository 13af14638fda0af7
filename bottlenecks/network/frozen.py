"""Run a frozen graph with its large constants held in variables.

TensorFlow copies a graph with its constants several times while it optimises it: an InceptionV3
of constants was measured at 2.3 GB in batches of 32, against 1.4 GB this way, and took two to
five times as long to give its first result; it is as fast afterwards.
"""

from collections.abc import Callable, Mapping
from typing import Any

from bottlenecks.network.tensorflow import import_tensorflow

SCOPE = "frozen"  # of the nodes that `import_frozen` adds
_LARGE_BYTES = 4096  # smaller ones may be shapes, which must stay constants
MOST_VARIABLES = 1000  # five times InceptionV3's; each takes 3 ms to make


def import_frozen(graph_def: Any, input_map: Mapping[str, Any]) -> Callable[[Any], None]:
    """Import ``graph_def`` into the default graph, as ``tf.import_graph_def`` without a prefix.

    Empties ``graph_def``. Returns a function that gives the variables their values in a session;
    call it once before the graph is run. Raises ``ValueError`` for a broken graph.
    """
    tf = import_tensorflow()
    v1 = tf.compat.v1
    controls = {name[1:] for node in graph_def.node for name in node.input if name.startswith("^")}
    used = {name.removesuffix(":0") for node in graph_def.node for name in node.input} - controls
    sizes = {node.name: _bytes(tf, node) for node in graph_def.node if node.name in used}
    large = [name for name, size in sizes.items() if size >= _LARGE_BYTES]
    largest = set(sorted(large, key=sizes.__getitem__, reverse=True)[:MOST_VARIABLES])
    values = {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph_def.node
        if node.name in largest
    }
    network = v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    network.node.extend(node for node in graph_def.node if node.name not in largest)
    for node in network.node:  # with which it wants to share a device, and which may be gone
        node.attr.pop("_class", None)
    graph_def.Clear()

    assignments = []
    mapped = dict(input_map)
    for i, (name, value) in enumerate(values.items()):
        placeholder = v1.placeholder(value.dtype, value.shape, name=f"{SCOPE}/initial_value_{i}")
        variable = v1.get_variable(
            f"{SCOPE}/{i}", initializer=placeholder, trainable=False, use_resource=True
        )
        mapped[f"{name}:0"] = variable.read_value()
        assignments.append((variable.initializer, placeholder, value))
    tf.import_graph_def(network, input_map=mapped, name="")

    values.clear()

    def initialise(session: Any) -> None:
        if not assignments:
            return
        initializers, placeholders, initial_values = zip(*assignments, strict=True)
        session.run(initializers, dict(zip(placeholders, initial_values, strict=True)))
        assignments.clear()

    return initialise


def _bytes(tf: Any, node: Any) -> int:
    """How large a constant of floats is; 0 for any other node."""
    if node.op != "Const":
        return 0
    tensor = node.attr["value"].tensor
    is_float = tf.as_dtype(tensor.dtype) in (tf.float32, tf.bfloat16)
    return len(tensor.tensor_content) if is_float else 0
