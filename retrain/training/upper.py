"""What is above a cut, with its numbers in variables: the layers of the network, and the head."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bottlenecks.network import layers
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.store.vectors import Vectors, blocks
from retrain.training.head import Head, Standardisation, softmax

_BATCH = 16  # rows that are predicted at once
_TRAINED = ("Conv2D", "BiasAdd")  # operations whose second input is trained


@dataclass(frozen=True)
class UpperLayers:
    """A network whose layers above ``cut`` have been trained, and the ``head`` on top.

    ``arrays`` are float32, in ``units`` of their own: those of the nodes ``names`` of the frozen
    network, and the head's.
    """

    frozen: bytes
    cut: str
    names: tuple[str, ...]
    units: tuple[np.ndarray, ...]
    arrays: tuple[np.ndarray, ...]
    head: Head

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The trained arrays by the names of the nodes of the frozen network that hold them."""
        trained = zip(self.names, self.arrays, self.units, strict=False)
        return {name: (array * unit).astype(np.float32) for name, array, unit in trained}

    def at_temperature(self, temperature: float) -> "UpperLayers":
        """The same with logits that are divided by ``temperature``."""
        return replace(self, head=self.head.at_temperature(temperature))

    def network(self) -> bytes:
        """The frozen network with these constants, a serialized GraphDef."""
        tf = import_tensorflow()
        network = tf.compat.v1.GraphDef.FromString(self.frozen)
        constants = self.constants
        for node in network.node:
            if node.name in constants:
                tensor = tf.make_tensor_proto(constants[node.name])
                node.attr["value"].tensor.CopyFrom(tensor)
        serialized: bytes = network.SerializeToString(deterministic=True)
        return serialized

    def logits_all(self, vectors: Vectors) -> np.ndarray:
        """(n, C) float32 of rows at the cut, as the exported graph gives them."""
        tf = import_tensorflow()
        network = tf.compat.v1.GraphDef.FromString(self.network())
        with tf.Graph().as_default() as graph:
            rows = tf.compat.v1.placeholder(vectors.spec.dtype, (None, *vectors.spec.shape))
            part = layers.above(network, self.cut)
            initialise = import_frozen(part, {f"{layers.CUT_NODE}:0": as_input(tf, rows)})
            bottlenecks = graph.get_tensor_by_name(f"{BOTTLENECK_NODE}:0")
        with tf.compat.v1.Session(graph=graph) as session:
            initialise(session)
            found = [
                session.run(bottlenecks, {rows: x[start : start + _BATCH]})
                for x in blocks(vectors)
                for start in range(0, len(x), _BATCH)
            ]
        return self.head.logits(np.concatenate(found))

    def predict_all(self, vectors: Vectors) -> np.ndarray:
        """Probabilities (n, C) float32 of rows at the cut."""
        return softmax(self.logits_all(vectors))


def as_input(tf: Any, rows: Any) -> Any:
    """What the network reads at a cut, float32, of ``rows``: pixels (uint8) or activations."""
    x = tf.cast(rows, tf.float32)
    return x / 127.5 - 1.0 if rows.dtype == tf.uint8 else x


