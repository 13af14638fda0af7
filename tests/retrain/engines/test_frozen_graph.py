"""retrain.engines.frozen_graph: reads frozen graphs and labels, refuses what is not or not safe."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError, UnsafeGraphError
from bottlenecks.network.tensorflow import import_tensorflow
from label_image.classifier import Classifier
from retrain.checks.reading import read_labels
from retrain.checks.safe_graph import MAX_NODES
from retrain.engines.engine import Engine
from retrain.engines.frozen_graph import find_input, find_output, read, read_graph
from retrain.engines.settings import GraphSettings
from retrain.export.frozen_graph import write_pair
from retrain.export.graph import graph_bytes
from retrain.training.head import Head
from tests.conftest import COLOURS, Trained, photo
from tests.standin import StandIn


def engine(graph: Path, labels: Path | str | None = None) -> Engine:
    return Engine(GraphSettings(graph=str(graph), labels=None if labels is None else str(labels)))


def write_labels(folder: Path, data: bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(data)
    return path


def write_graph(folder: Path, build: Callable[[Any], object]) -> Path:
    """A frozen graph of what ``build(tf)`` makes."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        build(tf)
    path = folder / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


# labels


@pytest.mark.parametrize(
    "data",
    [
        b"daisy\nred roses\n",
        b"daisy\nred roses",  # no newline at the end
        b"daisy\r\nred roses\r\n",  # edited on Windows
        b"\xef\xbb\xbfdaisy\r\nred roses\r\n",  # in Notepad
    ],
)
def test_labels_are_read(tmp_path: Path, data: bytes) -> None:
    assert read_labels(write_labels(tmp_path, data)) == ["daisy", "red roses"]


