"""learn(): a data set -> the model that is exported."""

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks import speeds
from bottlenecks.network.inception import Extractor, NetworkExtractor
from bottlenecks.network.names import RANDOM
from bottlenecks.store.cache import Cache
from retrain.config import Config
from retrain.data.dataset import Dataset
from retrain.data.variants import rows_at
from retrain.listener import Listener
from retrain.report.summaries import Summaries
from retrain.training.devices import if_worker_lost
from retrain.training.fine_tuning import Recipe
from retrain.training.fitting import (
    Evaluation,
    Fitted,
    Model,
    Trainable,
    calibration_images,
    find_temperature,
    fit_head,
)
from retrain.training.head import Head, Standardisation
from retrain.training.regularisation import Search, search
from retrain.training.tuned import FineTuned, fine_tune
from retrain.training.upper import UpperLayers, Variables

_MOST_AT_CUT = 2**28  # bytes of rows in memory, of training images and of all: TensorFlow has more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """The ``model`` that is exported, the ``network`` below its head, and how it came about.

    The temperature was found by ``calibrated_by`` validation images, 0 unless it was looked for.
    Where fine-tuning was tried, ``head`` is the model that it was to beat, and ``at_cut`` the data
    set whose rows the other one takes.
    """

    model: Model
    network: bytes
    fitted: Fitted
    searched: Search | None
    temperature: float
    calibrated_by: int = 0
    fine_tuned: FineTuned | None = None
    at_cut: Dataset | None = None
    head: Head | None = None


def learn(
    config: Config,
    dataset: Dataset,
    extractor: NetworkExtractor,
    listener: Listener,
    summaries: Summaries | None,
    strategy: Any = None,
    on_step: Callable[[int, Trainable], None] | None = None,
) -> Learned:
    """Train the head on bottlenecks, and what is above ``config.cut`` if there is one.

    ``dataset`` has plain bottlenecks; rows of variants and of the cut that are missing are
    computed. ``strategy`` is that of `retrain.training.devices`. ``on_step`` gets the steps that
    the head's training has taken, and what is trained.
    """
    run = _Run(config, extractor, listener, summaries, strategy, on_step)
    if config.distorts:
        dataset, _ = run.rows_at(extractor, dataset)
    learned = run.train_head(dataset)
    if config.cut is None:
        return learned
    with if_worker_lost(strategy):
        return run.fine_tune(config.cut, dataset, learned)


@dataclass(frozen=True)
class _Run:
    """What all parts of `learn` share."""

    config: Config
    extractor: NetworkExtractor
    listener: Listener
    summaries: Summaries | None
    strategy: Any
    on_step: Callable[[int, Trainable], None] | None

    def rows_at(
        self, extractor: Extractor, dataset: Dataset, most_in_memory: int | None = None
    ) -> tuple[Dataset, Cache]:
        """``dataset`` with rows of ``extractor``, and of the variants that are asked for."""
        config, name = self.config, extractor.spec.name
        return rows_at(
            dataset,
            extractor,
            config,
            config,
            config.seed,
            most_in_memory,
            lambda rows, nbytes: self.listener.more_rows(name, rows, nbytes),
            self.listener.progress,
        )

    def train_head(self, dataset: Dataset) -> Learned:
        config, listener = self.config, self.listener
        searched = None
        if config.head_recipe != "classic":
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
            self.summarise(evaluation, weights)

        def on_step(step: int, trained: Trainable) -> None:
            listener.stepped(step)
            if self.on_step is not None:
                self.on_step(step, trained)

        l2 = None if searched is None else searched.l2
        fitted = fit_head(config, dataset, l2, on_evaluation, on_step)
        model, temperature, calibrated_by = fitted.model, 1.0, 0
        if config.calibrate and len(dataset.validation):
            images = calibration_images(dataset.validation, len(dataset.labels), config.seed)
            temperature, calibrated_by = find_temperature(model, images), len(images)
            model = model.at_temperature(temperature)
        return Learned(model, self.extractor.frozen, fitted, searched, temperature, calibrated_by)

    def fine_tune(self, cut: str, dataset: Dataset, before: Learned) -> Learned:
        """Train what is above ``cut`` too, from the head that is there."""
        config = self.config
        at_cut, cache = self.rows_at(self.extractor.at(cut), dataset, _MOST_AT_CUT)
        recipe = Recipe.of(config, config, before.fitted.l2)
        variables = Variables(
            before.network,
            cut,
            before.fitted.head,
            Standardisation.of_sample(dataset.drawn, config.seed),
            self.extractor.precision,
            in_own_units=recipe.layers.in_own_units,
            normalises=recipe.layers.normalises_untrained and config.weights == RANDOM,
            strategy=self.strategy,
        )
        steps_in_epoch = recipe.steps_in_epoch(len(at_cut.training))

        def on_evaluation(evaluation: Evaluation, weights: np.ndarray) -> None:
            self.listener.tuned(evaluation, evaluation.step // steps_in_epoch)
            step = before.fitted.steps + evaluation.step  # behind those of the head
            self.summarise(dataclasses.replace(evaluation, step=step), weights)

        times: list[float] = []  # before the first step that is taken here, and after each

        def on_step(step: int, steps: int) -> None:
            times.append(time.monotonic())
            self.listener.tuning(step, steps)

        fine_tuned = fine_tune(
            variables,
            at_cut,
            (before.fitted.model, dataset),
            recipe,
            cache.folder,
            on_evaluation,
            on_step,
        )
        # The first starts the network.
        images = (len(times) - 2) * recipe.batch_of(len(at_cut.training))
        if images >= speeds.LEAST_IMAGES:
            what = speeds.fine_tuning(cut, self.extractor.precision)
            speeds.remember(config.model_dir, what, images / (times[-1] - times[1]))
        self.listener.judged(fine_tuned)
        learned = dataclasses.replace(
            before, fine_tuned=fine_tuned, at_cut=at_cut, head=before.model.head
        )
        model = fine_tuned.fitted.model
        if not fine_tuned.is_taken:
            return learned
        assert isinstance(model, UpperLayers)
        return dataclasses.replace(
            learned,
            model=model,
            network=model.network(),
            temperature=fine_tuned.temperature,
            calibrated_by=len(fine_tuned.fitted.losses),
        )

    def summarise(self, evaluation: Evaluation, weights: np.ndarray) -> None:
        if self.summaries is not None:
            self.summaries.add_evaluation(evaluation, weights)
