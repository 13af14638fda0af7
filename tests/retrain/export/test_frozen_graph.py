"""retrain.export.frozen_graph: a frozen graph that clients of TF 1 can feed in three places."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks.errors import UsageError
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import decode
from retrain.checks.safe_graph import SAFE_OPS
from retrain.config import Config
from retrain.export.frozen_graph import write_pair
from retrain.export.graph import graph_bytes
from retrain.training.head import Head
from tests.conftest import COLOURS, Trained, photo
from tests.standin import StandIn

LABELS = ["daisy", "red roses", "żółta róża", "日本"]
CONTENTS, UNIT, CENTRED = "DecodeJpeg/contents:0", "Placeholder:0", "Mul:0"


def client(graph: bytes) -> Callable[..., Any]:
    """``run(fetches, feeds)`` of a TF 1 client, as in the label_image.py of that time."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(graph)
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph_def, name="")
    run: Callable[..., Any] = tf.compat.v1.Session(graph=loaded).run
    return run


def encoded(image: Image.Image, image_format: str) -> bytes:
    file = BytesIO()
    image.save(file, image_format)
    return file.getvalue()


def photos() -> list[Image.Image]:
    """Upright photos: small, large, tall, and one of a single grey."""
    images = [photo(colour, 1000, (200, 150)) for colour in COLOURS.values()]
    return [*images, photo((90, 120, 30), 7, (420, 580)), Image.new("RGB", (50, 60), (128,) * 3)]


@pytest.fixture(scope="module")
def run(trained: Trained) -> Callable[..., Any]:
    return client(trained.graph.read_bytes())


