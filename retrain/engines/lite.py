"""LiteRT (TensorFlow Lite) files: of `retrain`, and of other programs. TensorFlow is not needed."""

import hashlib
import os
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import GraphError, one_line, shown
from bottlenecks.network.tensorflow import logged_lines_dropped
from retrain.checks.flat import Choice, Flatbuffer, Many, Number, Numbers, Skipped, Table, Text
from retrain.checks.reading import MAX_LABELS_BYTES, labels_in, read_file
from retrain.checks.safe_graph import MAX_CONSTANT_ELEMENTS
from retrain.checks.safe_lite import check_safe
from retrain.engines.program import Feeding, check_engine, classes_of, feeding_of, wrong_input
from retrain.engines.settings import GraphSettings
from retrain.export.lite_metadata import ABOUT_FILE, HASH_FILE, LABELS_FILE, METADATA_NAME

NAME = "LiteRT"
MAX_LITE_BYTES = 4 * MAX_CONSTANT_ELEMENTS + 2**26
MAX_FILES, MAX_DIRECTORY_BYTES = 16, 2**16  # of the archive behind the model
_MARK = slice(4, 8), b"TFL3"
_ARCHIVE_END, _END_BYTES = b"PK\5\6", 22  # APPNOTE.TXT of PKWARE, 4.3.16

# As much of tensorflow/compiler/mlir/lite/schema/schema.fbs, and of metadata_schema.fbs (see
# `retrain.export.lite_metadata`), as leads to how photos are fed.
_MODEL: Table = {
    **{"version": Skipped(), "codes": Skipped(), "graphs": Skipped(), "about": Skipped()},
    **{"buffers": Many({"data": Numbers("u1")}), "metadata_buffer": Skipped()},
    **{"metadata": Many({"name": Text(), "buffer": Number("I")}), "signatures": Skipped()},
}
_NORMALISATION: Table = {"mean": Numbers("<f4"), "std": Numbers("<f4")}
_UNIT: Table = {"kind": Number("B"), "options": Choice("kind", {1: _NORMALISATION})}
_TENSOR: Table = {
    **{"name": Skipped(), "about": Skipped(), "dimensions": Skipped(), "kind": Skipped()},
    **{"units": Many(_UNIT), "range": Skipped(), "files": Skipped()},
}
_GRAPH: Table = {
    **{"name": Skipped(), "about": Skipped(), "inputs": Many(_TENSOR), "outputs": Skipped()},
    "files": Skipped(),
}
_FILE: Table = {
    **{"name": Text(), "about": Skipped(), "kind": Skipped(), "locale": Skipped()},
    "version": Skipped(),
}
_METADATA: Table = {
    **{"name": Skipped(), "about": Skipped(), "version": Skipped(), "graphs": Many(_GRAPH)},
    **{"author": Skipped(), "license": Skipped(), "files": Many(_FILE), "parser": Skipped()},
}


def fits(path: str | os.PathLike[str], start: bytes | None) -> bool:
    """Whether the file has the mark of one."""
    where, mark = _MARK
    return start is not None and start[where] == mark


