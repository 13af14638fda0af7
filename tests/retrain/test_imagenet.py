"""InceptionV3 as it is published gives Keras' scores, under Keras' names, and is made once."""

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottlenecks.errors import OutputError, UsageError, WeightsError, WeightsUnavailableError
from label_image.classifier import Classifier
from retrain import imagenet
from tests.conftest import COLOURS, photo
from tests.top import INDEX, LABELS, Published, published


@pytest.fixture(scope="module")
def made(weights_with_top: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return imagenet.classifier(str(weights_with_top), LABELS, tmp_path_factory.mktemp("models"))


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    with published(b"weights", monkeypatch) as servers:
        yield servers


@pytest.fixture
def must_not_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> Any:
        raise AssertionError("built Keras' model although the graph was kept")

    monkeypatch.setattr(imagenet, "keras_model", build)


def pixels() -> np.ndarray:
    """(3, 299, 299, 3) uint8."""
    return np.stack([np.asarray(photo(c, 0, (299, 299))) for c in COLOURS.values()])


def test_it_gives_what_keras_gives(made: tuple[Path, Path], model_with_top: Any) -> None:
    classifier = Classifier(*made)
    assert classifier.labels == LABELS
    x = pixels().astype(np.float32) / np.float32(127.5) - 1
    expected = np.asarray(model_with_top(x, training=False))
    assert np.abs(classifier.scores(pixels()) - expected).max() <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-3  # so that it says something
    assert expected.max() < 0.999


def test_the_format_of_the_weights_file_does_not_matter(
    made: tuple[Path, Path], tmp_path: Path, model_with_top: Any
) -> None:
    """Keras 3 has another than the published file."""
    path = tmp_path / "top.weights.h5"
    model_with_top.save_weights(path)
    graph, labels = imagenet.classifier(str(path), LABELS, tmp_path / "models")
    assert graph.name != made[0].name  # other weights, as far as their bytes can tell
    assert graph.read_bytes() == made[0].read_bytes()
    assert labels.read_bytes() == made[1].read_bytes()


@pytest.mark.usefixtures("must_not_build")
def test_it_is_made_once(made: tuple[Path, Path], weights_with_top: Path) -> None:
    graph, labels = made
    before = graph.stat().st_mtime_ns, labels.stat().st_mtime_ns
    assert imagenet.classifier(str(weights_with_top), LABELS, graph.parent) == made
    assert (graph.stat().st_mtime_ns, labels.stat().st_mtime_ns) == before
    assert sorted(graph.parent.iterdir()) == sorted(made)


@pytest.mark.usefixtures("must_not_build")
def test_damaged_labels_are_written_again(made: tuple[Path, Path], weights_with_top: Path) -> None:
    for damage in (lambda path: path.write_text("tench\n"), Path.unlink):
        damage(made[1])
        imagenet.classifier(str(weights_with_top), LABELS, made[0].parent)
        assert made[1].read_text().splitlines() == LABELS


def test_other_labels_are_another_graph_and_a_damaged_one_is_made_again(
    made: tuple[Path, Path],
    weights_with_top: Path,
    model_with_top: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(imagenet, "keras_model", lambda *_: model_with_top)
    monkeypatch.setattr(imagenet, "freeze", lambda _: b"")  # the head alone is quicker
    other = imagenet.classifier(str(weights_with_top), LABELS[::-1], made[0].parent)
    assert other[0] != made[0]
    assert other[1].read_text().splitlines() == LABELS[::-1]
    whole = other[0].read_bytes()
    other[0].write_bytes(whole[:-1])
    assert imagenet.classifier(str(weights_with_top), LABELS[::-1], made[0].parent) == other
    assert other[0].read_bytes() == whole
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_labels_are_those_that_keras_prints_each_once(servers: Published, tmp_path: Path) -> None:
    assert imagenet.imagenet_labels(tmp_path) == LABELS
    assert len(set(LABELS)) == len(INDEX)
    assert imagenet.imagenet_labels(tmp_path) == LABELS
    assert servers.index.requests == 1


def test_the_published_files_are_keras_own() -> None:
    keras = importlib.util.find_spec("keras")  # found, not imported: that takes seconds
    assert keras is not None and keras.submodule_search_locations
    (folder,) = keras.submodule_search_locations
    for module, file in (
        ("inception_v3", imagenet.WEIGHTS),
        ("imagenet_utils", imagenet.CLASS_INDEX),
    ):
        source = Path(folder, "src", "applications", f"{module}.py").read_text()
        plain = source.replace('"\n    "', "")  # a text that is continued on the next line
        assert f'"{file.url}"' in plain
        assert f'"{file.md5}"' in plain


def test_labels_of_another_number(weights_with_top: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"top.h5 have 5 outputs and .* 2 labels; --labels"):
        imagenet.classifier(str(weights_with_top), ["a", "b"], tmp_path)


def hdf5(path: Path, **shapes: tuple[int, ...]) -> str:
    """An HDF5 file with an array of zeros for each name."""
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            file[name] = np.zeros(shape, np.float32)
    return str(path)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"conv2d": (1, 1, 2048, 5), "other": (1024, 5)}, "has no top"),
        ({"predictions": (2048, 5)}, "does not fit InceptionV3 with its top"),
        ({"one": (2048, 5), "another": (2048, 6)}, "has no top"),
    ],
)
def test_weights_of_something_else(
    tmp_path: Path,
    model_with_top: Any,
    monkeypatch: pytest.MonkeyPatch,
    shapes: dict[str, tuple[int, ...]],
    reason: str,
) -> None:
    import keras

    monkeypatch.setattr(keras.applications, "InceptionV3", lambda **_: model_with_top)
    path = hdf5(tmp_path / "weights.h5", **shapes)
    with pytest.raises(WeightsError, match=reason) as caught:
        imagenet.classifier(path, LABELS, tmp_path / "models")
    assert "weights.h5" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_a_damaged_weights_file(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with pytest.raises(WeightsError, match="cannot be read; fetch it again"):
        imagenet.classifier(str(tmp_path / "weights.h5"), LABELS, tmp_path)


def test_what_is_no_weights_file_is_an_error_before_a_download(
    servers: Published, tmp_path: Path
) -> None:
    with pytest.raises(WeightsUnavailableError, match="no weights file"):
        imagenet.classifier(str(tmp_path / "missing.h5"), None, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--model_dir"):
        imagenet.classifier("imagenet", None, tmp_path / "file" / "models")
    with pytest.raises(UsageError, match="--model_dir"):
        imagenet.classifier("imagenet", None, "")
    assert servers.index.requests == servers.weights.requests == 0