def test_unit_range_and_centred_pixels_give_what_the_head_gives(
    trained: Trained, run: Callable[..., Any]
) -> None:
    images = trained.dataset.testing.images
    pixels = np.stack([decode(Path(image.path).read_bytes()) for image in images])
    expected = trained.result.head.predict(trained.dataset.testing.x)
    assert len(expected) > 3
    unit = run("final_result:0", {UNIT: pixels / 255.0})
    centred = run("final_result:0", {CENTRED: pixels / 127.5 - 1})
    np.testing.assert_allclose(unit, expected, atol=1e-5)
    np.testing.assert_allclose(centred, expected, atol=1e-5)
    np.testing.assert_allclose(unit.sum(axis=1), 1, atol=1e-6)
    assert unit.shape == (len(images), 3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("i", range(5))
def test_image_bytes_give_the_same_within_a_grey_level(
    run: Callable[..., Any], trained: Trained, image_format: str, i: int
) -> None:
    data = encoded(photos()[i], image_format)
    pixels = decode(data)[np.newaxis]
    from_bytes, logits, fed_back = run(
        ["final_result:0", "final_training_ops/Wx_plus_b/add:0", "Placeholder:0"],
        {CONTENTS: data},
    )
    assert from_bytes.shape == (1, 3)
    assert np.abs(fed_back * 255.0 - pixels).max() < 1.001
    # A grey level is 1/127.5 of each of the network's inputs, which the stand-in only averages.
    exact = run("final_training_ops/Wx_plus_b/add:0", {CENTRED: pixels / 127.5 - 1})
    bound = np.abs(trained.result.head.weights).sum(axis=0) / 127.5
    assert (np.abs(logits - exact) <= bound + 1e-4).all()
    np.testing.assert_array_equal(from_bytes, run("final_result:0", {UNIT: fed_back}))


def test_a_photo_from_its_bytes_is_classified_right(run: Callable[..., Any]) -> None:
    for i, colour in enumerate(COLOURS.values()):
        scores = run("final_result:0", {CONTENTS: encoded(photo(colour, 2000), "JPEG")})
        assert scores.argmax() == i and scores.max() > 0.9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_png_bytes_of_other_modes_are_read(run: Callable[..., Any], mode: str) -> None:
    data = encoded(photos()[0].convert(mode), "PNG")
    assert run("final_result:0", {CONTENTS: data}).shape == (1, 3)


@pytest.fixture(scope="module")
def head() -> Head:
    weights = np.random.default_rng(0).normal(0, 0.01, (2048, 4)).astype(np.float32)
    return Head(weights, np.array([0, 1, 2, 3], np.float32))


@pytest.fixture(scope="module")
def frozen_standin() -> bytes:
    return StandIn().frozen


NAMES = [
    "scores",
    "scores/of.flowers",
    "a//b",
    "scores/",
    ".",
    "1",
    "POOL_3",
    "preprocess_1",
    "retrain",
    "Retrain",
]
COLLIDING = ["MatMul", "Const", "Const_1", "mul", "MUL", "placeholder", "decodejpeg", "pool_3"]


@pytest.mark.parametrize("name", [*NAMES, *COLLIDING])
def test_the_output_has_the_name_asked_for_or_the_name_is_refused(
    name: str, head: Head, frozen_standin: bytes
) -> None:
    try:
        Config(image_dir="Dataset", final_tensor_name=name)
    except UsageError:
        assert name != "scores"
        return
    assert_softmax_named(name, graph_bytes(frozen_standin, head, LABELS, name))


def assert_softmax_named(name: str, graph: bytes) -> None:
    nodes = import_tensorflow().compat.v1.GraphDef.FromString(graph).node
    assert [node.name for node in nodes if node.op == "Softmax"] == [name]


def test_another_name_gives_the_same_numbers(head: Head, frozen_standin: bytes) -> None:
    pixels = np.stack([decode(encoded(image, "PNG")) for image in photos()])
    named = client(graph_bytes(frozen_standin, head, LABELS, "scores"))(
        "scores:0", {UNIT: pixels / 255.0}
    )
    expected = head.predict(StandIn()(pixels))
    np.testing.assert_allclose(named, expected, atol=1e-5)


def test_the_same_head_gives_the_same_bytes(head: Head, frozen_standin: bytes) -> None:
    assert graph_bytes(frozen_standin, head, LABELS) == graph_bytes(frozen_standin, head, LABELS)


def test_the_labels_are_in_the_graph_under_any_prefix(head: Head, frozen_standin: bytes) -> None:
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(graph_bytes(frozen_standin, head, LABELS))
    for prefix, before in (("", ""), (None, "import/"), ("flowers", "flowers/")):
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            tf.import_graph_def(graph_def, name=prefix)
            labels = session.run(f"{before}retrain/labels:0")
            assert not graph.get_tensor_by_name(f"{before}retrain/labels:0").consumers()
        assert [label.decode() for label in labels] == LABELS


def test_write_replaces_both_files(tmp_path: Path) -> None:
    graph, labels = tmp_path / "new" / "graph.pb", tmp_path / "new" / "labels.txt"
    write_pair(graph, b"old", labels, ["a"])
    write_pair(graph, b"new", labels, ["daisy", "żółta róża", "日本"])
    assert graph.read_bytes() == b"new"
    assert labels.read_bytes() == "daisy\nżółta róża\n日本\n".encode()
    assert sorted(os.listdir(graph.parent)) == ["graph.pb", "labels.txt"]


def test_a_failed_write_leaves_the_old_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, labels = tmp_path / "graph.pb", tmp_path / "labels.txt"
    write_pair(graph, b"old", labels, ["old"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_pair(graph, b"new", labels, ["new"])
    assert (graph.read_bytes(), labels.read_bytes()) == (b"old", b"old\n")
    assert len(os.listdir(tmp_path)) == 2


@pytest.fixture(scope="module")
def inception(model_dir: Path) -> InceptionV3:
    return InceptionV3("random", model_dir)


@pytest.fixture(scope="module")
def inception_graph(inception: InceptionV3, head: Head) -> bytes:
    return graph_bytes(inception.frozen, head, LABELS)


def test_all_three_inputs_of_the_real_architecture(
    inception: InceptionV3, head: Head, inception_graph: bytes
) -> None:
    files = [encoded(image, "JPEG") for image in photos()]
    pixels = np.stack([decode(data) for data in files])
    expected = head.predict(inception(pixels))
    run = client(inception_graph)
    nodes = import_tensorflow().compat.v1.GraphDef.FromString(inception_graph).node
    (placeholder,) = [node for node in nodes if node.name == "Placeholder"]
    fetches = [f"{placeholder.input[0]}:0", "final_result:0"]
    for data, own, scores in zip(files, pixels, expected, strict=True):
        in_graph, from_bytes = run(fetches, {CONTENTS: data})
        assert np.abs(in_graph[0] * 255.0 - own).max() < 1.001
        np.testing.assert_allclose(from_bytes, [scores], atol=1e-3)
    unit = run("final_result:0", {UNIT: pixels / 255.0})
    centred = run("final_result:0", {CENTRED: pixels / 127.5 - 1})
    np.testing.assert_allclose(unit, expected, atol=1e-5)
    np.testing.assert_allclose(centred, expected, atol=1e-5)


def test_the_real_architecture_has_only_operations_that_label_image_takes(
    inception_graph: bytes,
) -> None:
    nodes = import_tensorflow().compat.v1.GraphDef.FromString(inception_graph).node
    assert {node.op for node in nodes} <= SAFE_OPS


def test_names_of_the_real_architectures_parts_are_refused_or_kept(
    inception: InceptionV3, head: Head, inception_graph: bytes
) -> None:
    nodes = import_tensorflow().compat.v1.GraphDef.FromString(inception_graph).node
    for name in {node.name.split("/")[0] for node in nodes} - {"final_result"}:
        try:
            Config(image_dir="Dataset", final_tensor_name=name)
        except UsageError:
            continue
        assert_softmax_named(name, graph_bytes(inception.frozen, head, LABELS, name))