class Variables:
    """The trained numbers of `UpperLayers` as TensorFlow's variables, and their averages.

    The weights of each output of a layer are held in units of their own root mean square, as are a
    layer's biases, so that steps of one size move all by the same share (Shazeer & Stern 2018,
    "Adafactor", section 8). The head is held for standardised bottlenecks.
    """

    def __init__(
        self,
        frozen: bytes,
        cut: str,
        head: Head,
        standardisation: Standardisation,
        precision: str = "float32",
    ) -> None:
        tf = import_tensorflow()
        self._tf, self._frozen, self._cut = tf, frozen, cut
        part = layers.above(tf.compat.v1.GraphDef.FromString(frozen), cut)
        nodes = {node.name: node for node in part.node}
        names = [node.input[1] for node in part.node if node.op in _TRAINED]
        values = {name: tf.make_ndarray(nodes[name].attr["value"].tensor) for name in names}
        self._part, self._output = _inner(part, set(names), precision)
        self._dtype = tf.as_dtype(precision)
        self._standardisation = standardisation
        scale = standardisation.scale
        weights = np.divide(
            head.weights, scale[:, None], out=np.zeros(head.weights.shape), where=scale[:, None] > 0
        )
        bias = head.bias + standardisation.mean @ head.weights
        initial = [*values.values(), weights, bias]
        self._names, self._units = names, [_unit(value) for value in initial]
        self.trained = [
            tf.Variable((value / unit).astype(np.float32))
            for value, unit in zip(initial, self._units, strict=True)
        ]
        self.averages = [tf.Variable(variable, trainable=False) for variable in self.trained]
        digest = hashlib.sha256(f"{cut} {precision}".encode() + frozen)
        for array in (head.weights, head.bias, standardisation.mean, standardisation.scale):
            digest.update(array.tobytes())
        self.identity = digest.digest()  # over all that these began with

    def logits(self, variables: Sequence[Any], rows: Any) -> Any:
        """(n, C) float32 tensor of ``rows`` at the cut; ``variables`` are `trained` or averages."""
        tf = self._tf
        *values, weights, bias = self.in_use(variables)
        inputs = {f"{layers.CUT_NODE}:0": tf.cast(as_input(tf, rows), self._dtype)}
        for name, value in zip(self._names, values, strict=True):
            inputs[f"{name}:0"] = tf.cast(value, self._dtype)
        (maps,) = tf.graph_util.import_graph_def(
            self._part, inputs, return_elements=[f"{self._output}:0"], name=""
        )
        bottlenecks = tf.reduce_mean(tf.cast(maps, tf.float32), axis=(1, 2))
        mean, scale = self._standardisation.mean, self._standardisation.scale
        z = (bottlenecks - mean.astype(np.float32)) * scale.astype(np.float32)
        return tf.matmul(z, weights) + bias

    def in_use(self, variables: Sequence[Any]) -> list[Any]:
        """What ``variables`` stand for; the head's weights and bias are last."""
        return [variable * unit for variable, unit in zip(variables, self._units, strict=True)]

    def result(self) -> UpperLayers:
        """What the averages are now."""
        return self.model_of([average.numpy() for average in self.averages])

    def model_of(self, arrays: Sequence[np.ndarray]) -> UpperLayers:
        """The network in which variables have the values ``arrays``."""
        head = self._standardisation.fold(*self.in_use(arrays)[-2:])
        return UpperLayers(
            self._frozen, self._cut, tuple(self._names), tuple(self._units), tuple(arrays), head
        )


def _unit(value: np.ndarray) -> np.ndarray:
    """The root mean square of each output of an array (..., outputs), of biases (C,) that of all.

    Not below a tenth of the usual one; 1 where all is 0.
    """
    axes = tuple(range(max(1, value.ndim - 1)))
    unit = np.sqrt(np.square(value, dtype=np.float64).mean(axis=axes))
    floor = 0.1 * float(np.median(unit))
    result: np.ndarray = np.where(unit > 0, np.maximum(unit, floor), floor or 1.0)
    return result.astype(np.float32)


def _inner(part: Any, left_out: set[str], precision: str) -> tuple[Any, str]:
    """``part`` up to the last maps, without the constants ``left_out``, in ``precision``.

    And the name of the node that gives the maps (n, height, width, channels), which are averaged
    outside, in float32.
    """
    tf = import_tensorflow()
    (mean,) = (node for node in part.node if node.op == "Mean")
    after = {mean.name, BOTTLENECK_NODE}
    inner = type(part)(versions=part.versions)
    inner.node.extend(n for n in part.node if n.name not in left_out | after)
    for node in inner.node:
        if node.op != "Const" and "T" in node.attr:
            node.attr["T"].type = tf.as_dtype(precision).as_datatype_enum
    return inner, mean.input[0]
