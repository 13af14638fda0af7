"""retrain.engines.openvino: graphs by OpenVINO are as by TensorFlow, which is not imported."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks import machine
from bottlenecks.errors import GraphError, UnsafeGraphError, UsageError
from bottlenecks.network.inception import InceptionV3
from label_image.config import Config
from retrain.engines import lite, openvino
from retrain.engines.engine import Engine
from retrain.engines.frozen_graph import Session
from retrain.engines.openvino import Compiled
from retrain.engines.settings import ENGINES, GraphSettings
from retrain.export.about import About
from retrain.export.classifier import TrainedClassifier
from retrain.export.frozen_graph import write_pair
from retrain.export.saved_model import write as write_saved_model
from retrain.export.settings import ExportSettings
from retrain.training.head import Head
from tests.conftest import photo
from tests.retrain.engines.test_frozen_graph import write_graph

pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="needs openvino")

LABELS = ("cyan", "magenta", "yellow")
Make = Callable[[Any], object]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def engine(graph: Path, which: str = "openvino", **settings: Any) -> Engine:
    return Engine(GraphSettings(graph=str(graph), engine=which, **settings))


def program(engine: Engine) -> type:
    return type(engine._program)


@pytest.fixture(scope="module")
def classifier(model_dir: Path) -> TrainedClassifier:
    """InceptionV3 with a head whose scores are far from alike."""
    network = InceptionV3("random", model_dir).frozen
    about = About("2020-12-31T23:59:59Z", {"weights": "none"}, "ab", {}, None, None, {})
    return TrainedClassifier(network, Head(normal(2048, 3), normal(3)), LABELS, about, "scores")


@pytest.fixture
def graph(classifier: TrainedClassifier, tmp_path: Path) -> Path:
    """A frozen graph of retrain, and its labels."""
    path = tmp_path / "graph.pb"
    write_pair(path, classifier.graph, tmp_path / "labels.txt", LABELS)
    return path


def small(tf: Any, shape: Any = (None, 8, 9, 3), name: str = "Mul", after: Any = None) -> None:
    x = tf.compat.v1.placeholder(tf.float32, shape, name=name)
    y = tf.nn.relu(tf.nn.conv2d(x, normal(3, 3, 3, 5), 2, "SAME"))
    logits = tf.matmul(tf.reduce_mean(y, (1, 2)), normal(5, 2))
    tf.nn.softmax(logits if after is None else after(logits), name="final_result")


def labels(folder: Path, *names: str) -> str:
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names))
    return str(folder / "names.txt")


# the same scores


@pytest.mark.parametrize("saved", [False, True])
def test_the_scores_of_a_run_are_those_of_tensorflow(
    graph: Path, classifier: TrainedClassifier, saved: bool, tmp_path: Path
) -> None:
    if saved:
        write_saved_model(classifier, ExportSettings(saved_model_dir=str(tmp_path / "saved")))
        graph = tmp_path / "saved"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 299, 299, 3), np.uint8)
    engines = [engine(graph, which) for which in ENGINES]
    assert [*map(program, engines)] == [Compiled, Session, Compiled]
    assert len({each.input_size for each in engines}) == 1
    assert len({tuple(each.labels) for each in engines}) == 1
    by_auto, expected, found = (each.scores(pixels) for each in engines)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found, by_auto)


@pytest.mark.parametrize("name", ["Mul", "Placeholder", "input"])
def test_another_program_s_graph(tmp_path: Path, name: str) -> None:
    path = write_graph(tmp_path, lambda tf: small(tf, name=name))
    pixels = np.random.default_rng(0).integers(0, 255, (5, 8, 9, 3), np.uint8)
    ours, theirs = (
        engine(path, which, labels=labels(tmp_path, "a", "b")) for which in ("auto", "tensorflow")
    )
    assert program(ours) is Compiled
    assert ours._feeding == theirs._feeding
    np.testing.assert_allclose(ours.scores(pixels), theirs.scores(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((4, 8, 9, 3), {}),
        ((None, None, None, 3), {"input_height": 7, "input_width": 6}),
        (None, {"input_height": 7, "input_width": 6, "input_mean": 3.0, "input_std": 0}),
        ((None, 8, 9, 3), {"output_layer": "Softmax:0", "input_layer": "Mul:0"}),
        ((None, 8, 9, 3), {"output_layer": "Relu"}),
    ],
)
def test_shapes_and_names(tmp_path: Path, shape: Any, settings: dict[str, Any]) -> None:
    def make(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, shape, name="Mul")
        y = tf.nn.relu(tf.nn.conv2d(x, normal(3, 3, 3, 5), 1, "SAME"), name="Relu")
        tf.nn.softmax(tf.reduce_mean(y, (1, 2)), name="Softmax")

    path = write_graph(tmp_path, make)
    classes = 8 * 9 * 5 if "Relu" in settings.values() else 5
    settings = settings | {"labels": labels(tmp_path, *classes * "a")}
    ours, theirs = (engine(path, which, **settings) for which in ("openvino", "tensorflow"))
    assert ours._feeding == theirs._feeding
    pixels = np.random.default_rng(0).integers(0, 255, (6, *ours.input_size, 3), np.uint8)
    np.testing.assert_allclose(ours.scores(pixels), theirs.scores(pixels), rtol=0, atol=1e-5)


# which engine


def test_auto_leaves_to_tensorflow_what_is_not_known(tmp_path: Path) -> None:
    path = write_graph(tmp_path, lambda tf: small(tf, after=tf.nn.elu))
    found = engine(path, "auto", labels=labels(tmp_path, "a", "b"))
    assert program(found) is Session
    assert found.scores(np.zeros((1, 8, 9, 3), np.uint8)).shape == (1, 2)
    with pytest.raises(GraphError, match=r"graph\.pb has .*\(Elu\).*leave out --engine openvino"):
        engine(path, labels=labels(tmp_path, "a", "b"))


def test_auto_leaves_to_tensorflow_what_a_gpu_runs(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert program(engine(graph, "auto")) is Session


def test_without_the_package(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not openvino.is_installed()
    assert program(engine(graph, "auto")) is Session
    with pytest.raises(GraphError, match="pip install openvino"):
        engine(graph)


def test_a_folder_of_that_name_is_no_package(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folders" / "openvino").mkdir(parents=True)
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "folders")])
    assert not openvino.is_installed()
    with pytest.raises(GraphError, match="pip install openvino"):
        engine(graph)
    monkeypatch.undo()


@pytest.mark.parametrize("which", ["tensorflow", "openvino"])
def test_a_format_that_has_its_own_takes_no_engine(which: str) -> None:
    settings = GraphSettings(graph="model.tflite", engine=which)
    with pytest.raises(UsageError, match=rf"model\.tflite is in the format LiteRT.*{which}"):
        lite.LiteModel("model.tflite", b"", {}).start(settings)


def test_an_unknown_engine_and_one_for_imagenet() -> None:
    with pytest.raises(UsageError, match="--engine must be auto or tensorflow or openvino"):
        GraphSettings(engine="onnx")
    assert Config(imagenet=True, engine="openvino").engine == "openvino"


def test_label_image_imports_no_tensorflow(graph: Path, tmp_path: Path) -> None:
    photo((200, 0, 200), 0).save(tmp_path / "photo.jpg")
    code = (
        "import sys; from label_image.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'keras', 'h5py', 'sklearn', 'openvino_telemetry'}; "
        "print(heavy & set(sys.modules)); sys.exit(code)"
    )
    line = [sys.executable, "-c", code, "--graph", str(graph), str(tmp_path / "photo.jpg")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4
    assert done.stdout.endswith("set()\n")


def test_an_evaluation_imports_no_tensorflow(
    graph: Path, small_dataset: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from retrain.cli import main; code = main(sys.argv[1:]); "
        "print({'tensorflow', 'keras', 'openvino_telemetry'} & set(sys.modules)); sys.exit(code)"
    )
    line = [sys.executable, "-c", code, "--evaluate", "--graph", str(graph)]
    line += ["--image_dir", str(small_dataset)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("set()\n")


# what is refused


def test_what_is_not_safe_is_refused_without_tensorflow(tmp_path: Path) -> None:
    def make(tf: Any) -> None:
        small(tf)
        tf.io.read_file("/etc/passwd")

    path = write_graph(tmp_path, make)
    for which in ENGINES:
        with pytest.raises(UnsafeGraphError, match="has the operation ReadFile"):
            engine(path, which, labels=labels(tmp_path, "a", "b"))
    found = engine(path, labels=labels(tmp_path, "a", "b"), allow_any_graph=True)
    assert program(found) is Compiled  # of what is between the input and the output alone


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_layer": "nowhere"}, "has no tensor nowhere; name one with --input_layer"),
        ({"output_layer": "nowhere"}, "has no tensor nowhere; name one with --output_layer"),
        ({"input_layer": "Conv2D"}, "is fed at Conv2D, whose shape only TensorFlow can tell"),
        ({"output_layer": "final_result:1"}, "final_result:1, which is not a node's first"),
        ({"output_layer": "Conv2D/filter"}, "gives a constant"),
        ({"input_height": 5}, "the graph takes photos of 8 x 9"),
        ({"labels": None}, "labels"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write_graph(tmp_path, small)
    with pytest.raises(GraphError, match=message):
        engine(path, **{"labels": labels(tmp_path, "a", "b"), **settings})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tf: tf.compat.v1.placeholder(tf.uint8, (1, 8, 9, 3), name="Mul"), "the type 4"),
        (lambda tf: tf.compat.v1.placeholder(tf.float32, (8, 9), name="Mul"), "four dimensions"),
        (lambda tf: small(tf, (999, 8, 9, 3)), "expected"),
        (lambda tf: small(tf, (None, 8192, 9, 3)), "expected float32"),
    ],
)
def test_inputs_that_no_photo_fits(tmp_path: Path, make: Make, message: str) -> None:
    def with_scores(tf: Any) -> None:
        make(tf)
        tf.nn.softmax(normal(1, 2), name="Softmax")

    path = write_graph(tmp_path, with_scores)
    with pytest.raises(GraphError, match=message):
        engine(path, labels=labels(tmp_path, "a", "b"))


def test_weights_that_are_not_finite_are_left_to_tensorflow(tmp_path: Path) -> None:
    """What it does with them is not to be left to chance."""
    broken = normal(2)
    broken[0] = np.nan
    path = write_graph(tmp_path, lambda tf: small(tf, after=lambda x: tf.nn.bias_add(x, broken)))
    with pytest.raises(GraphError, match="not finite"):
        engine(path, labels=labels(tmp_path, "a", "b"))
    with pytest.raises(GraphError, match="scores that are not finite"):
        engine(path, "auto", labels=labels(tmp_path, "a", "b")).scores(
            np.zeros((1, 8, 9, 3), np.uint8)
        )
