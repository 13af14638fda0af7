"""The settings of label_image."""

from dataclasses import dataclass
from typing import ClassVar

from bottlenecks.settings import flag, require
from retrain.engines.settings import GraphSettings

FORMATS = ("text", "json", "csv")


@dataclass(frozen=True, kw_only=True)
class Config(GraphSettings):
    """How to label. What is None is read from the graph. Raises `UsageError`."""

    title: ClassVar[str] = "what is shown"

    num_top_predictions: int = flag(5, "how many labels to show for a photo", metavar="N")
    format: str = flag("text", "how to print", choices=FORMATS, metavar="|".join(FORMATS))

    def __post_init__(self) -> None:
        super().__post_init__()
        top = self.num_top_predictions
        require(top >= 1, "num_top_predictions", "at least 1", top)
