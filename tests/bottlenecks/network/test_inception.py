"""The frozen network gives Keras' numbers, is built once, and is known by what changes them."""

import dataclasses
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottlenecks.errors import UsageError, WeightsError, WeightsUnavailableError
from bottlenecks.network import inception
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.network.weights import find_weights
from bottlenecks.row_spec import BOTTLENECK
from tests.conftest import COLOURS, photo


@pytest.fixture(scope="module")
def extractor(model_dir: Path) -> InceptionV3:
    return InceptionV3("random", model_dir)


@pytest.fixture(scope="module")
def keras_model() -> Iterator[Any]:
    """Keras' own model, built by a user who has set ``channels_first``."""
    import_tensorflow()
    import keras

    keras.config.set_image_data_format("channels_first")
    try:
        yield inception.keras_model(find_weights("random", "nowhere"))
        assert keras.config.image_data_format() == "channels_first"  # the user's own again
    finally:
        keras.config.set_image_data_format("channels_last")


def pixels(*colours: str) -> np.ndarray:
    """A noisy picture for each of ``colours``, (n, 299, 299, 3) uint8."""
    return np.stack([np.asarray(photo(COLOURS[c], 0, (299, 299))) for c in colours])


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4, relative to the largest number."""
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def must_not_build(*_: object) -> Any:
    raise AssertionError("built the Keras model although it was kept")


def frozen_file(model_dir: Path) -> Path:
    (path,) = model_dir.glob("inception_v3-*.pb")
    return path


def test_shape_and_dtype(extractor: InceptionV3) -> None:
    for count in (1, 3):
        vectors = extractor(pixels(*["cyan", "magenta", "yellow"][:count]))
        assert vectors.shape == (count, 2048)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()


def test_photos_of_other_colours_differ_and_the_batch_does_not_matter(
    extractor: InceptionV3,
) -> None:
    together = extractor(pixels("cyan", "magenta", "yellow"))
    alone = np.concatenate([extractor(pixels(colour)) for colour in COLOURS])
    assert_close(alone, together)
    spread = np.abs(together[0] - together[1]).max()
    assert spread > 10 * np.abs(alone - together).max()


def test_it_gives_what_keras_gives(extractor: InceptionV3, keras_model: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), np.uint8)
    x = noise.astype(np.float32) / np.float32(127.5) - 1
    assert_close(extractor(noise), np.asarray(keras_model(x, training=False)))


def test_the_frozen_network_is_kept_and_used_again(
    extractor: InceptionV3, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = extractor.frozen
    path = frozen_file(model_dir)
    assert path.read_bytes() == kept
    monkeypatch.setattr(inception, "keras_model", must_not_build)
    assert InceptionV3("random", model_dir).frozen == kept
    assert [p.name for p in model_dir.iterdir()] == [path.name]


def test_a_damaged_frozen_network_is_built_again_with_one_warning(
    extractor: InceptionV3,
    keras_model: Any,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It also gives the same numbers, although built by a user of ``channels_first``."""
    data = bytearray(extractor.frozen)
    copy = Path(shutil.copy(frozen_file(model_dir), tmp_path))
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    monkeypatch.setattr(inception, "keras_model", lambda _: keras_model)
    rebuilt = InceptionV3("random", tmp_path)
    assert_close(rebuilt(pixels("cyan")), extractor(pixels("cyan")))
    assert [str(copy) in record.getMessage() for record in caplog.records] == [True]
    assert frozen_file(tmp_path).read_bytes() == rebuilt.frozen != bytes(data)


