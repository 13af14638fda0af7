"""What was trained -> files, in all formats that are asked for."""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from bottlenecks import atomic
from bottlenecks.errors import RetrainError
from bottlenecks.network.inception import NetworkExtractor
from retrain.config import Config
from retrain.data.dataset import Dataset
from retrain.data.pixels import pixels_of
from retrain.export.about import About, date_of_today, flags_of
from retrain.export.classifier import TrainedClassifier
from retrain.export.formats import wanted
from retrain.learning import Learned
from retrain.report.results import TrainingResult
from retrain.training.fitting import Trainable

log = logging.getLogger(__name__)


def classifier_of(
    config: Config,
    extractor: NetworkExtractor,
    dataset: Dataset,
    learned: Learned,
    result: TrainingResult,
) -> TrainedClassifier:
    """What is exported, with what made it."""

    def training_photos() -> Iterator[np.ndarray]:
        rows = np.random.default_rng((config.seed, 10)).permutation(len(dataset.training))
        images = [dataset.training.images[row] for row in rows]
        return (pixels for _, pixels in pixels_of(images))

    tuned = learned.fine_tuned
    cut = config.cut if tuned is not None and tuned.is_taken else None
    about = _about(config, extractor, result.images, result.fitted.step, _figures(result), cut)
    return TrainedClassifier(
        network=learned.network,
        head=learned.model.head,
        labels=result.labels,
        about=about,
        final_tensor_name=config.final_tensor_name,
        training_photos=training_photos,
        model_dir=config.model_dir,
    )


def export_graph(config: Config, classifier: TrainedClassifier) -> None:
    """Write the graph and its labels. Raises ``OSError``, `UsageError`."""
    wanted(config)[0].write(classifier, config)


def export_others(
    config: Config, classifier: TrainedClassifier, on_format: Callable[[str, str], None]
) -> None:
    """Write the other formats that are asked for; each's name and path are told before.

    One that cannot be written does not keep the others from it. Raises ``OSError`` or
    `RetrainError` of the last such one, and logs those before it.
    """
    failed: OSError | RetrainError | None = None
    for exporter in wanted(config)[1:]:
        on_format(exporter.NAME, exporter.path_of(config) or "")
        try:
            exporter.write(classifier, config)
        except (OSError, RetrainError) as error:
            if failed is not None:
                log.warning("%s", failed)
            failed = error
    if failed is not None:
        raise failed


class Intermediates:
    """Graphs of the head as it is after every so many steps: ``intermediate_<step>.pb``."""

    def __init__(self, config: Config, extractor: NetworkExtractor, dataset: Dataset) -> None:
        self._config, self._dataset, self._extractor = config, dataset, extractor

    def __call__(self, step: int, trained: Trainable) -> None:
        """Write one, if it is time. Raises ``OSError``, `UsageError`."""
        folder = self._config.intermediate_output_graphs_dir
        if folder is None or step % self._config.intermediate_store_frequency:
            return
        about = _about(self._config, self._extractor, self._dataset.counts, step)
        classifier = TrainedClassifier(
            self._network,
            trained.model().head,
            self._dataset.labels,
            about,
            self._config.final_tensor_name,
            model_dir=self._config.model_dir,
        )
        path = os.path.join(folder, f"intermediate_{step}.pb")
        atomic.make_parents(path)
        atomic.write_bytes(path, classifier.graph)

    @functools.cached_property
    def _network(self) -> bytes:
        return self._extractor.frozen


def _about(
    config: Config,
    extractor: NetworkExtractor,
    images: Mapping[str, int],
    step: int,
    test: Mapping[str, float] | None = None,
    fine_tuned_from: str | None = None,
) -> About:
    return About(
        date=date_of_today(),
        network=extractor.description,
        fingerprint=extractor.fingerprint,
        images=images,
        test=test,
        fine_tuned_from=fine_tuned_from,
        flags={name: value for name, value in flags_of(config).items() if name != "quantize"},
        step=step,
    )


def _figures(result: TrainingResult) -> dict[str, float] | None:
    if result.test is None:
        return None
    found = result.test.figures.accuracy
    return {"accuracy": found.value, "low": found.low, "high": found.high, "images": found.n}
