"""Vectors of photos, and data sets made of them again and again."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import photos
from PIL import Image

from bottlenecks.builder import CachedImage, build
from bottlenecks.config import Config as StageOne
from bottlenecks.network.inception import InceptionV3
from bottlenecks.photos.labels import scan
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


def digits(weights: str, per_digit: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and labels of scikit-learn's handwritten digits: not photos at all."""
    from sklearn.datasets import load_digits

    found = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        for digit in range(10):
            of_digit = found.images[found.target == digit][:per_digit]
            (Path(folder) / "digits" / str(digit)).mkdir(parents=True)
            for i, image in enumerate(of_digit):
                picture = Image.fromarray(np.uint8(image * 255 / 16))  # 8 x 8, values 0 to 16
                picture.resize((128, 128)).save(Path(folder) / "digits" / str(digit) / f"{i}.png")
        return vectors(str(Path(folder) / "digits"), weights)


def series(image_dir: str, weights: str, count: int = 8, frames: int = 20) -> list[np.ndarray]:
    """Vectors of ``frames`` of each of ``count`` photos: turned, cropped, brighter, noisy."""
    random = np.random.default_rng(0)
    network = InceptionV3(weights, tempfile.gettempdir())
    images = scan(image_dir).images
    found = []
    for row in random.choice(len(images), count, replace=False):
        with Image.open(images[row].path) as photo:
            whole = photo.convert("RGB")
        pixels = [_frame(whole, random) for _ in range(frames)]
        found.append(network(np.stack(pixels)))
    return found


def _frame(photo: Image.Image, random: np.random.Generator) -> np.ndarray:
    """(299, 299, 3) uint8: 75 to 95 % of ``photo``, turned by up to 6 degrees."""
    turned = photo.rotate(random.uniform(-6, 6), Image.Resampling.BILINEAR)
    share = random.uniform(0.75, 0.95)
    width, height = (round(share * side) for side in photo.size)
    left = int(random.integers(0, photo.width - width + 1))
    top = int(random.integers(0, photo.height - height + 1))
    cropped = turned.crop((left, top, left + width, top + height)).resize((299, 299))
    pixels = np.asarray(cropped) * random.uniform(0.8, 1.2) + random.normal(0, 4, (299, 299, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


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
        sets = dealt(y, random, most)
        changed = (random.random(len(y)) < wrong) & (sets != "testing")
        given = np.where(changed, random.integers(0, y.max() + 1, len(y)), y)
        everything = Subset(images, InMemory(x), given)
        yield Dataset(tuple(map(str, range(y.max() + 1))), everything, sets)


def dealt(y: np.ndarray, random: np.random.Generator, most: int | None = None) -> np.ndarray:
    """The name of the set (n,) of each image, by its label ``y`` (n,); see `splits`."""
    sets = np.full(len(y), "testing", "U10")
    for label in range(y.max() + 1):
        rows = random.permutation(np.flatnonzero(y == label))
        training = most or round(0.7 * len(rows))
        validation = 1 if most else round(0.1 * len(rows))
        sets[rows[:training]] = "training"
        sets[rows[training : training + validation]] = "validation"
    return sets
