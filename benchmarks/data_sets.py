"""Vectors of photos, and data sets made of them again and again."""

from collections.abc import Iterator

import numpy as np
from measure import photos

from bottlenecks.builder import CachedImage, build
from bottlenecks.config import Config as StageOne
from bottlenecks.network.inception import InceptionV3
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Dataset, Subset


def vectors(place: str, weights: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 2048) and the number of the label of each, (n,)."""
    if place.endswith(".npz"):
        file = np.load(place, allow_pickle=False)
        return file["vectors"], np.unique(file["labels"], return_inverse=True)[1]
    with photos(place, 5000) as folder:
        report = build(
            StageOne(image_dir=str(folder / "photos"), bottleneck_dir=str(folder / "cache")),
            extractor=InceptionV3(weights, folder / "models"),
        )
        x = report.cache.read(image.key for image in report.images)
    return x, np.unique([image.label for image in report.images], return_inverse=True)[1]


def splits(
    x: np.ndarray, y: np.ndarray, count: int, wrong: float = 0.0, most: int | None = None
) -> Iterator[Dataset]:
    """70 % training, 10 % validation, 20 % testing of each label, dealt out anew each time.

    A share ``wrong`` of the labels that are not tested on is changed; with ``most``, as many of
    each label are trained on and one validates, and all others are tested on.
    """
    images = [CachedImage(str(c), str(i), str(i), i.to_bytes(4, "big")) for i, c in enumerate(y)]
    for split in range(count):
        random = np.random.default_rng(split)
        sets = np.full(len(y), "testing", "U10")
        for label in range(y.max() + 1):
            rows = random.permutation(np.flatnonzero(y == label))
            training = most or round(0.7 * len(rows))
            validation = 1 if most else round(0.1 * len(rows))
            sets[rows[:training]] = "training"
            sets[rows[training : training + validation]] = "validation"
        changed = (random.random(len(y)) < wrong) & (sets != "testing")
        given = np.where(changed, random.integers(0, y.max() + 1, len(y)), y)
        everything = Subset(images, InMemory(x), given)
        yield Dataset(tuple(map(str, range(y.max() + 1))), everything, sets)
