"""retrain.engines.saved_model: runs SavedModels as frozen graphs, and refuses what is more."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError, UnsafeGraphError
from bottlenecks.network.tensorflow import import_tensorflow, new_saved_model
from label_image import cli
from retrain.engines.engine import Engine
from retrain.engines.formats import format_of, read
from retrain.engines.saved_model import NAME
from retrain.engines.settings import GraphSettings
from retrain.export import saved_model
from retrain.export.about import About
from retrain.export.classifier import TrainedClassifier
from retrain.export.settings import ExportSettings
from tests.conftest import COLOURS, Call, Trained, assert_one_error_line, photo
from tests.standin import StandIn

ABOUT = About("2020-12-31T23:59:59Z", {"weights": "none"}, "ab", {"training": 3}, None, None, {})


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A SavedModel of retrain."""
    classifier = TrainedClassifier(
        StandIn().frozen, trained.result.head, tuple(COLOURS), ABOUT, "final_result"
    )
    saved_model.write(classifier, ExportSettings(saved_model_dir=str(tmp_path / "saved")))
    return tmp_path / "saved"


def engine(graph: Path, **settings: Any) -> Engine:
    return Engine(GraphSettings(graph=str(graph), **settings))


def change(folder: Path, how: Callable[[Any], object]) -> None:
    """Change what is served in a SavedModel."""
    file = folder / "saved_model.pb"
    saved = new_saved_model()
    saved.ParseFromString(file.read_bytes())
    how(saved.meta_graphs[0])
    file.write_bytes(saved.SerializeToString())


@pytest.mark.parametrize("name", ["", "saved_model.pb"])
def test_it_gives_what_the_frozen_graph_gives(trained: Trained, folder: Path, name: str) -> None:
    assert format_of(folder / name).NAME == NAME
    assert format_of(trained.graph).NAME != NAME
    pixels = np.random.default_rng(0).integers(0, 255, (3, 299, 299, 3), np.uint8)
    ours = engine(folder / name)
    np.testing.assert_allclose(ours.scores(pixels), engine(trained.graph).scores(pixels), atol=1e-6)
    assert list(ours.labels) == list(COLOURS)
    assert json.loads(ours.about) == json.loads(ABOUT.json)


def test_the_content_tells_it_and_not_the_name(folder: Path, tmp_path: Path) -> None:
    (folder / "saved_model.pb").rename(tmp_path / "graph.bin")
    assert engine(tmp_path / "graph.bin").labels == list(COLOURS)


def test_its_other_input_can_be_named(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 299, 299, 3), np.uint8)
    named = engine(folder, input_layer="Mul")
    np.testing.assert_allclose(named.scores(pixels), engine(folder).scores(pixels), atol=1e-5)
    with pytest.raises(GraphError, match="no tensor nowhere"):
        engine(folder, output_layer="nowhere")


# what is not loaded


def refused(call: Call, folder: Path, *mentions: str) -> None:
    """label_image ends with one error line."""
    photo(COLOURS["cyan"], 1).save(folder.parent / "photo.png")
    result = call(cli.main, "--graph", folder, folder.parent / "photo.png")
    assert_one_error_line(result, *mentions)
    assert not result.stdout


