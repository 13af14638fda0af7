"""Photos whose labels a convolution tells apart, and a head on random layers hardly."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny import CELL

CELLS = 13  # of a side of mixed7
LABELS = ("long", "middle", "short")
FREQUENCIES = (1.0, 1.4, 1.8)  # radians a cell


def wave(label: int, seed: int, noise: float = 1.5) -> Image.Image:
    """A photo of `CELLS` x `CELLS` coloured squares: a wave of the label's length below noise."""
    random = np.random.default_rng((label, seed))
    crests = np.sin(np.arange(CELLS) * FREQUENCIES[label] + random.uniform(0, 6))
    squares = crests[None, :, None] + random.normal(0, noise, (CELLS, CELLS, 3))
    pixels = np.clip(128 + 25 * squares, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.repeat(CELL, 0).repeat(CELL, 1))


def make_waves(root: Path, per_label: int = 60, noise: float = 1.5) -> Path:
    """``root``/long, /middle, /short with ``per_label`` PNGs each."""
    for number, label in enumerate(LABELS):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_label):
            wave(number, i, noise).save(folder / f"{label}_{i:03}.png")
    return root
