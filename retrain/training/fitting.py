"""Run the steps of a fit: evaluate, decide which step is kept, stop early, calibrate."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from bottlenecks.errors import UsageError
from bottlenecks.machine import one_blas_thread
from bottlenecks.store.vectors import blocks
from retrain.data.dataset import Dataset, Subset, sample_rows
from retrain.evaluate import Score, is_lower, losses_of, score
from retrain.training.head import Fit, Head, label_weights, softmax
from retrain.training.settings import LEARNING_RATES, TrainingSettings

MAX_VALIDATION = 4096  # images that the loss of a step is taken over
# The validation set tells one step from another by this many standard errors of the mean difference
# of its losses. It is asked of many steps, so one is not enough: the best of 100 is ahead of the
# last by so much by chance in one fit of four on 600 flower photos (and is worse), by two in one of
# ten where 5 images validate.
_STANDARD_ERRORS = 3.0
_TEMPERATURES = (0.05, 20.0)
# Deviation of the logarithm of the temperature before any image is seen. Without it the few images
# of a small validation set, if all are right, ask for certainty: of 100 flower photos, 10 of them
# validating, calibration then tripled the cross-entropy of the test.
_LOG_TEMPERATURE = 0.25


@dataclass(frozen=True)
class Evaluation:
    """One evaluation while training, after ``step`` steps.

    ``train`` is of the last batch, ``validation`` of the whole validation set (of `MAX_VALIDATION`
    of it), ``validation_batch`` of the images of it that the terminal shows; None without one.
    """

    step: int
    train: Score
    validation: Score | None
    validation_batch: Score | None = None


@dataclass(frozen=True)
class Fitted:
    """A trained layer: the one of ``step`` of the ``steps`` that were taken; its penalty ``l2``.

    ``cross_entropy`` is that step's on the validation set, weighed as training is, in nats;
    infinite without one.
    """

    head: Head
    step: int
    steps: int
    l2: float
    cross_entropy: float
    evaluations: tuple[Evaluation, ...]


OnEvaluation = Callable[[Evaluation, np.ndarray], None]  # with the weights as they are


def fit_head(
    settings: TrainingSettings,
    dataset: Dataset,
    l2: float | None = None,
    on_evaluation: OnEvaluation = lambda *_: None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Fitted:
    """Train the softmax layer on ``dataset.training``, with the usual penalty or with ``l2``.

    Kept is the last step, as the problem is convex and the penalty keeps the layer from learning
    the training images by heart; unless an evaluated one before it is better on the validation
    set, and by more than chance would have it (`_STANDARD_ERRORS`). With the recipe "classic", or
    without a validation set, always the last.
    """
    random = np.random.default_rng((settings.seed, 1))
    with ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))  # checked below
        fit = Fit(
            dataset.training.vectors,
            dataset.training.y,
            len(dataset.labels),
            steps=settings.how_many_training_steps,
            batch_size=settings.train_batch_size,
            learning_rate=settings.learning_rate or LEARNING_RATES[settings.recipe],
            seed=settings.seed,
            l2=l2,
            recipe=settings.recipe,
            class_balance=settings.class_balance,
        )
        stack.callback(fit.close)
        held = sample_rows(len(dataset.validation), MAX_VALIDATION, random)
        validation = dataset.validation.select(held)
        z = fit.standardisation.apply(validation.x)
        weights = label_weights(dataset.training.y, len(dataset.labels), settings.class_balance)
        weights = weights[validation.y]
        evaluations: list[Evaluation] = []
        best: _Candidate | None = None
        for step in range(1, settings.how_many_training_steps + 1):
            fit.step()
            on_step(step)
            if step % settings.eval_step_interval and step < settings.how_many_training_steps:
                continue
            train = score(*fit.predict_batch())
            if not math.isfinite(train.cross_entropy):
                raise UsageError(
                    f"training came to numbers that are not finite within {step} steps; use a "
                    "smaller --learning_rate"
                )
            evaluation, losses = Evaluation(step, train, None), np.empty(0)
            if len(validation):
                probabilities = fit.predict_standardised(z)
                losses = losses_of(probabilities, validation.y) * (weights / weights.mean())
                rows = sample_rows(len(validation), settings.validation_batch_size, random)
                batch = score(probabilities[rows], validation.y[rows])
                evaluation = Evaluation(step, train, score(probabilities, validation.y), batch)
            evaluations.append(evaluation)
            on_evaluation(evaluation, fit.weights)
            if best is None or losses.sum() < best.losses.sum():
                best = _Candidate(step, fit.head(), losses)
            elif settings.patience and len(validation) and step - best.step >= settings.patience:
                break
        kept = _Candidate(step, fit.head(), losses)
        if best is not None and best.step < step and settings.recipe != "classic":
            units = dataset.units_of("validation")[held]
            kept = best if is_lower(best.losses, losses, units, _STANDARD_ERRORS) else kept
    loss = float(kept.losses.mean()) if len(validation) else math.inf
    return Fitted(kept.head, kept.step, step, fit.l2, loss, tuple(evaluations))


@dataclass(frozen=True)
class _Candidate:
    """A step that may be kept, its layer, and its losses (n,) on the validation set."""

    step: int
    head: Head
    losses: np.ndarray


def find_temperature(head: Head, subset: Subset) -> float:
    """The likeliest temperature of ``head`` by ``subset``, near 1 where that has few images.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, with a log-normal
    prior around 1. It changes no ranking.
    """
    logits = np.concatenate([x @ head.weights + head.bias for x in blocks(subset.vectors)])

    def loss(log_temperature: float) -> float:
        given = score(softmax(logits / np.exp(log_temperature)), subset.y)
        return given.cross_entropy + (log_temperature / _LOG_TEMPERATURE) ** 2 / (2 * given.n)

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))
