"""What a LiteRT file carries beside the network: labels, what made it, how photos are fed to it.

It is laid out as LiteRT's tools read it: a flatbuffer of metadata within the model, and the files
that it names as a ZIP archive behind the model, not compressed. One of them is of this program
alone: the hash of all that is before the archive, by which damage is noticed.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

METADATA_NAME = "TFLITE_METADATA"  # of the buffer that holds the flatbuffer
LABELS_FILE, ABOUT_FILE, HASH_FILE = "labels.txt", "about.json", "model.sha256"
INPUT_NAME, OUTPUT_NAME = "image", "scores"

# https://github.com/tensorflow/tflite-support: tensorflow_lite_support/metadata/metadata_schema.fbs
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the oldest that knows all that is used here
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2  # of AssociatedFileType
_RGB = 1  # of ColorSpaceType
_IMAGE, _NORMALIZATION = 2, 1  # of ContentProperties, of ProcessUnitOptions


def metadata(
    size: tuple[int, int], mean: float | Sequence[float], std: float, made_by: str
) -> bytes:
    """The flatbuffer for photos in RGB of ``size`` (height, width), fed ``(pixel - mean) / std``.

    ``mean`` may be one of each colour.
    Tables are tuples of their fields, in the order of the schema.
    """
    height, width = size
    image = (_Number("Uint8", _RGB), (_Number("Uint32", width), _Number("Uint32", height)))
    normalisation = (_floats(mean), _floats(std))
    means = np.atleast_1d(mean)
    range_ = (_floats((255 - means) / std), _floats(-means / std))
    labels = (LABELS_FILE, "The labels, in the order of the scores", _kind(_TENSOR_AXIS_LABELS))
    about = (ABOUT_FILE, "What made the classifier", _kind(_DESCRIPTIONS))
    fed = (
        *(INPUT_NAME, "Photos", None, (_kind(_IMAGE), image)),
        *([(_kind(_NORMALIZATION), normalisation)], range_),
    )
    scores = (
        *(OUTPUT_NAME, "Of each label, adding up to 1", None, None, None),
        *((_floats(1), _floats(0)), [labels]),
    )
    model = (
        *("Image classifier", f"Made by {made_by}", None, [(None, None, [fed], [scores])]),
        *(None, None, [about], _PARSER_VERSION),
    )
    return _flatbuffer(model, _IDENTIFIER)


def with_files(model: bytes, labels: Sequence[str], about: str) -> bytes:
    """``model`` with its files behind it. Equal ones for equal arguments."""
    files = {
        LABELS_FILE: "".join(f"{label}\n" for label in labels),
        ABOUT_FILE: about,
        HASH_FILE: hashlib.sha256(model).hexdigest(),
    }
    whole = BytesIO()
    whole.write(model)
    with zipfile.ZipFile(whole, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980
    return whole.getvalue()


@dataclass(frozen=True)
class _Number:
    """A number in a table, of a ``kind`` that `flatbuffers` has."""

    kind: str
    value: int


def _kind(number: int) -> _Number:
    """A value of an enumeration, or the kind of the table in the next field."""
    return _Number("Uint8", number)


def _floats(value: Any) -> np.ndarray:
    """One for all channels, or one for each."""
    return np.array(value, np.float32, ndmin=1)


def _flatbuffer(table: tuple[Any, ...], identifier: bytes) -> bytes:
    """See https://flatbuffers.dev/internals: what a table refers to is written before it."""
    import flatbuffers  # TensorFlow brings it; who reads does without

    builder = flatbuffers.Builder(1024)

    def place(value: Any) -> int:
        if isinstance(value, str):
            return int(builder.CreateString(value))
        if isinstance(value, np.ndarray):
            return int(builder.CreateNumpyVector(value))
        places = [place(x) if _is_apart(x) else 0 for x in value]
        if isinstance(value, list):
            builder.StartVector(4, len(value), 4)
            for one in reversed(places):
                builder.PrependUOffsetTRelative(one)
            return int(builder.EndVector())
        builder.StartObject(len(value))
        for slot, (field, at) in enumerate(zip(value, places, strict=True)):
            if isinstance(field, _Number):
                getattr(builder, f"Prepend{field.kind}Slot")(slot, field.value, 0)
            else:
                builder.PrependUOffsetTRelativeSlot(slot, at, 0)
        return int(builder.EndObject())

    builder.Finish(place(table), file_identifier=identifier)
    return bytes(builder.Output())


def _is_apart(field: Any) -> bool:
    """Whether it lies outside of its table."""
    return field is not None and not isinstance(field, _Number)
