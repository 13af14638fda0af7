"""How many labels that were changed on purpose does the data health find, and how fast is it?

5 % of the labels of the given photos are changed to others, five times, and it is counted how many
of these are among the first 5 % of the list; then how many frames of series, made of eight photos,
it lists as near leaks. Then it examines 100,000 made-up vectors.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
from data_sets import series, splits, vectors
from measure import Finding, Inputs, main, of

from bottlenecks.builder import CachedImage
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Dataset, Subset
from retrain.report.health import examine
from retrain.report.near import near_leaks

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
        if not place.endswith(".npz"):
            findings += series_found(Path(place).stem, x, y, series(place, inputs.weights))
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
    problems = examine(dataclasses.replace(dataset, everything=everything), FOLDS).problems
    listed = [problem.path for problem in problems if problem.kind == "wrong label?"]
    return (
        len(changed.intersection(listed[:count])) / count,
        len(changed.intersection(listed)) / count,
    )


def series_found(
    what: str, x: np.ndarray, y: np.ndarray, frames: list[np.ndarray]
) -> list[Finding]:
    """How much of the held-out is listed: of ``frames`` among photos ``x``, ``y``; of these."""
    every = np.concatenate([x, *frames])
    labels = np.append(y, np.repeat(np.arange(len(frames)) % (y.max() + 1), len(frames[0])))
    found, others = [], []
    for seed in range(ROUNDS):
        sets = np.random.default_rng(seed).choice(
            ["training", "validation", "testing"], len(every), p=[0.8, 0.1, 0.1]
        )
        images = [CachedImage("", str(i), str(i), i.to_bytes(4, "big")) for i in range(len(every))]
        names = tuple(map(str, range(y.max() + 1)))
        dataset = Dataset(names, Subset(images, InMemory(every), labels), sets)
        listed = {pair.row for pair in near_leaks(dataset, every.mean(axis=0))}
        held_out = np.flatnonzero(sets != "training")
        is_listed = np.array([row in listed for row in held_out])
        found.append(100 * float(is_listed[held_out >= len(x)].mean()))
        others.append(100 * float(is_listed[held_out < len(x)].mean()))
    return [
        of(f"{what}: held-out frames of a series that are listed as near leaks", found, "%"),
        of("  of the other held-out photos", others, "%"),
    ]


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
