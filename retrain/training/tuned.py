"""Fine-tune what is above a cut, and judge whether it is better than the head alone."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bottlenecks.machine import one_blas_thread
from bottlenecks.photos.labels import TRAINING, VALIDATION
from retrain.data.dataset import Dataset
from retrain.evaluate import is_lower
from retrain.training.checkpoint import Checkpoint
from retrain.training.devices import check_same
from retrain.training.fine_tuning import RATE_FLAG, FineTuning, Recipe
from retrain.training.fitting import Fitted, Judges, Loop, Model, OnEvaluation, temperature_of
from retrain.training.head import softmax
from retrain.training.upper import Variables


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning gave, and whether it ``is_taken``.

    It is not where it does not lower the loss of the validation images. That is of scores that are
    scaled as ``--calibrate`` does, of both models and of each step, because smoothed labels teach
    to be less sure.
    ``fitted.model`` is scaled by the ``temperature``; ``loss`` and ``loss_before``, of what was
    there before, are those losses, in nats, None without a validation set. ``resumed_at`` is the
    step that an interrupted run had come to, 0 without one.
    """

    fitted: Fitted
    temperature: float
    is_taken: bool
    resumed_at: int
    steps_in_epoch: int
    loss: float | None = None
    loss_before: float | None = None


def fine_tune(
    variables: Variables,
    dataset: Dataset,
    before: tuple[Model, Dataset],
    recipe: Recipe,
    kept_in: Path,
    on_evaluation: OnEvaluation = lambda *_: None,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> FineTuned:
    """Train ``variables`` on ``dataset``, whose rows are of the cut, and judge what comes of it.

    ``before`` is the model to beat, and the data set with the rows that it takes. The validation
    set is asked after each epoch; kept is the last, unless another is better by more than chance
    would have it. Without a validation set what was trained is taken.

    A checkpoint in the folder ``kept_in`` lets an interrupted run go on where it was, if data,
    settings and network are the same. ``on_step`` gets the steps taken and those of all. Raises
    `WorkerError` where another worker trains on other images, or with other settings.
    """
    y = dataset.training.y
    check_same(variables.strategy, _data_identity(dataset, recipe))
    tuning = FineTuning(variables, dataset.drawn, y, len(dataset.labels), recipe)
    judges = _judges(dataset, recipe)
    checkpoint = Checkpoint(kept_in, _identity(variables, dataset, recipe), tuning, variables)
    loop = Loop(
        tuning,
        judges,
        steps=tuning.steps,
        every=recipe.steps_in_epoch(len(y)),
        rate_flag=RATE_FLAG,
        on_evaluation=on_evaluation,
    )

    def after(step: int) -> None:
        on_step(step, tuning.steps)
        checkpoint.save_sometimes(loop)

    loop.on_step = after
    try:
        resumed_at = checkpoint.resume(loop)
        on_step(resumed_at, tuning.steps)
        loop.run()
    finally:
        tuning.close()
    kept = loop.kept()
    temperature, is_taken, loss, loss_before = 1.0, True, None, None
    if len(judges.images):
        temperature, losses = _scaled(kept.model, judges)
        _, losses_before = _scaled(before[0], _judges(before[1], recipe))
        loss, loss_before = float(losses.mean()), float(losses_before.mean())
        is_taken = is_lower(losses, losses_before, judges.units, 0.0)
    fitted = Fitted(
        kept.model.at_temperature(temperature),
        kept.step,
        loop.step,
        recipe.l2,
        kept.losses,
        tuple(loop.evaluations),
    )
    checkpoint.remove()
    return FineTuned(fitted, temperature, is_taken, resumed_at, loop.every, loss, loss_before)


def _judges(dataset: Dataset, recipe: Recipe) -> Judges:
    """The same images of each of two data sets that differ in their rows alone."""
    random = np.random.default_rng((recipe.seed, 1))
    return Judges.of(dataset, recipe.class_balance, random, scales=True)


def _scaled(model: Model, judges: Judges) -> tuple[float, np.ndarray]:
    """The likeliest temperature of ``model``, and the losses (n,) of the judges with it."""
    with one_blas_thread():
        logits = model.logits_all(judges.images.vectors)
    return temperature_of(logits, judges.images.y), judges.losses(softmax(logits))


def _identity(variables: Variables, dataset: Dataset, recipe: Recipe) -> str:
    """64 hex digits over all that changes what a step gives."""
    data = _data_identity(dataset, recipe).encode()
    return hashlib.sha256(data + variables.identity).hexdigest()


def _data_identity(dataset: Dataset, recipe: Recipe) -> str:
    """64 hex digits over the images and the settings."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    for name in (TRAINING, VALIDATION):
        rows = np.flatnonzero(dataset.set_of == name).tolist()
        digest.update(b"".join(dataset.everything.images[row].key for row in rows))
        digest.update(dataset.everything.y[rows].tobytes())
    if dataset.variants is not None:
        digest.update(b"".join(dataset.variants.keys))
    return digest.hexdigest()
