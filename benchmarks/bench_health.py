"""How many labels that were changed on purpose does the data health find, and how fast is it?

5 % of the labels of the given photos are changed to others, five times, and it is counted how many
of these are among the first 5 % of the list. Then it examines 100,000 made-up vectors.
"""

import dataclasses
import time

import numpy as np
from measure import Finding, Inputs, main, of, photos

from bottlenecks.builder import CachedImage, build
from bottlenecks.config import Config as StageOne
from bottlenecks.inception import InceptionV3
from bottlenecks.vectors import InMemory
from retrain.config import Config
from retrain.dataset import Dataset, Subset, assemble
from retrain.health import examine

SHARE, ROUNDS, MANY, LABELS = 0.05, 5, 100_000, 100


def measure(inputs: Inputs) -> list[Finding]:
    with photos(inputs.image_dir, 5000) as folder:
        report = build(
            StageOne(image_dir=str(folder / "photos"), bottleneck_dir=str(folder / "cache")),
            extractor=InceptionV3(inputs.weights, folder / "models"),
        )
        dataset = assemble(report, 10, 10)
    found = [changed_labels(dataset, seed) for seed in range(ROUNDS)]
    note = f"{len(dataset.everything)} photos, {len(dataset.labels)} labels"
    first = [100 * first for first, _ in found]
    in_list = [100 * in_list for _, in_list in found]
    large = made_up()
    started = time.perf_counter()
    examine(Config(image_dir="."), large)
    return [
        of("changed labels among the first 5 % of the list", first, "%", note=note),
        of("changed labels anywhere in the list", in_list, "%", note=note),
        of(
            f"data health of {MANY:,} vectors, {LABELS} labels",
            *([time.perf_counter() - started], "s"),
            at_most=60.0,
        ),
    ]


def changed_labels(dataset: Dataset, seed: int) -> tuple[float, float]:
    """The share of the changed labels in the first 5 % of the list, and in all of it."""
    random = np.random.default_rng(seed)
    y = dataset.everything.y.copy()
    count = round(SHARE * len(y))
    rows = random.choice(len(y), count, replace=False)
    y[rows] = (y[rows] + random.integers(1, len(dataset.labels), count)) % len(dataset.labels)
    changed = {dataset.everything.images[row].path for row in rows}
    everything = dataclasses.replace(dataset.everything, y=y)
    problems = examine(Config(image_dir="."), dataclasses.replace(dataset, everything=everything))
    listed = [problem.path for problem in problems if problem.kind == "wrong label?"]
    return (
        len(changed.intersection(listed[:count])) / count,
        len(changed.intersection(listed)) / count,
    )


def made_up() -> Dataset:
    random = np.random.default_rng(0)
    centres = random.normal(0.4, 0.2, (LABELS, 2048)).astype(np.float32)
    y = np.arange(MANY) % LABELS
    x = np.empty((MANY, 2048), np.float32)
    for start in range(0, MANY, 10_000):
        rows = slice(start, start + 10_000)
        x[rows] = centres[y[rows]] + random.standard_normal((10_000, 2048), np.float32) * 0.3
    images = [CachedImage(str(c), str(i), str(i), i.to_bytes(4, "big")) for i, c in enumerate(y)]
    sets = random.choice(["training", "validation", "testing"], MANY, p=[0.8, 0.1, 0.1])
    return Dataset(tuple(map(str, range(LABELS))), Subset(images, InMemory(x), y), sets)


if __name__ == "__main__":
    main(measure, __doc__)
