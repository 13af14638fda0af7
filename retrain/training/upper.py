"""What is above a cut, with its numbers in variables: the layers of the network, and the head."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bottlenecks.network import layers
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.operations import apply, run
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.store.vectors import Vectors, blocks
from retrain.training.head import Head, Standardisation, softmax

_BATCH = 16  # rows that are predicted at once
_TRAINED = ("Conv2D", "BiasAdd")  # operations whose second input is trained
_EPSILON = 1e-3  # of batch normalisation, as in Keras' InceptionV3


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
    "Adafactor", section 8); unless ``in_own_units`` is False. The head is held for standardised
    bottlenecks.

    With ``normalises`` each layer normalises its outputs by those of the batch while it is trained
    (Ioffe & Szegedy 2015, "Batch Normalization"), and by their running averages else; without, as
    it was folded into the network.

    They are on the devices of ``strategy``, one of ``tf.distribute``.
    """

    def __init__(
        self,
        frozen: bytes,
        cut: str,
        head: Head,
        standardisation: Standardisation,
        precision: str = "float32",
        *,
        in_own_units: bool = True,
        normalises: bool = False,
        strategy: Any = None,
    ) -> None:
        tf = import_tensorflow()
        self.strategy = strategy or tf.distribute.get_strategy()
        self._tf, self._frozen, self._cut = tf, frozen, cut
        self._part = layers.above(tf.compat.v1.GraphDef.FromString(frozen), cut)
        nodes = {node.name: node for node in self._part.node}
        self._names = [node.input[1] for node in self._part.node if node.op in _TRAINED]
        values = [tf.make_ndarray(nodes[name].attr["value"].tensor) for name in self._names]
        self._dtype = tf.as_dtype(precision)
        self._standardisation = standardisation
        scale = standardisation.scale[:, None]
        weights = np.divide(head.weights, scale, out=np.zeros(head.weights.shape), where=scale > 0)
        initial = [*values, weights, head.bias + standardisation.mean @ head.weights]
        self._units = [
            _unit(value) if in_own_units else np.ones((), np.float32) for value in initial
        ]
        # Of each layer's outputs, beside its biases.
        layers_ = [node.input[1] for node in self._part.node if node.op == "BiasAdd"]
        self._moments = {} if not normalises else {name: i for i, name in enumerate(layers_)}
        with self.strategy.scope():
            self.trained = [
                tf.Variable((value / unit).astype(np.float32))
                for value, unit in zip(initial, self._units, strict=True)
            ]
            self.averages = [tf.Variable(variable, trainable=False) for variable in self.trained]
            self.moments = [
                tf.Variable(
                    np.full(values[self._names.index(name)].shape, start, np.float32),
                    trainable=False,
                )
                for name in self._moments
                for start in (0.0, 1.0 - _EPSILON)
            ]
        digest = hashlib.sha256(f"{cut} {precision} {in_own_units} {normalises}".encode() + frozen)
        for array in (head.weights, head.bias, standardisation.mean, standardisation.scale):
            digest.update(array.tobytes())
        self.identity = digest.digest()  # over all that these began with

    def logits(self, variables: Sequence[Any], rows: Any) -> Any:
        """(n, C) float32 tensor of ``rows`` at the cut; ``variables`` are `trained` or averages."""
        return self._logits(variables, rows, self.moments)

    def logits_and_moments(self, variables: Sequence[Any], rows: Any) -> tuple[Any, list[Any]]:
        """The same in training, and of the batch what `moments` are the running averages of."""
        moments: list[Any] = []
        return self._logits(variables, rows, moments), moments

    def follow(self, moments: Sequence[Any], decay: Any) -> None:
        """Move the running averages towards the moments of a batch, keeping ``decay`` of them."""
        for moving, value in zip(self.moments, moments, strict=True):
            moving.assign(decay * moving + (1 - decay) * value)

    def _logits(self, variables: Sequence[Any], rows: Any, moments: list[Any]) -> Any:
        tf = self._tf
        *values, weights, bias = self.in_use(variables)
        given = {layers.CUT_NODE: tf.cast(as_input(tf, rows), self._dtype)}
        for name, value in zip(self._names, values, strict=True):
            given[name] = tf.cast(value, self._dtype)
        changed = {"Mean": lambda node, inputs: apply(node, [tf.cast(inputs[0], tf.float32)])}
        if self._moments:
            changed["BiasAdd"] = lambda node, inputs: self._normalised(node, inputs, moments)
        bottlenecks = run(self._part, given, changed)[BOTTLENECK_NODE]
        mean, scale = self._standardisation.mean, self._standardisation.scale
        z = (bottlenecks - mean.astype(np.float32)) * scale.astype(np.float32)
        return tf.matmul(z, weights) + bias

    def _normalised(self, node: Any, inputs: Sequence[Any], moments: list[Any]) -> Any:
        """What a layer gives, with its outputs normalised before the biases are added.

        By its own of ``moments``, or where these are not there by those of the batch, which are
        added to them.
        """
        tf, (x, bias) = self._tf, inputs
        i = 2 * self._moments[node.input[1]]
        if len(moments) == i:
            moments += tf.nn.moments(tf.cast(x, tf.float32), (0, 1, 2))
        mean, variance = moments[i : i + 2]
        scale = tf.cast(tf.math.rsqrt(variance + _EPSILON), x.dtype)
        return (x - tf.cast(mean, x.dtype)) * scale + bias

    def in_use(self, variables: Sequence[Any]) -> list[Any]:
        """What ``variables`` stand for; the head's weights and bias are last."""
        return [variable * unit for variable, unit in zip(variables, self._units, strict=True)]

    def result(self) -> UpperLayers:
        """What the averages are now, normalisation folded in."""
        arrays = [average.numpy() for average in self.averages]
        biases = [node for node in self._part.node if node.op == "BiasAdd"]
        kernels = {node.name: node.input[1] for node in self._part.node if node.op == "Conv2D"}
        for node in biases if self._moments else ():
            i = 2 * self._moments[node.input[1]]
            mean, variance = (np.asarray(moment.numpy()) for moment in self.moments[i : i + 2])
            scale = 1.0 / np.sqrt(variance + _EPSILON)
            kernel = self._names.index(kernels[node.input[0]])
            bias = self._names.index(node.input[1])
            arrays[kernel] = arrays[kernel] * scale
            arrays[bias] = arrays[bias] - mean * scale / self._units[bias]
        return self.model_of(arrays)

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