@pytest.fixture
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezing gives a few bytes at once."""
    monkeypatch.setattr(inception, "keras_model", lambda weights: weights.sha256)
    monkeypatch.setattr(inception, "freeze", lambda sha256: f"frozen {sha256}".encode())


@pytest.mark.usefixtures("quick_network")
def test_a_network_that_cannot_be_kept_is_used_and_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    extractor = InceptionV3("random", tmp_path / "file" / "models")
    kept = extractor.frozen
    assert kept.startswith(b"frozen ")
    assert len(caplog.records) == 1
    monkeypatch.setattr(inception, "keras_model", must_not_build)
    assert extractor.frozen == kept
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("floatx", "policy"), [("float16", "float16"), ("float64", "mixed_float16")]
)
def test_what_is_set_in_keras_changes_no_byte(
    extractor: InceptionV3, tmp_path: Path, floatx: str, policy: str
) -> None:
    import keras

    own = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        assert InceptionV3("random", tmp_path).frozen == extractor.frozen
        assert keras.config.floatx() == floatx  # the user's own again
        assert keras.config.dtype_policy().name == policy
    finally:
        keras.config.set_floatx(own[0])
        keras.config.set_dtype_policy(own[1])


def test_somebody_elses_files_in_the_model_folder_stay(
    extractor: InceptionV3, tmp_path: Path
) -> None:
    stem = frozen_file(Path(extractor.model_dir)).stem.rpartition("-")[0]
    (tmp_path / f"{stem}-mine.pb").write_text("mine")
    os.mkfifo(tmp_path / f"{stem}-{'0' * 64}.pb")
    assert InceptionV3("random", tmp_path).frozen == extractor.frozen
    assert (tmp_path / f"{stem}-mine.pb").read_text() == "mine"


@pytest.mark.usefixtures("quick_network")
def test_each_weights_and_freeze_version_has_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    path = weights_file(tmp_path / "a.h5", 1)
    seen = {InceptionV3("random", models).frozen, InceptionV3(path, models).frozen}
    assert len(seen) == len(list(models.iterdir())) == 2
    monkeypatch.setattr(inception, "FREEZE_VERSION", "another")
    InceptionV3(path, models).frozen  # noqa: B018
    assert len({p.name.split("-")[1] for p in models.iterdir()}) == 3


def test_the_graph_has_the_published_names_and_only_plain_operations(
    extractor: InceptionV3,
) -> None:
    tf = import_tensorflow()
    graph = tf.compat.v1.GraphDef.FromString(extractor.frozen)
    names = {node.name for node in graph.node}
    assert BOTTLENECK_NODE in names
    assert INPUT_NODE in {source for node in graph.node for source in node.input} - names
    operations = {node.op for node in graph.node}
    plain = {
        "AvgPool",
        "BiasAdd",
        "ConcatV2",
        "Const",
        "Conv2D",
        "Identity",
        "MaxPool",
        "Mean",
        "Relu",
    }
    assert operations == plain


def weights_file(path: Path, content: int) -> str:
    """An HDF5 file, of something else than InceptionV3."""
    with h5py.File(path, "w") as file:
        file["something"] = [content]
    return str(path)


def test_the_fingerprint_changes_with_what_changes_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "cpu_has_bfloat16", lambda: True)
    path = weights_file(tmp_path / "a.h5", 1)

    def fingerprint(*settings: Any, **more: Any) -> str:
        return InceptionV3(*settings, **more).fingerprint

    seen = {
        fingerprint("random", tmp_path),
        fingerprint("random", tmp_path, "bfloat16"),
        fingerprint(path, tmp_path),
        fingerprint(weights_file(tmp_path / "b.h5", 2), tmp_path),
    }
    larger = dataclasses.replace(BOTTLENECK, input_size=(300, 299))
    for owner, name, value in (
        (inception, "DECODE_VERSION", "another"),
        (InceptionV3, "spec", larger),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            seen.add(fingerprint("random", tmp_path))
    assert len(seen) == 6
    assert {len(bytes.fromhex(f)) for f in seen} == {32}


def test_the_fingerprint_changes_with_nothing_else(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "a.h5", 1)
    other = shutil.copy(path, tmp_path / "renamed.weights")
    first = InceptionV3(path, tmp_path / "models")
    second = InceptionV3(str(other), tmp_path / "elsewhere", on_download=lambda *_: None)
    assert first.fingerprint == second.fingerprint
    assert first.description["weights"] == "a.h5"
    assert second.description["weights"] == "renamed.weights"
    assert {"architecture", "precision", "input_size"} < set(first.description)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["vgg.weights.h5", "vgg.h5", "vgg"])
def test_a_weights_file_of_something_else_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_model: Any, name: str
) -> None:
    import keras

    monkeypatch.setattr(keras.applications, "InceptionV3", lambda **_: keras_model)
    path = weights_file(tmp_path / name, 1)
    with warnings.catch_warnings(record=True) as noise:
        warnings.simplefilter("always")
        with pytest.raises(WeightsError, match="does not fit InceptionV3") as caught:
            InceptionV3(path, tmp_path / "models").frozen  # noqa: B018
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()
    assert not noise, f"Keras prints {len(noise)} warnings to stderr beside the error line"


@pytest.mark.parametrize(
    ("weights", "error"), [("nowhere.h5", WeightsUnavailableError), (__file__, WeightsError)]
)
def test_what_is_no_weights_file_is_an_error_at_once(
    tmp_path: Path, weights: str, error: type[WeightsError]
) -> None:
    with pytest.raises(error):
        InceptionV3(weights, tmp_path)


def test_an_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"float32.*bfloat16.*float16"):
        InceptionV3("random", tmp_path, "float16")


@pytest.mark.parametrize(
    ("cpu_has_it", "precision", "warned"), [(False, "float32", 1), (True, "bfloat16", 0)]
)
def test_bfloat16_falls_back_with_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cpu_has_it: bool,
    precision: str,
    warned: int,
) -> None:
    monkeypatch.setattr(inception, "cpu_has_bfloat16", lambda: cpu_has_it)
    extractor = InceptionV3("random", tmp_path, "bfloat16")
    plain = InceptionV3("random", tmp_path)
    assert extractor.precision == extractor.description["precision"] == precision
    assert (extractor.fingerprint == plain.fingerprint) is (precision == "float32")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned


def test_real_weights(real_weights: str, tmp_path: Path) -> None:
    extractor = InceptionV3(real_weights, tmp_path)
    together = extractor(pixels("cyan", "magenta", "yellow"))
    assert together.shape == (3, 2048)
    assert together.dtype == np.float32
    assert_close(extractor(pixels("cyan")), together[:1])
    difference = np.linalg.norm(together[0] - together[1])
    assert difference > 0.05 * np.linalg.norm(together[0])
