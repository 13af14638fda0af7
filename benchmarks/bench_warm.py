"""How long does a run take to recognise 100,000 files whose vectors are cached?

Makes that many one-pixel PNG files and a cache with a (made-up) vector for each, then builds again
in fresh processes, with the start of the interpreter and the libraries measured apart. The
goal is 5 s besides that start.

    python benchmarks/bench_warm.py [NUMBER_OF_FILES]
"""

import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from bottlenecks import builder
from bottlenecks.config import Config

RUNS = 5
PER_LABEL = 1000

START = "import bottlenecks.builder"
WARM = """
import sys, time
from bottlenecks.builder import build
from bottlenecks.config import Config
sys.path.insert(0, sys.argv[1])
from bench_warm import MadeUp
started = time.perf_counter()
report = build(Config(image_dir=sys.argv[2], bottleneck_dir=sys.argv[3]), extractor=MadeUp())
assert (report.computed, report.cached) == (0, int(sys.argv[4])), report
print(time.perf_counter() - started)
"""


class MadeUp:
    """An extractor that computes nothing."""

    fingerprint = "0" * 64
    description = {"weights": "made up"}  # noqa: RUF012

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(pixels)).random((len(pixels), 2048), dtype=np.float32)


def one_pixel_png(number: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    pixel = bytes((0, number & 255, number >> 8 & 255, number >> 16))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixel))
        + chunk(b"IEND", b"")
    )


def main(files: int = 100_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, cache = Path(folder) / "images", Path(folder) / "cache"
        for number in range(files):
            label = images / f"label {number // PER_LABEL:04}"
            label.mkdir(parents=True, exist_ok=True)
            (label / f"{number:07}.png").write_bytes(one_pixel_png(number))
        blank = np.zeros((299, 299, 3), np.uint8)
        builder.decode = lambda _: blank  # the pixels do not matter here
        config = Config(image_dir=str(images), bottleneck_dir=str(cache), batch_size=64)
        builder.build(config, extractor=MadeUp())

        start, warm = [], []
        for _ in range(RUNS):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", START], check=True)
            start.append(time.perf_counter() - started)
            command = [sys.executable, "-c", WARM, str(Path(__file__).parent), images, cache]
            result = subprocess.run([*command, str(files)], check=True, capture_output=True)
            warm.append(float(result.stdout))
    for name, seconds in (("start of the libraries", start), (f"{files} cached files", warm)):
        print(
            f"{name:24} median {statistics.median(seconds):.2f} s, "
            f"from {min(seconds):.2f} to {max(seconds):.2f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
