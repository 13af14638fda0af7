"""--allow_any_graph, and graphs as retrain.py made them with MobileNet."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError, UnsafeGraphError
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import decode
from label_image.classifier import Classifier
from label_image.cli import main
from retrain.cli import main as retrain_main
from tests.conftest import COLOURS, Call, assert_one_error_line, make_dataset, photo

tf: Any = import_tensorflow()
v1 = tf.compat.v1
CHANNELS = 64
SIDE = 224


def frozen(value: np.ndarray, name: str) -> Any:
    """A variable as ``convert_variables_to_constants`` leaves it: a constant, and its reading."""
    constant = tf.constant(value.astype(np.float32), name=name)
    reading = tf.identity(constant, name=f"{name}/read")
    near = v1.AttrValue.ListValue(s=[f"loc:@{constant.op.name}".encode()])
    reading.op._set_attr("_class", v1.AttrValue(list=near))
    return reading


def quantised(x: Any, name: str) -> Any:
    low, high = frozen(np.array(-10.0), f"{name}/min"), frozen(np.array(10.0), f"{name}/max")
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, name=name)


def normalised(x: Any, name: str, add: float) -> Any:
    """A batch normalisation that adds ``add``, nearly: ``epsilon`` is that of MobileNet."""
    one, zero = np.ones(CHANNELS), np.zeros(CHANNELS)
    values = {"gamma": one, "beta": add * one, "moving_mean": zero, "moving_variance": one}
    gamma, beta, mean, variance = (
        frozen(value, f"{name}/BatchNorm/{part}") for part, value in values.items()
    )
    return v1.nn.fused_batch_norm(
        x, gamma, beta, mean, variance, epsilon=0.001, is_training=False, name=f"{name}/Fused"
    )[0]


def layers(x: Any, is_quantised: bool = False, norm: Callable[..., Any] = normalised) -> Any:
    """A small MobileNet: scores for the colour that pixels of -1 to 1 have least of."""
    full = np.zeros((3, 3, 3, CHANNELS))
    full[1, 1, range(3), range(3)] = 1
    depthwise = np.zeros((3, 3, CHANNELS, 1))
    depthwise[1, 1] = 1
    kernel = frozen(full, "MobilenetV1/Conv2d_0/weights")
    if is_quantised:
        kernel = quantised(kernel, "MobilenetV1/Conv2d_0/weights_quant/FakeQuantWithMinMaxVars")
    x = tf.nn.relu6(norm(tf.nn.conv2d(x, kernel, 2, "SAME"), "MobilenetV1/Conv2d_0", 1.0))
    kernel = frozen(depthwise, "MobilenetV1/Conv2d_1_depthwise/depthwise_weights")
    x = v1.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    x = tf.nn.relu6(norm(x, "MobilenetV1/Conv2d_1_depthwise", 0.0))
    if is_quantised:
        x = quantised(x, "MobilenetV1/Conv2d_1_depthwise/act_quant/FakeQuantWithMinMaxVars")
    x = tf.nn.avg_pool2d(x, x.shape[1], 1, "VALID", name="MobilenetV1/Logits/AvgPool_1a")
    x = tf.squeeze(x, [1, 2], name="MobilenetV1/Predictions/Reshape")
    x = v1.placeholder_with_default(x, (None, CHANNELS), name="input/BottleneckInputPlaceholder")
    weights = frozen(-20 * np.eye(CHANNELS, 3), "final_training_ops/weights/final_weights")
    return tf.nn.softmax(x @ weights, name="final_result")


def of_retrain(batch: int | None, is_quantised: bool = False) -> Callable[[], None]:
    def build() -> None:
        x = v1.placeholder(tf.float32, (batch, SIDE, SIDE, 3), name="input")
        layers(x, is_quantised)

    return build


@contextlib.contextmanager
def control_flow_of_2017() -> Iterator[None]:
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()


def of_hub() -> None:
    """As of a module with a choice for the training: Switch and Merge by a default."""
    x = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="Placeholder")
    with control_flow_of_2017(), tf.name_scope("module_apply_default"):
        is_training = v1.placeholder_with_default(False, (), name="is_training")

        def norm(x: Any, name: str, add: float) -> Any:
            return v1.cond(is_training, lambda: 100 * x, lambda: normalised(x, name, add))

        scores = layers(2 * x - 1, norm=norm)
    tf.identity(scores, name="final_result")


def loops() -> None:
    """Something that counts to 3 on its way."""
    x = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="Placeholder")
    with control_flow_of_2017():
        three = v1.while_loop(lambda i: i < 3, lambda i: i + 1, [tf.constant(0.0)])
    layers((2 * x - 1) * three / 3)


def calls_a_function() -> None:
    x = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="Placeholder")
    layers(tf.function(lambda x: 2 * x - 1)(x))


def noisy() -> None:
    """As a training graph's dropout."""
    x = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="Placeholder")
    layers(2 * x - 1 + tf.random.uniform((1, SIDE, SIDE, 3), maxval=1e-9))


