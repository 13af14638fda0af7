"""A classifier -> ONNX, by tf2onnx: what ONNX Runtime, OpenVINO, TensorRT and others load."""

import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bottlenecks import atomic
from bottlenecks.errors import OutputError, RetrainError, UsageError, one_line, shown
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.export import graph_spec
from retrain.export.classifier import TrainedClassifier
from retrain.export.settings import ExportSettings

NAME = "ONNX"
OPSET = 13  # of 2021; later ones bring nothing that the network has, and older programs load it
# How the input is to be fed, in the standard's own words: onnx/onnx, docs/MetadataProps.md
IMAGES = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "Normalized_0_1",
}


def path_of(settings: ExportSettings) -> str | None:
    """Where it is written, if it is."""
    return settings.output_onnx


def check(settings: ExportSettings) -> None:
    """Raise `UsageError` where tf2onnx, which brings onnx along, is not installed."""
    if importlib.util.find_spec("tf2onnx") is None:
        raise UsageError("--output_onnx needs tf2onnx: pip install tf2onnx onnx")


def write(classifier: TrainedClassifier, settings: ExportSettings) -> None:
    """Write the model. Raises ``OSError``, `UsageError`; `OutputError` where it cannot be made."""
    assert settings.output_onnx is not None
    try:
        data = onnx_bytes(classifier)
    except (RetrainError, OSError, MemoryError):
        raise
    except Exception as error:  # tf2onnx raises nearly everything, as do TensorFlow and the checker
        raise OutputError(
            f"--output_onnx {shown(settings.output_onnx)} cannot be made: {one_line(error)}; the "
            "graph and the labels are written"
        ) from error
    atomic.make_parents(settings.output_onnx)
    atomic.write_bytes(settings.output_onnx, data)


def onnx_bytes(classifier: TrainedClassifier) -> bytes:
    """A serialized ModelProto of the classifier; equal for equal ones.

    Its input, ``Placeholder``, is (n, 3, 299, 299) float32 in [0, 1], RGB: the channels come first,
    as in ONNX's own operations and most of its models. Its output, named as the graph's, is (n, C)
    float32, whose rows add up to 1. The labels, one a line, and what made it are in the
    metadata, by the names that `retrain.export.graph_spec` has for them.

    Raises `UsageError` for a ``final_tensor_name`` that is taken.
    """
    names = (graph_spec.PLACEHOLDER_NODE, classifier.final_tensor_name)
    source, output = (f"{name}:0" for name in names)
    graph_def = _from_pixels(classifier.graph)
    with _quietly():
        import onnx
        from tf2onnx import convert

        model, _ = convert.from_graph_def(
            graph_def,
            name="retrain",
            input_names=[source],
            output_names=[output],
            inputs_as_nchw=[source],
            tensors_to_rename={source: names[0], output: names[1]},
            opset=OPSET,
        )
        _number_anew(model.graph)
        shapes = (("n", 3, *INPUT_SIZE), ("n", len(classifier.labels)))
        ends = (model.graph.input[0], model.graph.output[0])
        for end, name, shape in zip(ends, names, shapes, strict=True):
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            end.CopyFrom(info)
        del model.opset_import[:]  # tf2onnx names one that nothing is of
        model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
        carried = {
            graph_spec.LABELS_NODE: "\n".join(classifier.labels),
            graph_spec.ABOUT_NODE: classifier.about.json,
        }
        onnx.helper.set_model_props(model, IMAGES | carried)
        onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _from_pixels(graph: bytes) -> Any:
    """The GraphDef ``graph`` that begins with the pixels in [0, 1]: nothing is decoded in it."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(graph)
    (pixels,) = (node for node in graph_def.node if node.name == graph_spec.PLACEHOLDER_NODE)
    pixels.op = "Placeholder"
    del pixels.input[:]
    return graph_def


def _number_anew(graph: Any) -> None:
    """Number the names of a GraphProto's values in the order in which they are used.

    tf2onnx counts on from one model to the next, and in the order of sets: no two runs would give
    equal bytes.
    """
    names: dict[str, str] = {end.name: end.name for end in (*graph.input, *graph.output)}

    def numbered(name: str) -> str:
        return names.setdefault(name, re.sub(r"__\d+", f"__{len(names)}", name))

    for node in graph.node:
        node.name = numbered(node.name)
        node.input[:] = map(numbered, node.input)
        node.output[:] = map(numbered, node.output)
    for constant in graph.initializer:
        constant.name = numbered(constant.name)
    order = {name: i for i, name in enumerate(names.values())}
    graph.initializer.sort(key=lambda constant: order[constant.name])


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the log lines and warnings of tf2onnx and what it calls: all is checked later."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
