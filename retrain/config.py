"""The settings of both stages: one frozen dataclass that the flags are made from."""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

import bottlenecks.config
from bottlenecks.command import flag
from bottlenecks.config import require
from bottlenecks.errors import UsageError, shown
from bottlenecks.outputs import Output, check_ways, check_writable
from retrain import graph_spec

SUMMARIES = ("train", "validation")  # sub-folders of --summaries_dir
LEARNING_RATES = {"adam": 0.001, "classic": 0.01}  # of each recipe
CLASS_BALANCES = ("none", "weights", "sampling")
DATA_HEALTH_FILE = "data_health.csv"
REPORT_FILE, METRICS_FILE = "report.html", "metrics.json"
PLOTS = ("accuracy", "cross_entropy", "confusion", "calibration")  # PNG files of the report
# What the files that the user does not name have near their start: others are not replaced.
MARKERS = {
    DATA_HEALTH_FILE: b"kind,path,label,set,score,other,other_label,other_set\n",
    REPORT_FILE: b'<meta name="generator" content="retrain">',
    METRICS_FILE: b'{\n  "settings": {\n',
    **{f"{plot}.png": b"Software\0retrain" for plot in PLOTS},
}
_FILES = ("output_graph", "output_labels")
# Flags of retrain.py that do nothing yet: using one is an error, not a silent pass.
_NOT_YET = (
    *("flip_left_right", "random_crop", "random_scale", "random_brightness"),
    *("intermediate_output_graphs_dir", "intermediate_store_frequency", "saved_model_dir"),
)


