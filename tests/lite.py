"""LiteRT files of the stand-in for the tests, and altered ones."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.photos.decode import decode
from retrain.export import lite, lite_metadata
from retrain.export.about import About
from retrain.export.classifier import TrainedClassifier
from retrain.export.settings import QUANTISATIONS, ExportSettings
from tests.conftest import Trained
from tests.standin import StandIn

needs_litert = "ai-edge-litert is not installed: pip install ai-edge-litert"


def schema() -> Any:
    """LiteRT's own reader and writer of models; without it the test is skipped."""
    return pytest.importorskip("ai_edge_litert.schema_py_generated", reason=needs_litert)


def about() -> About:
    return About("2021-01-01T00:00:00Z", {"weights": "none"}, "ab", {"testing": 9}, None, None, {})


def pixels(trained: Trained) -> np.ndarray:
    """(n, 299, 299, 3) uint8 of the test images."""
    images = trained.dataset.testing.images
    return np.stack([decode(Path(image.path).read_bytes()) for image in images])


def classifier(trained: Trained, photos: int = 20, **changes: Any) -> TrainedClassifier:
    """That of the training run, with so many ``photos`` to calibrate on."""

    def training_photos() -> Iterator[np.ndarray]:
        for image in trained.dataset.training.images[:photos]:
            yield decode(Path(image.path).read_bytes())

    values = {
        "network": StandIn().frozen,
        "head": trained.result.head,
        "labels": trained.result.labels,
        "about": about(),
        "final_tensor_name": "final_result",
        "training_photos": training_photos,
        **changes,
    }
    return TrainedClassifier(**values)


def write(trained: Trained, path: Path, quantize: str = "none", **changes: Any) -> Path:
    """Write it to ``path``."""
    settings = ExportSettings(output_tflite=str(path), quantize=quantize)
    lite.check(settings)
    lite.write(classifier(trained, **changes), settings)
    return path


def write_all(trained: Trained, folder: Path) -> dict[str, Path]:
    """A file of each quantisation."""
    schema()
    return {q: write(trained, folder / f"{q}.tflite", q) for q in QUANTISATIONS}


def model_of(path: Path) -> bytes:
    """The model in a file of retrain, without what is behind it."""
    data = path.read_bytes()
    return data[: data.index(b"PK\3\4")]


def altered(path: Path, change: Callable[[Any], object]) -> bytes:
    """The model in ``path`` after ``change(model)``, a ``ModelT``, as another program writes it."""
    import flatbuffers

    model = schema().ModelT.InitFromPackedBuf(model_of(path))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def with_labels(model: bytes, labels: Sequence[str]) -> bytes:
    return lite_metadata.with_files(model, labels, about().json)
