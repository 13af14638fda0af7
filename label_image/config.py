"""The settings of label_image."""

from dataclasses import dataclass, fields
from typing import ClassVar

from bottlenecks.config import Config as StageOne
from bottlenecks.errors import UsageError
from bottlenecks.network.names import IMAGENET, RANDOM
from bottlenecks.settings import Settings, flag, require
from retrain.engines.settings import GraphSettings

FORMATS = ("text", "json", "csv")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """InceptionV3 as it is published, in place of a graph. What is None is as in stage one."""

    title: ClassVar[str] = "instead of a graph, InceptionV3 as it was trained on ImageNet"

    imagenet: bool = flag(False, "classify with its own 1000 labels")
    weights: str | None = flag(
        None,
        "its weights: imagenet (96 MB, downloaded once), or a Keras InceptionV3 weights file with "
        f"the top, whose labels --labels takes (default: {StageOne.weights})",
        metavar="imagenet|FILE",
    )
    model_dir: str | None = flag(
        None,
        f"where it is kept, as downloaded and as a graph (default: {StageOne.model_dir})",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weights", "model_dir"):
            if not self.imagenet and getattr(self, name) is not None:
                raise UsageError(
                    f"--{name} does nothing without --imagenet; add that, or leave --{name} out"
                )
        expected = f"{IMAGENET} or a file, as an untrained network knows no labels"
        require(self.weights != RANDOM, "weights", expected, self.weights)


@dataclass(frozen=True, kw_only=True)
class Config(GraphSettings, NetworkSettings):
    """How to label. What is None is read from the graph. Raises `UsageError`."""

    title: ClassVar[str] = "what is shown"

    num_top_predictions: int = flag(5, "how many labels to show for a photo", metavar="N")
    format: str = flag("text", "how to print", choices=FORMATS, metavar="|".join(FORMATS))

    def __post_init__(self) -> None:
        super().__post_init__()
        top = self.num_top_predictions
        require(top >= 1, "num_top_predictions", "at least 1", top)
        for field in fields(GraphSettings):
            given = getattr(self, field.name) != field.default
            if self.imagenet and given and field.name != "labels":
                raise UsageError(
                    f"--{field.name} does not go with --imagenet, whose graph is the network's "
                    "own; leave one of them out"
                )
