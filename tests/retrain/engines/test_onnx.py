"""retrain.engines.onnx: ONNX models of this and of other programs, run or refused."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError
from label_image import cli
from label_image.classifier import Classifier
from retrain.engines import frozen_graph
from retrain.engines.engine import Engine
from retrain.engines.formats import format_of
from retrain.engines.onnx import fits, read
from retrain.engines.settings import GraphSettings
from tests.conftest import COLOURS, ROOT, Call, assert_one_error_line, photo
from tests.onnx_models import (
    Shape,
    colours,
    constant,
    model_of,
    node,
    of_retrain,
    onnx,
    write,
)

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

FIRST: Shape = ("n", 3, 299, 299)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{label}\n" for label in COLOURS))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{label}.png" for label in COLOURS]
    for path, colour in zip(paths, COLOURS.values(), strict=True):
        photo(colour, 7).save(path)
    return paths


def assert_right(model: Any, labels: Path, photos: list[Path], **options: Any) -> None:
    """The model knows the colours, of one photo and of several at once."""
    classifier = Classifier(write(labels.parent, model), labels, **options)
    for some in (photos, photos[:1]):
        results = list(classifier.classify(some))
        assert [result.label for result in results] == [path.stem for path in some]
        assert all(result.score > 0.9 for result in results)


# which file is one


def test_it_is_told_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, colours(FIRST), "graph.pb")
    assert format_of(path).NAME == "ONNX"
    (tmp_path / "graph.onnx").write_bytes(b"\n\x0f\n\x05input\x12\x06Const\x00")
    assert format_of(tmp_path / "graph.onnx") is frozen_graph


@pytest.mark.parametrize("start", [b"", b"\x08", b"\x08\x01\x12\x05", b"\x08\x80\x01", b"\n\x05"])
def test_what_begins_otherwise_is_none(start: bytes) -> None:
    assert not fits("file", start)
    assert not fits("folder", None)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_a_model_cut_short(tmp_path: Path, cut: float) -> None:
    path = write(tmp_path, colours(FIRST))
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(GraphError, match=r"model\.onnx.*--graph"):
        read(path)


# of retrain


def test_tensorflow_is_not_imported(tmp_path: Path, photos: list[Path]) -> None:
    path = write(tmp_path, of_retrain(["cyan", "magenta", "yellow"]))
    code = (
        "import sys, label_image.cli\n"
        "code = label_image.cli.main(sys.argv[1:])\n"
        "print(code, sorted({'tensorflow', 'h5py', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, f"--graph={path}", str(photos[1])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.stderr == ""
    assert result.stdout.startswith("magenta (score = 1.0")
    assert result.stdout.endswith("\n0 []\n")


def test_labels_and_what_made_it_are_read(tmp_path: Path) -> None:
    contents = read(write(tmp_path, of_retrain(["a", "żółta róża"], about='{"date": "2020"}')))
    assert contents.labels == ["a", "żółta róża"]
    assert contents.about == '{"date": "2020"}'
    bare = read(write(tmp_path, colours(FIRST)))
    assert (bare.labels, bare.about) == ([], "")


def test_labels_of_another_model_are_refused(tmp_path: Path, labels: Path) -> None:
    path = write(tmp_path, of_retrain(["cyan", "mauve", "yellow"]))
    with pytest.raises(GraphError, match="line 2 is 'magenta', in the graph it is 'mauve'"):
        Engine(GraphSettings(graph=str(path), labels=str(labels)))


def test_labels_of_another_number_are_refused(tmp_path: Path, labels: Path) -> None:
    labels.write_text("cyan\nmagenta\n")
    path = write(tmp_path, colours(FIRST))
    with pytest.raises(GraphError, match="gives 3 scores for 2 labels"):
        Engine(GraphSettings(graph=str(path), labels=str(labels)))


def test_without_onnx_runtime_it_is_said_what_to_install(
    call: Call, tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, of_retrain(list(COLOURS)))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = call(cli.main, photos[0], f"--graph={path}")
    assert_one_error_line(result, "model.onnx", "pip install onnx onnxruntime")


# of other programs


@pytest.mark.parametrize(
    "shape",
    [
        FIRST,
        (1, 3, 299, 299),
        (2, 3, 64, 48),
        ("n", 299, 299, 3),
        (1, 32, 48, 3),
        ("n", 3, "h", "w"),
        ("n", "c", "h", "w"),
        ("n", "h", "w", 3),
    ],
    ids=str,
)
def test_the_layout_is_found_from_the_shape(shape: Shape, labels: Path, photos: list[Path]) -> None:
    assert_right(colours(shape), labels, photos)


def test_a_size_that_the_model_leaves_open_can_be_chosen(
    tmp_path: Path, labels: Path, photos: list[Path]
) -> None:
    model = colours(("n", 3, "h", "w"))
    assert_right(model, labels, photos, input_height=20, input_width=30)
    settings = GraphSettings(graph=str(tmp_path / "model.onnx"), labels=str(labels))
    assert Engine(settings).input_size == (299, 299)
    fixed = write(tmp_path, colours(FIRST))
    with pytest.raises(GraphError, match=r"takes photos of 299 x 299.*--input_height"):
        Engine(GraphSettings(graph=str(fixed), labels=str(labels), input_height=20))


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [("NominalRange_0_255", 0, 1), ("Normalized_0_1", 0, 255), ("Normalized_1_1", 127.5, 127.5)],
)
def test_the_range_of_the_pixels_is_what_the_model_says(
    said: str, mean: float, std: float, labels: Path, photos: list[Path]
) -> None:
    model = colours(FIRST, mean=mean / 255, std=std / 255)
    onnx.helper.set_model_props(model, {"Image.NominalPixelRange": said})
    assert_right(model, labels, photos)
    del model.metadata_props[:]
    assert_right(model, labels, photos, input_mean=mean, input_std=std)


def test_mul_is_fed_as_retrain_py_s(labels: Path, photos: list[Path]) -> None:
    assert_right(colours(FIRST, "Mul:0", mean=0.5, std=0.5), labels, photos)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"Image.BitmapPixelFormat": "Bgr8"}, "Bgr8"),
        ({"Image.NominalPixelRange": "NominalRange_16_235"}, "NominalRange_16_235.*--input_mean"),
    ],
    ids=str,
)
def test_pixels_that_are_not_fed(said: dict[str, str], named: str, labels: Path) -> None:
    model = colours(FIRST)
    onnx.helper.set_model_props(model, said)
    path = write(labels.parent, model)
    with pytest.raises(GraphError, match=named):
        Engine(GraphSettings(graph=str(path), labels=str(labels)))


def test_inputs_and_outputs_are_found_by_name(labels: Path, photos: list[Path]) -> None:
    model = colours(FIRST, "pixels")
    model.graph.output.append(onnx.ValueInfoProto(name="means"))
    for options in ({}, {"input_layer": "pixels"}, {"input_layer": "pixels:0"}):
        assert_right(model, labels, photos, **options)
    for name in ("scores", "scores:0"):
        assert_right(model, labels, photos, output_layer=name)
    path = write(labels.parent, model)
    for flag, name in (("input_layer", "nope"), ("output_layer", "nope")):
        wrong: dict[str, Any] = {flag: name}
        settings = GraphSettings(graph=str(path), labels=str(labels), **wrong)
        with pytest.raises(GraphError, match=f"no tensor nope; it has .*--{flag}"):
            Engine(settings)


def test_a_value_within_the_model_can_be_the_output(labels: Path) -> None:
    path = write(labels.parent, colours(FIRST))
    settings = GraphSettings(graph=str(path), labels=str(labels), output_layer="logits")
    scores = Engine(settings).scores(np.full((2, 299, 299, 3), 255, np.uint8))
    np.testing.assert_allclose(scores, np.full((2, 3), -20), atol=1e-3)


def test_a_constant_may_be_listed_as_an_input(labels: Path, photos: list[Path]) -> None:
    model = colours(FIRST)
    tensor = model.graph.initializer[0]
    info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    model.graph.input.append(info)
    assert_right(model, labels, photos)


def test_scores_with_dimensions_of_one_behind_them(labels: Path, photos: list[Path]) -> None:
    assert_right(colours(FIRST, keepdims=True), labels, photos)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(("n", 1, 28, 28), 1), (("n", 28, 28, 1), 1), (("n", 3), 1), (FIRST, 10), (FIRST, 2)],
    ids=str,
)
def test_an_input_that_takes_no_photos(shape: Shape, kind: int, labels: Path) -> None:
    model = model_of([node("Flatten", "x", "scores")], shape, source="x", kind=kind)
    path = write(labels.parent, model)
    with pytest.raises(GraphError, match=r"the input x .*expected float32"):
        Engine(GraphSettings(graph=str(path), labels=str(labels)))


def test_two_inputs_cannot_be_fed(labels: Path) -> None:
    model = colours(FIRST)
    model.graph.input.append(onnx.helper.make_tensor_value_info("size", 1, (1,)))
    path = write(labels.parent, model)
    with pytest.raises(GraphError, match=r"2 inputs \(input, size\)"):
        Engine(GraphSettings(graph=str(path), labels=str(labels)))


def test_an_output_that_is_no_score(labels: Path) -> None:
    nodes: Sequence[Any] = [
        node("GlobalAveragePool", "input", "means"),
        node("Cast", "means", "whole", to=onnx.TensorProto.INT64),
    ]
    path = write(labels.parent, model_of(nodes, FIRST, output="whole"))
    with pytest.raises(GraphError, match=r"int64.*--output_layer"):
        Engine(GraphSettings(graph=str(path), labels=str(labels)))


def test_what_onnx_runtime_refuses_is_one_line(
    call: Call, labels: Path, photos: list[Path]
) -> None:
    """Type errors are found by ONNX Runtime alone."""
    nodes = [node("MatMul", "input", "w", "scores")]
    model = model_of(nodes, FIRST, [constant("w", np.ones((299, 3), np.int64))])
    path = write(labels.parent, model)
    result = call(cli.main, photos[0], f"--graph={path}", f"--labels={labels}")
    assert_one_error_line(result, "model.onnx")
    assert len(result.stderr.splitlines()) == 1


# mutations

MUTATE = """
import contextlib, io, sys
from pathlib import Path
import numpy as np
import label_image.cli
model, photo, labels, first, last = sys.argv[1:]
data = Path(model).read_bytes()
for seed in range(int(first), int(last)):
    random = np.random.default_rng(seed)
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        changed[random.integers(2, len(data))] ^= 1 << int(random.integers(8))
    if seed % 5 == 0:
        del changed[random.integers(2, len(data)):]
    Path("changed.onnx").write_bytes(changed)
    print(seed, end=" ", flush=True)
    flags = [photo, "--graph=changed.onnx", "--labels=" + labels]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = label_image.cli.main(flags)
    lines = err.getvalue().splitlines()
    right = code == 0 and not lines and "(score = " in out.getvalue()
    wrong = code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    print("ran" if right else "refused" if wrong else (code, lines))
