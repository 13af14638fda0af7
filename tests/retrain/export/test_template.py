"""retrain.export.graph: the graph around the network, filled in without TensorFlow."""

import itertools
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.errors import UsageError
from bottlenecks.network import kept
from bottlenecks.network.messages import message
from bottlenecks.network.names import BOTTLENECK_NODE, NETWORK_FILE, TEMPLATE
from bottlenecks.network.tensorflow import import_tensorflow, version
from retrain.export import graph, graph_spec
from retrain.export.decoding import resized
from retrain.export.graph import (
    TEMPLATE_VERSION,
    add_classifier,
    graph_bytes,
    is_template,
    new_template,
    template_in,
    without,
)
from retrain.training.head import Head

NETWORK = b"the network"


def by_tensorflow(head: Head, labels: list[str], name: str, about: str) -> bytes:
    """The whole graph made by TensorFlow, with all that belongs into it."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as whole:
        contents = tf.compat.v1.placeholder(tf.string, (), name=graph_spec.CONTENTS_NODE)
        image = tf.io.decode_jpeg(
            contents, channels=3, dct_method="INTEGER_ACCURATE", name="DecodeJpeg"
        )
        with tf.name_scope(graph_spec.PREPROCESS_SCOPE):
            unit_range = resized(image[tf.newaxis]) / 255.0
        add_classifier(unit_range, head, labels, name, about)
    return NETWORK + without(whole, BOTTLENECK_NODE)


RANDOM = np.random.default_rng(0)
Numbers = dict[str, Callable[[int], np.ndarray]]
WEIGHTS: Numbers = {
    "drawn": lambda classes: RANDOM.normal(0, 1, (2048, classes)),
    "column by column": lambda classes: np.asfortranarray(RANDOM.normal(0, 1, (2048, classes))),
    "all 0": lambda classes: np.zeros((2048, classes)),
    "all equal": lambda classes: np.full((2048, classes), -1.5),
}
BIASES: Numbers = {
    "drawn": lambda classes: RANDOM.normal(0, 1, classes),
    "all 0": lambda classes: np.zeros(classes),
    "all -0": lambda classes: -np.zeros(classes),
    "all equal": lambda classes: np.full(classes, 0.25),
    "not finite": lambda classes: np.r_[np.nan, np.full(classes - 1, np.inf)],
}


@pytest.fixture(scope="module")
def made() -> bytes:
    return new_template()


@pytest.mark.parametrize("classes", [1, 2, 5, 1000])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_bytes_are_those_that_tensorflow_gives(made: bytes, classes: int, weights: str) -> None:
    labels = [f"żółta róża {i}\n日本" for i in range(classes)]
    abouts = ["", '{"flags": {}, "ü": "日本"}']
    for bias, about in itertools.product(BIASES.values(), abouts):
        numbers = WEIGHTS[weights](classes), bias(classes)
        head = Head(*(number.astype(np.float32) for number in numbers))
        own = graph_bytes(NETWORK, head, labels, about=about, template=made)
        assert own == by_tensorflow(head, labels, "final_result", about)


HEAD = Head(RANDOM.normal(0, 1, (2048, 2)).astype(np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "a"], ["", "\0"], ["daisy", "d" * 10_000]])
@pytest.mark.parametrize("name", ["final_result", "scores/of.flowers", "a//b", "Final_Result", "1"])
def test_labels_and_names_too(made: bytes, labels: list[str], name: str) -> None:
    own = graph_bytes(NETWORK, HEAD, labels, name, "about", made)
    assert own == by_tensorflow(HEAD, labels, name, "about")


@pytest.mark.parametrize(
    "name",
    [
        *("Mul", "mul", "preprocess/Round", "PREPROCESS/ROUND", "Placeholder", "DecodeJpeg"),
        *("final_training_ops/Wx_plus_b/Const_1", BOTTLENECK_NODE),
    ],
)
def test_a_name_that_is_taken_is_the_same_error_line(made: bytes, name: str) -> None:
    with pytest.raises(UsageError) as theirs:
        by_tensorflow(HEAD, ["a", "b"], name, "")
    with pytest.raises(UsageError) as own:
        graph_bytes(NETWORK, HEAD, ["a", "b"], name, "", made)
    assert str(own.value) == str(theirs.value)


def test_it_is_made_once_and_kept(
    tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert template_in(tmp_path) == made
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == made
    assert NETWORK_FILE.fullmatch(path.name)  # which no output replaces
    monkeypatch.setattr(graph, "new_template", must_not_make)
    assert template_in(tmp_path) == made


def must_not_make() -> bytes:
    raise AssertionError("it was made again")


def test_another_tensorflow_has_its_own(
    tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    template_in(tmp_path)
    monkeypatch.setattr(graph, "version", lambda: "2.99.0")
    monkeypatch.setattr(graph, "new_template", lambda: made)
    template_in(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_one_is_made_again_with_one_warning(
    tmp_path: Path, made: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    template_in(tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(made)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert template_in(tmp_path) == made
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    assert path.read_bytes() == made


def without_node(name: str) -> bytes:
    graph_def = message("GraphDef").FromString(new_template())
    graph_def.node.remove(next(node for node in graph_def.node if node.name == name))
    return bytes(graph_def.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"no graph", without_node("retrain/labels")])
def test_what_is_no_template_is_made_again_although_its_hash_is_right(
    tmp_path: Path, made: bytes, data: bytes
) -> None:
    assert not is_template(data)
    kept.keep(tmp_path, f"{TEMPLATE_VERSION} {version()}", data, TEMPLATE)
    assert template_in(tmp_path) == made


@pytest.mark.parametrize("place", ["missing", "file/models"])
def test_where_it_cannot_be_kept_it_is_made(tmp_path: Path, made: bytes, place: str) -> None:
    (tmp_path / "file").touch()
    assert template_in(tmp_path / place) == made
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_version_is_that_of_tensorflow_and_known_without_it() -> None:
    code = (
        "import sys; from bottlenecks.network.tensorflow import version; print(version(), "
        "'tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [import_tensorflow().__version__, "False"]
