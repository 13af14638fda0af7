"""What do fine-tuning and distortions add to the accuracy, on which data, and in what time?

With the default flags, on splits of the photos and of those of ``--also`` (70 % training, 10 %
validation, 20 % testing): the test accuracy and cross-entropy of what fine-tuning from mixed7 gives
against the head alone, with and without distortions; and whether anything was exported that the
validation set calls worse. Then the seconds that fine-tuning adds to a whole run that finds
bottlenecks but no rows of the cut.

It takes hours: ``--work FOLDER`` keeps the rows and the figures of each split, and the same command
goes on from there, or adds up what is there (which is of the recipe as it was then). ``--part`` is
``plain``, ``distorted``, ``seconds`` or ``all``; ``--splits`` says how many, from ``--first`` on;
``--precision`` is ``float32`` or ``bfloat16``, of rows that the ``--engine`` computes.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import dealt
from measure import Finding, Inputs, main, mean_of, of

from bottlenecks.builder import BuildReport, build
from bottlenecks.network.inception import InceptionV3
from bottlenecks.store.vectors import InMemory
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset, assemble
from retrain.evaluate import score
from retrain.learning import Learned, learn
from retrain.listener import Listener
from retrain.training.fitting import Evaluation, Model
from retrain.training.tuned import FineTuned

CUT, SPLITS = "mixed7", 10
PLAIN, DISTORTED, SECONDS = "plain", "distorted", "seconds"
DISTORTIONS: dict[str, Any] = {
    "flip_left_right": True,
    "random_crop": 10,
    "random_scale": 10,
    "random_brightness": 10,
    "distortions_per_image": 4,
}
Figures = dict[str, float]


def measure(inputs: Inputs) -> list[Finding]:
    options = inputs.options
    parts = (PLAIN, DISTORTED, SECONDS) if options["part"] == "all" else (options["part"],)
    findings = []
    with work_folder(options["work"]) as work:
        network = InceptionV3(inputs.weights, work / "models").computed_in(
            options["precision"], options["engine"]
        )
        for place in (inputs.image_dir, *inputs.also):
            if Path(place).is_dir():  # of vectors alone nothing can be fine-tuned
                found = figures_of(place, network, work, parts, inputs)
                goal = 1.5 if place == inputs.image_dir else None
                name = f"{Path(place).name}, {options['precision']}"
                findings += summary(name, found, goal)
        if SECONDS in parts:
            findings += seconds(inputs.image_dir, network, work)
    return findings


@contextmanager
def work_folder(kept: str) -> Iterator[Path]:
    """The folder ``kept``, or one that is removed where that is empty."""
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept).resolve()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def figures_of(
    place: str, network: InceptionV3, work: Path, parts: Sequence[str], inputs: Inputs
) -> dict[str, list[Figures]]:
    """The figures of each split, by part; those that are in ``work`` are not measured again."""
    config = Config(
        image_dir=place,
        bottleneck_dir=str(work / "cache"),
        precision=network.precision,
        fine_tune_from=CUT,
    )
    first, count = inputs.options["first"], inputs.options["splits"]
    report: BuildReport | None = None
    found: dict[str, list[Figures]] = {}
    for split in range(first, first + count):
        for part in parts:
            if part == SECONDS:
                continue
            own_name = f"{Path(place).name}-{network.fingerprint[:12]}-{part}-{split}"
            file = work / f"{own_name}.json"
            if not file.exists():
                report = report or build(config, extractor=network)
                own = replace(config, **(DISTORTIONS if part == DISTORTED else {}))
                figures = figures_of_split(own, dealt_out(report, split), network)
                file.write_text(json.dumps(figures))
                print(file.stem, figures, flush=True)
            found.setdefault(part, []).append(json.loads(file.read_text()))
    return found


def dealt_out(report: BuildReport, split: int) -> Dataset:
    """The images of ``report`` in sets of their own; of copies one."""
    images = list({image.key: image for image in report.images}.values())
    labels = sorted({image.label for image in images})
    y = np.array([labels.index(image.label) for image in images], np.int64)
    vectors = InMemory(report.cache.read(image.key for image in images))
    sets = dealt(y, np.random.default_rng(split))
    return Dataset(tuple(labels), Subset(images, vectors, y), sets)


class Clock(Listener):
    """When the head was trained, and how long it took from there to the verdict."""

    head_trained = seconds = 0.0

    def evaluated(self, evaluation: Evaluation) -> None:
        self.head_trained = time.perf_counter()

    def judged(self, fine_tuned: FineTuned) -> None:
        self.seconds = time.perf_counter() - self.head_trained


def figures_of_split(config: Config, dataset: Dataset, network: InceptionV3) -> Figures:
    learned = learn(config, dataset, network, Listener(), None)
    tuned, at_cut, head = learned.fine_tuned, learned.at_cut, learned.head
    assert tuned is not None
    assert at_cut is not None
    assert head is not None
    assert tuned.loss is not None
    assert tuned.loss_before is not None
    return {
        **tested("head", head, dataset),
        **tested("tuned", tuned.fitted.model, at_cut),
        **tested("exported", learned.model, at_cut if is_exported(learned) else dataset),
        "is_exported": is_exported(learned),
        "loss": tuned.loss,
        "loss_before": tuned.loss_before,
    }


def is_exported(learned: Learned) -> bool:
    """Whether the network that is exported is a fine-tuned one."""
    return learned.model is not learned.head


def tested(name: str, model: Model, dataset: Dataset) -> Figures:
    """Accuracy, in %, and cross-entropy on the test images."""
    found = score(model.predict_all(dataset.testing.vectors), dataset.testing.y)
    return {f"{name} accuracy": 100 * found.accuracy, f"{name} loss": found.cross_entropy}


def summary(name: str, found: dict[str, list[Figures]], goal: float | None) -> list[Finding]:
    findings = []
    for part, figures in found.items():
        what = f"{name}: fine-tuned" + (", with distortions" if part == DISTORTED else "")
        findings += against(
            f"{what} - head alone",
            figures,
            "tuned",
            figures,
            "head",
            goal if part == PLAIN else None,
        )
        findings += against(f"{what}, exported - head alone", figures, "exported", figures, "head")
        worse = sum(f["is_exported"] and f["loss"] >= f["loss_before"] for f in figures)
        taken = sum(bool(f["is_exported"]) for f in figures)
        note = f"{taken} of {len(figures)} were taken"
        title = f"{what}: exported though no better on validation"
        findings.append(of(title, [worse], "splits", at_most=0, note=note))
        accuracies = [f["head accuracy"] for f in figures]
        findings.append(mean_of(f"  {what}: accuracy of the head alone", accuracies, "%"))
    if {PLAIN, DISTORTED} <= set(found):
        for model, title in (("head", "head alone"), ("tuned", "fine-tuned")):
            what = f"{name}: {title}, with distortions - without"
            findings += against(what, found[DISTORTED], model, found[PLAIN], model)
    return findings


def against(
    what: str,
    figures: Sequence[Figures],
    model: str,
    others: Sequence[Figures],
    other: str,
    goal: float | None = None,
) -> list[Finding]:
    """By how much ``model`` is ahead of the ``other``, split by split."""
    both = list(zip(figures, others, strict=True))
    ahead = [a[f"{model} accuracy"] - b[f"{other} accuracy"] for a, b in both]
    losses = [a[f"{model} loss"] - b[f"{other} loss"] for a, b in both]
    note = f"mean, and range of {len(both)} splits"
    return [
        mean_of(f"{what}: accuracy", ahead, "points", at_least=goal, note=note),
        mean_of(f"  {what}: cross-entropy", losses, "nats", note=note),
    ]


def seconds(place: str, network: InceptionV3, work: Path) -> list[Finding]:
    """Of a run on the usual sets, with a new cache that has bottlenecks but no rows of the cut."""
    with tempfile.TemporaryDirectory(dir=work) as cache:
        config = Config(
            image_dir=place,
            bottleneck_dir=cache,
            precision=network.precision,
            fine_tune_from=CUT,
        )
        report = build(config, extractor=network)
        dataset = assemble(report, config.validation_percentage, config.testing_percentage)
        clock = Clock()
        learn(config, dataset, network, clock, None)
    what = f"{Path(place).name}, {network.precision}: seconds that fine-tuning from {CUT} adds"
    note = f"{len(report.images)} photos, rows of the cut computed"
    return [of(what, [clock.seconds], "s", at_most=180, note=note)]


if __name__ == "__main__":
    options = {"part": "all", "precision": "float32", "engine": "tensorflow", "work": ""}
    main(measure, __doc__, splits=SPLITS, first=0, **options)
