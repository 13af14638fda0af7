"""How fast is fine-tuning on cached rows, and how much memory does it take?

Training steps from mixed7 on rows read from disk, their files dropped from the page cache before
each round: against the same steps with the frozen part run each time, on photos that are decoded
already; against Keras' own ``fit`` over ``image_dataset_from_directory`` with the lower layers
frozen, as its users write it; and against the same steps on one batch in memory, which shows what
reading takes. Then the peak memory of whole runs of few and of many images, whose rows are made up
(7 GB of disk, and half an hour for the two runs).

``--part`` is ``speed``, ``memory`` or ``all``; ``--precision`` is ``float32`` or ``bfloat16``;
``--rounds`` of steps on ``--count`` photos, and runs of ``--few`` and ``--many`` images.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from made_up import make, make_rows
from measure import PHOTOS, Finding, Inputs, alternate, main, of, photos, ratios, speeds

from bottlenecks.builder import BuildReport, build
from bottlenecks.network.inception import Extractor, InceptionV3
from bottlenecks.photos.decode import decode
from bottlenecks.store.vectors import InMemory, OnDisk, Stream, Vectors
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset
from retrain.data.variants import rows_at
from retrain.training.fine_tuning import FineTuning, Recipe
from retrain.training.head import Head, Standardisation
from retrain.training.upper import Variables

CUT, BATCH, LABELS = "mixed7", 32, 5
DISK, MEMORY = "steps on rows from disk", "steps on one batch in memory"
AGAIN, KERAS = "steps, frozen part run each time", "Keras' fit, lower layers frozen"
TRAIN = """
import json, sys
from measure import peak_gigabytes
from retrain import Config, train

train(Config(**json.loads(sys.argv[1])))
print(peak_gigabytes())
"""


def measure(inputs: Inputs) -> list[Finding]:
    part = inputs.options["part"]
    findings = speed(inputs, **inputs.options) if part in ("speed", "all") else []
    return findings + (memory(inputs, **inputs.options) if part in ("memory", "all") else [])


class Computed:
    """`Vectors` of ``pixels`` (n, 299, 299, 3) that ``network`` computes whenever they are read."""

    def __init__(self, network: Extractor, pixels: np.ndarray) -> None:
        self.spec, self._network, self._pixels = network.spec, network, pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._network(self._pixels[rows])

    def select(self, rows: np.ndarray) -> Vectors:
        return Computed(self._network, self._pixels[rows])

    def stream(self, batches: Iterable[np.ndarray], ahead: int = 0) -> Stream:
        for batch in batches:
            yield batch, self.take(batch)


def speed(inputs: Inputs, *, precision: str, rounds: int, count: int, **_: object) -> list[Finding]:
    with photos(inputs.image_dir, count) as folder:
        network = InceptionV3(inputs.weights, folder / "models", precision)
        config = Config(
            image_dir=str(folder / "photos"),
            bottleneck_dir=str(folder / "cache"),
            fine_tune_from=CUT,
        )
        report = build(config, extractor=network)
        dataset = trained_on(report)
        at_cut, cache = rows_at(dataset, network.at(CUT), config, config, 0, most_in_memory=0)
        assert isinstance(at_cut.training.vectors, OnDisk)
        pixels = np.stack([decode(Path(image.path).read_bytes()) for image in report.images])
        rows, y, half = at_cut.training.vectors, dataset.training.y, len(report.images) // 2
        first = np.arange(half - BATCH // 2, half + BATCH // 2)  # of more than one label
        one_batch = InMemory(rows.take(first), spec=rows.spec)
        computed = Computed(network.at(CUT), pixels)

        def side(vectors: Vectors, y: np.ndarray) -> Callable[[], object]:
            return steps_on(network, precision, dataset, vectors, y, count // BATCH)

        from_disk = side(rows, y)

        def cold() -> None:
            drop_pages(cache.folder)
            from_disk()

        sides = {DISK: cold, MEMORY: side(one_batch, y[first]), AGAIN: side(computed, y)}
        sides[KERAS] = keras_fit(folder / "photos", inputs.weights, len(dataset.labels), precision)
        seconds = alternate(sides, rounds)
    name = f"fine-tuning from {CUT}, {precision}"
    again, keras = ratios(seconds, AGAIN, DISK), ratios(seconds, KERAS, DISK)
    reading = ratios(seconds, DISK, MEMORY)
    return [
        of(f"{name} / frozen part run each time", again, "times", at_least=2.2),
        of(f"{name} / Keras' fit", keras, "times", at_least=2.5),
        of(f"{name}: time of a step from disk / from memory", reading, "times", at_most=1.1),
        *speeds({f"{side}, {precision}": x for side, x in seconds.items()}, count // BATCH * BATCH),
    ]


def trained_on(report: BuildReport) -> Dataset:
    """All images of ``report``, to train on."""
    labels = list(report.counts)
    y = np.array([labels.index(image.label) for image in report.images], np.int64)
    vectors = InMemory(report.cache.read(image.key for image in report.images))
    return Dataset(
        tuple(labels), Subset(report.images, vectors, y), np.full(len(y), "training", "U10")
    )


def steps_on(
    network: InceptionV3,
    precision: str,
    dataset: Dataset,
    vectors: Vectors,
    y: np.ndarray,
    count: int,
) -> Callable[[], object]:
    """``count`` steps of the usual recipe on batches of ``vectors`` with labels ``y``."""
    classes = len(dataset.labels)
    head = Head(np.zeros((2048, classes), np.float32), np.zeros(classes, np.float32))
    standardisation = Standardisation.of(dataset.training.x)
    variables = Variables(network.frozen, CUT, head, standardisation, precision)
    config = Config(image_dir=".", fine_tune_from=CUT, fine_tune_epochs=1000)
    tuning = FineTuning(variables, vectors, y, classes, Recipe.of(config, config, l2=0.0))

    def steps() -> None:
        for _ in range(count):
            tuning.step()

    return steps


def drop_pages(folder: Path) -> None:
    """Have the next read of each file in ``folder`` come from the disk."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def keras_fit(images: Path, weights: str, classes: int, precision: str) -> Callable[[], object]:
    """An epoch of all photos; the layers up to the cut neither move nor adapt."""
    import keras

    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    keras.mixed_precision.set_global_policy(policy)
    base = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)
    keras.mixed_precision.set_global_policy("float32")
    below = itertools.takewhile(lambda layer: layer.name != CUT, base.layers)
    for layer in (*below, base.get_layer(CUT)):
        layer.trainable = False
    scores = keras.layers.Dense(classes, activation="softmax", dtype="float32")(base.output)
    model = keras.Model(base.input, scores)
    model.compile(keras.optimizers.AdamW(1e-5), "sparse_categorical_crossentropy")
    preprocess = keras.applications.inception_v3.preprocess_input

    def epoch() -> None:
        dataset = keras.utils.image_dataset_from_directory(
            images, image_size=(299, 299), batch_size=BATCH, seed=0, verbose=False
        )
        model.fit(dataset.map(lambda x, y: (preprocess(x), y)), epochs=1, shuffle=False, verbose=0)

    return epoch


