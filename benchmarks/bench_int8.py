"""What does ``--precision int8`` cost in exactness: of the vectors, and of the test accuracy?

On the photos and on those of ``--also``, each calibrated on 96 of its own. The distance of the
vectors from those of float32 is of photos that were not calibrated on. Accuracy is that of heads
with default flags, trained on vectors of either precision and tested on those of float32, as what
is exported computes in float32; on the same 20 splits.
"""

from pathlib import Path

import numpy as np
from data_sets import splits
from measure import Finding, Inputs, main, mean_of, photos

from bottlenecks import calibration
from bottlenecks.builder import BuildReport, build, scan_of
from bottlenecks.config import Config as StageOne
from bottlenecks.network.inception import Extractor, InceptionV3
from bottlenecks.store.vectors import InMemory
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset
from retrain.evaluate import score
from retrain.training.fitting import fit_head
from retrain.training.regularisation import search

PHOTOS, SPLITS, STEPS = 5000, 20, 1000


def measure(inputs: Inputs) -> list[Finding]:
    findings = []
    for place in (inputs.image_dir, *inputs.also):
        if Path(place).is_dir():
            with photos(place, PHOTOS) as folder:
                findings += compare(Path(place).name, folder, inputs.weights)
    return findings


def compare(name: str, folder: Path, weights: str) -> list[Finding]:
    config = StageOne(image_dir=str(folder / "photos"), bottleneck_dir=str(folder / "cache"))
    network = InceptionV3(weights, folder / "models", engine="openvino")
    of_int8 = calibration.calibrate(network, scan_of(config), config.bottleneck_dir)
    assert of_int8 is not None, f"{name} has too few photos to calibrate on"
    (kept,) = calibration.find(config.bottleneck_dir, network)

    def built(extractor: Extractor) -> BuildReport:
        return build(config, extractor=extractor)

    report, other = built(network), built(of_int8)
    images = [image for image in report.images if image.key not in kept.photos]
    keys = [image.key for image in report.images]
    exact, rounded = (one.cache.read(keys) for one in (report, other))
    new = np.array([key not in kept.photos for key in keys])
    norms = np.linalg.norm(exact[new], axis=1)
    apart = 100 * np.linalg.norm(rounded[new] - exact[new], axis=1) / norms
    y = np.unique([image.label for image in report.images], return_inverse=True)[1]
    lost = [
        accuracy(exact, dataset) - accuracy(rounded, dataset)
        for dataset in splits(exact, y, SPLITS)
    ]
    low, high = (float(np.quantile(apart, share)) for share in (0.05, 0.95))
    note = f"median, and 5 to 95 % of {len(images)} photos that were not calibrated on"
    what = f"int8, {name}: distance of the vectors from float32"
    interval = 1.96 * float(np.std(lost, ddof=1)) / np.sqrt(SPLITS)
    return [
        Finding(what, float(np.median(apart)), low, high, "%", note=note),
        mean_of(
            f"int8, {name}: test accuracy lost",
            *(lost, "points"),
            at_most=0.3,
            note=f"mean, and range of {SPLITS} splits; 95 % interval of the mean +- {interval:.2g}",
        ),
    ]


def accuracy(vectors: np.ndarray, dataset: Dataset) -> float:
    """Percent right on the test set, of float32, of a head that was trained on ``vectors``."""
    everything = Subset(dataset.everything.images, InMemory(vectors), dataset.everything.y)
    own = Dataset(dataset.labels, everything, dataset.set_of)
    config = Config(image_dir=".", how_many_training_steps=STEPS)
    found = search(own)
    model = fit_head(config, own, found.l2 if found else None).model
    test = dataset.testing
    return 100 * score(model.predict_all(test.vectors), test.y).accuracy


if __name__ == "__main__":
    main(measure, __doc__)
