"""How near do the default flags and 1000 steps come to the best logistic regression?

On the vectors of the given photos and on 100 made-up overlapping classes: the mean test accuracy
over splits and five seeds, against scikit-learn's L2-regularised LogisticRegression (L-BFGS) on
the same vectors and splits, its strength chosen on the validation set, and against retrain.py's
own recipe. Instead of photos it takes vectors too, a file that ``python -m bottlenecks
--export_npz`` wrote. Then, on a long-tailed set, what ``--class_balance`` does for the labels with
few images.
"""

import warnings
from collections.abc import Iterator

import numpy as np
from measure import Finding, Inputs, main, of, photos
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from bottlenecks.builder import CachedImage, build
from bottlenecks.config import Config as StageOne
from bottlenecks.inception import InceptionV3
from bottlenecks.vectors import InMemory
from retrain.config import Config
from retrain.dataset import Dataset, Subset
from retrain.evaluate import score
from retrain.fitting import fit_head

SPLITS = 20  # one test set of a few hundred photos says nothing: its accuracy varies by 2 points
MADE_UP_SPLITS = 5
SEEDS, STEPS = 5, 1000
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # scikit-learn's C
MADE_UP, PER_LABEL = 100, 20


def measure(inputs: Inputs) -> list[Finding]:
    warnings.simplefilter("ignore")  # an L-BFGS that has not quite converged is near enough
    findings = [
        *compare("photos", *vectors(inputs)),
        *compare("made up", *gaussians([PER_LABEL] * MADE_UP), MADE_UP_SPLITS),
    ]
    return [*findings, *long_tail()]


def vectors(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 2048) and the number of the label of each, (n,)."""
    if inputs.image_dir.endswith(".npz"):
        file = np.load(inputs.image_dir, allow_pickle=False)
        return file["vectors"], np.unique(file["labels"], return_inverse=True)[1]
    with photos(inputs.image_dir, 5000) as folder:
        report = build(
            StageOne(image_dir=str(folder / "photos"), bottleneck_dir=str(folder / "cache")),
            extractor=InceptionV3(inputs.weights, folder / "models"),
        )
        x = report.cache.read(image.key for image in report.images)
    return x, np.unique([image.label for image in report.images], return_inverse=True)[1]


def compare(what: str, x: np.ndarray, y: np.ndarray, count: int = SPLITS) -> list[Finding]:
    """Points of test accuracy by which each recipe is behind the logistic regression, by split."""
    behind: dict[str, list[float]] = {"adam": [], "classic": []}
    references = []
    for dataset in splits(x, y, count):
        references.append(100 * best_logistic_regression(dataset))
        for recipe, lost in behind.items():
            found = [
                100 * test_recalls(dataset, seed=seed, recipe=recipe)[0] for seed in range(SEEDS)
            ]
            lost.append(references[-1] - float(np.mean(found)))
    name = f"{what}, {y.max() + 1} labels"
    mean = {recipe: float(np.mean(lost)) for recipe, lost in behind.items()}
    return [
        Finding(
            *(f"{name}: accuracy behind the best logistic regression", mean["adam"]),
            *(min(behind["adam"]), max(behind["adam"]), "points", None, 0.5),
            "mean, and range of the splits",
        ),
        Finding(
            *(f"{name}: the same with --recipe classic", mean["classic"]),
            *(min(behind["classic"]), max(behind["classic"]), "points"),
        ),
        of(f"  {name}: accuracy of the logistic regression", references, "%"),
    ]


def splits(x: np.ndarray, y: np.ndarray, count: int) -> Iterator[Dataset]:
    """70 % training, 10 % validation, 20 % testing of each label, dealt out anew each time."""
    images = [CachedImage(str(c), str(i), str(i), i.to_bytes(4, "big")) for i, c in enumerate(y)]
    everything = Subset(images, InMemory(x), y)
    for split in range(count):
        random = np.random.default_rng(split)
        place = np.empty(len(y))
        for label in range(y.max() + 1):
            rows = np.flatnonzero(y == label)
            place[rows] = random.permutation(len(rows)) / len(rows)
        sets = np.where(place < 0.1, "validation", np.where(place < 0.3, "testing", "training"))
        yield Dataset(tuple(map(str, range(y.max() + 1))), everything, sets)


def best_logistic_regression(dataset: Dataset) -> float:
    """Test accuracy of the strength with the best validation accuracy.

    Where two have the same, the one with the lower cross-entropy; never by the test set.
    """
    train, validate, test = dataset.training, dataset.validation, dataset.testing
    found = []
    with threadpool_limits(1):
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=300).fit(train.x, train.y)
            validation = score(model.predict_proba(validate.x), validate.y)
            found.append((validation.accuracy, -validation.cross_entropy, model))
    best = max(found, key=lambda one: one[:2])[-1]
    return float(best.score(test.x, test.y))


def test_recalls(dataset: Dataset, **settings: object) -> tuple[float, np.ndarray]:
    """Test accuracy, and the recall of each label."""
    config = Config(image_dir=".", how_many_training_steps=STEPS, **settings)  # type: ignore[arg-type]
    testing = dataset.testing
    right = fit_head(config, dataset).head.predict_all(testing.vectors).argmax(axis=1) == testing.y
    return float(right.mean()), np.bincount(testing.y, right) / np.bincount(testing.y)


def gaussians(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes with as many vectors as ``counts`` says."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 0.03, (len(counts), 2048))
    y = np.repeat(np.arange(len(counts)), counts)
    return np.abs(centres[y] + random.normal(0.4, 0.3, (len(y), 2048))).astype(np.float32), y


def long_tail() -> list[Finding]:
    """20 labels with 400 to 12 images, each count 0.83 times the one before."""
    counts = [round(400 * 0.83**i) for i in range(20)]
    findings = []
    for balance in ("none", "weights", "sampling"):
        found = [
            test_recalls(dataset, class_balance=balance)
            for dataset in splits(*gaussians(counts), 3)
        ]
        rare = [100 * float(recalls[10:].mean()) for _, recalls in found]
        name = f"long tail, --class_balance {balance}: recall of the rarer half of the labels"
        findings.append(of(name, rare, "%"))
        findings.append(of("  accuracy over all", [100 * accuracy for accuracy, _ in found], "%"))
    return findings


if __name__ == "__main__":
    main(measure, __doc__)