@dataclass(frozen=True, kw_only=True)
class Config(bottlenecks.config.Config):
    """What `retrain.train` is to do. Raises `UsageError` for values that cannot be."""

    output_graph: str = flag("retrained_graph.pb", "where to write the graph", metavar="FILE")
    output_labels: str = flag("retrained_labels.txt", "where to write the labels", metavar="FILE")
    summaries_dir: str | None = flag(
        None, "write TensorBoard event files below this folder", metavar="DIR"
    )
    how_many_training_steps: int = flag(4000, "training steps", metavar="N")
    recipe: str = flag(
        "adam",
        "adam, or classic: plain gradient descent as in retrain.py",
        choices=tuple(LEARNING_RATES),
        metavar="|".join(LEARNING_RATES),
    )
    learning_rate: float | None = flag(
        None, "size of the first steps (default: 0.001, for classic 0.01)", metavar="RATE"
    )
    patience: int = flag(
        0,
        "stop when this many steps have not lowered the validation loss; 0 for never",
        metavar="N",
    )
    tune: bool = flag(
        False,
        "search the strength of the regularisation thoroughly, by cross-validation (small folders: "
        "always, but on fewer images)",
    )
    class_balance: str = flag(
        "none",
        "make up for labels with few images: weigh images, or sample labels evenly",
        choices=CLASS_BALANCES,
        metavar="|".join(CLASS_BALANCES),
    )
    calibrate: bool = flag(
        False, "scale the scores so that 0.9 is right nine times in ten (on the validation set)"
    )
    testing_percentage: int = flag(10, "share of the images to test on", metavar="PERCENT")
    validation_percentage: int = flag(10, "share of the images to validate on", metavar="PERCENT")
    group_by: str | None = flag(
        None,
        "photos that belong together share a set: a regular expression that finds the group's "
        "name in label/filename, or a CSV file with the columns path,group",
        metavar="PATTERN|CSV",
    )
    eval_step_interval: int = flag(10, "steps between two evaluations", metavar="N")
    train_batch_size: int = flag(100, "images in a training step", metavar="N")
    test_batch_size: int = flag(-1, "images in the final test; -1 for all", metavar="N")
    validation_batch_size: int = flag(
        100, "images in an evaluation while training; -1 for all", metavar="N"
    )
    report_dir: str | None = flag(
        None, "write report.html, its plots and metrics.json into this folder", metavar="DIR"
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
    print_misclassified_test_images: bool = flag(False, "list the test images it got wrong")
    final_tensor_name: str = flag(
        graph_spec.FINAL_NODE, "name of the output in the graph", metavar="NAME"
    )
    flip_left_right: bool = flag(False, "(not available yet)")
    random_crop: int = flag(0, "(not available yet)", metavar="PERCENT")
    random_scale: int = flag(0, "(not available yet)", metavar="PERCENT")
    random_brightness: int = flag(0, "(not available yet)", metavar="PERCENT")
    intermediate_output_graphs_dir: str | None = flag(None, "(not available yet)", metavar="DIR")
    intermediate_store_frequency: int = flag(0, "(not available yet)", metavar="N")
    saved_model_dir: str | None = flag(None, "(not available yet)", metavar="DIR")
    architecture: str = flag("inception_v3", "only inception_v3", metavar="NAME")
    seed: int = flag(0, "same seed, same images, same flags: the same graph", metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _NOT_YET and value != field.default:
                raise UsageError(f"--{field.name} is not available yet; leave it out")
            if choices := field.metadata.get("choices"):
                require(value in choices, field.name, " or ".join(choices), value)
        if self.architecture != "inception_v3":
            raise UsageError(
                "--architecture must be inception_v3, the only network this program has. "
                f"Received: {shown(self.architecture)}"
            )
        for name in ("how_many_training_steps", "eval_step_interval", "train_batch_size"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("test_batch_size", "validation_batch_size"):
            value = getattr(self, name)
            require(value >= 1 or value == -1, name, "at least 1, or -1 for all", value)
        rate = self.learning_rate
        require(rate is None or 0 < rate < float("inf"), "learning_rate", "above 0", rate)
        require(self.patience >= 0, "patience", "at least 0", self.patience)
        folds = self.data_health_folds
        require(folds is None or folds >= 2, "data_health_folds", "at least 2", folds)
        require(0 <= self.seed < 2**32, "seed", "from 0 to 4294967295", self.seed)
        require(self.group_by != "", "group_by", "a regular expression or a CSV file", "nothing")
        if folds is not None and not self.checks_data_health:
            raise UsageError(
                "--data_health_folds does nothing without --data_health or --report_dir; add one, "
                "or leave it out"
            )
        self._check_percentages()
        self._check_recipe()
        self._check_final_tensor_name()
        self._check_ways()

    def _check_recipe(self) -> None:
        if self.recipe == "classic":
            for name in ("tune", "patience"):
                if getattr(self, name):
                    raise UsageError(f"--{name} does nothing with --recipe classic; leave one out")
            require(
                self.class_balance != "weights",
                *("class_balance", "sampling or none with --recipe classic", self.class_balance),
            )
        if not self.validation_percentage:
            for name in ("patience", "calibrate"):
                if getattr(self, name):
                    raise UsageError(f"--{name} needs a --validation_percentage above 0")

    @property
    def checks_data_health(self) -> bool:
        return self.data_health or self.report_dir is not None

    @property
    def data_health_path(self) -> Path:
        """Where the table of data health goes: into the report, else the working folder."""
        return Path(self.report_dir or ".", DATA_HEALTH_FILE)

    @property
    def inputs(self) -> dict[str, str]:
        group_by = os.path.expanduser(self.group_by or "")
        return super().inputs | ({"group_by": group_by} if os.path.isfile(group_by) else {})

    @property
    def outputs(self) -> list[Output]:
        """All files and folders that `train` writes."""
        outputs = [Output(flag, getattr(self, flag)) for flag in _FILES]
        outputs += [
            Output(flag, getattr(self, flag), folder=True)
            for flag in ("summaries_dir", "report_dir", "bottleneck_dir", "model_dir")
            if getattr(self, flag) is not None
        ]
        if self.summaries_dir is not None:
            outputs += [
                Output("summaries_dir", Path(self.summaries_dir, name), folder=True)
                for name in SUMMARIES
            ]
        flag = "data_health" if self.report_dir is None else "report_dir"
        if self.checks_data_health:
            outputs.append(Output(flag, self.data_health_path, marker=MARKERS[DATA_HEALTH_FILE]))
        if self.report_dir is not None:
            names = (REPORT_FILE, METRICS_FILE, *(f"{plot}.png" for plot in PLOTS))
            outputs += [
                Output(flag, Path(self.report_dir, name), marker=MARKERS[name]) for name in names
            ]
        return outputs

    def _check_ways(self) -> None:
        """No file that is written may lie in the way of another file or folder."""
        check_ways(self.outputs, self.inputs)
        if self.report_dir is not None:
            report, images = (Path(os.path.realpath(x)) for x in (self.report_dir, self.image_dir))
            if images in report.parents:
                raise UsageError(
                    f"--report_dir {shown(self.report_dir)} is inside --image_dir, where the next "
                    "run would take its plots for photos; choose another place"
                )

    def _check_percentages(self) -> None:
        for name in ("testing_percentage", "validation_percentage"):
            value = getattr(self, name)
            require(0 <= value < 100, name, "from 0 to 99", value)
        if self.testing_percentage + self.validation_percentage >= 100:
            raise UsageError(
                "--testing_percentage and --validation_percentage must leave images to train on: "
                f"together below 100. Received: {self.testing_percentage} + "
                f"{self.validation_percentage}"
            )

    def _check_final_tensor_name(self) -> None:
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

    def check_outputs(self) -> None:
        """Raise `OutputError` where an output cannot be written, or replaces what is not ours."""
        check_writable(self.outputs)
