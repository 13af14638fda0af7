"""train(): config -> build, split, fit, evaluate, report, export."""

from contextlib import ExitStack

import numpy as np

from bottlenecks import atomic
from bottlenecks.builder import BuildReport, Progress, build
from bottlenecks.images import scan
from bottlenecks.inception import InceptionV3, NetworkExtractor
from retrain.config import Config
from retrain.dataset import Dataset, assemble, check_counts
from retrain.export import graph_bytes, write
from retrain.fitting import Evaluation, Trial, find_temperature, fit_head, tune
from retrain.health import count_folds, different_images, examine, table
from retrain.results import TrainingResult, test_head
from retrain.summaries import Summaries


class Listener:
    """What `train` tells while it runs; a subclass shows what it wants to."""

    def progress(self, progress: Progress) -> None:
        """Stage one is this far."""

    def built(self, report: BuildReport) -> None:
        """Stage one is done."""

    def split(self, dataset: Dataset) -> None:
        """The sets are made and their vectors can be read."""

    def tuned(self, trials: list[Trial], l2: float) -> None:
        """The strength of the regularisation was searched, and ``l2`` is the best."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Called every ``eval_step_interval`` steps and after the last."""


def train(
    config: Config,
    *,
    extractor: NetworkExtractor | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a classifier for ``config.image_dir`` and write its graph, labels and report.

    Stage one runs first for the images that have no vector yet. ``extractor`` stands in for
    InceptionV3.

    Raises what `bottlenecks.build` raises, and `ImageFolderError` for fewer than two labels or
    three images of one, before anything is computed or written.
    """
    folder = scan(config.image_dir)
    check_counts(folder.counts)
    if config.checks_data_health:
        count_folds(folder.counts, config.data_health_folds)
    config.check_outputs()
    extractor = extractor or InceptionV3(config.weights, config.model_dir, config.precision)
    listener = listener or Listener()
    report = build(config, extractor=extractor, folder=folder, on_progress=listener.progress)
    del folder  # a million images take much memory
    listener.built(report)
    dataset = assemble(report, config.validation_percentage, config.testing_percentage)
    if config.checks_data_health:  # again, without unreadable images and copies
        count_folds(different_images(dataset), config.data_health_folds)
    listener.split(dataset)
    result = _train(config, dataset, listener)
    graph = graph_bytes(extractor.frozen, result.head, config.final_tensor_name)
    write(config.output_graph, graph, config.output_labels, dataset.labels)
    if result.problems is not None:
        config.data_health_path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(config.data_health_path, table(result.problems))
    if config.report_dir is not None:
        from retrain.report import write_report  # matplotlib takes a while to import

        write_report(config, result)
    return result


def _train(config: Config, dataset: Dataset, listener: Listener) -> TrainingResult:
    trials = tune(config, dataset) if config.tune else []
    l2 = None
    if trials:
        l2 = min(trials, key=lambda trial: trial.cross_entropy).l2
        listener.tuned(trials, l2)
    with ExitStack() as stack:
        summaries = None
        if config.summaries_dir:
            summaries = stack.enter_context(Summaries(config.summaries_dir))

        def on_evaluation(evaluation: Evaluation, weights: np.ndarray) -> None:
            listener.evaluated(evaluation)
            if summaries is not None:
                summaries.add_evaluation(evaluation, weights)

        fitted = fit_head(config, dataset, l2, on_evaluation)
        head, temperature = fitted.head, 1.0
        if config.calibrate:
            temperature = find_temperature(head, dataset.validation)
            head = head.at_temperature(temperature)
        test = test_head(config, dataset, head)
        if summaries is not None and test is not None:
            summaries.add_confusion(fitted.steps, test.confusion)
    return TrainingResult(
        labels=dataset.labels,
        images={name: len(getattr(dataset, name)) for name in ("training", "validation", "testing")}
        | {"left_out": dataset.left_out},
        head=head,
        fitted=fitted,
        trials=tuple(trials),
        temperature=temperature,
        test=test,
        problems=tuple(examine(config, dataset)) if config.checks_data_health else None,
    )
