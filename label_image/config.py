"""The settings of label_image."""

import math
from dataclasses import dataclass
from typing import ClassVar

from bottlenecks.settings import Settings, flag, require

MAX_SIDE = 4096  # pixels
FORMATS = ("text", "json", "csv")


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """How to label. What is None is read from the graph. Raises `UsageError`."""

    title: ClassVar[str] = "how to label"

    graph: str = flag("retrained_graph.pb", "the graph that retrain wrote", metavar="FILE")
    labels: str = flag("retrained_labels.txt", "its labels, one a line", metavar="FILE")
    num_top_predictions: int = flag(5, "how many labels to show for a photo", metavar="N")
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
        None, "then divided by (default: 127.5 for Mul, else 255)", metavar="X"
    )
    format: str = flag("text", "how to print", choices=FORMATS, metavar="|".join(FORMATS))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_top_predictions", "input_height", "input_width"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        for name in ("input_height", "input_width"):
            value = getattr(self, name)
            require(value is None or value <= MAX_SIDE, name, f"at most {MAX_SIDE}", value)
        for name in ("input_mean", "input_std"):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), name, "a finite number", value)
        require(self.input_std != 0, "input_std", "other than 0", self.input_std)