def test_labels_of_other_scripts_and_odd_line_separators_stay_whole(tmp_path: Path) -> None:
    labels = ["żółta róża", "日本", "a\u2028b", "c\x0bd"]
    data = "".join(f"{label}\n" for label in labels).encode()
    assert read_labels(write_labels(tmp_path, data)) == labels


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"daisy\n\nroses\n", b"daisy\nroses\n\n", b"\r\ndaisy\r\n", b"a\0b\nc\n"],
)
def test_labels_that_are_empty_or_have_empty_lines(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(GraphError, match=r"labels\.txt (is empty|have empty lines)"):
        read_labels(write_labels(tmp_path, data))


def test_labels_that_are_binary(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(GraphError, match=r"labels\.txt are no UTF-8 text"):
        read_labels(write_labels(tmp_path, trained.graph.read_bytes()[:5_000]))


# files


@pytest.mark.parametrize(("read", "flag"), [(read_labels, "--labels"), (read_graph, "--graph")])
def test_a_missing_file_or_a_folder(
    tmp_path: Path, read: Callable[[Path], object], flag: str
) -> None:
    with pytest.raises(GraphError, match=f"missing does not exist.*{flag}"):
        read(tmp_path / "missing")
    with pytest.raises(GraphError, match=f"is no file.*{flag}"):
        read(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"daisy\nroses\n", bytes(range(256)) * 20, b"\x89HDF\r\n\x1a\n" + bytes(100), b"\xff"],
)
def test_a_file_that_is_no_graph(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "graph.pb").write_bytes(data)
    with pytest.raises(GraphError, match=r"graph\.pb.*--graph"):
        read_graph(tmp_path / "graph.pb")


def test_a_graph_cut_short(tmp_path: Path, trained: Trained) -> None:
    data = trained.graph.read_bytes()
    (tmp_path / "graph.pb").write_bytes(data[: len(data) // 2])
    with pytest.raises(GraphError, match="no TensorFlow graph"):
        read_graph(tmp_path / "graph.pb")


def test_the_graph_of_a_training_run(trained: Trained) -> None:
    nodes = {node.name for node in read_graph(trained.graph).node}
    assert {"DecodeJpeg/contents", "Placeholder", "Mul", "final_result"} <= nodes


@pytest.fixture
def endless(tmp_path: Path) -> dict[str, Path]:
    """What must not be read: a pipe that nobody writes to, a device without end, a hole of 3 GB."""
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(3 * 10**9)
    return {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "hole": tmp_path / "hole"}


@pytest.mark.parametrize(("read", "flag"), [(read_labels, "--labels"), (read_graph, "--graph")])
@pytest.mark.parametrize(
    ("kind", "problem"), [("pipe", "no file"), ("device", "no file"), ("hole", "3000 MB, at most")]
)
def test_what_is_endless_or_huge_is_not_read(
    endless: dict[str, Path], read: Callable[[Path], object], flag: str, kind: str, problem: str
) -> None:
    with pytest.raises(GraphError, match=f"{endless[kind]} .*{problem}.*{flag}"):
        read(endless[kind])


@pytest.mark.parametrize("data", [b"a\n" * (2**18 + 1), b"a\n" + b"b" * 1001])
def test_labels_that_no_graph_can_have(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(GraphError, match=r"labels\.txt have .* at most .*--labels"):
        read_labels(write_labels(tmp_path, data))


# the labels that the graph carries


def write_carried(folder: Path, labels: Sequence[str]) -> Path:
    """A graph of the export, of a head of one number for each label."""
    head = Head(np.zeros((2048, len(labels)), np.float32), np.zeros(len(labels), np.float32))
    path = folder / "graph.pb"
    path.write_bytes(graph_bytes(StandIn().frozen, head, labels))
    return path


def without_labels(graph: Path, path: Path) -> Path:
    """A copy of the graph as it was before it carried labels."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(graph.read_bytes())
    graph_def.node.remove(next(node for node in graph_def.node if node.name == "retrain/labels"))
    path.write_bytes(graph_def.SerializeToString())
    return path


def test_labels_of_another_graph_are_refused(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(GraphError, match=r"line 2 is 'mauve', in the graph it is 'magenta'.*--lab"):
        engine(trained.graph, write_labels(tmp_path, b"cyan\nmauve\nyellow\n"))
    with pytest.raises(GraphError, match="line 1 is 'yellow'"):
        engine(trained.graph, write_labels(tmp_path, b"yellow\nmagenta\ncyan\n"))


def test_a_graph_without_labels_takes_those_of_the_file(tmp_path: Path, trained: Trained) -> None:
    graph = without_labels(trained.graph, tmp_path / "old.pb")
    labels = write_labels(tmp_path, b"cyan\nmauve\nyellow\n")
    assert engine(graph, labels).labels == ["cyan", "mauve", "yellow"]


def test_a_run_killed_between_the_two_renames_gives_no_wrong_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write_carried(tmp_path, ["daisy", "roses", "tulips"]).read_bytes()
    old = write_carried(tmp_path, ["ants", "bees", "wasps"]).read_bytes()
    graph, labels = tmp_path / "graph.pb", tmp_path / "labels.txt"
    write_pair(graph, old, labels, ["ants", "bees", "wasps"])
    assert engine(graph, labels).labels == ["ants", "bees", "wasps"]
    rename = os.replace
    renamed: list[Path] = []

    def killed(source: Path, target: Path) -> None:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_pair(graph, new, labels, ["daisy", "roses", "tulips"])
    assert (graph.read_bytes() == new, labels.read_text()) == (True, "ants\nbees\nwasps\n")
    with pytest.raises(GraphError, match=r"'ants', in the graph it is 'daisy'.*python -m retrain"):
        engine(graph, labels)


def test_the_graph_s_own_labels_do_where_the_usual_file_is_missing(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine(trained.graph).labels == list(COLOURS)
    with pytest.raises(GraphError, match=r"other\.txt does not exist"):
        engine(trained.graph, "other.txt")
    with pytest.raises(GraphError, match=r"retrained_labels\.txt does not exist"):
        engine(without_labels(trained.graph, tmp_path / "old.pb"))
    (tmp_path / "retrained_labels.txt").write_text("a\nb\nc\n")  # of another graph
    assert engine(trained.graph).labels == list(COLOURS)
    shutil.copy(trained.graph, tmp_path)
    with pytest.raises(GraphError, match="line 1 is 'a'"):
        engine(tmp_path / trained.graph.name)


@pytest.mark.parametrize(
    "labels",
    [["żółta róża", "日本", "e\u0301"], ["x" * 255, "y"], [f"label {i}" for i in range(5000)]],
)
def test_labels_of_all_kinds_are_carried(tmp_path: Path, labels: list[str]) -> None:
    assert read(write_carried(tmp_path, labels)).labels == labels


# unsafe graphs


def reads_a_file(tf: Any) -> object:
    return tf.io.read_file("/etc/passwd")


def writes_a_file(tf: Any) -> object:
    return tf.io.write_file("/tmp/written_by_a_graph", "data")


def calls_python(tf: Any) -> object:
    return tf.compat.v1.py_func(lambda x: x, [tf.constant(1.0)], tf.float32)


def loops(tf: Any) -> object:
    """A loop of TF 1: Enter, Merge, Switch, NextIteration, Exit."""
    tf.compat.v1.disable_control_flow_v2()
    try:
        return tf.compat.v1.while_loop(lambda i: i < 10, lambda i: i + 1, [tf.constant(0)])
    finally:
        tf.compat.v1.enable_control_flow_v2()


def loops_in_functions(tf: Any) -> object:
    return tf.while_loop(lambda i: i < 10, lambda i: i + 1, [tf.constant(0)])


def has_a_variable(tf: Any) -> object:
    return tf.raw_ops.VariableV2(shape=(2,), dtype=tf.float32)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (reads_a_file, "ReadFile"),
        (writes_a_file, "WriteFile"),
        (calls_python, "PyFunc"),
        (loops, "Enter|Merge|Switch|NextIteration|Exit|LoopCond"),
        (loops_in_functions, "While|functions"),
        (has_a_variable, "Variable"),
    ],
)
def test_an_operation_that_has_no_place_in_a_classifier(
    tmp_path: Path, build: Callable[[Any], object], named: str
) -> None:
    with pytest.raises(UnsafeGraphError, match=named):
        read_graph(write_graph(tmp_path, build))


def test_a_library_of_functions(tmp_path: Path) -> None:
    tf = import_tensorflow()

    def twice(x: Any) -> Any:
        return 2 * x

    double = tf.function(twice)

    def build(tf: Any) -> None:
        double(tf.compat.v1.placeholder(tf.float32, (), name="Placeholder"))

    with pytest.raises(UnsafeGraphError, match="functions"):
        read_graph(write_graph(tmp_path, build))


def change_constant(path: Path, *shapes: list[int]) -> None:
    """Let each constant of the graph declare another shape, with the value that it has."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    constants = [node for node in graph_def.node if node.op == "Const"]
    for node, shape in zip(constants, shapes, strict=True):
        tensor_shape = tf.TensorShape(None).as_proto()
        tensor_shape.unknown_rank = False
        for size in shape:
            tensor_shape.dim.add().size = size
        node.attr["value"].tensor.tensor_shape.CopyFrom(tensor_shape)
    path.write_bytes(graph_def.SerializeToString())


@pytest.mark.parametrize("shape", [[2**40], [2**20, 2**20], [2**29]])
def test_a_constant_that_declares_a_huge_shape(tmp_path: Path, shape: list[int]) -> None:
    path = write_graph(tmp_path, lambda tf: tf.constant(1.0))
    change_constant(path, shape)
    with pytest.raises(UnsafeGraphError, match="constant numbers"):
        read_graph(path)


def test_a_negative_shape_does_not_outweigh_a_huge_one(tmp_path: Path) -> None:
    path = write_graph(tmp_path, lambda tf: (tf.constant(1.0), tf.constant(2.0)))
    change_constant(path, [2**40], [-(2**40)])
    with pytest.raises(GraphError, match=r"graph\.pb"):
        engine(path, write_labels(tmp_path, b"a\nb\nc\n"))


def repeat(path: Path, count: int) -> None:
    """Add ``count`` nodes to the graph, each the identity of the one before."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    last = graph_def.node[-1].name
    for _ in range(count):
        added = graph_def.node.add(name=f"n{len(graph_def.node)}", op="Identity", input=[last])
        added.attr["T"].type = tf.float32.as_datatype_enum
        last = added.name
    path.write_bytes(graph_def.SerializeToString())


def test_a_graph_with_very_many_nodes(tmp_path: Path) -> None:
    """As many as are loaded take seconds: with anything quadratic, this test takes minutes."""
    path = write_graph(tmp_path, hub_style)
    repeat(path, MAX_NODES - len(read_graph(path).node))
    labels = write_labels(tmp_path, b"a\nb\nc\n")
    assert engine(path, labels).labels == ["a", "b", "c"]
    repeat(path, 1)
    with pytest.raises(UnsafeGraphError, match=f"{MAX_NODES + 1} nodes; at most {MAX_NODES}"):
        engine(path, labels)


# which tensors


@pytest.fixture
def tf_graph(trained: Trained) -> Any:
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(read_graph(trained.graph), name="")
    return graph


def test_the_usual_tensors_are_found(tf_graph: Any) -> None:
    assert find_input(tf_graph, None).name == "Mul:0"
    assert find_output(tf_graph, None).name == "final_result:0"


@pytest.mark.parametrize("name", ["Placeholder", "Placeholder:0"])
def test_tensors_are_found_by_name(tf_graph: Any, name: str) -> None:
    assert find_input(tf_graph, name).name == "Placeholder:0"


def test_a_wrong_name_lists_what_is_there(tf_graph: Any) -> None:
    with pytest.raises(GraphError, match=r"no tensor input_3.*Placeholder.*--input_layer"):
        find_input(tf_graph, "input_3")
    with pytest.raises(GraphError, match=r"no tensor scores.*final_result.*--output_layer"):
        find_output(tf_graph, "scores")


@pytest.mark.parametrize("name", ["a:b:c", "Mul:7", ":0", "^Mul", " "])
def test_a_name_that_cannot_be_one(tf_graph: Any, name: str) -> None:
    with pytest.raises(GraphError, match="--input_layer"):
        find_input(tf_graph, name)


def test_an_input_of_another_kind(tf_graph: Any) -> None:
    with pytest.raises(GraphError, match=r"string.*--input_layer"):
        find_input(tf_graph, "DecodeJpeg/contents")
    with pytest.raises(GraphError, match=r"float32.*--input_layer"):
        find_input(tf_graph, "final_result")


def test_an_output_of_another_kind(tf_graph: Any) -> None:
    with pytest.raises(GraphError, match=r"string.*--output_layer"):
        find_output(tf_graph, "DecodeJpeg/contents")


# graphs of other programs


def colour_scores(tf: Any, unit_range: Any, name: str) -> Any:
    """Scores for cyan, magenta and yellow: the colour that a photo has least of."""
    return tf.nn.softmax(-20 * tf.reduce_mean(unit_range, axis=(1, 2)), name=name)


def hub_style(tf: Any) -> None:
    pixels = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3), name="Placeholder")
    colour_scores(tf, pixels, "final_result")


def of_2015(tf: Any) -> None:
    pixels = tf.compat.v1.placeholder(tf.float32, (1, 299, 299, 3), name="Mul")
    colour_scores(tf, pixels / 2 + 0.5, "final_result")


def of_2015_flat(tf: Any) -> None:
    """As `of_2015`; the one row of scores has no dimension of its own."""
    pixels = tf.compat.v1.placeholder(tf.float32, (1, 299, 299, 3), name="Mul")
    tf.squeeze(colour_scores(tf, pixels / 2 + 0.5, "softmax"), axis=0, name="final_result")


def of_another_size(tf: Any) -> None:
    pixels = tf.compat.v1.placeholder(tf.float32, (None, 224, 160, 3), name="input")
    colour_scores(tf, pixels, "scores")


@pytest.mark.parametrize("build", [hub_style, of_2015, of_2015_flat, of_another_size])
def test_graphs_of_other_programs_work(tmp_path: Path, build: Callable[[Any], None]) -> None:
    graph = write_graph(tmp_path, build)
    labels = write_labels(tmp_path, b"cyan\nmagenta\nyellow\n")
    paths: list[Path] = []
    for label, colour in 2 * list(COLOURS.items()):
        paths.append(tmp_path / f"{len(paths)} {label}.png")
        photo(colour, len(paths)).save(paths[-1])
    results = list(Classifier(graph, labels).classify(paths))
    assert [result.path for result in results] == list(map(str, paths))
    for path, result in zip(paths, results, strict=True):
        best = result.ranking[0]
        assert path.stem.endswith(best.label)
        assert best.score > 0.95


@pytest.mark.parametrize("shape", [(None, 100_000, 100_000, 3), (10**9, 299, 299, 3)])
def test_a_graph_that_wants_more_memory_than_there_is(
    tmp_path: Path, shape: tuple[int | None, ...]
) -> None:
    def build(tf: Any) -> None:
        colour_scores(tf, tf.compat.v1.placeholder(tf.float32, shape, name="Placeholder"), "s")

    with pytest.raises(GraphError):
        engine(write_graph(tmp_path, build), write_labels(tmp_path, b"a\nb\nc\n"))


def test_a_graph_that_takes_grey_photos(tmp_path: Path) -> None:
    def build(tf: Any) -> None:
        pixels = tf.compat.v1.placeholder(tf.float32, (None, 28, 28, 1), name="Placeholder")
        tf.nn.softmax(tf.reshape(pixels, (-1, 28 * 28))[:, :3], name="final_result")

    with pytest.raises(GraphError):
        engine(write_graph(tmp_path, build), write_labels(tmp_path, b"a\nb\nc\n"))


def test_nodes_that_do_not_fit_together(tmp_path: Path) -> None:
    tf = import_tensorflow()
    path = write_graph(tmp_path, hub_style)
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    graph_def.node[-1].input[0] = "nowhere"
    path.write_bytes(graph_def.SerializeToString())
    with pytest.raises(GraphError, match=r"graph\.pb.*nowhere"):
        engine(path, write_labels(tmp_path, b"a\nb\nc\n"))


def test_float32_is_what_the_scores_of_the_stand_in_are(trained: Trained) -> None:
    scores = engine(trained.graph, trained.labels).scores(np.zeros((2, 299, 299, 3), np.uint8))
    assert scores.dtype == np.float32
    assert scores.shape == (2, 3)
