"""Weights -> frozen InceptionV3, whole or up to a cut: pixels -> rows; its fingerprint."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bottlenecks.errors import UsageError, WeightsError, shown
from bottlenecks.forks import OwnProcess, PerProcess
from bottlenecks.machine import cpu_has_bfloat16
from bottlenecks.network import kept, layers
from bottlenecks.network.cuts import INPUT
from bottlenecks.network.engines import int8
from bottlenecks.network.engines.devices import Run
from bottlenecks.network.engines.engine import ENGINES
from bottlenecks.network.names import (
    ARCHITECTURE,
    BOTTLENECK_NODE,
    INPUT_NODE,
    NETWORK_SCOPE,
    PRECISIONS,
    RANDOM,
)
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.network.weights import OnDownload, Weights, check_weights_argument, find_weights
from bottlenecks.photos.decode import DECODE_VERSION, INPUT_SIZE
from bottlenecks.row_spec import BOTTLENECK, RowSpec
from bottlenecks.settings import checked_path

FREEZE_VERSION = "folded-5"  # part of the frozen file's name: change it with `freeze`

# One network at a time is built: it takes much memory, and Keras' settings are the process's.
_building = PerProcess(threading.RLock)

log = logging.getLogger(__name__)


class Extractor(Protocol):
    """What stage one needs of a network; tests pass a stand-in."""

    @property
    def spec(self) -> RowSpec:
        """What it gives for an image, and from pixels of which size."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits over all that changes a vector; cheap, or at least without the network."""

    @property
    def description(self) -> dict[str, Any]:
        """What the fingerprint is over, and the weights' name, for ``model.json``."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8 -> (n, ...) rows, both as `spec` says."""


class NetworkExtractor(Extractor, Protocol):
    """An extractor that is a TensorFlow graph, and so can be exported with a head."""

    @property
    def precision(self) -> str:
        """What rows at a cut are computed in, and what is above it: "float32" or "bfloat16"."""

    @property
    def frozen(self) -> bytes:
        """A serialized GraphDef of constants up to `BOTTLENECK_NODE`.

        Its nodes read `INPUT_NODE`, which is *not* in it: what feeds the network is to be added.
        """

    def at(self, cut: str) -> Extractor:
        """The part of the network up to ``cut``, one of `bottlenecks.network.cuts.CUTS`."""


