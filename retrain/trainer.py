"""train(): config -> build, split, fit, evaluate, report, export."""

import dataclasses
from contextlib import ExitStack

from bottlenecks import atomic
from bottlenecks.builder import build, check_folders
from bottlenecks.errors import if_interrupted
from bottlenecks.extractors import extractor_for, name_of
from bottlenecks.network.inception import NetworkExtractor
from bottlenecks.photos.labels import ImageFolder
from bottlenecks.store.cache import again_if_lost
from retrain.config import Config
from retrain.data.dataset import Dataset, assemble
from retrain.export.settings import NO_QUANTISATION
from retrain.exporting import Intermediates, classifier_of, export_graph, export_others
from retrain.learning import Learned, learn
from retrain.listener import Listener
from retrain.plan import checked_folder
from retrain.quantised import compare
from retrain.report import writing
from retrain.report.health import count_folds, different_images, examine, table
from retrain.report.results import TrainingResult, samples_of, test_model
from retrain.report.summaries import Summaries
from retrain.training.devices import is_chief, strategy_for


def train(
    config: Config,
    *,
    extractor: NetworkExtractor | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a classifier for ``config.image_dir`` and write its graph, labels and report.

    Stage one runs first for the images that have no vector yet. The graph and its labels are
    written whatever becomes of the test, and before anything else is made, so that no failure there
    loses them. Of several workers (see `retrain.training.devices`) the first one tests and writes;
    what the others return has no test. ``extractor`` stands in for InceptionV3.

    Raises what `bottlenecks.build` raises, and `ImageFolderError` for fewer than two labels or
    three images of one, before anything is computed or written; `OutputError` where the report
    cannot be made, or the event files could not be written to their end.
    """
    folder = checked_folder(config)
    # Before TensorFlow does anything else, as it has to be for several workers.
    strategy = None if config.cut is None else strategy_for(config.strategy)
    writes = is_chief(strategy)
    listener = listener or Listener()
    check_folders(config)
    if extractor is None:
        extractor = extractor_for(config, folder, listener.downloading, listener.calibrating)
    scanned = [folder]
    del folder  # a million images take much memory: `_dataset` takes it out
    dataset = again_if_lost(lambda: _dataset(config, extractor, scanned, listener))
    with ExitStack() as stack:
        with if_interrupted(_kept_note(config)):
            folds = 0
            if config.checks_data_health:  # again, without unreadable images and copies
                folds = count_folds(different_images(dataset), config.data_health_folds)
            listener.split(dataset)
            summaries = None
            if config.summaries_dir is not None and writes:
                summaries = stack.enter_context(Summaries(config.summaries_dir))
            learned = learn(
                config,
                dataset,
                extractor,
                listener,
                summaries,
                strategy,
                Intermediates(config, extractor, dataset) if writes else None,
            )
        result = _result(dataset, learned, name_of(extractor, computed=False))
        if not writes:
            listener.helped()
            return result
        with if_interrupted("the graph and the labels are written, what comes after them is not"):
            try:
                result = _tested(config, dataset, learned, result)
            finally:  # with the test figures, or without them
                with if_interrupted(_kept_note(config)):
                    classifier = classifier_of(config, extractor, dataset, learned, result)
                    export_graph(config, classifier)
            if summaries is not None and result.test is not None:
                summaries.add_confusion(result.fitted.steps, result.test.confusion)
            listener.trained(result)
            if config.checks_data_health:
                health = examine(dataset, folds, config.seed)
                near_leaks = samples_of(near_leaks=(health.compared, health.held_out))
                result = dataclasses.replace(
                    result,
                    problems=health.problems,
                    samples={**result.samples, **near_leaks},
                )
            _write_report(config, result)
            export_others(config, classifier, listener.exporting)
            if config.quantize != NO_QUANTISATION:
                listener.quantised(compare(config, dataset, learned, listener.comparing))
            listener.finished(result)
            if summaries is not None:
                summaries.close()
    return result


def _dataset(
    config: Config, extractor: NetworkExtractor, scanned: list[ImageFolder], listener: Listener
) -> Dataset:
    """The data set of a run; of a folder that is not ``scanned`` yet, or was used up, anew."""
    folder = scanned.pop() if scanned else None
    report = build(config, extractor=extractor, folder=folder, on_progress=listener.progress)
    del folder
    with if_interrupted(_kept_note(config)):
        listener.built(report)
        return assemble(
            report, config.validation_percentage, config.testing_percentage, config.group_by
        )


def _kept_note(config: Config) -> str:
    """What is kept of a run that is interrupted before it has a graph."""
    if config.cut is None:
        return "no graph was written; the bottlenecks are kept for the next run"
    return "no graph was written; what was computed is kept, and the same command resumes"


def _result(dataset: Dataset, learned: Learned, precision: str) -> TrainingResult:
    """What was made, before it is tested."""
    training, validation = len(dataset.training), len(dataset.validation)
    searched_by = 0 if learned.searched is None else learned.searched.images
    return TrainingResult(
        labels=dataset.labels,
        images=dataset.counts,
        model=learned.model,
        fitted=learned.fitted,
        search=learned.searched,
        temperature=learned.temperature,
        test=None,
        problems=None,
        fine_tuned=learned.fine_tuned,
        precision=precision,
        samples=samples_of(
            regularisation=(searched_by, training),
            validation=(len(learned.fitted.losses), validation),
            calibration=(learned.calibrated_by, validation),
        ),
    )


def _tested(
    config: Config, dataset: Dataset, learned: Learned, result: TrainingResult
) -> TrainingResult:
    """``result`` with what the test images say."""
    size, seed = config.test_batch_size, config.seed
    before = after = None
    if learned.fine_tuned is None or learned.head is None or learned.at_cut is None:
        test = test_model(dataset, learned.model, size, seed)
    else:
        before = test_model(dataset, learned.head, size, seed)
        after = test_model(learned.at_cut, learned.fine_tuned.fitted.model, size, seed)
        test = after if learned.fine_tuned.is_taken else before
    drawn = samples_of(test=(0 if test is None else test.n, len(dataset.testing)))
    return dataclasses.replace(
        result,
        test=test,
        test_before=before,
        test_after=after,
        samples={**result.samples, **drawn},
    )


def _write_report(config: Config, result: TrainingResult) -> None:
    if result.problems is not None:
        atomic.make_parents(config.data_health_path)
        atomic.write_text(config.data_health_path, table(result.problems))
    if config.report_dir is not None:
        remedy = (
            "the graph and the labels are written: run the same command again without "
            "--report_dir to see the figures alone"
        )
        writing.write(config.report_dir, dataclasses.asdict(config), result, remedy)
