"""retrain.engines.lite: runs LiteRT files without TensorFlow, refuses what is damaged."""

import dataclasses
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError, UnsafeGraphError
from label_image import cli
from label_image.classifier import Classifier
from retrain.checks import safe_lite
from retrain.engines import formats, lite
from retrain.engines.engine import Engine
from retrain.engines.settings import GraphSettings
from retrain.export import lite_metadata
from tests.conftest import Call, Run, Trained, assert_one_error_line
from tests.lite import about, altered, model_of, pixels, with_labels, write_all
from tests.retrain.checks.test_safe_lite import custom


@pytest.fixture(scope="module")
def files(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(trained, tmp_path_factory.mktemp("lite"))


def engine(path: Path, **settings: object) -> Engine:
    return Engine(GraphSettings(graph=str(path), **settings))  # type: ignore[arg-type]


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("quantize", "apart"), [("none", 1e-5), ("float16", 1e-2), ("dynamic", 0.05), ("int8", 0.05)]
)
def test_scores_are_those_of_the_frozen_graph(
    files: dict[str, Path], trained: Trained, quantize: str, apart: float
) -> None:
    photos = pixels(trained)
    expected = Engine(GraphSettings(graph=str(trained.graph))).scores(photos)
    found = engine(files[quantize])
    assert found.labels == list(trained.result.labels)
    assert found.about == dataclasses.replace(about(), quantised=quantize).json
    assert (found.input_size, found.fixed_batch) == ((299, 299), None)
    np.testing.assert_allclose(found.scores(photos), expected, atol=apart)