class InceptionV3:
    """Keras' InceptionV3 without its top, frozen, as a `NetworkExtractor`.

    ``weights`` is "imagenet", "random" or a path; ``model_dir`` keeps what is downloaded and
    the frozen network; ``precision`` is one of `PRECISIONS` and ``engine`` one of `ENGINES`.
    "int8" takes ``numbers``, as `bottlenecks.network.engines.int8.to_bytes` gives them. Nothing is
    downloaded or imported before it is needed; a path that is no weights file raises
    `WeightsError` at once.
    """

    cut: str | None = None  # the whole network

    def __init__(
        self,
        weights: str = "imagenet",
        model_dir: str | os.PathLike[str] = "~/.cache/retrain",
        precision: str = "float32",
        on_download: OnDownload | None = None,
        engine: str = "tensorflow",
        numbers: bytes | None = None,
    ) -> None:
        for name, value, known in (
            ("precision", precision, PRECISIONS),
            ("engine", engine, tuple(ENGINES)),
        ):
            if value not in known:
                raise UsageError(f"{name} must be one of {known}. Received: {value!r}")
        if (precision == "int8") != (numbers is not None):
            raise UsageError("int8 needs the numbers of a calibration, and nothing else has them")
        if precision == "bfloat16" and not cpu_has_bfloat16():
            log.warning("this processor has no bfloat16; going on with float32 at its speed")
            precision = "float32"
        check_weights_argument(weights)
        self.model_dir = Path(checked_path(model_dir, "model_dir"))
        self.row_precision, self.engine = precision, engine
        self._numbers = numbers
        self._weights_argument = weights
        self._on_download = on_download
        self._not_kept: bytes | None = None  # the frozen network, where it cannot be on disk

    @classmethod
    def of_frozen(
        cls, weights: Weights, frozen: bytes, precision: str, engine: str, numbers: bytes | None
    ) -> "InceptionV3":
        """One whose ``frozen`` network is at hand: another process has made it of ``weights``."""
        found = cls(RANDOM, os.curdir, precision, engine=engine, numbers=numbers)
        found.__dict__["weights"] = weights
        found._not_kept = frozen
        return found

    def computed_in(
        self, precision: str, engine: str, numbers: bytes | None = None
    ) -> "InceptionV3":
        """The same network, of the same weights, run otherwise."""
        found = InceptionV3(
            self._weights_argument, self.model_dir, precision, self._on_download, engine, numbers
        )
        if "weights" in self.__dict__:  # which were found and hashed
            found.__dict__["weights"] = self.weights
        return found

    def at(self, cut: str) -> "InceptionV3":
        """The same network up to ``cut``, one of `bottlenecks.network.cuts.CUTS`.

        Calibrated numbers are those of the whole: rows of a part are of the next best precision.
        """
        part = copy.copy(self)
        for name in ("fingerprint", "_run"):  # of the whole
            part.__dict__.pop(name, None)
        part.cut = cut
        part.row_precision, part._numbers = self.precision, None
        return part

    @property
    def precision(self) -> str:
        if self.row_precision != "int8":
            return self.row_precision
        return "bfloat16" if cpu_has_bfloat16() else "float32"

    @property
    def numbers(self) -> bytes | None:
        """Those of a calibration, where it computes in 8 bits."""
        return self._numbers

    @property
    def spec(self) -> RowSpec:
        return BOTTLENECK if self.cut is None else layers.spec_at(self.cut)

    @functools.cached_property
    def weights(self) -> Weights:
        """The weights, downloaded if need be. Raises `WeightsError`."""
        return find_weights(self._weights_argument, self.model_dir, on_download=self._on_download)

    @property
    def description(self) -> dict[str, Any]:
        weights = "none" if self.cut == INPUT else self.weights.name
        return {"architecture": ARCHITECTURE, "weights": weights, **self._what_changes_a_row()}

    @functools.cached_property
    def fingerprint(self) -> str:
        canonical = json.dumps(self._what_changes_a_row(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _what_changes_a_row(self) -> dict[str, Any]:
        # The hash of the weights tells `ARCHITECTURE` too. Another one must add itself here: random
        # weights have the same hash in all.
        decoded = {"decode": DECODE_VERSION, "input_size": list(self.spec.input_size)}
        rows = {} if self.cut is None else {"rows": dataclasses.asdict(self.spec)}
        if self.cut == INPUT:  # no network is run
            return {**decoded, **rows}
        return {
            "weights_sha256": self.weights.sha256,
            "precision": self.row_precision,
            **decoded,
            **rows,
            **ENGINES[self.engine].marks(self.row_precision),
            **({} if self._numbers is None else _of_int8(self._numbers)),
        }

    @property
    def frozen(self) -> bytes:
        """The network as a serialized GraphDef of constants, see `NetworkExtractor`.

        Kept in ``model_dir`` under the sha256 of its bytes, so that Keras' model is built once
        for each weights. Raises `WeightsError`.
        """
        with _building():
            return self._found_or_frozen()

    def _found_or_frozen(self) -> bytes:
        if self._not_kept is not None:
            return self._not_kept
        source = f"{FREEZE_VERSION} {self.weights.sha256}"
        if (found := kept.read(self.model_dir, source)) is not None:
            return found
        data = freeze(keras_model(self.weights))
        try:
            kept.keep(self.model_dir, source, data)
        except OSError as error:
            log.warning("cannot keep the frozen network in %s: %s", shown(self.model_dir), error)
            self._not_kept = data
        return data

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run the network. ``pixels``: (n, 299, 299, 3) uint8. Returns rows (n, ...) of `spec`."""
        if self.cut == INPUT:
            return pixels
        if not len(pixels):  # which engines are not made for
            return self.spec.empty(0)
        with _building():
            run = self._run
        self._process.check("this network")
        return run(pixels)

    @functools.cached_property
    def _run(self) -> Run:
        """The network, started by the engine."""
        run = ENGINES[self.engine].start(self.frozen, self.cut, self.row_precision, self._numbers)
        self._process = OwnProcess()
        return run


def _of_int8(numbers: bytes) -> dict[str, Any]:
    """What of a calibration changes a row."""
    return {"int8": int8.VERSION, "numbers_sha256": hashlib.sha256(numbers).hexdigest()}


def keras_model(weights: Weights, classes: int | None = None) -> Any:
    """Keras' InceptionV3 with ``weights``: without its top, or with one of ``classes``.

    Raises `WeightsError` where they do not fit.
    """
    with _keras_defaults():
        model = untrained(classes)
        _set_weights(model, weights, classes)
    return model


def untrained(classes: int | None = None) -> Any:
    """Keras' InceptionV3 as it is before training; without its top, or with one of ``classes``."""
    import_tensorflow()
    import keras

    with _keras_defaults():
        return keras.applications.InceptionV3(
            include_top=classes is not None,
            classes=classes or 0,
            pooling="avg",
            weights=None,
            input_shape=(*INPUT_SIZE, 3),
        )


def parted(model: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """A model with its top as the one without, and the top's kernel (2048, C) and bias (C,)."""
    import keras

    top = model.layers[-1]
    kernel, bias = top.get_weights()
    return keras.Model(model.input, top.input), kernel, bias


@contextlib.contextmanager
def _keras_defaults() -> Iterator[None]:
    """Keras as it comes, within: ``keras.json`` and programs may want other numbers and layouts."""
    import_tensorflow()
    import keras

    config = keras.config
    own = config.dtype_policy(), config.floatx(), config.image_data_format()

    def use(policy: Any, floatx: str, layout: str) -> None:
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)
        config.set_image_data_format(layout)

    use("float32", "float32", "channels_last")
    try:
        yield
    finally:
        use(*own)


def _set_weights(model: Any, weights: Weights, classes: int | None) -> None:
    if weights.path is None:
        _set_random_weights(model)
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says enough
            model.load_weights(weights.path)
    except Exception as error:  # Keras raises many kinds for a file of another model
        wanted = "with its top" if classes else "without its top (the ..._notop.h5 kind)"
        raise WeightsError(
            f"the weights file {shown(weights.path)} does not fit InceptionV3 {wanted}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if not all(np.isfinite(w).all() for w in model.get_weights()):
        raise WeightsError(
            f"the weights file {shown(weights.path)} holds numbers that are not finite; "
            "fetch it again"
        )


def _set_random_weights(model: Any) -> None:
    """He normal (He et al. 2015, eq. 10) kernels; RandomState's stream never changes (NEP 19)."""
    random = np.random.RandomState(0)
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        if shapes and len(shapes[0]) == 4:  # a convolution's kernel (height, width, in, out)
            deviation = np.sqrt(2.0 / np.prod(shapes[0][:3]))
            kernel = random.standard_normal(shapes[0]) * deviation
            layer.set_weights([kernel.astype(np.float32)])


def canonical_names(names: Sequence[str]) -> dict[str, str]:
    """Keras' names of layers as they are in the first model of a process.

    Keras numbers the layers of a kind through all models: the next one's begin at ``conv2d_94``.
    """
    first: dict[str, int] = {}
    for kind, number in map(_numbered, names):
        first[kind] = min(number, first.get(kind, number))

    def canonical(name: str) -> str:
        if name.startswith("mixed"):  # these its code names itself
            return name
        kind, number = _numbered(name)
        return f"{kind}_{number - first[kind]}" if number > first[kind] else kind

    return {name: canonical(name) for name in names}


def _numbered(name: str) -> tuple[str, int]:
    """A layer's name parted from its number, 0 where it has none."""
    found = re.fullmatch(r"(.+?)_(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def freeze(model: Any) -> bytes:
    """A Keras InceptionV3 as a GraphDef without its input, batch normalisation folded in.

    Nodes are called as Keras calls the layers, below `NETWORK_SCOPE`.

    Inference normalises as ``(x - mean) / sqrt(variance + epsilon) + beta`` after each
    convolution, which is a convolution with other kernels and a bias; this leaves 94
    convolutions, biases and ReLUs that TensorFlow fuses, and no operation younger than TF 1.0.
    (Keras' own tracing and TensorFlow's own freezing took 1.9 GB at their peak for this.)
    """
    tf = import_tensorflow()
    import keras

    norms = {id(x.input): x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    names = canonical_names([layer.name for layer in model.layers])

    def scale_of(norm: Any) -> np.ndarray:
        _, _, variance = weights[norm.name]
        return np.asarray(1.0 / np.sqrt(variance.astype(np.float64) + norm.epsilon))

    def constant(value: np.ndarray) -> Any:
        return tf.constant(value.astype(np.float32))

    def apply(layer: Any, x: Any, name: str) -> Any:
        match type(layer).__name__:
            case "Conv2D":
                kernel = constant(weights[layer.name][0] * scale_of(norms[id(layer.output)]))
                return tf.nn.conv2d(x, kernel, layer.strides, layer.padding.upper(), name=name)
            case "BatchNormalization":
                beta, mean, _ = weights[layer.name]
                return tf.nn.bias_add(x, constant(beta - mean * scale_of(layer)), name=name)
            case "Activation":
                return tf.nn.relu(x, name=name)
            case "MaxPooling2D" | "AveragePooling2D" as kind:
                pool = tf.nn.max_pool2d if kind == "MaxPooling2D" else tf.nn.avg_pool2d
                return pool(x, layer.pool_size, layer.strides, layer.padding.upper(), name=name)
            case "Concatenate":
                return tf.concat(x, axis=-1, name=name)
            case "GlobalAveragePooling2D":
                return tf.reduce_mean(x, axis=(1, 2), name=name)
        raise WeightsError(
            f"this version of Keras ({keras.__version__}) has a {type(layer).__name__} in its "
            "InceptionV3, which this program does not know; use an older Keras"
        )

    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, (None, *INPUT_SIZE, 3), name=INPUT_NODE)
        tensors = {id(model.input): pixels}
        with tf.name_scope(NETWORK_SCOPE):
            for layer in model.layers[1:]:  # in the order of data flow, after the input
                several = isinstance(layer.input, list)
                inputs = [tensors[id(t)] for t in (layer.input if several else [layer.input])]
                x = inputs if several else inputs[0]
                tensors[id(layer.output)] = apply(layer, x, names[layer.name])
        tf.identity(tensors[id(model.output)], name=BOTTLENECK_NODE)
    graph_def = graph.as_graph_def()
    (placeholder,) = [node for node in graph_def.node if node.name == INPUT_NODE]
    graph_def.node.remove(placeholder)
    serialized: bytes = graph_def.SerializeToString(deterministic=True)
    return serialized
