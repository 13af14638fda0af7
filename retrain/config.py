"""The settings of a run and of an evaluation: those of each concern, put together."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import bottlenecks.config
from bottlenecks.config import PhotoSettings
from bottlenecks.errors import UsageError, shown
from bottlenecks.outputs import check_ways, check_writable
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.settings import flag, require
from retrain.data.settings import SplitSettings
from retrain.data.split import SETS
from retrain.engines.settings import GraphSettings
from retrain.export.settings import ExportSettings
from retrain.report.settings import GENERATORS, ReportSettings, TestSettings
from retrain.training.settings import LEARNING_RATES, FineTuneSettings, TrainingSettings

_ARCHITECTURE = "inception_v3"
ALL = "all"
MEASURED = (*SETS, ALL)  # what an evaluation can be of


@dataclass(frozen=True, kw_only=True)
class Config(
    bottlenecks.config.Config,
    SplitSettings,
    DistortionSettings,
    TrainingSettings,
    FineTuneSettings,
    ReportSettings,
    ExportSettings,
):
    """What `retrain.train` is to do. Raises `UsageError` for values that cannot be."""

    title: ClassVar[str] = "of retrain.py"

    architecture: str = flag(_ARCHITECTURE, f"only {_ARCHITECTURE}", metavar="NAME")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture != _ARCHITECTURE:
            raise UsageError(
                f"--architecture must be {_ARCHITECTURE}, the only network this program has. "
                f"Received: {shown(self.architecture)}"
            )
        if self.recipe not in LEARNING_RATES and self.fine_tune_from is None:
            raise UsageError(
                f"--recipe {self.recipe} is for --fine_tune_from; add it (input, to train the "
                "whole network), or use another recipe"
            )
        _check_ways(self)

    def check_outputs(self) -> None:
        """Raise `OutputError` where an output cannot be written, or replaces what is not ours."""
        check_writable(self.outputs)


@dataclass(frozen=True, kw_only=True)
class MeasureConfig(PhotoSettings, SplitSettings, TestSettings, GraphSettings):
    """What `retrain.measure` is to do. Raises `UsageError` for values that cannot be.

    The flags that say how a run splits its images are for a ``set`` of it.
    """

    title: ClassVar[str] = "with --evaluate"
    generator: ClassVar[str] = GENERATORS["evaluation"]

    set: str | None = flag(
        None,
        "which images are measured: those of a set, as a run with the same flags splits them, or "
        "all (default: all, of a ready-made split those of its test set)",
        choices=MEASURED,
        metavar="|".join(MEASURED),
    )
    seed: int = flag(TrainingSettings.seed, "draws the images of --test_batch_size", metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.seed < 2**32, "seed", "from 0 to 4294967295", self.seed)
        if self.set in (None, ALL):
            for field in fields(SplitSettings):
                if getattr(self, field.name) != field.default:
                    raise UsageError(
                        f"--{field.name} does nothing when all images are measured; add --set "
                        "testing (or another set), or leave it out"
                    )
        _check_ways(self)

    def check_outputs(self) -> None:
        """Raise `OutputError` where an output cannot be written, or replaces what is not ours."""
        check_writable(self.outputs)


def _check_ways(config: Config | MeasureConfig) -> None:
    """No file that is written may lie in the way of another file or folder."""
    check_ways(config.outputs, config.inputs)
    if config.report_dir is not None:
        check_apart_from_photos(config, config.report_dir, "report_dir", "its plots")


def check_apart_from_photos(config: PhotoSettings, path: str, flag: str, what: str = "it") -> None:
    """Raise `UsageError` where ``path`` lies in a folder of photos."""
    parents = Path(os.path.realpath(path)).parents
    for name in ("image_dir", "validation_dir", "test_dir"):
        folder = getattr(config, name)
        if folder is not None and Path(os.path.realpath(folder)) in parents:
            raise UsageError(
                f"--{flag} {shown(path)} is inside --{name}, where the next run would take "
                f"{what} for photos; choose another place"
            )