def test_a_file_is_told_by_its_content(files: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(files["int8"], tmp_path / "graph.pb")
    assert formats.format_of(tmp_path / "graph.pb") is lite
    assert engine(tmp_path / "graph.pb").labels == ["cyan", "magenta", "yellow"]


def test_label_image_needs_no_tensorflow(
    run: Run, files: dict[str, Path], trained: Trained
) -> None:
    code = (
        "import sys; from label_image.cli import main; code = main(sys.argv[1:]); "
        "print({'tensorflow', 'h5py', 'sklearn'} & set(sys.modules)); sys.exit(code)"
    )
    photo = trained.dataset.testing.images[0]
    line = [sys.executable, "-c", code, "--graph", str(files["int8"]), photo.path]
    result = subprocess.run(line, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{photo.label} (score = ")
    assert result.stdout.endswith("set()\n")
    assert result.stderr == ""


def test_threads_share_one(files: dict[str, Path], trained: Trained) -> None:
    photos, shared = pixels(trained), engine(files["none"])
    expected = shared.scores(photos)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(shared.scores, [photos] * 12):
            np.testing.assert_array_equal(found, expected)


def test_photos_are_fed_as_the_metadata_says_or_the_flags(files: dict[str, Path]) -> None:
    def feeding(**settings: float) -> tuple[float, float]:
        found = lite.read(files["none"]).start(GraphSettings(**settings)).feeding  # type: ignore[arg-type]
        return found.mean, found.std

    assert feeding() == (127.5, 127.5)
    assert feeding(input_mean=0, input_std=255) == (0, 255)


def test_metadata_of_other_programs_may_be_missing(files: dict[str, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, altered(files["none"], lambda model: setattr(model, "metadata", None)))
    contents = lite.read(path)
    assert (contents.labels, contents.about) == ([], "")
    feeding = contents.start(GraphSettings()).feeding
    assert (feeding.mean, feeding.std) == (0, 255)


def of_another_program(model: bytes) -> bytes:
    """Its metadata name no file that retrain would have put behind it."""
    return model.replace(b"about.json", b"model.json")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\n"])
def test_a_file_that_lost_its_labels_is_damaged(
    files: dict[str, Path], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = saved(tmp_path, change(files["none"].read_bytes()))
    with pytest.raises(GraphError, match="is damaged: its labels and what made it"):
        lite.read(path)


def put_metadata(model: Any, packed: bytes) -> None:
    (entry,) = (one for one in model.metadata if one.name == b"TFLITE_METADATA")
    model.buffers[entry.buffer].data = list(packed)


def test_colours_may_be_fed_alike_but_not_otherwise(files: dict[str, Path], tmp_path: Path) -> None:
    def start(means: list[float], **settings: Any) -> tuple[float, float]:
        packed = lite_metadata.metadata((299, 299), means, 127.5, "another program")
        packed = of_another_program(packed)
        model = altered(files["none"], lambda model: put_metadata(model, packed))
        feeding = lite.read(saved(tmp_path, model)).start(GraphSettings(**settings)).feeding
        return feeding.mean, feeding.std

    assert start([127.5, 127.5, 127.5]) == (127.5, 127.5)
    with pytest.raises(GraphError, match="--input_mean and --input_std"):
        start([123.0, 117.0, 104.0])
    assert start([123.0, 117.0, 104.0], input_mean=115, input_std=58) == (115, 58)


def test_a_file_of_another_program_needs_its_labels(
    files: dict[str, Path], trained: Trained, tmp_path: Path
) -> None:
    path = saved(tmp_path, of_another_program(model_of(files["none"])))
    found = Classifier(path, trained.labels)
    photo = trained.dataset.testing.images[0]
    (result,) = found.classify(photo.path)
    assert result.label == photo.label


def test_inputs_and_outputs_that_are_not_there(files: dict[str, Path]) -> None:
    assert engine(files["none"], input_layer="image", output_layer="scores")
    with pytest.raises(GraphError, match=r"no Mul for --input_layer; it has image"):
        engine(files["none"], input_layer="Mul")
    with pytest.raises(GraphError, match=r"no nope for --output_layer; it has scores"):
        engine(files["none"], output_layer="nope")
    with pytest.raises(GraphError, match="takes photos of 299 x 299"):
        engine(files["none"], input_height=224)


def hidden(data: bytes) -> bytes:
    """With one bit of a weight changed, which no structure shows."""
    middle = data.index(b"PK\3\4") // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def bomb(data: bytes) -> bytes:
    """With labels of 100 MB in some KB."""
    file = BytesIO(data[: data.index(b"PK\3\4")])
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"a" * 10**8)
    return file.getvalue()


def many(data: bytes) -> bytes:
    file = BytesIO(data[: data.index(b"PK\3\4")])
    with zipfile.ZipFile(file, "a") as archive:
        for number in range(100):
            archive.writestr(str(number), "")
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[: len(data) // 2], "is broken"),
        (lambda data: data[:30], "is broken"),
        (hidden, "is damaged: its hash"),
        (lambda data: data.replace(b"cyan\nmagenta", b"cyan\nMagenta"), "is damaged: the files"),
        (bomb, "labels.txt would have 100 MB"),
        (many, "has 100 files behind it"),
    ],
)
def test_damaged_and_hostile_files_are_one_line(
    call: Call, files: dict[str, Path], tmp_path: Path, change: object, why: str
) -> None:
    path = saved(tmp_path, change(files["int8"].read_bytes()))  # type: ignore[operator]
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert_one_error_line(call(cli.main, "--graph", path, "photo.jpg"), "model.tflite", why)


def test_custom_operations_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, altered(files["none"], custom))
    with pytest.raises(UnsafeGraphError, match=r"model\.tflite has the operation FlexReadFile"):
        engine(path)


def test_who_trusts_a_file_has_litert_judge_it(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_lite, "MAX_OPERATIONS", 2)
    with pytest.raises(UnsafeGraphError, match=r"at most 2 are loaded.* add --allow_any_graph"):
        engine(files["none"])
    assert engine(files["none"], allow_any_graph=True)


def test_custom_operations_are_not_there_for_those_who_trust_them(
    files: dict[str, Path], tmp_path: Path
) -> None:
    path = saved(tmp_path, of_another_program(altered(files["none"], custom)))
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    with pytest.raises(GraphError, match=r"cannot load the graph .*model\.tflite"):
        engine(path, labels=str(labels), allow_any_graph=True)


@pytest.mark.parametrize("labels", [["cyan", "magenta"], ["cyan", "yellow", "magenta"]])
def test_a_labels_file_of_another_model(
    call: Call, files: dict[str, Path], tmp_path: Path, labels: list[str]
) -> None:
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    (tmp_path / "photo.jpg").write_bytes(b"")
    line = ("--graph", files["int8"], "--labels", "labels.txt", "photo.jpg")
    assert_one_error_line(call(cli.main, *line), "labels.txt")


def test_labels_inside_of_another_length(files: dict[str, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, with_labels(model_of(files["none"]), ["a", "b"]))
    with pytest.raises(GraphError, match="gives 3 scores for 2 labels"):
        engine(path)


def test_without_litert_the_error_names_the_extra(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(GraphError, match="need ai-edge-litert: pip install ai-edge-litert"):
        engine(files["none"])
