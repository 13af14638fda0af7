"""A run with a full cache imports no TensorFlow, and writes what one with it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import retrain.cli
from bottlenecks.network import kept
from bottlenecks.network.inception import FREEZE_VERSION, InceptionV3
from bottlenecks.network.messages import message
from retrain.export.graph import template_in
from tests.conftest import ROOT, Call, make_dataset
from tests.standin import StandIn

HEAVY = (
    "tensorflow",
    "keras",
    "sklearn",
    "scipy",
    "matplotlib",
    "jinja2",
    "retrain.engines.engine",
)
CODE = (
    "import sys, retrain.cli\n"
    "code = retrain.cli.main(sys.argv[1:])\n"
    f"print(code, *sorted({{*{HEAVY}}} & set(sys.modules)), file=sys.stderr)"
)


class Named(StandIn):
    """The stand-in, whose rows go into the cache of InceptionV3 with random weights.

    What it is frozen to need be no graph: nobody parses it.
    """

    frozen = b""

    def __init__(self, extractor: InceptionV3) -> None:
        super().__init__()
        self.fingerprint, self.description = extractor.fingerprint, extractor.description


@pytest.fixture
def flags(tmp_path: Path, call: Call) -> list[str]:
    """Those of a warm run: the cache is full, network and template are kept."""
    make_dataset(tmp_path / "Dataset", per_label=30)
    models = tmp_path / "models"
    flags = ["--image_dir=Dataset", "--bottleneck_dir=cache", "--how_many_training_steps=40"]
    flags += ["--weights=random", f"--model_dir={models}"]
    extractor = InceptionV3("random", models)
    kept.keep(models, f"{FREEZE_VERSION} {extractor.weights.sha256}", b"")
    template_in(models)
    cold = call(retrain.cli.main, *flags, "--output_graph=cold.pb", extractor=Named(extractor))
    assert cold.returncode == 0, cold.stderr
    return flags


def warm(folder: Path, *arguments: str) -> tuple[str, str]:
    """What a run printed, and its exit code with the heavy modules that it imported."""
    result = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return result.stdout, result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "imported"),
    [
        ([], ""),
        (["--summaries_dir=summaries"], ""),
        (["--report_dir=report"], " jinja2 matplotlib"),
        (["--group_by=_0(.)", "--class_balance=weights", "--tune"], ""),
        (["--intermediate_output_graphs_dir=more", "--intermediate_store_frequency=20"], ""),
    ],
)
def test_it_imports_nothing_heavy_that_it_has_no_use_for(
    flags: list[str], tmp_path: Path, more: list[str], imported: str
) -> None:
    printed, loaded = warm(tmp_path, *flags, *more)
    assert "Final test accuracy" in printed
    assert loaded == f"0{imported}"


def test_the_graph_is_the_one_that_tensorflow_makes(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    _, loaded = warm(tmp_path, *flags)
    assert loaded == "0"
    graph = (tmp_path / "retrained_graph.pb").read_bytes()
    (template,) = (tmp_path / "models").glob("graph-*.pb")
    template.unlink()
    assert call(retrain.cli.main, *flags).returncode == 0
    assert (tmp_path / "retrained_graph.pb").read_bytes() == graph
    assert template.exists()
    labels = next(n for n in message("GraphDef").FromString(graph).node if n.name[-6:] == "labels")
    assert list(labels.attr["value"].tensor.string_val) == [b"cyan", b"magenta", b"yellow"]
