"""The settings of a classifier that is used."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from bottlenecks.network import names
from bottlenecks.settings import Settings, flag, require
from retrain.export.settings import ExportSettings

USUAL_LABELS = ExportSettings.output_labels
TENSORFLOW, OPENVINO = names.ENGINES
AUTO = names.AUTO
ENGINES = (AUTO, *names.ENGINES)
MAX_SIDE = 4096  # pixels of a photo that is fed to a graph


@dataclass(frozen=True, kw_only=True)
class GraphSettings(Settings):
    """Which classifier is used, and how photos are fed to it. What is None the graph says."""

    title: ClassVar[str] = "the graph, and how photos are fed to it"

    graph: str = flag(
        ExportSettings.output_graph, "what retrain wrote, of any format", metavar="FILE"
    )
    labels: str | None = flag(
        None,
        f"its labels, one a line (default: those in the graph, else {USUAL_LABELS})",
        metavar="FILE",
    )
    input_layer: str | None = flag(
        None, "the graph's input (default: Mul, Placeholder or input)", metavar="NAME"
    )
    output_layer: str | None = flag(
        None, "the graph's output (default: final_result, or its only softmax)", metavar="NAME"
    )
    input_height: int | None = flag(None, "height that photos are resized to", metavar="PIXELS")
    input_width: int | None = flag(None, "width that photos are resized to", metavar="PIXELS")
    input_mean: float | None = flag(
        None, "subtracted from pixels of 0..255 (default: 127.5 for Mul, else 0)", metavar="X"
    )
    input_std: float | None = flag(
        None, "then divided by; 0 for 255 (default: 127.5 for Mul, else 255)", metavar="X"
    )
    engine: str = flag(
        AUTO,
        "what runs a graph of TensorFlow's: auto is openvino, where that is installed and has all "
        "its operations; this spares the import of TensorFlow",
        choices=ENGINES,
        metavar="|".join(ENGINES),
    )
    allow_any_graph: bool = flag(
        False,
        "run a graph with operations that no image classifier needs too: only one that you trust, "
        "because it may do whatever a program can",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input_height", "input_width"):
            value = getattr(self, name)
            require(value is None or value >= 0, name, "at least 0", value)
            require(value is None or value <= MAX_SIDE, name, f"at most {MAX_SIDE}", value)
        for name in ("input_mean", "input_std"):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), name, "a finite number", value)

    @property
    def inputs(self) -> dict[str, str]:
        labels = {} if self.labels is None else {"labels": self.labels}
        return super().inputs | {"graph": self.graph} | labels

    @property
    def of_the_graph(self) -> dict[str, Any]:
        """The values of these settings alone, by their names."""
        return {field.name: getattr(self, field.name) for field in fields(GraphSettings)}