def memory(inputs: Inputs, *, precision: str, few: int, many: int, **_: object) -> list[Finding]:
    """Peaks of whole runs: the head, an epoch from the cut, the verdict, the test, the export."""
    peaks = {}
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        network = InceptionV3(inputs.weights, models, precision)
        assert network.frozen
        for count in (few, many):
            folder = Path(temporary, str(count))
            make(folder, count, LABELS, network.fingerprint)
            make_rows(folder, network.fingerprint, network.at(CUT))
            config = {
                "image_dir": str(folder / "images"),
                "bottleneck_dir": str(folder / "cache"),
                "output_graph": str(folder / "graph.pb"),
                "output_labels": str(folder / "labels.txt"),
                "model_dir": str(models),
                "weights": inputs.weights,
                "precision": precision,
                "how_many_training_steps": 100,
                "fine_tune_from": CUT,
                "fine_tune_epochs": 1,
            }
            line = [sys.executable, "-c", TRAIN, json.dumps(config)]
            here = Path(__file__).parent
            run = subprocess.run(line, check=True, stdout=subprocess.PIPE, cwd=here)
            peaks[count] = float(run.stdout.split()[-1])
    name = f"fine-tuning from {CUT}, {precision}: peak memory"
    gigabytes = InceptionV3(inputs.weights).at(CUT).spec.nbytes * many / 1e9
    return [
        of(
            f"{name}, {many:,} images",
            [peaks[many]],
            "GB",
            at_most=3.0,
            note=f"{gigabytes:.1f} GB of rows",
        ),
        of(f"{name}, {few:,} images", [peaks[few]], "GB", at_most=3.0),
        of(f"{name}, {many:,} images / {few:,}", [peaks[many] / peaks[few]], "times", at_most=1.1),
    ]


if __name__ == "__main__":
    sizes = {"rounds": 5, "count": PHOTOS, "few": 4_000, "many": 12_000}
    main(measure, __doc__, part="all", precision="float32", **sizes)
