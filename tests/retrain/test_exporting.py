"""retrain.exporting: graphs of a head that is still trained."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import OutputError, UsageError
from bottlenecks.photos.decode import decode
from retrain import cli
from retrain.config import Config
from retrain.engines.engine import Engine
from retrain.engines.frozen_graph import read
from retrain.engines.settings import GraphSettings
from retrain.export import onnx, saved_model
from retrain.exporting import classifier_of
from retrain.learning import Learned
from retrain.training.fitting import Trainable, fit_head
from tests.conftest import COLOURS, Call, Trained, network_of, train_colours
from tests.standin import StandIn


def intermediate(folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "how_many_training_steps": 30,
        "intermediate_output_graphs_dir": str(folder),
        "intermediate_store_frequency": 10,
        **settings,
    }


def test_graphs_are_written_every_so_many_steps(tmp_path: Path) -> None:
    graphs = tmp_path / "deep" / "graphs"
    trained = train_colours(tmp_path, **intermediate(graphs))
    assert sorted(os.listdir(graphs)) == [f"intermediate_{step}.pb" for step in (10, 20, 30)]
    heads = {}

    def on_step(step: int, trainable: Trainable) -> None:
        heads[step] = trainable.model().head

    l2 = trained.result.search.l2 if trained.result.search else None
    fit_head(trained.config, trained.dataset, l2, on_step=on_step)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 299, 299, 3), np.uint8)
    for step in (10, 20, 30):
        path = graphs / f"intermediate_{step}.pb"
        about = json.loads(read(path).about)
        assert (about["step"], about["test"]) == (step, None)
        assert about["images"] == trained.result.images
        engine = Engine(GraphSettings(graph=str(path)))
        assert list(engine.labels) == list(COLOURS)
        expected = heads[step].predict(trained_rows(pixels))
        np.testing.assert_allclose(engine.scores(pixels), expected, atol=1e-5)


def trained_rows(pixels: np.ndarray) -> np.ndarray:
    return StandIn()(pixels)


def test_the_graph_of_the_last_step_is_that_of_the_run(tmp_path: Path) -> None:
    trained = train_colours(tmp_path, recipe="classic", **intermediate(tmp_path / "graphs"))
    assert network_of(trained.graph) == network_of(tmp_path / "graphs" / "intermediate_30.pb")
    assert json.loads(read(trained.graph).about)["step"] == 30


def test_they_change_nothing_of_the_run(tmp_path: Path) -> None:
    with_them = train_colours(tmp_path, **intermediate(tmp_path / "graphs"))
    network = network_of(with_them.graph)
    assert network == network_of(train_colours(tmp_path, how_many_training_steps=30).graph)


def test_a_graph_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.replace

    def killed(source: str, target: str) -> None:
        if "intermediate_20" in str(target):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train_colours(tmp_path, **intermediate(tmp_path / "graphs"))
    assert os.listdir(tmp_path / "graphs") == ["intermediate_10.pb"]


def test_photos_to_calibrate_on_are_all_of_the_training_in_the_order_of_the_seed(
    trained: Trained,
) -> None:
    def shown(seed: int) -> list[bytes]:
        config = dataclasses.replace(trained.config, seed=seed)
        learned = Learned(trained.result.head, b"", trained.result.fitted, None, 1.0)
        made = classifier_of(config, StandIn(), trained.dataset, learned, trained.result)
        return [pixels.tobytes() for pixels in made.training_photos()]

    images = trained.dataset.training.images
    of_set = [decode(Path(image.path).read_bytes()).tobytes() for image in images]
    assert shown(1) == shown(1)
    assert shown(1) != shown(2)
    assert sorted(shown(1)) == sorted(shown(2)) == sorted(of_set)


def test_a_format_that_cannot_be_written_costs_no_figures(
    call: Call, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(saved_model, "write", fail)
    flags = ("--how_many_training_steps", "20", "--saved_model_dir", tmp_path / "saved")
    made = call(cli.main, "--image_dir", dataset, *flags, extractor=StandIn())
    assert (made.returncode, made.stderr) == (2, "error: no room\n")
    assert "Final test accuracy" in made.stdout
    assert f"\nWriting SavedModel to {tmp_path / 'saved'}.\n" in made.stdout


def test_a_format_that_cannot_be_written_does_not_keep_the_others_from_it(
    call: Call, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def fail(*_: object) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(saved_model, "write", fail)
    monkeypatch.setattr(onnx, "check", lambda _: None)
    monkeypatch.setattr(onnx, "write", lambda _, settings: written.append(settings.output_onnx))
    flags = ("--saved_model_dir", tmp_path / "saved", "--output_onnx", "a.onnx")
    steps = ("--how_many_training_steps", "20", "--report_dir", tmp_path / "report")
    made = call(cli.main, "--image_dir", dataset, *steps, *flags, extractor=StandIn())
    assert (made.returncode, made.stderr) == (2, "error: no room\n")
    assert written == ["a.onnx"]
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize("name", ["output_graph", "output_labels"])
def test_no_output_is_called_as_an_intermediate_graph(name: str) -> None:
    folder = {"intermediate_output_graphs_dir": "graphs", "intermediate_store_frequency": 2}
    with pytest.raises(UsageError, match=f"--{name} .*intermediate_2.pb is called as one"):
        Config(image_dir="Dataset", **{name: "graphs/intermediate_2.pb"}, **folder)  # type: ignore[arg-type]
    assert Config(image_dir="Dataset", **{name: "graphs/other.pb"}, **folder)  # type: ignore[arg-type]