def test_a_file_cut_off(call: Call, folder: Path) -> None:
    data = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(data[: len(data) // 2])
    refused(call, folder, "saved_model.pb", "is no SavedModel, or a part of one")


def test_an_empty_folder(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(call, tmp_path / "empty", "empty/saved_model.pb does not exist", "--graph")


def test_a_huge_file(call: Call, folder: Path) -> None:
    with open(folder / "saved_model.pb", "ab") as file:
        file.truncate(3 * 10**9)
    refused(call, folder, "3000 MB")


def test_a_labels_file_of_another_length(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "retrained_labels.txt").write_text("cyan\nmagenta\n")
    refused(call, folder, "it has 2 labels, the graph 3", "2 labels")


def without_signature(meta: Any) -> None:
    del meta.signature_def["serving_default"]


def not_for_serving(meta: Any) -> None:
    meta.meta_info_def.tags[:] = ["train"]


def with_two_inputs(meta: Any) -> None:
    inputs = meta.signature_def["serving_default"].inputs
    inputs["more"].CopyFrom(inputs["image"])


def without_its_output(meta: Any) -> None:
    meta.signature_def["serving_default"].outputs["prediction"].name = "nowhere:0"


def from_image_files(meta: Any) -> None:
    meta.signature_def["serving_default"].inputs["image"].CopyFrom(
        meta.signature_def["classify_bytes"].inputs["images"]
    )


def in_circles(meta: Any) -> None:
    node = next(node for node in meta.graph_def.node if node.name == "Mul")
    node.input[0] = "Mul"


@pytest.mark.parametrize(
    ("how", "mention"),
    [
        (without_signature, "no signature serving_default"),
        (not_for_serving, "no signature serving_default"),
        (with_two_inputs, "2 inputs and 1 outputs"),
        (without_its_output, "no node nowhere"),
        (from_image_files, "operation"),
        (in_circles, "cannot load"),
    ],
)
def test_what_is_not_a_classifier_of_pixels(
    call: Call, folder: Path, how: Callable[[Any], object], mention: str
) -> None:
    change(folder, how)
    refused(call, folder, "saved_model.pb", mention)


def test_an_operation_that_could_do_harm_is_not_run(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    def writes_a_file(meta: Any) -> None:
        tf = import_tensorflow()
        with tf.Graph().as_default() as graph:
            tf.io.write_file(str(tmp_path / "written"), "data")
        meta.graph_def.node.extend(graph.as_graph_def().node)
        output = next(node for node in meta.graph_def.node if node.name == "final_result")
        output.input.append("^WriteFile")

    change(folder, writes_a_file)
    refused(call, folder, "operation WriteFile", "is a program", "--allow_any_graph")
    assert not (tmp_path / "written").exists()


def test_what_the_output_does_not_need_is_not_run_either(folder: Path, tmp_path: Path) -> None:
    """An operation of one's own, for example, that no TensorFlow knows, or one for starting."""

    def knows_more(meta: Any) -> None:
        meta.graph_def.node.add(name="harm", op="OperationOfTheirOwn")
        meta.collection_def["saved_model_main_op"].node_list.value.append("harm")

    change(folder, knows_more)
    os.symlink("/etc", folder / "assets")
    assert engine(folder).labels == list(COLOURS)


# other programs' SavedModels


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A SavedModel with a variable and functions, as TensorFlow 2 and Keras write them."""
    tf = import_tensorflow()
    module = tf.Module()
    module.strength = tf.Variable(-20.0)

    def scores(images: Any) -> Any:
        return {"scores": tf.nn.softmax(module.strength * tf.reduce_mean(images, axis=(1, 2)))}

    spec = tf.TensorSpec((None, 64, 48, 3), tf.float32)
    signature = tf.function(scores, input_signature=[spec]).get_concrete_function()
    tf.saved_model.save(module, str(tmp_path / "foreign"), signatures=signature)
    (tmp_path / "retrained_labels.txt").write_text("".join(f"{label}\n" for label in COLOURS))
    return tmp_path / "foreign"


def test_one_with_variables_is_refused(call: Call, foreign: Path) -> None:
    refused(call, foreign, "StatefulPartitionedCall", "is a program", "--allow_any_graph")


@pytest.mark.parametrize("name", ["", "saved_model.pb"])
def test_one_that_is_trusted_runs(foreign: Path, name: str) -> None:
    with pytest.raises(UnsafeGraphError):
        read(foreign / name)
    contents = read(foreign / name, any_graph=True)
    assert (contents.labels, contents.about) == ([], "")
    program = contents.start(GraphSettings())
    assert program.feeding.size == (64, 48)
    assert program.feeding.classes == 3
    fed = np.stack([np.asarray(photo(c, 9, (48, 64)), np.float32) / 255 for c in COLOURS.values()])
    assert program(fed).argmax(axis=1).tolist() == [0, 1, 2]
    with pytest.raises(GraphError, match=r"has the outputs scores; .*--output_layer"):
        contents.start(GraphSettings(output_layer="nowhere"))


def test_ours_runs_when_it_is_trusted_too(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 299, 299, 3), np.uint8)
    contents = read(folder, any_graph=True)
    assert list(contents.labels) == list(COLOURS)
    found = contents.start(GraphSettings())(pixels.astype(np.float32) / 255)
    np.testing.assert_allclose(found, engine(folder).scores(pixels), atol=1e-5)


def test_one_that_is_trusted_and_broken(foreign: Path) -> None:
    for file in (foreign / "variables").iterdir():
        file.unlink()
    contents = read(foreign, any_graph=True)
    with pytest.raises(GraphError, match="cannot load the SavedModel"):
        contents.start(GraphSettings())


def test_an_evaluation_takes_it(
    run: Callable[..., subprocess.CompletedProcess[str]], folder: Path, small_dataset: Path
) -> None:
    result = run("retrain", "--evaluate", "--image_dir", small_dataset, "--graph", folder)
    assert "Final test accuracy = 100.0% (N=12)" in result.stdout, result.stderr


def test_a_trusted_one_is_the_one_that_was_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("saved_model.pb", "mine.pb"):
        shutil.copy(folder / "saved_model.pb", other / name)
    settings = GraphSettings(graph=str(other / "mine.pb"), allow_any_graph=True)
    with pytest.raises(GraphError, match="would load another SavedModel"):
        Engine(settings)
