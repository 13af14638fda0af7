"""Run the steps of a fit: evaluate, keep the best, stop early, search the regularisation."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from bottlenecks.errors import UsageError
from bottlenecks.vectors import blocks
from retrain.config import LEARNING_RATES, Config
from retrain.dataset import Dataset, Subset
from retrain.evaluate import Score, score
from retrain.head import Fit, Head, softmax, usual_l2

MAX_VALIDATION = 4096  # images that the loss of a step is taken over
TUNED = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # times the usual strength of the L2 penalty
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
class Trial:
    """What a strength of the L2 penalty gave: the lowest cross-entropy on the validation set."""

    l2: float
    cross_entropy: float


@dataclass(frozen=True)
class Fitted:
    """A trained layer: the one of ``step`` of the ``steps`` that were taken.

    ``cross_entropy`` is that step's on the validation set, infinite without one.
    """

    head: Head
    step: int
    steps: int
    l2: float
    cross_entropy: float
    evaluations: tuple[Evaluation, ...]


OnEvaluation = Callable[[Evaluation, np.ndarray], None]  # with the weights as they are


def fit_head(
    config: Config,
    dataset: Dataset,
    l2: float | None = None,
    on_evaluation: OnEvaluation = lambda *_: None,
) -> Fitted:
    """Train the softmax layer on ``dataset.training``.

    Kept is the step with the lowest cross-entropy on the validation set, of those evaluated; with
    the recipe "classic", or without a validation set, the last.
    """
    random = np.random.default_rng((config.seed, 1))
    # The products are small: with more threads one waits for the other, and on a busy machine
    # that took 30 times as long.
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))  # checked below
        fit = Fit(
            dataset.training.vectors,
            dataset.training.y,
            len(dataset.labels),
            steps=config.how_many_training_steps,
            batch_size=config.train_batch_size,
            learning_rate=config.learning_rate or LEARNING_RATES[config.recipe],
            seed=config.seed,
            l2=l2,
            recipe=config.recipe,
            class_balance=config.class_balance,
        )
        stack.callback(fit.close)
        validation = dataset.validation.sample(MAX_VALIDATION, random)
        z = fit.standardisation.apply(validation.x)
        evaluations: list[Evaluation] = []
        best = Fitted(fit.head(), 0, 0, fit.l2, math.inf, ())
        for step in range(1, config.how_many_training_steps + 1):
            fit.step()
            if step % config.eval_step_interval and step < config.how_many_training_steps:
                continue
            train, loss = score(*fit.predict_batch()), math.inf
            if not math.isfinite(train.cross_entropy):
                raise UsageError(
                    f"training came to numbers that are not finite within {step} steps; use a "
                    "smaller --learning_rate"
                )
            evaluation = Evaluation(step, train, None)
            if len(validation):
                probabilities = fit.predict_standardised(z)
                whole = score(probabilities, validation.y)
                rows = _sample(len(validation), config.validation_batch_size, random)
                batch = score(probabilities[rows], validation.y[rows])
                evaluation, loss = Evaluation(step, train, whole, batch), whole.cross_entropy
            evaluations.append(evaluation)
            on_evaluation(evaluation, fit.weights)
            if loss < best.cross_entropy or not len(validation) or config.recipe == "classic":
                best = Fitted(fit.head(), step, step, fit.l2, loss, ())
            elif config.patience and step - best.step >= config.patience:
                break
    return dataclasses.replace(best, steps=step, evaluations=tuple(evaluations))


def tune(config: Config, dataset: Dataset) -> list[Trial]:
    """Train with each strength of `TUNED`."""
    usual = usual_l2(len(dataset.labels), len(dataset.training))
    return [Trial(x * usual, fit_head(config, dataset, x * usual).cross_entropy) for x in TUNED]


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


def _sample(n: int, size: int, random: np.random.Generator) -> np.ndarray:
    if size == -1 or size >= n:
        return np.arange(n)
    return random.choice(n, size, replace=False)