SAFE = {
    "one photo at once": of_retrain(1),
    "any number": of_retrain(None),
    "quantised": of_retrain(1, is_quantised=True),
}
UNLISTED = {"hub": of_hub, "loop": loops, "function": calls_a_function, "random": noisy}
AS_TENSORFLOW = {"input_mean": 127.5, "input_std": 127.5}


def write(folder: Path, build: Callable[[], None]) -> tuple[Path, Path]:
    """The graph of ``build`` and its labels."""
    with tf.Graph().as_default() as graph:
        build()
    graph_path, labels_path = folder / "mobilenet.pb", folder / "mobilenet.txt"
    graph_path.write_bytes(graph.as_graph_def().SerializeToString())
    labels_path.write_text("".join(f"{label}\n" for label in COLOURS))
    return graph_path, labels_path


def scores_of_tensorflow(
    graph: Path, pixels: np.ndarray, name: str, mean: float, std: float
) -> Any:
    """What TensorFlow's label_image.py gives for one photo."""
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(v1.GraphDef.FromString(graph.read_bytes()))
    operations = [imported.get_operation_by_name(f"import/{n}") for n in (name, "final_result")]
    source, output = (operation.outputs[0] for operation in operations)
    with v1.Session(graph=imported) as session:
        fed = (pixels[np.newaxis].astype(np.float32) - mean) / std
        return np.squeeze(session.run(output, {source: fed}))


