"""Whole runs that fine-tune, with a small network: what is exported, said, kept and refused."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from label_image.cli import main as label_image
from retrain import learning
from retrain.cli import main
from retrain.config import Config
from retrain.report.results import TrainingResult
from retrain.trainer import train
from retrain.training.upper import UpperLayers
from tests.conftest import ROOT, Call, assert_one_error_line, network_of
from tests.tiny import Tiny
from tests.waves import LABELS, make_waves

TUNED = {"fine_tune_from": "mixed7", "fine_tune_epochs": 12, "fine_tune_learning_rate": 0.01}


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, and the cache of all runs of these tests."""
    folder = tmp_path_factory.mktemp("waves")
    make_waves(folder / "Dataset", noise=2.0)
    return folder


def flags(waves: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "image_dir": str(waves / "Dataset"),
        "bottleneck_dir": str(waves / "cache"),
        "model_dir": str(waves / "models"),
        "output_graph": str(folder / "graph.pb"),
        "output_labels": str(folder / "labels.txt"),
        "how_many_training_steps": 200,
        "validation_percentage": 25,
        "testing_percentage": 25,
        **settings,
    }


def as_arguments(settings: dict[str, Any]) -> list[str]:
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in settings.items()
    ]


def trained(waves: Path, folder: Path, **settings: Any) -> TrainingResult:
    return train(Config(**flags(waves, folder, **settings)), extractor=Tiny())


@dataclass(frozen=True)
class Whole:
    """A run of the command, and where its outputs are."""

    folder: Path
    out: str


