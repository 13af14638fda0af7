"""Data sets that the tests make, and how they run the commands."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks.builder import BuildReport
from retrain.config import Config
from retrain.data.dataset import Dataset
from retrain.engines.frozen_graph import read_graph
from retrain.export.graph_spec import ABOUT_NODE
from retrain.listener import Listener
from retrain.report.results import TrainingResult
from retrain.trainer import train
from retrain.training.fitting import Evaluation
from tests.standin import StandIn
from tests.top import make_model_with_top

# Equal runs are to give equal bytes, whenever they are.
os.environ["SOURCE_DATE_EPOCH"] = "1609459200"

# A shell may have started this with Ctrl-C ignored, which its children would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"cyan": (0, 200, 200), "magenta": (200, 0, 200), "yellow": (200, 200, 0)}


def photo(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A noisy image of ``colour``; another one for each ``seed``."""
    noise = np.random.default_rng((*colour, seed)).normal(0, 30, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def make_dataset(root: Path, per_label: int = 30) -> Path:
    """``root``/cyan, /magenta, /yellow with ``per_label`` JPEGs each, told apart by colour."""
    for label, colour in COLOURS.items():
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_label):
            photo(colour, i).save(folder / f"{label}_{i:03}.jpg", quality=90)
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """30 images in each of 3 labels."""
    return make_dataset(tmp_path / "Dataset")


@pytest.fixture
def small_dataset(tmp_path: Path) -> Path:
    """4 images in each of 3 labels."""
    return make_dataset(tmp_path / "Dataset", per_label=4)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the frozen network of ``--weights random`` for all tests of a run."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def model_with_top() -> Any:
    """Keras' InceptionV3 with a top of 5 labels."""
    return make_model_with_top()


@pytest.fixture(scope="session")
def weights_with_top(model_with_top: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights file, in the format in which ImageNet's are published."""
    path = tmp_path_factory.mktemp("weights") / "top.h5"
    model_with_top.save(path)
    return path


@pytest.fixture(scope="session")
def real_weights() -> str:
    """A real InceptionV3 weights file, named by RETRAIN_TEST_WEIGHTS; else the test is skipped."""
    path = os.environ.get("RETRAIN_TEST_WEIGHTS", "")
    if not path:
        pytest.skip("RETRAIN_TEST_WEIGHTS names no InceptionV3 weights file")
    assert Path(path).is_file(), f"RETRAIN_TEST_WEIGHTS={path} is no file"
    return path


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``python -m ARGS...`` in ``tmp_path``, as a user would.

    ``run("retrain", ...)`` is the real command; ``run("tests.standin", "retrain", ...)`` has the
    stand-in for the network.
    """

    def run_module(
        *arguments: str | Path, cwd: Path = tmp_path, timeout: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment}
        if str(arguments[0]).startswith("tests."):
            env["PYTHONPATH"] = str(ROOT)
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run_module


def assert_one_error_line(result: subprocess.CompletedProcess[str], *mentions: str) -> None:
    """Exit code 2, one ``error:`` line on stderr with ``mentions``, no traceback."""
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for mention in mentions:
        assert mention in errors[0], errors[0]


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Calls a command's ``main`` within this process, in ``tmp_path``; quicker than `run`.

    ``call(main, "--flag", ..., extractor=StandIn())``.
    """

    def call_main(
        main: Callable[..., int], *arguments: str | Path, **options: object
    ) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = main([str(argument) for argument in arguments], **options)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call_main


@dataclass(frozen=True)
class Trained:
    """A classifier of the colour data set with the stand-in, and what the run told on its way."""

    config: Config
    result: TrainingResult
    report: BuildReport
    dataset: Dataset
    evaluations: tuple[Evaluation, ...]

    @property
    def graph(self) -> Path:
        return Path(self.config.output_graph)

    @property
    def labels(self) -> Path:
        return Path(self.config.output_labels)


class Recorder(Listener):
    """Keeps what `retrain.train` tells."""

    def __init__(self) -> None:
        self.reports: list[BuildReport] = []
        self.datasets: list[Dataset] = []
        self.evaluations: list[Evaluation] = []

    def built(self, report: BuildReport) -> None:
        self.reports.append(report)

    def split(self, dataset: Dataset) -> None:
        self.datasets.append(dataset)

    def evaluated(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


def train_colours(folder: Path, **settings: Any) -> Trained:
    """Train with the stand-in on ``folder``/Dataset (made if missing); all output to ``folder``."""
    if not (folder / "Dataset").exists():
        make_dataset(folder / "Dataset")
    config = Config(
        **{
            "image_dir": str(folder / "Dataset"),
            "bottleneck_dir": str(folder / "cache"),
            "model_dir": str(folder / "models"),
            "output_graph": str(folder / "graph.pb"),
            "output_labels": str(folder / "labels.txt"),
            "how_many_training_steps": 200,
            **settings,
        }
    )
    recorder = Recorder()
    result = train(config, extractor=StandIn(), listener=recorder)
    *_, report = recorder.reports  # of a cache that was healed there are two
    (dataset,) = recorder.datasets
    return Trained(config, result, report, dataset, tuple(recorder.evaluations))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One training run for all tests that only look at its result."""
    return train_colours(tmp_path_factory.mktemp("trained"))


def network_of(graph: Path) -> list[bytes]:
    """All nodes of a graph but what made it, which has the flags and the figures of the test."""
    graph_def = read_graph(graph)
    return [node.SerializeToString() for node in graph_def.node if node.name != ABOUT_NODE]
