"""train(): config -> build, split, fit, evaluate, report, export."""

import dataclasses
import logging
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from bottlenecks import atomic
from bottlenecks.builder import BuildReport, Progress, build
from bottlenecks.errors import OutputError, RetrainError, if_interrupted
from bottlenecks.network.inception import InceptionV3, NetworkExtractor
from retrain.config import Config
from retrain.data.dataset import Dataset, assemble
from retrain.export.frozen_graph import graph_bytes, write
from retrain.plan import checked_folder
from retrain.report.health import count_folds, different_images, examine, table
from retrain.report.results import TrainingResult, test_head
from retrain.report.summaries import Summaries
from retrain.training.fitting import Evaluation, Fitted, find_temperature, fit_head
from retrain.training.head import Head
from retrain.training.regularisation import Search, search

log = logging.getLogger(__name__)


class Listener:
    """What `train` tells while it runs; a subclass shows what it wants to."""

    def progress(self, progress: Progress) -> None:
        """Stage one is this far."""

    def built(self, report: BuildReport) -> None:
        """Stage one is done."""

    def split(self, dataset: Dataset) -> None:
        """The sets are made and their vectors can be read."""

    def searched(self, search: Search) -> None:
        """The strength of the regularisation was searched."""

    def stepped(self, step: int) -> None:
        """So many training steps are taken."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Called every ``eval_step_interval`` steps and after the last."""

    def trained(self, result: TrainingResult) -> None:
        """The graph and its labels are written; ``result.problems`` are yet to be looked for."""

    def finished(self, result: TrainingResult) -> None:
        """All is written."""


def train(
    config: Config,
    *,
    extractor: NetworkExtractor | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a classifier for ``config.image_dir`` and write its graph, labels and report.

    Stage one runs first for the images that have no vector yet. The graph and its labels are
    written before anything else is made, so that no failure there loses them. ``extractor``
    stands in for InceptionV3.

    Raises what `bottlenecks.build` raises, and `ImageFolderError` for fewer than two labels or
    three images of one, before anything is computed or written; `OutputError` where the report
    cannot be made, or the event files could not be written to their end.
    """
    folder = checked_folder(config)
    extractor = extractor or InceptionV3(config.weights, config.model_dir, config.precision)
    listener = listener or Listener()
    report = build(config, extractor=extractor, folder=folder, on_progress=listener.progress)
    del folder  # a million images take much memory
    with ExitStack() as stack:
        with if_interrupted("no graph was written; the bottlenecks are kept for the next run"):
            listener.built(report)
            dataset = assemble(
                report, config.validation_percentage, config.testing_percentage, config.group_by
            )
            folds = 0
            if config.checks_data_health:  # again, without unreadable images and copies
                folds = count_folds(different_images(dataset), config.data_health_folds)
            listener.split(dataset)
            summaries = None
            if config.summaries_dir is not None:
                summaries = stack.enter_context(Summaries(config.summaries_dir))
            trained = _train(config, dataset, listener, summaries)
            graph = graph_bytes(
                extractor.frozen, trained.head, dataset.labels, config.final_tensor_name
            )
            write(config.output_graph, graph, config.output_labels, dataset.labels)
        with if_interrupted("the graph and the labels are written, what comes after them is not"):
            result = _tested(config, dataset, trained)
            if summaries is not None and result.test is not None:
                summaries.add_confusion(result.fitted.steps, result.test.confusion)
            listener.trained(result)
            if config.checks_data_health:
                result = dataclasses.replace(
                    result, problems=tuple(examine(dataset, folds, config.seed))
                )
            _write_report(config, result)
            listener.finished(result)
            if summaries is not None:
                summaries.close()
    return result


@dataclass(frozen=True)
class _Trained:
    """The layer that is exported, and how it came about."""

    head: Head
    fitted: Fitted
    searched: Search | None
    temperature: float


def _train(
    config: Config, dataset: Dataset, listener: Listener, summaries: Summaries | None
) -> _Trained:
    searched = None
    if config.recipe != "classic":
        searched = search(
            dataset, thorough=config.tune, class_balance=config.class_balance, seed=config.seed
        )
        if searched is not None:
            listener.searched(searched)
        elif config.tune:
            log.warning(
                "--tune has too few photos or groups of a label; the usual strength is taken"
            )

    def on_evaluation(evaluation: Evaluation, weights: np.ndarray) -> None:
        listener.evaluated(evaluation)
        if summaries is not None:
            summaries.add_evaluation(evaluation, weights)

    l2 = None if searched is None else searched.l2
    fitted = fit_head(config, dataset, l2, on_evaluation, listener.stepped)
    head, temperature = fitted.head, 1.0
    if config.calibrate and len(dataset.validation):
        temperature = find_temperature(head, dataset.validation)
        head = head.at_temperature(temperature)
    return _Trained(head, fitted, searched, temperature)


def _tested(config: Config, dataset: Dataset, trained: _Trained) -> TrainingResult:
    return TrainingResult(
        labels=dataset.labels,
        images={name: len(getattr(dataset, name)) for name in ("training", "validation", "testing")}
        | {"left_out": dataset.left_out},
        head=trained.head,
        fitted=trained.fitted,
        search=trained.searched,
        temperature=trained.temperature,
        test=test_head(dataset, trained.head, config.test_batch_size, config.seed),
        problems=None,
    )


def _write_report(config: Config, result: TrainingResult) -> None:
    if result.problems is not None:
        atomic.make_parents(config.data_health_path)
        atomic.write_text(config.data_health_path, table(result.problems))
    if config.report_dir is None:
        return
    from retrain.report.page import write_report  # matplotlib takes a while to import

    try:
        write_report(config.report_dir, dataclasses.asdict(config), result)
    except (RetrainError, OSError, MemoryError):
        raise
    except Exception as error:  # a font, a setting of matplotlib's, ...
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise OutputError(
            f"cannot make the report: {reason}; the graph and the labels are written: "
            "run the same command again without --report_dir to see the figures alone"
        ) from error