def command(waves: Path, folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "tests.tiny", "retrain"),
            *as_arguments(flags(waves, folder, **settings)),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def whole(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run whose fine-tuning is taken."""
    folder = tmp_path_factory.mktemp("whole")
    done = command(
        waves,
        folder,
        **TUNED,
        calibrate=True,
        report_dir=folder / "report",
        summaries_dir=folder / "summaries",
    )
    assert done.returncode == 0, done.stderr
    return Whole(folder, done.stdout)


def test_what_is_better_is_exported_and_said(whole: Whole) -> None:
    assert "Fine-tuning lowers the validation loss" in whole.out
    assert "it is exported" in whole.out
    assert re.search(r"test accuracy [\d.]+% -> [\d.]+%, cross-entropy", whole.out)
    assert (whole.folder / "labels.txt").read_text().split() == list(LABELS)


def test_the_exported_graph_has_the_figures_of_the_test(
    whole: Whole, waves: Path, call: Call
) -> None:
    figures = {}
    for name in ("report", "again"):
        if name == "again":
            done = call(
                main,
                f"--image_dir={waves / 'Dataset'}",
                *("--evaluate", "--set=testing", f"--graph={whole.folder / 'graph.pb'}"),
                f"--labels={whole.folder / 'labels.txt'}",
                f"--report_dir={whole.folder / name}",
                *("--validation_percentage=25", "--testing_percentage=25"),
            )
            assert done.returncode == 0, done.stderr
        metrics = json.loads((whole.folder / name / "metrics.json").read_text())
        figures[name] = metrics["test"]
    for name, figure in figures["report"].items():
        if isinstance(figure, dict) and "value" in figure:
            assert figures["again"][name]["value"] == pytest.approx(figure["value"], abs=1e-4), name


def test_label_image_ranks_with_it(whole: Whole, waves: Path, call: Call) -> None:
    photo = waves / "Dataset" / "long" / "long_000.png"
    given = [f"--graph={whole.folder / 'graph.pb'}", f"--labels={whole.folder / 'labels.txt'}"]
    done = call(label_image, *given, photo)
    assert done.returncode == 0, done.stderr
    scores = [float(score) for score in re.findall(r"score = ([\d.]+)", done.stdout)]
    assert sum(scores) == pytest.approx(1, abs=1e-4)
    assert len(scores) == 3


def test_the_report_the_metrics_and_tensorboard_have_it(whole: Whole) -> None:
    page = (whole.folder / "report" / "report.html").read_text()
    assert "ine-tuning" in page
    metrics = json.loads((whole.folder / "report" / "metrics.json").read_text())
    assert metrics["fine_tuning"]["is_exported"] is True
    steps = steps_of_summaries(whole.folder / "summaries")
    assert max(steps) > 200  # behind those of the head


def steps_of_summaries(folder: Path) -> list[int]:
    from tensorflow.core.util.event_pb2 import Event
    from tensorflow.python.lib.io.tf_record import tf_record_iterator

    files = [path for path in folder.rglob("*tfevents*") if path.is_file()]
    return [Event.FromString(r).step for path in files for r in tf_record_iterator(str(path))]


def test_what_is_not_better_is_not_exported(waves: Path, tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "both").mkdir()
    own = {**TUNED, "fine_tune_epochs": 2, "fine_tune_learning_rate": 5.0}
    done = command(waves, tmp_path / "both", **own, report_dir=tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "Fine-tuning does not lower the validation loss" in done.stdout
    assert "the head alone is exported" in done.stdout
    trained(waves, tmp_path / "head")
    graphs = [network_of(tmp_path / name / "graph.pb") for name in ("head", "both")]
    assert graphs[0] == graphs[1]
    assert "ine-tuning" in (tmp_path / "report" / "report.html").read_text()


def test_the_whole_network_can_be_trained(tmp_path: Path) -> None:
    make_waves(tmp_path / "Dataset", per_label=8)
    result = trained(tmp_path, tmp_path, **{**TUNED, "fine_tune_from": "input"}, batch_size=8)
    assert result.fine_tuned is not None
    assert (tmp_path / "graph.pb").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"validation_percentage": 0},
        {"testing_percentage": 0},
        {"validation_percentage": 0, "testing_percentage": 0},
        {"class_balance": "weights"},
        {"class_balance": "sampling", "calibrate": True},
        {"patience": 20},
        {"recipe": "inception"},
        {"flip_left_right": True},
        {"random_brightness": 10, "random_scale": 10},
        {"strategy": "mirrored"},
    ],
    ids=str,
)
def test_it_goes_together_with(settings: dict[str, Any], tmp_path: Path) -> None:
    make_waves(tmp_path / "Dataset", per_label=12)
    result = trained(tmp_path, tmp_path, fine_tune_from="mixed7", fine_tune_epochs=2, **settings)
    assert result.fine_tuned is not None
    if settings.get("validation_percentage") == 0:
        assert result.fine_tuned.is_taken
        assert result.fine_tuned.loss is None
    assert (result.test is None) == (settings.get("testing_percentage") == 0)
    assert result.fine_tuned.fitted.steps == 2 * result.fine_tuned.steps_in_epoch
    assert (tmp_path / "graph.pb").exists()


def test_rows_of_the_cut_are_in_memory_up_to_what_the_documentation_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def asking(*arguments: Any) -> None:
        asked.append(arguments[5])
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "rows_at", asking)
    make_waves(tmp_path / "Dataset", per_label=8)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, tmp_path, fine_tune_from="mixed7")
    (most,) = asked
    assert most is not None
    documented = (ROOT / "docs" / "fine_tuning.md").read_text()
    assert f"beyond {most / 1e6:.0f} MB rows are read from the disk" in documented


def test_the_layers_are_trained_in_the_precision_of_the_network(tmp_path: Path) -> None:
    """Which is not that of the flag where the processor has no bfloat16."""
    make_waves(tmp_path / "Dataset", per_label=8)
    own = flags(tmp_path, tmp_path, fine_tune_from="mixed7", fine_tune_epochs=1)
    found = []
    for flag, precision in (("float32",) * 2, ("bfloat16", "float32"), ("bfloat16",) * 2):
        config = Config(**own, precision=flag)
        tuned = train(config, extractor=Tiny(precision=precision)).fine_tuned
        assert tuned is not None
        assert isinstance(tuned.fitted.model, UpperLayers)
        found.append(np.concatenate([array.ravel() for array in tuned.fitted.model.arrays]))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)
    assert np.abs(found[2] - found[0]).max() > 1e-4


class Steps:
    """A run of the command that announces its steps, and takes a while for each."""

    def __init__(self, waves: Path, folder: Path, seconds: float, **settings: Any) -> None:
        arguments = as_arguments(flags(waves, folder, **settings))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tiny", "retrain", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TINY_CHECKPOINTS": str(seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send_at(self, step: int, number: int) -> tuple[int, str, str]:
        """The code, stdout and stderr of a run that got the signal ``number`` after a ``step``."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("step ") and int(line.split()[1]) >= step:
                self.process.send_signal(number)
                break
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, "".join(lines) + out, err


def constants(graph: Path) -> dict[str, np.ndarray]:
    from bottlenecks.network.tensorflow import import_tensorflow

    tf = import_tensorflow()
    nodes = tf.compat.v1.GraphDef.FromString(graph.read_bytes()).node
    found = {n.name: tf.make_ndarray(n.attr["value"].tensor) for n in nodes if n.op == "Const"}
    return {name: x for name, x in found.items() if x.dtype == np.float32}


def test_killed_three_times_it_makes_the_graph_of_an_undisturbed_run(
    waves: Path, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    own = {**TUNED, "fine_tune_epochs": 6}  # of three steps
    trained(waves, tmp_path / "whole", **own)
    chance = random.Random(0)
    for low, high in ((1, 5), (6, 10), (11, 15)):
        run = Steps(waves, tmp_path / "killed", 0.1, **own)
        code, _, err = run.send_at(chance.randint(low, high), signal.SIGKILL)
        assert code == -signal.SIGKILL, err
        assert not (tmp_path / "killed" / "graph.pb").exists()
    done = command(waves, tmp_path / "killed", **own)
    assert "going on at step 1" in done.stdout
    one, other = (constants(tmp_path / name / "graph.pb") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    assert not list(waves.glob("cache/*/*.checkpoint"))


def test_an_interruption_says_that_it_can_go_on(waves: Path, tmp_path: Path) -> None:
    own = {**TUNED, "fine_tune_epochs": 5}
    code, _, err = Steps(waves, tmp_path, 0.3, **own).send_at(4, signal.SIGINT)
    assert code == 130
    assert "interrupted; no graph was written" in err
    assert "the same command resumes" in err
    assert not (tmp_path / "graph.pb").exists()
    done = command(waves, tmp_path, **own)
    assert re.search(r"going on at step [4-9] ", done.stdout)


ERRORS: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "an unknown layer": (
        {"fine_tune_from": "mixed77"},
        {},
        ["mixed7", "mixed9, or a layer between them", "mixed77"],
    ),
    "inception without a cut": ({"recipe": "inception"}, {}, ["--fine_tune_from"]),
    "a strategy without a cut": ({"strategy": "mirrored"}, {}, ["--fine_tune_from"]),
    "several workers without TF_CONFIG": (
        {**TUNED, "strategy": "multi_worker"},
        {},
        ["TF_CONFIG", "host:port"],
    ),
    "TF_CONFIG that is no JSON": (TUNED, {"TF_CONFIG": "{"}, ["TF_CONFIG must be as"]),
    "TF_CONFIG that is no object": (TUNED, {"TF_CONFIG": "[1]"}, ["TF_CONFIG must be as"]),
    "TF_CONFIG without a task": (
        TUNED,
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'},
        ["TF_CONFIG must be as"],
    ),
    "TF_CONFIG of a worker that is not there": (
        TUNED,
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'},
        ["TF_CONFIG must be as"],
    ),
    "TF_CONFIG with an address that is none": (
        TUNED,
        {"TF_CONFIG": '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}'},
        ["TF_CONFIG must be as"],
    ),
    "TF_CONFIG with a parameter server": (
        TUNED,
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}'},
        ["other tasks than workers"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_is_one_line_before_anything_is_computed(
    name: str, waves: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, environment, mentions = ERRORS[name]
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    tiny = Tiny()
    own = {**flags(waves, tmp_path, **settings), "bottleneck_dir": tmp_path / "cache"}
    assert_one_error_line(call(main, *as_arguments(own), extractor=tiny), *mentions)
    assert tiny.rows == 0
    assert list(tmp_path.iterdir()) == []
