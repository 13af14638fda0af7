"""The settings of label_image."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from bottlenecks.config import Config as StageOne
from bottlenecks.errors import UsageError, shown
from bottlenecks.network.names import IMAGENET, RANDOM
from bottlenecks.outputs import check_ways, check_writable
from bottlenecks.settings import Output, Settings, flag, require
from retrain.engines.settings import GraphSettings

FORMATS = ("text", "json", "csv")
PAGE, PICTURE = ".html", ".png"  # what --show writes
GENERATOR = "retrain label_image"  # what a page says made it


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
    show: str | None = flag(
        None,
        "also draw the photos with their labels as bars: a page (.html) or a picture (.png)",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        top = self.num_top_predictions
        require(top >= 1, "num_top_predictions", "at least 1", top)
        for field in fields(GraphSettings):
            given = getattr(self, field.name) != field.default
            if self.imagenet and given and field.name not in ("labels", "engine"):
                raise UsageError(
                    f"--{field.name} does not go with --imagenet, whose graph is the network's "
                    "own; leave one of them out"
                )
        if self.show is not None:
            known = self.show_suffix in (PAGE, PICTURE)
            require(known, "show", f"a file called {PAGE} or {PICTURE}", shown(self.show))
        check_ways(self.outputs, self.inputs)

    @property
    def show_suffix(self) -> str:
        """That of the file to be shown; empty where there is none."""
        return Path(self.show or "").suffix.lower()

    @property
    def outputs(self) -> list[Output]:
        outputs = super().outputs
        if self.show is not None:
            from bottlenecks.photos.sheet import CARDS_MARKER  # and with it Pillow

            generator = f'<meta name="generator" content="{GENERATOR}">'
            marker = CARDS_MARKER if self.show_suffix == PICTURE else generator.encode()
            outputs.append(Output("show", self.show, marker=marker))
        return outputs

    def check_outputs(self) -> None:
        """Raise `OutputError` where an output cannot be written, or replaces what is not ours."""
        check_writable(self.outputs)
