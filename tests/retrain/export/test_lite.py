"""retrain.export.lite: LiteRT files of all quantisations, as LiteRT's own programs read them."""

import dataclasses
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import ImageFolderError, UsageError
from bottlenecks.photos.decode import decode
from retrain.config import Config
from retrain.export import lite, lite_metadata
from retrain.export.settings import QUANTISATIONS, ExportSettings
from tests.conftest import COLOURS, Trained, photo
from tests.lite import about, model_of, pixels, schema, write, write_all


@pytest.fixture(scope="module")
def files(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(trained, tmp_path_factory.mktemp("lite"))


def client(path: Path) -> Any:
    """``client(path)(image=...)["scores"]`` as a program of LiteRT's has it."""
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner("serving_default")


@pytest.mark.parametrize(
    ("quantize", "apart"), [("none", 1e-5), ("float16", 1e-2), ("dynamic", 0.05), ("int8", 0.05)]
)
def test_scores_are_those_of_the_head(
    files: dict[str, Path], trained: Trained, quantize: str, apart: float
) -> None:
    run = client(files[quantize])
    fed = (pixels(trained).astype(np.float32) - 127.5) / 127.5
    expected = trained.result.head.predict(trained.dataset.testing.x)
    found = np.concatenate([run(image=one[np.newaxis])["scores"] for one in fed])
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, expected, atol=apart)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("quantize", QUANTISATIONS)
def test_float32_goes_in_and_comes_out_for_any_number_of_photos(
    files: dict[str, Path], quantize: str
) -> None:
    run = client(files[quantize])
    (source,), (output,) = run.get_input_details().values(), run.get_output_details().values()
    assert (source["name"], output["name"]) == ("image", "scores")
    assert source["shape_signature"].tolist() == [-1, 299, 299, 3]
    assert source["dtype"] == output["dtype"] == np.float32
    assert run(image=np.zeros((3, 299, 299, 3), np.float32))["scores"].shape == (3, 3)


def test_rounded_weights_are_smaller(files: dict[str, Path]) -> None:
    """By two and by four in the layers that have many: see the benchmarks."""
    reader = schema()
    types = {
        quantize: {
            tensor.type
            for tensor in reader.ModelT.InitFromPackedBuf(model_of(path)).subgraphs[0].tensors
        }
        for quantize, path in files.items()
    }
    assert reader.TensorType.FLOAT16 in types["float16"]
    assert reader.TensorType.INT8 in types["int8"]
    assert types["none"] <= {reader.TensorType.FLOAT32, reader.TensorType.INT32}


def test_labels_and_what_made_it_are_files_inside(files: dict[str, Path], trained: Trained) -> None:
    for quantize, path in files.items():
        with zipfile.ZipFile(path) as archive:
            assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
            labels = archive.read("labels.txt").decode().splitlines()
            assert tuple(labels) == trained.result.labels
            made = dataclasses.replace(about(), quantised=quantize)
            assert archive.read("about.json").decode() == made.json


def test_metadata_names_the_labels_and_how_photos_are_fed(files: dict[str, Path]) -> None:
    model = schema().ModelT.InitFromPackedBuf(model_of(files["none"]))
    (entry,) = (one for one in model.metadata if one.name == b"TFLITE_METADATA")
    packed = bytes(model.buffers[entry.buffer].data)
    assert packed == lite_metadata.metadata((299, 299), 127.5, 127.5, about().program)
    assert packed[4:8] == b"M001"
    for text in (b"labels.txt", b"about.json", b"image", b"scores", about().program.encode()):
        assert text in packed


@pytest.mark.parametrize("quantize", QUANTISATIONS)
def test_equal_runs_give_equal_bytes(
    files: dict[str, Path], trained: Trained, tmp_path: Path, quantize: str
) -> None:
    again = write(trained, tmp_path / "again.tflite", quantize)
    assert again.read_bytes() == files[quantize].read_bytes()


def test_another_name_of_the_output_and_labels_of_other_scripts(
    trained: Trained, tmp_path: Path
) -> None:
    schema()
    labels = ("żółta róża", "日本", "a\u2028b")
    path = write(trained, tmp_path / "a.tflite", final_tensor_name="mine/scores", labels=labels)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode() == "".join(f"{label}\n" for label in labels)
    fed = decode_photo()
    assert client(path)(image=fed)["scores"].shape == (1, 3)


def decode_photo() -> np.ndarray:
    from io import BytesIO

    file = BytesIO()
    photo(COLOURS["cyan"], 5).save(file, "JPEG")
    return (decode(file.getvalue())[np.newaxis].astype(np.float32) - 127.5) / np.float32(127.5)


def test_int8_without_photos_to_calibrate_on(trained: Trained, tmp_path: Path) -> None:
    schema()
    with pytest.raises(ImageFolderError, match=r"int8 needs 4 training photos or more.* 3 can"):
        write(trained, tmp_path / "a.tflite", "int8", photos=3)
    assert not list(tmp_path.iterdir())


def test_without_litert_it_is_an_error_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UsageError, match=r"--output_tflite needs .*retrain\[litert\]"):
        lite.check(ExportSettings(output_tflite="a.tflite"))


def test_flags_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="--quantize int8 is for --output_tflite"):
        Config(image_dir="Dataset", quantize="int8")
    with pytest.raises(UsageError, match="--quantize must be none or float16"):
        Config(image_dir="Dataset", output_tflite="a.tflite", quantize="int4")
    with pytest.raises(UsageError, match="in the way of --output_tflite"):
        Config(image_dir="Dataset", output_tflite="retrained_graph.pb")
