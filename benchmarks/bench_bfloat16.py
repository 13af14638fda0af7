"""What does ``--precision bfloat16`` cost in exactness: of the vectors, and of the test accuracy?

Each classifier is trained on its own vectors and tested on photos it has not seen, over five
seeds, as one test of a few hundred photos cannot tell half a point.
"""

import numpy as np
from bench_network import distance
from measure import Finding, Inputs, main, of, photos

from bottlenecks.builder import BuildReport, build
from bottlenecks.config import Config
from bottlenecks.machine import cpu_has_bfloat16
from bottlenecks.network.inception import InceptionV3
from retrain.data.dataset import Dataset, assemble
from retrain.training.head import Fit

PHOTOS, STEPS, SEEDS = 600, 1000, 5


def measure(inputs: Inputs) -> list[Finding]:
    if not cpu_has_bfloat16():
        note = "this processor has no bfloat16: --precision bfloat16 says so and uses float32"
        return [Finding("bfloat16: distance from float32", 0, 0, 0, "%", note=note)]
    with photos(inputs.image_dir, PHOTOS) as folder:

        def built(precision: str) -> BuildReport:
            return build(
                Config(image_dir=str(folder / "photos"), bottleneck_dir=str(folder / "cache")),
                extractor=InceptionV3(inputs.weights, folder / "models", precision),
            )

        reports = [built(precision) for precision in ("float32", "bfloat16")]
        keys = [image.key for image in reports[0].images]
        exact, rounded = (report.cache.read(keys) for report in reports)
        datasets = [assemble(report, 10, 30) for report in reports]
    apart = np.linalg.norm(rounded - exact, axis=1) / np.linalg.norm(exact, axis=1)
    lost = [
        100 * (accuracy(datasets[0], seed) - accuracy(datasets[1], seed)) for seed in range(SEEDS)
    ]
    n = len(datasets[0].testing)
    return [
        Finding(
            "bfloat16: distance of the vectors from float32",
            median=100 * distance(rounded, exact),
            low=100 * float(np.quantile(apart, 0.05)),
            high=100 * float(np.quantile(apart, 0.95)),
            unit="%",
            at_most=1.0,
            note=f"median and 5 to 95 % of {len(apart)} photos",
        ),
        of("bfloat16: test accuracy lost", lost, "points", at_most=0.5, note=f"{n} test photos"),
    ]


def accuracy(dataset: Dataset, seed: int) -> float:
    fit = Fit(
        dataset.training.vectors,
        dataset.training.y,
        len(dataset.labels),
        steps=STEPS,
        batch_size=100,
        learning_rate=0.001,
        seed=seed,
    )
    for _ in range(STEPS):
        fit.step()
    guesses = fit.model().predict_all(dataset.testing.vectors).argmax(axis=1)
    return float((guesses == dataset.testing.y).mean())


if __name__ == "__main__":
    main(measure, __doc__)