"""


def mutations() -> int:
    return 1000 if os.environ.get("RETRAIN_SOAK") else 100


def test_a_changed_model_is_an_error_or_works(labels: Path, photos: list[Path]) -> None:
    """No flipped bit and no cut makes it crash, also natively, or say more than a line."""
    nodes = [
        node("Pad", "input", "pads", "padded"),
        node("Conv", "padded", "w", "b", "maps", strides=[8, 8], group=1, dilations=[2, 2]),
        node("Relu", "maps", "active"),
        node("AveragePool", "active", "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", "pooled", "means", axes=[2, 3], keepdims=1),
        node("Reshape", "means", "flat", "logits"),
        node("Softmax", "logits", "scores", axis=-1),
    ]
    constants = [
        constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])),
        constant("w", np.ones((3, 3, 3, 3), np.float32)),
        constant("b", np.ones(3, np.float32)),
        constant("flat", np.array([0, -1])),
    ]
    model = write(labels.parent, model_of(nodes, (1, 3, 64, 64), constants))
    arguments = [str(model), str(photos[0]), str(labels), "0", str(mutations())]
    result = subprocess.run(
        [sys.executable, "-c", MUTATE, *arguments],
        cwd=labels.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, ""), lines[-1:]
    outcomes = [line.partition(" ")[2] for line in lines]
    assert len(outcomes) == mutations()
    assert {"ran", "refused"} == set(outcomes)


def test_more_photos_than_the_model_takes_at_once_have_scores_too(
    tmp_path: Path, labels: Path
) -> None:
    shape = (2, *FIRST[1:])
    one = Engine(GraphSettings(graph=str(write(tmp_path, colours(shape))), labels=str(labels)))
    pixels = np.random.default_rng(0).integers(0, 255, (5, *one.input_size, 3), np.uint8)
    expected = np.concatenate([one.scores(pixels[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one.scores(pixels), expected, atol=1e-6)