def read(path: str | os.PathLike[str], any_graph: bool = False) -> "LiteModel":
    """The model in ``path``, checked unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    data = read_file(path, "graph", MAX_LITE_BYTES)
    try:
        files = _files(data)
        if not any_graph:
            check_safe(data)
        if not files and ABOUT_FILE in _named_files(data):
            raise GraphError(
                "is damaged: its labels and what made it are no longer whole behind it; write it "
                "again"
            )
    except GraphError as error:
        raise type(error)(f"the graph {shown(path)} {error}") from error
    return LiteModel(path, data, files)


@dataclass(frozen=True)
class LiteModel:
    """A model that was read from ``path``, as `Contents`; ``files`` are those behind it."""

    path: str | os.PathLike[str]
    data: bytes
    files: Mapping[str, bytes]

    @property
    def labels(self) -> list[str]:
        return labels_in(self.files.get(LABELS_FILE, b""), self.path)

    @property
    def about(self) -> str:
        return self._text(ABOUT_FILE)

    def _text(self, name: str) -> str:
        return self.files.get(name, b"").decode("utf-8", "backslashreplace")

    def start(self, settings: GraphSettings) -> "Runner":
        """Have LiteRT load it. Raises `GraphError`."""
        check_engine(settings, NAME)
        try:
            with logged_lines_dropped():
                interpreter = _interpreter()(model_content=self.data, num_threads=machine.threads())
                interpreter.allocate_tensors()
            return Runner(interpreter, settings, self._usual(settings))
        except (RuntimeError, ValueError) as error:
            if isinstance(error, GraphError):
                raise
            raise GraphError(
                f"cannot load the graph {shown(self.path)}: {one_line(error)}"
            ) from error

    def _usual(self, settings: GraphSettings) -> Feeding:
        """How photos are fed where ``settings`` do not say. Raises `GraphError`."""
        usual = _usual_feeding(self.data)
        if usual is None and None in (settings.input_mean, settings.input_std):
            raise GraphError(
                f"the graph {shown(self.path)} shifts and scales each colour otherwise, which is "
                "not done here; name what to do with all with --input_mean and --input_std"
            )
        return usual or Feeding()


class Runner:
    """A loaded model with an input and an output, as a `Program`.

    Photos go through one at a time, which is as fast as several at once: LiteRT shares each out
    among the cores.
    """

    def __init__(self, interpreter: Any, settings: GraphSettings, usual: Feeding) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        source = _one_of(inputs, settings.input_layer, "--input_layer")
        output = _one_of(outputs, settings.output_layer, "--output_layer")
        shape = [int(x) for x in source["shape"]]
        if source["dtype"] in (np.uint8, np.int8):
            raise GraphError(
                f"the input {_shown(source)} is {np.dtype(source['dtype'])}, and only models that "
                "are fed float32 are run; convert it again with inputs and outputs of float32"
            )
        if len(inputs) != 1 or source["dtype"] != np.float32 or len(shape) != 4:
            raise wrong_input(f"{np.dtype(source['dtype'])} {tuple(shape)}", _shown(source))
        if output["dtype"] != np.float32:
            raise GraphError(
                f"the output {_shown(output)} is {np.dtype(output['dtype'])}, expected float32 "
                "scores; name another with --output_layer"
            )
        self._rows = shape[0]  # at once
        varies = source["shape_signature"][0] == -1 or self._rows == 1
        classes = classes_of(output["shape"].tolist()) if len(output["shape"]) else None
        self.feeding = feeding_of(
            settings, [None if varies else self._rows, *shape[1:]], classes, usual
        )
        self._interpreter = interpreter
        self._lock = threading.Lock()
        self._source, self._output = source["index"], output["index"]

    def __call__(self, fed: np.ndarray) -> np.ndarray:
        rows = range(0, len(fed), self._rows)
        try:
            with self._lock:
                scores = [self._run(fed[row : row + self._rows]) for row in rows]
        except (RuntimeError, ValueError) as error:
            raise GraphError(f"the graph cannot be run: {one_line(error)}") from error
        return np.concatenate(scores)

    def _run(self, fed: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._source, fed)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output)).reshape(len(fed), -1)


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise GraphError(
            "LiteRT files need ai-edge-litert: pip install ai-edge-litert, or use the .pb file "
            "that was written with it"
        ) from error
    return Interpreter


def _one_of(ends: Any, name: str | None, flag: str) -> Any:
    """The input or output called ``name``, or the first."""
    for end in ends:
        if name in (None, end["name"]):
            return end
    raise GraphError(
        f"the graph has no {shown(name or 'tensor')} for {flag}; it has "
        f"{', '.join(map(_shown, ends[:5]))}"
    )


def _shown(end: Mapping[str, Any]) -> str:
    return shown(end["name"][:100])


def _files(data: bytes) -> dict[str, bytes]:
    """The files behind a model; none where there is no archive, or one of other files.

    Raises `GraphError` for a damaged one, and for a model that has not the hash that is said there.
    """
    end = data[-_END_BYTES:]
    if not end.startswith(_ARCHIVE_END):
        return {}
    entries, directory = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if entries > MAX_FILES or directory > MAX_DIRECTORY_BYTES:
        raise GraphError(f"has {entries} files behind it; at most {MAX_FILES} are read")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            start = min((info.header_offset for info in archive.infolist()), default=len(data))
            files = {
                info.filename: archive.read(info)
                for info in archive.infolist()
                if info.filename in (LABELS_FILE, ABOUT_FILE, HASH_FILE) and _is_plain(info)
            }
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises many kinds on broken archives
        raise GraphError(
            f"is damaged: the files behind it cannot be read ({one_line(error)}); write it again"
        ) from error
    if HASH_FILE in files:
        found = hashlib.sha256(memoryview(data)[:start]).hexdigest().encode()
        if files[HASH_FILE] != found:
            raise GraphError("is damaged: its hash is not that of its writing; write it again")
    return files


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Whether the file is as large as it takes: not compressed. Raises `GraphError` for more."""
    if info.file_size > MAX_LABELS_BYTES:
        raise GraphError(f"{shown(info.filename)} would have {info.file_size / 1e6:.0f} MB")
    return info.compress_type == zipfile.ZIP_STORED


def _metadata(data: bytes) -> Mapping[str, Any]:
    """The metadata in a model; nothing where there are none that can be read."""
    try:
        model = Flatbuffer(data).root(_MODEL)
        buffer_of = {entry["name"].decode(): entry["buffer"] for entry in model["metadata"]}
        packed = model["buffers"][buffer_of[METADATA_NAME]]["data"]
        found: Mapping[str, Any] = Flatbuffer(packed.tobytes()).root(_METADATA)
    except (GraphError, LookupError, ValueError):
        return {}
    return found


def _named_files(data: bytes) -> list[str]:
    """The files that the metadata say to be behind the model as a whole."""
    files = _metadata(data).get("files", ())
    return [file.get("name", b"").decode("utf-8", "replace") for file in files]


def _usual_feeding(data: bytes) -> Feeding | None:
    """How the metadata of the model says that photos are fed, else as is usual.

    None where each colour is fed otherwise.
    """
    try:
        (unit,) = _metadata(data)["graphs"][0]["inputs"][0]["units"]
        means, stds = (set(map(float, unit["options"][name])) for name in ("mean", "std"))
    except (LookupError, ValueError):  # there is none
        return Feeding()
    if (len(means), len(stds)) != (1, 1):
        return None
    return Feeding(mean=means.pop(), std=stds.pop())
