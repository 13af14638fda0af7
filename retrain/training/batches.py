"""Which rows a step is taken on: shuffled epochs, or each label as likely as any other."""

from collections.abc import Iterator

import numpy as np


def epochs(n: int, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of ``size`` <= n indices that go through one shuffled epoch after another."""
    order = random.permutation(n)
    at = 0
    while True:
        if at + size > len(order):
            order = np.concatenate([order[at:], random.permutation(n)])
            at = 0
        yield order[at : at + size]
        at += size


def balanced(
    y: np.ndarray, counts: np.ndarray, size: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Endless batches of ``size`` rows: a label by chance, then one of its rows by chance."""
    by_label = np.argsort(y, kind="stable")
    starts = np.cumsum(counts) - counts
    while True:
        labels = random.integers(0, len(counts), size)
        yield by_label[starts[labels] + random.integers(0, counts[labels])]


def varied(
    batches: Iterator[np.ndarray], n: int, variants: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """``batches`` of images, of n, as rows: image i has row i, and v * n + i for each variant v.

    Which of the 1 + ``variants`` rows of an image is drawn is left to chance.
    """
    for batch in batches:
        yield batch + n * random.integers(0, 1 + variants, len(batch)) if variants else batch
