"""The settings of what is found and how it is shown."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bottlenecks.errors import UsageError
from bottlenecks.settings import Output, Settings, flag, require

SUMMARIES = ("train", "validation")  # sub-folders of --summaries_dir
DATA_HEALTH_FILE = "data_health.csv"
REPORT_FILE, METRICS_FILE = "report.html", "metrics.json"
CURVES = ("accuracy", "cross_entropy")
PLOTS = (  # PNG files of the report
    *CURVES,
    *(f"fine_tuning_{curve}" for curve in CURVES),
    *("confusion", "calibration"),
)
# What the files that the user does not name have near their start: others are not replaced.
MARKERS = {
    DATA_HEALTH_FILE: b"kind,path,label,set,score,other,other_label,other_set\n",
    METRICS_FILE: b'{\n  "settings": {\n',
    **{f"{plot}.png": b"Software\0retrain" for plot in PLOTS},
}
# An evaluation does not replace the report of a run, nor a run that of an evaluation.
GENERATORS = {"run": "retrain", "evaluation": "retrain --evaluate"}


@dataclass(frozen=True, kw_only=True)
class TestSettings(Settings):
    """What is tested, and where that is written."""

    __test__ = False  # it is not pytest's

    title: ClassVar[str] = "test and report"
    generator: ClassVar[str] = GENERATORS["run"]  # what the page says made it

    report_dir: str | None = flag(
        None,
        "write report.html, its plots and metrics.json into this folder",
        metavar="DIR",
        first=True,
    )
    test_batch_size: int = flag(-1, "images in the final test; -1 for all", metavar="N")
    print_misclassified_test_images: bool = flag(False, "list the test images it got wrong")

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.test_batch_size
        require(size >= 1 or size == -1, "test_batch_size", "at least 1, or -1 for all", size)

    @property
    def outputs(self) -> list[Output]:
        outputs = super().outputs
        if self.report_dir is not None:
            names = (REPORT_FILE, METRICS_FILE, *(f"{plot}.png" for plot in PLOTS))
            generator = f'<meta name="generator" content="{self.generator}">'
            markers = MARKERS | {REPORT_FILE: generator.encode()}
            outputs.append(Output("report_dir", self.report_dir, folder=True))
            outputs += [
                Output("report_dir", Path(self.report_dir, name), marker=markers[name])
                for name in names
            ]
        return outputs


@dataclass(frozen=True, kw_only=True)
class ReportSettings(TestSettings):
    """What is looked for, and where it is written."""

    summaries_dir: str | None = flag(
        None, "write TensorBoard event files below this folder", metavar="DIR"
    )
    print_every_evaluation: bool = flag(
        False, "print a row for every evaluation, not for about 20 of them"
    )
    data_health: bool = flag(
        False,
        "look for copies, wrong labels and outliers, and list them in data_health.csv (also done "
        "for --report_dir, and then written there)",
    )
    data_health_folds: int | None = flag(
        None,
        "parts that the images are dealt into to find wrong labels (default: 5, or as many as "
        "the smallest label has images)",
        metavar="N",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        folds = self.data_health_folds
        require(folds is None or folds >= 2, "data_health_folds", "at least 2", folds)
        if folds is not None and not self.checks_data_health:
            raise UsageError(
                "--data_health_folds does nothing without --data_health or --report_dir; add one, "
                "or leave it out"
            )

    @property
    def checks_data_health(self) -> bool:
        return self.data_health or self.report_dir is not None

    @property
    def data_health_path(self) -> Path:
        """Where the table of data health goes: into the report, else the working folder."""
        return Path(self.report_dir or ".", DATA_HEALTH_FILE)

    @property
    def outputs(self) -> list[Output]:
        outputs = super().outputs
        if self.summaries_dir is not None:
            folder = Path(self.summaries_dir)
            places = (folder, *(folder / name for name in SUMMARIES))
            outputs += [Output("summaries_dir", place, folder=True) for place in places]
        flag = "data_health" if self.report_dir is None else "report_dir"
        if self.checks_data_health:
            outputs.append(Output(flag, self.data_health_path, marker=MARKERS[DATA_HEALTH_FILE]))
        return outputs
