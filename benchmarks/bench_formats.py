"""What does each format that a classifier is written in give: accuracy, size, speed, a cold answer?

Speed and the cold answer of ``python -m label_image`` are ratios to the frozen graph's speed and to
the time of ``python -c "import tensorflow"``. Another format is a line in `KINDS`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measure import Finding, Inputs, alternate, command, main, of, photos, ratios, speeds

from bottlenecks.network.inception import InceptionV3
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset
from retrain.data.pixels import pixels_of
from retrain.engines.engine import Engine
from retrain.engines.settings import GraphSettings
from retrain.listener import Listener
from retrain.trainer import train

IMPORT = "import tensorflow"
TESTED = 30  # % of the photos
A_SECOND = 0.33  # of the three that the import takes on two cores with nothing beside it


@dataclass(frozen=True)
class Kind:
    """A format: the ``flag`` that names its ``file``, and other flags that it takes.

    ``at_most`` is the goal for its cold answer, as a multiple of the import of TensorFlow, and
    ``engine`` what runs it.
    """

    name: str
    file: str
    flag: str
    others: Mapping[str, Any] = field(default_factory=dict)
    at_most: float | None = None
    engine: str = "auto"


FROZEN = Kind("frozen graph", "graph.pb", "output_graph", engine="tensorflow")
KINDS = (
    FROZEN,
    Kind("frozen graph, OpenVINO", "graph.pb", "output_graph", at_most=0.35, engine="openvino"),
    Kind("ONNX", "model.onnx", "output_onnx"),
    *(
        Kind(
            f"LiteRT, {quantize}",
            f"{quantize}.tflite",
            "output_tflite",
            {"quantize": quantize},
            at_most=A_SECOND,
        )
        for quantize in ("none", "float16", "dynamic", "int8")
    ),
)


class _Sets(Listener):
    """Keeps the sets of the run."""

    dataset: Dataset

    def split(self, dataset: Dataset) -> None:
        self.dataset = dataset


def measure(inputs: Inputs) -> list[Finding]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with photos(inputs.image_dir, inputs.options["photos"]) as folder:
        sets = _Sets()
        network = InceptionV3(inputs.weights, folder / "models")
        for kind in KINDS:
            train(_config(folder, kind), extractor=network, listener=sets)
        engines = {kind.name: _engine(folder, kind) for kind in KINDS}
        findings = _exactness(engines, sets.dataset.testing)
        findings += [
            of(f"{kind.name}: size", [(folder / kind.file).stat().st_size / 1e6], "MB")
            for kind in KINDS
        ]
        findings += _speeds(engines, sets.dataset.testing, inputs.options["rounds"])
        photo = sets.dataset.testing.images[0].path
        return findings + _cold(folder, Path(photo), inputs.options["rounds"])


def _config(folder: Path, kind: Kind) -> Config:
    settings = {
        "image_dir": str(folder / "photos"),
        "bottleneck_dir": str(folder / "cache"),
        "output_graph": str(folder / FROZEN.file),
        "output_labels": str(folder / "labels.txt"),
        "how_many_training_steps": 1000,
        "testing_percentage": TESTED,
        kind.flag: str(folder / kind.file),
        **kind.others,
    }
    return Config(**settings)


def _engine(folder: Path, kind: Kind) -> Engine:
    graph, labels = (str(folder / name) for name in (kind.file, "labels.txt"))
    return Engine(GraphSettings(graph=graph, labels=labels, engine=kind.engine))


def _exactness(engines: Mapping[str, Engine], testing: Subset) -> list[Finding]:
    """What each gets right of the test photos, and how far its scores are from the graph's."""
    rows, pixels = zip(*pixels_of(testing.images), strict=True)
    y, batches = testing.y[list(rows)], np.array_split(np.stack(pixels), max(1, len(pixels) // 16))
    scores = {name: np.concatenate([*map(e.scores, batches)]) for name, e in engines.items()}
    expected = scores[FROZEN.name]
    findings = []
    for name, found in scores.items():
        right = float((found.argmax(axis=1) == y).mean())
        findings.append(of(f"{name}: accuracy", [100 * right], "%", note=f"{len(y)} photos"))
        if name != FROZEN.name:
            same = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
            apart = float(np.abs(found - expected).max())
            findings.append(of(f"{name}: same label as the frozen graph", [100 * same], "%"))
            findings.append(of(f"{name}: largest difference of a score", [apart], ""))
    return findings


def _speeds(engines: Mapping[str, Engine], testing: Subset, rounds: int) -> list[Finding]:
    batch = np.stack([pixels for _, pixels in pixels_of(testing.images[:32])])

    def over(engine: Engine) -> Callable[[], object]:
        halves = np.array_split(batch, 2)
        return lambda: [engine.scores(half) for half in halves]

    seconds = alternate({name: over(engine) for name, engine in engines.items()}, rounds)
    others = [name for name in engines if name != FROZEN.name]
    return [
        *(
            of(f"{name}: speed / frozen graph", ratios(seconds, FROZEN.name, name), "times")
            for name in others
        ),
        *speeds(seconds, len(batch)),
    ]


def _cold(folder: Path, photo: Path, rounds: int) -> list[Finding]:
    labels = folder / "labels.txt"
    sides = {IMPORT: command("-c", IMPORT, folder=folder)}
    for kind in KINDS:
        line = ["-m", "label_image", "--graph", folder / kind.file, "--labels", labels, photo]
        line += ["--engine", kind.engine]
        sides[kind.name] = command(*line, folder=folder)
    seconds = alternate(sides, rounds)
    findings = []
    for kind in KINDS:
        what = f"{kind.name}: label_image photo.jpg"
        times = ratios(seconds, kind.name, IMPORT)
        findings += [
            of(f"{what} / {IMPORT}", times, "times", at_most=kind.at_most),
            of(f"  {what}", seconds[kind.name], "s"),
        ]
    return [*findings, of(f"  {IMPORT}", seconds[IMPORT], "s")]


if __name__ == "__main__":
    main(measure, __doc__, photos=600, rounds=5)
