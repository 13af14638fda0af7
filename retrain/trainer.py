"""train(): config -> build, split, fit, evaluate, export."""

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from bottlenecks.builder import BuildReport, CachedImage, Progress, build
from bottlenecks.images import scan
from bottlenecks.inception import InceptionV3, NetworkExtractor
from retrain.config import Config
from retrain.dataset import Dataset, assemble, check_counts
from retrain.evaluate import LabelScore, Score, score, score_labels
from retrain.export import graph_bytes, write
from retrain.head import Fit, Head
from retrain.summaries import Summaries


@dataclass(frozen=True)
class Evaluation:
    """One evaluation while training: on the last batch, and on validation images."""

    step: int  # steps taken so far
    train: Score
    validation: Score | None  # None without a validation set


@dataclass(frozen=True)
class Misclassified:
    """A test image, and the label that it got instead of its own."""

    image: CachedImage
    predicted: str


@dataclass(frozen=True)
class TrainingResult:
    """What `train` made. ``test`` is None without a test set."""

    labels: tuple[str, ...]
    head: Head
    test: Score | None
    test_labels: tuple[LabelScore, ...]
    misclassified: tuple[Misclassified, ...]


class Listener:
    """What `train` tells while it runs; a subclass shows what it wants to."""

    def progress(self, progress: Progress) -> None:
        """Stage one is this far."""

    def built(self, report: BuildReport) -> None:
        """Stage one is done."""

    def split(self, dataset: Dataset) -> None:
        """The sets are made and their vectors are in memory."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Called every ``eval_step_interval`` steps and after the last."""


def train(
    config: Config,
    *,
    extractor: NetworkExtractor | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a classifier for ``config.image_dir`` and write its graph and labels.

    Stage one runs first for the images that have no vector yet. ``extractor`` stands in for
    InceptionV3.

    Raises what `bottlenecks.build` raises, and `ImageFolderError` for fewer than two labels or
    three images of one, before anything is computed or written.
    """
    folder = scan(config.image_dir)
    check_counts(folder.counts)
    config.check_outputs()
    extractor = extractor or InceptionV3(config.weights, config.model_dir, config.precision)
    listener = listener or Listener()
    report = build(config, extractor=extractor, folder=folder, on_progress=listener.progress)
    listener.built(report)
    dataset = assemble(report, config.validation_percentage, config.testing_percentage)
    listener.split(dataset)
    head = fit_head(config, dataset, listener)
    result = _test(config, dataset, head)
    graph = graph_bytes(extractor.frozen, head, config.final_tensor_name)
    write(config.output_graph, graph, config.output_labels, dataset.labels)
    return result


def fit_head(config: Config, dataset: Dataset, listener: Listener) -> Head:
    """Train the softmax layer; ``listener`` hears of every evaluation."""
    random = np.random.default_rng((config.seed, 1))
    fit = Fit(
        dataset.training.vectors,
        dataset.training.y,
        len(dataset.labels),
        steps=config.how_many_training_steps,
        batch_size=config.train_batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    with ExitStack() as stack:
        # The products are small: with more threads one waits for the other, and on a busy machine
        # that took 30 times as long.
        stack.enter_context(threadpool_limits(1))
        summaries = (
            stack.enter_context(Summaries(config.summaries_dir)) if config.summaries_dir else None
        )
        for step in range(1, config.how_many_training_steps + 1):
            fit.step()
            if step % config.eval_step_interval and step < config.how_many_training_steps:
                continue
            validation = None
            if len(dataset.validation):
                sample = dataset.validation.sample(config.validation_batch_size, random)
                validation = score(fit.head().predict_all(sample.vectors), sample.y)
            evaluation = Evaluation(step, score(*fit.predict_batch()), validation)
            listener.evaluated(evaluation)
            if summaries is not None:
                summaries.add("train", step, evaluation.train)
                if validation is not None:
                    summaries.add("validation", step, validation)
    return fit.head()


def _test(config: Config, dataset: Dataset, head: Head) -> TrainingResult:
    if not len(dataset.testing):
        return TrainingResult(dataset.labels, head, None, (), ())
    random = np.random.default_rng((config.seed, 2))
    sample = dataset.testing.sample(config.test_batch_size, random)
    probabilities = head.predict_all(sample.vectors)
    predicted = probabilities.argmax(axis=1)
    return TrainingResult(
        labels=dataset.labels,
        head=head,
        test=score(probabilities, sample.y),
        test_labels=tuple(score_labels(probabilities, sample.y, dataset.labels)),
        misclassified=tuple(
            Misclassified(image, dataset.labels[guess])
            for image, guess, y in zip(sample.images, predicted, sample.y, strict=True)
            if guess != y
        ),
    )
