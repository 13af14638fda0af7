"""How many labels that were changed on purpose does the data health find, and how fast is it?

5 % of the labels of the given photos are changed to others, five times, and it is counted how many
of these are among the first 5 % of the list. Then it examines 100,000 made-up vectors.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
from data_sets import splits, vectors
from measure import Finding, Inputs, main, of

from bottlenecks.builder import CachedImage
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Dataset, Subset
from retrain.report.health import examine

SHARE, ROUNDS, MANY, LABELS = 0.05, 5, 100_000, 100
FOLDS = 5


def measure(inputs: Inputs) -> list[Finding]:
    findings = []
    for place in (inputs.image_dir, *inputs.also):
        x, y = vectors(place, inputs.weights)
        found = [changed_labels(dataset, seed) for seed, dataset in enumerate(splits(x, y, ROUNDS))]
        what = f"{Path(place).stem}: {len(y)} photos, {y.max() + 1} labels"
        first = [100 * first for first, _ in found]
        in_list = [100 * in_list for _, in_list in found]
        findings += [
            of(f"{what}: changed labels among the first 5 % of the list", first, "%"),
            of("  anywhere in the list", in_list, "%"),
        ]
    large = made_up()
    started = time.perf_counter()
    examine(large, FOLDS)
    seconds = time.perf_counter() - started
    what = f"data health of {MANY:,} vectors, {LABELS} labels"
    return [*findings, of(what, [seconds], "s", at_most=60.0)]


def changed_labels(dataset: Dataset, seed: int) -> tuple[float, float]:
    """The share of the changed labels in the first 5 % of the list, and in all of it."""
    random = np.random.default_rng(seed)
    y = dataset.everything.y.copy()
    count = round(SHARE * len(y))
    rows = random.choice(len(y), count, replace=False)
    y[rows] = (y[rows] + random.integers(1, len(dataset.labels), count)) % len(dataset.labels)
    changed = {dataset.everything.images[row].path for row in rows}
    everything = dataclasses.replace(dataset.everything, y=y)
    problems = examine(dataclasses.replace(dataset, everything=everything), FOLDS)
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
