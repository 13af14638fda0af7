"""retrain.export.lite: LiteRT files of all quantisations, as LiteRT's own programs read them."""

import dataclasses
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import ImageFolderError, UsageError
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import decode
from retrain.checks.flat import Choice, Flatbuffer, Many, Number, Numbers, One, Table, Text
from retrain.config import Config
from retrain.export import lite, lite_metadata
from retrain.export.settings import QUANTISATIONS, ExportSettings
from tests.conftest import COLOURS, Trained, photo
from tests.lite import about, classifier, model_of, pixels, schema, write, write_all


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
    assert metadata_in(bytes(model.buffers[entry.buffer].data)) == {
        "name": b"Image classifier",
        "description": f"Made by {about().program}".encode(),
        "graphs": [
            {
                "inputs": [
                    {
                        "name": b"image",
                        "description": b"Photos",
                        "content": {"kind": 2, "properties": RGB_OF_299_BY_299},
                        "units": [{"kind": 1, "options": {"mean": [127.5], "std": [127.5]}}],
                        "stats": {"max": [1.0], "min": [-1.0]},
                    }
                ],
                "outputs": [
                    {
                        "name": b"scores",
                        "description": b"Of each label, adding up to 1",
                        "stats": {"max": [1.0], "min": [0.0]},
                        "files": [{**LABELS_TEXT, "kind": 2}],
                    }
                ],
            }
        ],
        "files": [{"name": b"about.json", "description": b"What made the classifier", "kind": 1}],
        "parser": b"1.0.0",
    }


RGB_OF_299_BY_299 = {"colours": 1, "size": {"width": 299, "height": 299}}
LABELS_TEXT = {"name": b"labels.txt", "description": b"The labels, in the order of the scores"}


def metadata_in(packed: bytes) -> Any:
    """All that it says, by the tables of tflite-support's metadata_schema.fbs."""
    assert packed[4:8] == b"M001"
    floats, kind, size = Numbers("<f4"), Number("B"), Number("I")
    image: Table = {"colours": kind, "size": One({"width": size, "height": size})}
    contents: dict[int, Table] = {1: {}, 2: image}
    options: dict[int, Table] = {1: {"mean": floats, "std": floats}}
    files = Many({"name": Text(), "description": Text(), "kind": kind})
    unit: Table = {"kind": kind, "options": Choice("kind", options)}
    tensor: Table = {
        **{"name": Text(), "description": Text(), "dimensions": None},
        "content": One({"kind": kind, "properties": Choice("kind", contents), "range": None}),
        **{"units": Many(unit), "stats": One({"max": floats, "min": floats}), "files": files},
    }
    graph: Table = {
        **{"name": Text(), "description": Text()},
        **{"inputs": Many(tensor), "outputs": Many(tensor)},
    }
    model: Table = {
        **{"name": Text(), "description": Text(), "version": None, "graphs": Many(graph)},
        **{"author": None, "license": None, "files": files, "parser": Text()},
    }
    return plain(Flatbuffer(packed).root(model))


def plain(value: Any) -> Any:
    """With lists for arrays."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | np.ndarray) else value


def test_metadata_tells_the_width_from_the_height_and_any_range() -> None:
    (graph,) = metadata_in(lite_metadata.metadata((200, 300), 55.0, 100.0, "it"))["graphs"]
    (image,) = graph["inputs"]
    assert image["content"]["properties"]["size"] == {"width": 300, "height": 200}
    assert image["stats"] == {"max": [2.0], "min": [np.float32(-0.55)]}


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


def test_int8_is_calibrated_on_128_photos_as_they_are_fed(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_number = np.resize(np.arange(256, dtype=np.uint8), (299, 299, 3))
    shown: list[Any] = []

    def look(converter: Any) -> bytes:
        fed = (one for (one,) in converter.representative_dataset())
        shown.extend((one.shape, one.dtype, one.min(), one.max()) for one in fed)
        return b"a model"

    monkeypatch.setattr(import_tensorflow().lite.TFLiteConverter, "convert", look)
    made = classifier(trained, training_photos=lambda: iter([every_number] * 200))
    assert lite.convert(made, "int8") == b"a model"
    assert shown == [((1, 299, 299, 3), np.float32, -1.0, 1.0)] * 128


def test_int8_without_photos_to_calibrate_on(trained: Trained, tmp_path: Path) -> None:
    schema()
    with pytest.raises(ImageFolderError, match=r"int8 needs 4 training photos or more.* 3 can"):
        write(trained, tmp_path / "a.tflite", "int8", photos=3)
    assert not list(tmp_path.iterdir())


def test_without_litert_it_is_an_error_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UsageError, match=r"--output_tflite needs .*pip install ai-edge-litert"):
        lite.check(ExportSettings(output_tflite="a.tflite"))


def test_flags_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="--quantize int8 is for --output_tflite"):
        Config(image_dir="Dataset", quantize="int8")
    with pytest.raises(UsageError, match="--quantize must be none or float16"):
        Config(image_dir="Dataset", output_tflite="a.tflite", quantize="int4")
    with pytest.raises(UsageError, match="in the way of --output_tflite"):
        Config(image_dir="Dataset", output_tflite="retrained_graph.pb")
