"""How long does a report with data health take for 3,000 labels, and how much memory?

Of 15,000 made-up vectors, five of each label: the search for near leaks, wrong labels and outliers,
the figures of a test, and the page with its pictures and tables. Photos are not there to be shown.
"""

import tempfile
import time

import numpy as np
from measure import Finding, Inputs, main, of, peak_gigabytes

from bottlenecks.builder import CachedImage
from bottlenecks.store.vectors import InMemory
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset
from retrain.report.health import count_folds, different_images, examine
from retrain.report.page import write_report
from retrain.report.results import TrainingResult, test_model
from retrain.training.fitting import Fitted, fit_head

LABELS, OF_EACH, STEPS = 3_000, 5, 50


def measure(_: Inputs) -> list[Finding]:
    dataset = made_up()
    config = Config(image_dir=".", how_many_training_steps=STEPS)
    fitted = fit_head(config, dataset)
    before = peak_gigabytes()
    seconds = []
    for settings in (None, config):
        started = time.perf_counter()
        _write(dataset, fitted, settings)
        seconds.append(time.perf_counter() - started)
    what = f"report of {LABELS * OF_EACH:,} vectors, {LABELS:,} labels"
    return [
        of(f"{what}: test and page", seconds[:1], "s"),
        of(f"{what}: with data health", seconds[1:], "s", at_most=60.0),
        of("  memory beyond training", [peak_gigabytes() - before], "GB", at_most=2.0),
    ]


def _write(dataset: Dataset, fitted: Fitted, config: Config | None) -> None:
    """The test and the page, and with ``config`` the data health."""
    problems = None
    if config is not None:
        folds = count_folds(different_images(dataset), None)
        problems = examine(dataset, folds).problems
    test = test_model(dataset, fitted.model)
    result = TrainingResult(
        dataset.labels, dataset.counts, fitted.model, fitted, None, 1.0, test, problems
    )
    with tempfile.TemporaryDirectory() as folder:
        write_report(folder, {"image_dir": ".", "calibrate": False}, result)


def made_up() -> Dataset:
    """Gaussian classes, a photo in ten for validation and one for the test."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((LABELS, 2048), np.float32) * np.float32(0.2)
    n = LABELS * OF_EACH
    y = np.arange(n) % LABELS
    x = np.abs(centres[y] + 0.3 * random.standard_normal((n, 2048), np.float32) + np.float32(0.4))
    images = [
        CachedImage(f"label {label:04}", f"{i}.jpg", f"{i}.jpg", i.to_bytes(32, "big"))
        for i, label in enumerate(y)
    ]
    sets = np.full(n, "training", "<U10")
    for number, name in ((3, "validation"), (4, "testing")):  # of half of the labels one each
        sets[number * LABELS : (number + 1) * LABELS : 2] = name
    labels = tuple(f"label {i:04}" for i in range(LABELS))
    return Dataset(labels, Subset(images, InMemory(x.astype(np.float32)), y), sets)


if __name__ == "__main__":
    main(measure, __doc__)
