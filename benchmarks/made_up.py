"""A data set of any size whose vectors are made up and cached already: only stage two has to run.

Its images are PNG files of one pixel, each of its own colour. The vectors of a label lie around a
centre of its own.
"""

import hashlib
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np

from bottlenecks.network.inception import Extractor
from bottlenecks.photos.images import signature_of
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store.cache import Cache
from bottlenecks.store.stat_index import StatIndex

ROWS = 8000  # of a shard: less than 64 MiB


class MadeUp:
    """An extractor that has nothing to compute."""

    spec = BOTTLENECK
    fingerprint = "0" * 64
    description = {"weights": "made up"}  # noqa: RUF012

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("every vector should have been cached")


def make(folder: Path, files: int, labels: int, fingerprint: str = MadeUp.fingerprint) -> list[str]:
    """Make ``folder / "images"`` and ``folder / "cache"``; returns the flags that name them."""
    images, cache = folder / "images", Cache(folder / "cache", fingerprint)
    random = np.random.default_rng(0)
    centres = random.random((labels, 2048), np.float32)
    with cache.writing({"weights": "made up"}):
        index = StatIndex.of(cache)
        for start in range(0, files, ROWS):
            numbers = np.arange(start, min(start + ROWS, files))
            keys = [
                _write_image(images, number, number * labels // files, index)
                for number in numbers.tolist()
            ]
            vectors = random.random((len(keys), 2048), np.float32)
            vectors += centres[numbers * labels // files] / 4
            cache.append(keys, vectors)
        index.save()
        cache.merge()
    return [f"--image_dir={images}", f"--bottleneck_dir={folder / 'cache'}"]


def make_rows(folder: Path, bottlenecks: str, extractor: Extractor) -> None:
    """Add made-up rows of ``extractor`` to ``folder / "cache"``, for all that `make` made.

    ``bottlenecks`` is the fingerprint that it was given.
    """
    images = Cache(folder / "cache", bottlenecks)
    images.load()
    keys = list(images)
    cache = Cache(folder / "cache", extractor.fingerprint, extractor.spec)
    random = np.random.default_rng(0)
    rows = extractor.spec.rows_in(2**26)
    with cache.writing({"weights": "made up"}):
        for start in range(0, len(keys), rows):
            own = keys[start : start + rows]
            values = random.random((len(own), *extractor.spec.shape), np.float32)
            cache.append(own, values.astype(extractor.spec.dtype))


def _write_image(images: Path, number: int, label: int, index: StatIndex) -> bytes:
    folder = f"{images}/label {label:04}"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/{number:07}.png"
    data = _one_pixel_png(number)
    with open(path, "wb") as file:
        file.write(data)
    key = hashlib.sha256(data).digest()
    a_minute = 60_000_000_000  # ahead, else the index would not trust so young a file
    index.put(path, signature_of(os.stat(path)), key, time.time_ns() + a_minute)
    return key


def _one_pixel_png(number: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    pixel = bytes((0, number & 255, number >> 8 & 255, number >> 16))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
