"""retrain.export.onnx: a model that ONNX's programs can load, equal to the frozen graph."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrain.cli
from bottlenecks.errors import UsageError
from retrain.config import Config
from retrain.engines.frozen_graph import read as read_frozen
from retrain.engines.onnx import read
from retrain.engines.settings import GraphSettings
from tests.conftest import COLOURS, Call, Run, Trained, assert_one_error_line, train_colours
from tests.standin import StandIn
from tests.tiny import Tiny

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tf2onnx", "onnxruntime")),
    reason="tf2onnx or onnxruntime is not installed",
)

OUTPUT = "scores/of.colours"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("onnx")
    path = folder / "new" / "colours.onnx"
    return train_colours(folder, output_onnx=str(path), final_tensor_name=OUTPUT)


@pytest.fixture(scope="module")
def path(exported: Trained) -> Path:
    assert exported.config.output_onnx is not None
    return Path(exported.config.output_onnx)


def load(path: Path) -> Any:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(path)


def shape_of(end: Any) -> list[object]:
    sizes = end.type.tensor_type.shape.dim
    return [size.dim_param or size.dim_value for size in sizes]


def random_pixels(n: int) -> np.ndarray:
    """(n, 299, 299, 3) float32 in [0, 1]."""
    pixels: np.ndarray = np.random.default_rng(n).random((n, 299, 299, 3), np.float32)
    return pixels


def assert_as_frozen(onnx: Path, graph: Path) -> None:
    ours = read(onnx).start(GraphSettings())
    theirs = read_frozen(graph).start(GraphSettings())
    for n in (1, 3):
        pixels = random_pixels(n)
        np.testing.assert_allclose(ours(pixels), theirs(pixels * 2 - 1), atol=1e-5)


def test_the_model_says_how_it_is_fed(path: Path) -> None:
    model = load(path)
    (source,), (output,) = model.graph.input, model.graph.output
    assert (source.name, shape_of(source)) == ("Placeholder", ["n", 3, 299, 299])
    assert (output.name, shape_of(output)) == (OUTPUT, ["n", 3])
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 13)]
    said = {one.key: one.value for one in model.metadata_props}
    assert said["Image.NominalPixelRange"] == "Normalized_0_1"
    assert said["Image.BitmapPixelFormat"] == "Rgb8"


def test_labels_and_what_made_it_are_inside(exported: Trained, path: Path) -> None:
    contents = read(path)
    assert contents.labels == list(COLOURS)
    assert contents.about == read_frozen(exported.graph).about != ""


def test_the_scores_are_those_of_the_frozen_graph(exported: Trained, path: Path) -> None:
    assert_as_frozen(path, exported.graph)


def test_a_fine_tuned_network_is_what_is_written(call: Call, dataset: Path) -> None:
    folder = dataset.parent
    flags = ["--image_dir=Dataset", "--fine_tune_from=mixed7", "--fine_tune_learning_rate=0.002"]
    flags += ["--how_many_training_steps=3", "--output_onnx=tuned.onnx"]
    result = call(retrain.cli.main, *flags, extractor=Tiny())
    assert result.returncode == 0, result.stderr
    contents = read(folder / "tuned.onnx")
    assert '"fine_tuned_from": "mixed7"' in contents.about
    assert load(folder / "tuned.onnx").graph.output[0].name == "final_result"
    assert_as_frozen(folder / "tuned.onnx", folder / "retrained_graph.pb")


def test_equal_runs_give_equal_bytes_and_no_line_of_tf2onnx(
    run: Run, exported: Trained, path: Path
) -> None:
    result = run(
        *("tests.standin", "retrain", "--how_many_training_steps=200", "--output_onnx=c.onnx"),
        *("--image_dir", exported.config.image_dir),
        *("--bottleneck_dir", exported.config.bottleneck_dir, "--model_dir=models"),
        f"--final_tensor_name={OUTPUT}",
        cwd=path.parent,
        PYTHONHASHSEED="1",
    )
    assert result.returncode == 0, result.stderr
    assert (path.parent / "c.onnx").read_bytes() == path.read_bytes()
    assert "c.onnx" in result.stdout
    said = (result.stdout + result.stderr).lower()
    assert not [word for word in ("tf2onnx", "deprecat", "warn", "optimiz") if word in said]


def test_without_the_package_nothing_is_computed(
    call: Call, small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    result = call(retrain.cli.main, "--image_dir=Dataset", "--output_onnx=a.onnx", extractor=Tiny())
    assert_one_error_line(result, "--output_onnx", "pip install tf2onnx onnx")
    assert [path.name for path in small_dataset.parent.iterdir()] == ["Dataset"]


def test_a_model_that_cannot_be_made_leaves_the_graph(
    call: Call, small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError("no such\noperation")

    monkeypatch.setattr("tf2onnx.convert.from_graph_def", fails)
    flags = ["--image_dir=Dataset", "--output_onnx=a.onnx", "--how_many_training_steps=2"]
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert_one_error_line(result, "a.onnx", "no such operation", "the graph and the labels are")
    assert (small_dataset.parent / "retrained_graph.pb").exists()
    assert not (small_dataset.parent / "a.onnx").exists()


def test_it_has_a_place_of_its_own() -> None:
    with pytest.raises(UsageError, match="--output_onnx"):
        config = Config(image_dir="Dataset", output_graph="a", output_onnx="a")
        config.check_outputs()
