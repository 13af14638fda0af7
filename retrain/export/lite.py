"""A classifier -> a LiteRT (TensorFlow Lite) file, of 32, 16 or 8 bits, with its labels inside."""

import dataclasses
import importlib.util
import itertools
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from bottlenecks import atomic
from bottlenecks.errors import ImageFolderError, OutputError, UsageError, one_line
from bottlenecks.network.tensorflow import import_tensorflow, logged_lines_dropped
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.export import graph_spec, lite_metadata
from retrain.export.classifier import TrainedClassifier
from retrain.export.settings import ExportSettings

NAME = "LiteRT"
MEAN = STD = 127.5  # pixels of 0..255 are fed in [-1, 1], as to the graph's Mul
CALIBRATED_ON = 128  # training photos; more move the accuracy of int8 no further
FEWEST = 4


def path_of(settings: ExportSettings) -> str | None:
    """Where it is written, if it is."""
    return settings.output_tflite


def check(settings: ExportSettings) -> None:
    """Raise `UsageError` where what writes it is not installed."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise UsageError(
            "--output_tflite needs ai-edge-litert: pip install ai-edge-litert, or leave it out"
        )


def write(classifier: TrainedClassifier, settings: ExportSettings) -> None:
    """Write it. Raises ``OSError``, `OutputError`, `ImageFolderError`."""
    assert settings.output_tflite is not None
    converted = convert(classifier, settings.quantize)
    model = _with_metadata(converted, classifier.about.program)
    about = dataclasses.replace(classifier.about, quantised=settings.quantize)
    atomic.make_parents(settings.output_tflite)
    atomic.write_bytes(
        settings.output_tflite,
        lite_metadata.with_files(model, classifier.labels, about.json),
    )


def convert(classifier: TrainedClassifier, quantize: str) -> bytes:
    """The model: image (n, 299, 299, 3) float32 in [-1, 1] -> scores (n, C) float32.

    ``float16`` keeps weights in 16 bits; ``dynamic`` keeps them in 8, and computes with 8 where
    LiteRT can; ``int8`` does both with activations too, in ranges that training photos have shown.
    Input and output are float32 always, so that all are fed alike. Raises `OutputError` where
    TensorFlow cannot convert it, `ImageFolderError` where int8 has too few photos.
    """
    tf = import_tensorflow()
    network = _function(classifier)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network], network)
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        photos = _calibration(classifier)
        converter.representative_dataset = lambda: _fed(photos)
    try:
        with warnings.catch_warnings(), logged_lines_dropped():
            warnings.simplefilter("ignore")
            return bytes(converter.convert())
    except MemoryError:
        raise
    except Exception as error:  # of the converter, which raises nearly everything
        raise OutputError(
            f"cannot convert the classifier to LiteRT with --quantize {quantize}: "
            f"{one_line(error)}; the graph and the labels are written: choose another "
            "--quantize, or leave out --output_tflite"
        ) from error


def _function(classifier: TrainedClassifier) -> Any:
    """The graph from its input to its scores, as TensorFlow's converter takes it."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(classifier.graph)

    def scores(image: Any) -> Any:
        (output,) = tf.graph_util.import_graph_def(
            graph_def,
            {f"{graph_spec.MUL_NODE}:0": image},
            [f"{classifier.final_tensor_name}:0"],
            name="",
        )
        return {lite_metadata.OUTPUT_NAME: output}

    image = tf.TensorSpec((None, *INPUT_SIZE, 3), tf.float32, lite_metadata.INPUT_NAME)
    return tf.compat.v1.wrap_function(scores, [image])


def _calibration(classifier: TrainedClassifier) -> list[np.ndarray]:
    """Training photos (299, 299, 3) uint8. Raises `ImageFolderError` for fewer than `FEWEST`."""
    photos = list(itertools.islice(classifier.training_photos(), CALIBRATED_ON))
    if len(photos) < FEWEST:
        raise ImageFolderError(
            f"--quantize int8 needs {FEWEST} training photos or more to see what ranges numbers "
            f"have, and {len(photos)} can still be read as they were; the graph and the labels are "
            "written: add photos, or choose another --quantize"
        )
    return photos


def _fed(photos: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    for pixels in photos:
        yield [(pixels[np.newaxis].astype(np.float32) - np.float32(MEAN)) / np.float32(STD)]


def _with_metadata(model: bytes, made_by: str) -> bytes:
    """``model`` with metadata, and with plain names of what goes in and comes out."""
    import flatbuffers

    schema = _schema()
    whole = schema.ModelT.InitFromPackedBuf(model)
    (main,) = whole.subgraphs
    (source,), (output,) = main.inputs, main.outputs
    _unround_scores(schema, whole, main)
    main.tensors[source].name = lite_metadata.INPUT_NAME
    main.tensors[output].name = lite_metadata.OUTPUT_NAME
    whole.signatureDefs = [_signature(schema, source, output)]
    buffer, entry = schema.BufferT(), schema.MetadataT()
    packed = lite_metadata.metadata(INPUT_SIZE, MEAN, STD, made_by)
    buffer.data = np.frombuffer(packed, np.uint8)
    entry.name, entry.buffer = lite_metadata.METADATA_NAME, len(whole.buffers)
    whole.buffers.append(buffer)
    whole.metadata = [*(whole.metadata or ()), entry]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(whole.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _unround_scores(schema: ModuleType, whole: Any, main: Any) -> None:
    """Where the softmax is of 8 bits, let it have floats: its inputs, as floats, are exact enough.

    256 steps are few for scores, and those of many labels would no longer add up to 1.
    """
    softmax, dequantize = main.operators[-2:]
    operations = schema.BuiltinOperator
    last = [whole.operatorCodes[one.opcodeIndex].builtinCode for one in (softmax, dequantize)]
    if last != [operations.SOFTMAX, operations.DEQUANTIZE]:
        return
    (logits,), (between,), (scores,) = softmax.inputs, softmax.outputs, dequantize.outputs
    main.tensors[between].type = schema.TensorType.FLOAT32
    main.tensors[between].quantization = None
    dequantize.inputs, dequantize.outputs = [logits], [between]
    softmax.inputs, softmax.outputs = [between], [scores]
    main.operators[-2:] = dequantize, softmax


def _signature(schema: ModuleType, source: int, output: int) -> Any:
    """What programs ask for that call a model by names rather than by numbers."""
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.subgraphIndex = 0
    for ends, name, tensor in (
        ("inputs", lite_metadata.INPUT_NAME, source),
        ("outputs", lite_metadata.OUTPUT_NAME, output),
    ):
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, tensor
        setattr(signature, ends, [end])
    return signature


def _schema() -> ModuleType:
    """LiteRT's own reader and writer of models."""
    return importlib.import_module("ai_edge_litert.schema_py_generated")
