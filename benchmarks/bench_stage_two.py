"""How long do 1000 steps of batch 100 on 3,000 vectors take, with an evaluation every 10 steps?

The search for the strength of the regularisation is in it, where it is made. Then of 1,000 and
3,000 labels, five vectors each, of which one in ten validates; these once, and without
scikit-learn, which takes hours.

Against the floor, the same number of minibatch steps in plain NumPy without any evaluation, and
against scikit-learn's LogisticRegression, which goes to the minimum.
"""

import numpy as np
from measure import Finding, Inputs, alternate, main, of, ratios
from sklearn.linear_model import LogisticRegression

from bottlenecks.builder import CachedImage
from bottlenecks.machine import one_blas_thread
from bottlenecks.parallel import product
from bottlenecks.store.vectors import InMemory
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset
from retrain.training.fitting import fit_head
from retrain.training.regularisation import search

TRAINING, HELD_OUT, STEPS, BATCH = 3_000, 375, 1000, 100
OF_EACH = 5  # vectors of each of many labels


def measure(_: Inputs) -> list[Finding]:
    return [
        *compare(5, at_most=1.0),
        *compare(100, at_most=1.5),
        *many(1_000, at_most=10.0),
        *many(3_000, at_most=30.0),
    ]


def many(labels: int, **goal: float) -> list[Finding]:
    """Against the products alone: those of the steps and of the evaluations, in blocks."""
    held_out = labels * OF_EACH // 10
    dataset = made_up(labels, labels * OF_EACH - 2 * held_out, held_out)
    config = Config(image_dir=".", how_many_training_steps=STEPS, train_batch_size=BATCH)
    ours, floor = "retrain", "its products alone"
    sides = {ours: lambda: fit_head(config, dataset), floor: lambda: products(labels, held_out)}
    seconds = alternate(sides, rounds=1, warm_up=False)
    what = f"stage two, {labels:,} labels"
    return [
        of(f"{what}: 1000 steps, 100 evaluations", seconds[ours], "s", **goal),
        of(f"{what} / {floor}", ratios(seconds, ours, floor), "times"),
    ]


def products(labels: int, held_out: int) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((2048, labels), np.float32)
    z, validation = (random.standard_normal((n, 2048), np.float32) for n in (BATCH, held_out))
    error = random.standard_normal((BATCH, labels), np.float32)
    with one_blas_thread():
        for step in range(STEPS):
            product(z, weights)
            product(z.T, error)
            if step % 10 == 0:
                product(validation, weights)


def compare(labels: int, **goal: float) -> list[Finding]:
    dataset = made_up(labels)
    config = Config(image_dir=".", how_many_training_steps=STEPS, train_batch_size=BATCH)
    x, y = dataset.training.x, dataset.training.y
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)
    ours, floor, exact = "retrain", "plain NumPy steps", "scikit-learn's LogisticRegression"
    seconds = alternate(
        {
            ours: lambda: fit_head(
                config, dataset, found.l2 if (found := search(dataset)) else None
            ),
            floor: lambda: plain_numpy(standardised, y, labels),
            exact: lambda: LogisticRegression(C=1e-2).fit(standardised, y),
        }
    )
    what = f"stage two, {labels} labels"
    return [
        of(f"{what}: 1000 steps, 100 evaluations", seconds[ours], "s", **goal),
        of(f"{what} / {floor}", ratios(seconds, ours, floor), "times"),
        of(f"{what} / {exact}", ratios(seconds, ours, exact), "times"),
    ]


def made_up(labels: int, training: int = TRAINING, held_out: int = HELD_OUT) -> Dataset:
    """Overlapping Gaussian classes in three sets."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 0.1, (labels, 2048))

    n = training + 2 * held_out
    y = np.arange(n) % labels
    x = np.abs(centres[y] + random.normal(0.4, 0.3, (n, 2048))).astype(np.float32)
    images = [
        CachedImage(str(label), str(i), str(i), i.to_bytes(32, "big")) for i, label in enumerate(y)
    ]
    sets = np.repeat(["training", "validation", "testing"], [training, held_out, held_out])
    return Dataset(tuple(map(str, range(labels))), Subset(images, InMemory(x), y), sets)


def plain_numpy(z: np.ndarray, y: np.ndarray, labels: int) -> None:
    """Softmax regression by plain gradient descent, as one would write it first."""
    random = np.random.default_rng(0)
    weights, bias = np.zeros((z.shape[1], labels), np.float32), np.zeros(labels, np.float32)
    for _ in range(STEPS):
        batch = random.integers(0, len(z), BATCH)
        logits = z[batch] @ weights + bias
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(BATCH), y[batch]] -= 1
        weights -= 0.01 / BATCH * (z[batch].T @ error)
        bias -= 0.01 / BATCH * error.sum(axis=0)


if __name__ == "__main__":
    main(measure, __doc__)
