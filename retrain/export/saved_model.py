"""A classifier -> TensorFlow's SavedModel: a folder with one file, ``saved_model.pb``.

It holds the same nodes as the frozen graph, but for those that decode photos, and is run by two
signatures:

===============  ===========================================  ==================================
serving_default  ``image`` (n, 299, 299, 3) float32, 0 to 1   ``prediction`` (n, C) float32
classify_bytes   ``images`` (n,) string, image files          ``labels`` (n, C) string and
                                                              ``scores`` (n, C) float32, the
                                                              likeliest first
===============  ===========================================  ==================================

A request of `classify_bytes` fails if one of its files cannot be decoded; which can is said in
`retrain.export.decoding`. The weights are constants, as in the frozen graph, so that there is one
file, which is there as a whole or not at all, and which can be checked before it is run. The price
is memory: ``tf.saved_model.load`` and 25 photos took 2.8 GB, and 1.2 GB with the weights in
variables; a session of TensorFlow 1 took 2.1 and 1.2 GB.
"""

import os
import re
from typing import Any

from bottlenecks import atomic
from bottlenecks.errors import OutputError, shown
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.tensorflow import import_tensorflow, new_saved_model
from retrain.export import graph_spec
from retrain.export.classifier import TrainedClassifier
from retrain.export.decoding import pixels_of
from retrain.export.graph import add_classifier, without
from retrain.export.settings import ExportSettings

NAME = "SavedModel"
_IMAGES_NODE = f"{graph_spec.CLASSIFY_BYTES}/{graph_spec.IMAGES}"
_UNIT_RANGE_NODE = f"{graph_spec.CLASSIFY_BYTES}/unit_range"


def path_of(settings: ExportSettings) -> str | None:
    """Where it is written, if it is."""
    return settings.saved_model_dir


def check(settings: ExportSettings) -> None:
    """Raise `OutputError` for a folder that has something else in it."""
    folder = str(settings.saved_model_dir)
    if os.path.isdir(folder) and not os.path.lexists(settings.saved_model_path):
        left = {partial.name for partial in atomic.partials(folder)}
        if others := sorted(set(os.listdir(folder)) - left):
            raise OutputError(
                f"--saved_model_dir {shown(folder)} is no SavedModel and not empty (it has "
                f"{shown(others[0])}); name a new folder"
            )


def write(classifier: TrainedClassifier, settings: ExportSettings) -> None:
    """Write it, replacing one that is there. Raises ``OSError``, `UsageError`."""
    atomic.make_parents(settings.saved_model_path)
    atomic.write_bytes(settings.saved_model_path, saved_model_bytes(classifier))


def saved_model_bytes(classifier: TrainedClassifier) -> bytes:
    """The content of ``saved_model.pb``; equal for equal classifiers."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        files = tf.compat.v1.placeholder(tf.string, (None,), name=_IMAGES_NODE)
        unit_range = tf.compat.v1.placeholder(tf.float32, name=_UNIT_RANGE_NODE)
        scores = add_classifier(
            unit_range,
            classifier.head,
            classifier.labels,
            classifier.final_tensor_name,
            classifier.about.json,
        )
        with tf.name_scope(graph_spec.CLASSIFY_BYTES):
            ranked = tf.math.top_k(scores, len(classifier.labels))
            labels = graph.get_tensor_by_name(f"{graph_spec.LABELS_NODE}:0")
            names = tf.gather(labels, ranked.indices)
        image = graph.get_tensor_by_name(f"{graph_spec.PLACEHOLDER_NODE}:0")
    saved = new_saved_model()
    saved.saved_model_schema_version = 1
    meta = saved.meta_graphs.add()
    meta.meta_info_def.meta_graph_version = graph_spec.SAVED_MODEL_MARKER
    meta.meta_info_def.tags.append(tf.saved_model.SERVING)
    meta.meta_info_def.tensorflow_version = tf.__version__
    meta.graph_def.MergeFromString(classifier.network)
    meta.graph_def.MergeFromString(without(graph, BOTTLENECK_NODE, _IMAGES_NODE, _UNIT_RANGE_NODE))
    meta.graph_def.MergeFromString(_decoding())
    _sign(
        meta.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY],
        {graph_spec.IMAGE: image},
        {graph_spec.PREDICTION: scores},
    )
    _sign(
        meta.signature_def[graph_spec.CLASSIFY_BYTES],
        {graph_spec.IMAGES: files},
        {graph_spec.LABELS: names, graph_spec.SCORES: ranked.values},
    )
    return bytes(saved.SerializeToString(deterministic=True))


def _sign(signature: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Fill in a SignatureDef, with the names that callers have for tensors."""
    signature.method_name = "tensorflow/serving/predict"
    for infos, tensors in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for name, tensor in tensors.items():
            infos[name].name = tensor.name
            infos[name].dtype = tensor.dtype.as_datatype_enum
            infos[name].tensor_shape.CopyFrom(tensor.shape.as_proto())


def _decoding() -> bytes:
    """The nodes between the image files and the pixels in [0, 1], as a serialized GraphDef."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        files = tf.compat.v1.placeholder(tf.string, (None,), name=_IMAGES_NODE)
        with tf.name_scope(graph_spec.CLASSIFY_BYTES):
            pixels = pixels_of(files)
        tf.divide(pixels, 255.0, name=_UNIT_RANGE_NODE)
    return bytes(_numbered_anew(graph.as_graph_def()).SerializeToString(deterministic=True))


def _numbered_anew(graph_def: Any) -> Any:
    """``graph_def`` with its functions numbered from 0, and in that order.

    TensorFlow has counted on from all that this process has traced before.
    """
    from google.protobuf import text_format

    by_number = [(_number(f.signature.name), f.signature.name) for f in graph_def.library.function]
    new = {name: f"{name.rpartition('_')[0]}_{i}" for i, (_, name) in enumerate(sorted(by_number))}
    old = re.compile("|".join(sorted(new, key=len, reverse=True)))  # the longest that fits
    text = old.sub(lambda found: new[found[0]], text_format.MessageToString(graph_def))
    renamed = text_format.Parse(text, type(graph_def)())
    renamed.library.function.sort(key=lambda function: _number(function.signature.name))
    return renamed


def _number(name: str) -> int:
    """Of a function, that its name ends with."""
    return int(name.rpartition("_")[2])