@pytest.mark.parametrize("kind", SAFE)
@pytest.mark.parametrize("any_graph", [False, True])
def test_a_mobilenet_of_retrain_py_labels_photos(
    tmp_path: Path, kind: str, any_graph: bool
) -> None:
    graph, labels = write(tmp_path, SAFE[kind])
    classifier = Classifier(graph, labels, allow_any_graph=any_graph, **AS_TENSORFLOW)
    pixels = [np.asarray(photo(colour, 1, (SIDE, SIDE))) for colour in COLOURS.values()]
    assert [result.label for result in classifier.classify(pixels)] == list(COLOURS)
    expected = scores_of_tensorflow(graph, pixels[1], "input", 127.5, 127.5)
    np.testing.assert_allclose(classifier.scores(pixels[1][np.newaxis])[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", UNLISTED)
def test_operations_of_other_programs_are_run_with_the_flag_alone(
    tmp_path: Path, kind: str
) -> None:
    graph, labels = write(tmp_path, UNLISTED[kind])
    with pytest.raises(UnsafeGraphError, match=r"is not loaded; if you trust it, add --allow_any"):
        Classifier(graph, labels)
    classifier = Classifier(graph, labels, allow_any_graph=True)
    pixels = np.stack([np.asarray(photo(c, 1, (SIDE, SIDE))) for c in COLOURS.values()])
    assert [result.label for result in classifier.classify(pixels)] == list(COLOURS)
    expected = scores_of_tensorflow(graph, pixels[1], "Placeholder", 0, 255)
    np.testing.assert_allclose(classifier.scores(pixels)[1], expected, atol=1e-5)


def test_the_commands_take_the_flag(call: Call, tmp_path: Path) -> None:
    graph, labels = write(tmp_path, of_hub)
    make_dataset(tmp_path / "Dataset", per_label=3)
    files = ["--graph", graph, "--labels", labels]
    asked = ["--input_layer=Placeholder:0", "--output_layer=final_result", "--input_height=224"]
    photos = [tmp_path / "Dataset" / "magenta", *files, *asked]
    assert_one_error_line(call(main, *photos), "mobilenet.pb", "--allow_any_graph")
    result = call(main, *photos, "--allow_any_graph", "--num_top_predictions=1")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("magenta (score = ") == 3
    measured = ["--evaluate", "--image_dir", "Dataset", *files]
    assert_one_error_line(call(retrain_main, *measured), "--allow_any_graph")
    assert "100.0%" in call(retrain_main, *measured, "--allow_any_graph").stdout


def of_inception() -> None:
    """Like retrain.py's of 2015, which is fed -1 to 1, but with any size."""
    x = v1.placeholder(tf.float32, (None, None, None, 3), name="Mul")
    tf.nn.softmax(-3 * tf.reduce_mean(x, (1, 2)), name="final_result")


@pytest.mark.parametrize(
    ("asked", "size", "mean", "std"),
    [
        ({}, (299, 299), 127.5, 127.5),
        ({"input_mean": 0}, (299, 299), 0, 127.5),
        ({"input_mean": 0.0, "input_std": 0}, (299, 299), 0, 255),
        ({"input_mean": 128, "input_std": 128}, (299, 299), 128, 128),
        ({"input_height": 0, "input_width": 60}, (299, 60), 127.5, 127.5),
    ],
)
def test_0_means_what_it_means_in_tensorflow_s_label_image(
    tmp_path: Path, asked: dict[str, Any], size: tuple[int, int], mean: float, std: float
) -> None:
    graph, labels = write(tmp_path, of_inception)
    photo(COLOURS["cyan"], 3, (500, 400)).save(tmp_path / "photo.png")
    (result,) = Classifier(graph, labels, **asked).classify(tmp_path / "photo.png")
    pixels = decode((tmp_path / "photo.png").read_bytes(), size)
    expected = scores_of_tensorflow(graph, pixels, "Mul", mean, std)
    found = {guess.label: guess.score for guess in result.ranking}
    np.testing.assert_allclose([found[label] for label in COLOURS], expected, atol=1e-5)


def test_the_output_that_tensorflow_s_label_image_takes_is_found(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="input")
        brightest = tf.nn.softmax(tf.reduce_mean(x, (1, 2)), name="another")
        darkest = tf.nn.softmax(-brightest, name="InceptionV3/Predictions/Softmax")
        tf.reshape(darkest, (-1, 3), name="InceptionV3/Predictions/Reshape_1")

    (result,) = Classifier(*write(tmp_path, build)).classify(photo(COLOURS["cyan"], 0))
    assert result.label == "cyan"


def test_a_graph_that_is_trusted_and_broken_is_one_line(tmp_path: Path) -> None:
    graph, labels = write(tmp_path, noisy)
    graph_def = v1.GraphDef.FromString(graph.read_bytes())
    next(node for node in graph_def.node if node.op == "RandomUniform").op = "ZeroExtra"
    graph.write_bytes(graph_def.SerializeToString())
    with pytest.raises(GraphError, match=r"mobilenet\.pb: .*ZeroExtra") as caught:
        Classifier(graph, labels, allow_any_graph=True)
    assert "--allow_any_graph" not in str(caught.value)
