"""The settings of what is exported."""

import os
import re
from dataclasses import dataclass
from typing import ClassVar

from bottlenecks.errors import UsageError, shown
from bottlenecks.settings import Output, Settings, flag, require
from retrain.export import graph_spec

NO_QUANTISATION = "none"
QUANTISATIONS = (NO_QUANTISATION, "float16", "dynamic", "int8")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Where the classifier is written."""

    title: ClassVar[str] = "the classifier"

    output_graph: str = flag(
        "retrained_graph.pb", "where to write the graph", metavar="FILE", first=True
    )
    output_labels: str = flag(
        "retrained_labels.txt", "where to write the labels", metavar="FILE", first=True
    )
    output_onnx: str | None = flag(
        None, "also write the classifier as ONNX to this file", metavar="FILE"
    )
    output_tflite: str | None = flag(
        None,
        "also write the classifier for LiteRT (TensorFlow Lite), its labels inside",
        metavar="FILE",
    )
    quantize: str = flag(
        NO_QUANTISATION,
        "make that file smaller: weights of 16 bits, of 8 (dynamic), or all of 8 bits (int8), in "
        "ranges that training photos show",
        choices=QUANTISATIONS,
        metavar="|".join(QUANTISATIONS),
    )
    final_tensor_name: str = flag(
        graph_spec.FINAL_NODE, "name of the output in the graph", metavar="NAME"
    )
    saved_model_dir: str | None = flag(
        None, "also write a TensorFlow SavedModel: a folder of its own", metavar="DIR"
    )
    intermediate_output_graphs_dir: str | None = flag(
        None, "also write graphs while training into this folder", metavar="DIR"
    )
    intermediate_store_frequency: int = flag(
        0, "training steps from one of these graphs to the next; 0 for none", metavar="N"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.final_tensor_name
        # tensorflow/core/framework/node_def_util.cc: what names a node may have
        well_formed = re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_./>-]*", name)
        require(bool(well_formed), "final_tensor_name", "a TensorFlow node name", shown(name))
        # TensorFlow takes names that differ in case alone for the same.
        if name.endswith("/") or name.split("/")[0].lower() in graph_spec.TAKEN_SCOPES:
            raise UsageError(
                f"--final_tensor_name {name} ends in / or names another part of the graph; "
                "choose another"
            )
        if self.quantize != NO_QUANTISATION and self.output_tflite is None:
            raise UsageError(
                f"--quantize {self.quantize} is for --output_tflite; add that, or leave it out"
            )
        every, folder = self.intermediate_store_frequency, self.intermediate_output_graphs_dir
        require(every >= 0, "intermediate_store_frequency", "at least 0", every)
        if bool(every) != (folder is not None):
            raise UsageError(
                "--intermediate_output_graphs_dir and --intermediate_store_frequency (1 or more) "
                f"go together. Received: {shown(str(folder))} and {every}"
            )
        self._check_intermediates()

    def _check_intermediates(self) -> None:
        """No other output may be called as an intermediate graph beside it."""
        folder = self.intermediate_output_graphs_dir
        if folder is None:
            return
        for output in self.outputs:
            parent, name = os.path.split(os.path.realpath(output.path))
            if parent == os.path.realpath(folder) and re.fullmatch(r"intermediate_\d+\.pb", name):
                raise UsageError(
                    f"--{output.flag} {shown(output.path)} is called as one of the graphs in "
                    "--intermediate_output_graphs_dir; choose another name"
                )

    @property
    def outputs(self) -> list[Output]:
        names = ("output_graph", "output_labels", "output_tflite", "output_onnx")
        named = [(name, getattr(self, name)) for name in names]
        outputs = [
            *super().outputs,
            *(Output(name, path) for name, path in named if path is not None),
        ]
        if self.saved_model_dir is not None:
            marker = graph_spec.SAVED_MODEL_MARKER.encode()
            outputs.append(Output("saved_model_dir", self.saved_model_path, marker=marker))
        if self.intermediate_output_graphs_dir is not None:
            flag_ = "intermediate_output_graphs_dir"
            outputs.append(Output(flag_, self.intermediate_output_graphs_dir, folder=True))
        return outputs

    @property
    def saved_model_path(self) -> str:
        """The file that the SavedModel is. There must be a ``saved_model_dir``."""
        return os.path.join(str(self.saved_model_dir), graph_spec.SAVED_MODEL_FILE)
