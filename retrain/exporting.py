"""What was trained -> files, in all formats that are asked for."""

from bottlenecks.network.inception import NetworkExtractor
from retrain.config import Config
from retrain.export.about import About, date_of_today, flags_of
from retrain.export.classifier import TrainedClassifier
from retrain.export.formats import wanted
from retrain.learning import Learned
from retrain.report.results import TrainingResult


def classifier_of(
    config: Config, extractor: NetworkExtractor, learned: Learned, result: TrainingResult
) -> TrainedClassifier:
    """What is exported, with what made it."""
    tuned = learned.fine_tuned
    about = About(
        date=date_of_today(),
        network=extractor.description,
        fingerprint=extractor.fingerprint,
        images=result.images,
        test=_figures(result),
        fine_tuned_from=config.cut if tuned is not None and tuned.is_taken else None,
        flags=flags_of(config),
    )
    return TrainedClassifier(
        learned.network, learned.model.head, result.labels, about, config.final_tensor_name
    )


def export_graph(config: Config, classifier: TrainedClassifier) -> None:
    """Write the graph and its labels. Raises ``OSError``, `UsageError`."""
    wanted(config)[0].write(classifier, config)


def export_others(config: Config, classifier: TrainedClassifier) -> None:
    """Write the other formats that are asked for. Raises ``OSError``, `UsageError`."""
    for exporter in wanted(config)[1:]:
        exporter.write(classifier, config)


def _figures(result: TrainingResult) -> dict[str, float] | None:
    if result.test is None:
        return None
    found = result.test.figures.accuracy
    return {"accuracy": found.value, "low": found.low, "high": found.high, "images": found.n}
