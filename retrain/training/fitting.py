"""Train: take steps, evaluate, decide which step is kept, stop early, calibrate."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bottlenecks.errors import UsageError
from bottlenecks.machine import one_blas_thread
from bottlenecks.store.vectors import Vectors
from retrain.data.dataset import Dataset, Subset, sample_rows
from retrain.evaluate import Outcomes, Score, is_lower, losses_of, score
from retrain.training.head import Fit, Head, label_weights, softmax
from retrain.training.settings import LEARNING_RATES, TrainingSettings

MAX_VALIDATION = 4096  # images that the loss of a step is taken over
# Scores of validation images that the temperature is found by, and images.
_CALIBRATION_CELLS, MAX_CALIBRATION = 2**25, 2**16
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


class Model(Protocol):
    """What has been trained, on rows of one kind."""

    @property
    def head(self) -> Head:
        """Its softmax layer on bottlenecks."""

    def logits_all(self, vectors: Vectors) -> np.ndarray:
        """(n, C) float32 of one row or more."""

    def predict_all(self, vectors: Vectors) -> np.ndarray:
        """Probabilities (n, C) float32 of one row or more."""

    def at_temperature(self, temperature: float) -> "Model":
        """The same with logits that are divided by ``temperature``."""


class Trainable(Protocol):
    """What is trained, a step at a time: the softmax layer alone, or layers below it too."""

    @property
    def weights(self) -> np.ndarray:
        """Those of the softmax layer, as they are now."""

    def step(self) -> None:
        """Take one step on the next batch."""

    def predict_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (batch, C) of the last batch, at its step, and its labels (batch,)."""

    def predict(self, images: Subset) -> np.ndarray:
        """Probabilities (n, C) of ``images`` as they are now."""

    def model(self) -> Model:
        """What has been trained so far."""

    def snapshot(self) -> Model:
        """The same where it may not be wanted after all; later steps leave it as it is."""


@dataclass(frozen=True)
class Candidate:
    """A step that may be kept, what it trained, and its losses (n,) on the validation set."""

    step: int
    model: Model
    losses: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A trained model: the one of ``step`` of the ``steps`` that were taken; its penalty ``l2``.

    ``losses`` (n,) float64 are that step's on the validation set, weighed as training is, in nats;
    ``cross_entropy`` is their mean, infinite without one.
    """

    model: Model
    step: int
    steps: int
    l2: float
    losses: np.ndarray
    evaluations: tuple[Evaluation, ...]

    @property
    def head(self) -> Head:
        return self.model.head

    @property
    def cross_entropy(self) -> float:
        return float(self.losses.mean()) if len(self.losses) else math.inf


@dataclass(frozen=True)
class Judges:
    """The validation images that steps are judged by; how much each counts, and its unit, (n,).

    Where ``scales``, scores are judged as they would be after ``--calibrate``.
    """

    images: Subset
    weights: np.ndarray
    units: np.ndarray
    scales: bool = False

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        class_balance: str,
        random: np.random.Generator,
        scales: bool = False,
    ) -> "Judges":
        """Those of a data set, or `MAX_VALIDATION` of them."""
        rows = sample_rows(len(dataset.validation), MAX_VALIDATION, random)
        images = dataset.validation.select(rows)
        weights = label_weights(dataset.training.y, len(dataset.labels), class_balance)[images.y]
        weights = weights / weights.mean() if len(weights) else weights
        return cls(images, weights, dataset.units_of("validation")[rows], scales)

    def losses(self, probabilities: np.ndarray) -> np.ndarray:
        """(n,) float64 the weighed losses, in nats, of their ``probabilities`` (n, C)."""
        return self.weighed(losses_of(probabilities, self.images.y), probabilities)

    def weighed(self, losses: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The same where the ``losses`` (n,) of the images as they are are known."""
        if self.scales:
            logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
            scaled = softmax(logits / temperature_of(logits, self.images.y))
            losses = losses_of(scaled, self.images.y)
        weighed: np.ndarray = losses * self.weights
        return weighed


OnEvaluation = Callable[[Evaluation, np.ndarray], None]  # with the weights as they are


@dataclass
class Loop:
    """The steps of a training: taken, evaluated every so many, and one of them kept.

    Its state is in ``step``, ``evaluations``, ``best`` and ``last``: the steps with the lowest loss
    and the last evaluated one. A loop that was interrupted goes on from there.
    """

    trainable: Trainable
    judges: Judges
    steps: int
    every: int  # steps between two evaluations
    validation_batch_size: int = -1
    patience: int = 0
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    rate_flag: str = "learning_rate"  # that is to be smaller where numbers grow without end
    on_evaluation: OnEvaluation = lambda *_: None
    on_step: Callable[[int], None] = lambda _: None
    step: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    best: Candidate | None = None
    last: Candidate | None = None

    def run(self) -> None:
        """Take the steps that are left, or fewer by ``patience``."""
        while self.step < self.steps and not self._is_hopeless():
            self.trainable.step()
            self.step += 1
            if self.step % self.every == 0 or self.step == self.steps:
                self._evaluate()
            self.on_step(self.step)

    def kept(self, takes_best: bool = True) -> Candidate:
        """The last step, unless another is better than chance would have it (`_STANDARD_ERRORS`).

        Always the last unless it ``takes_best``.
        """
        assert self.best is not None, "no step was taken"
        assert self.last is not None
        is_better = self.best.step < self.last.step and is_lower(
            self.best.losses, self.last.losses, self.judges.units, _STANDARD_ERRORS
        )
        return self.best if takes_best and is_better else self.last

    def _is_hopeless(self) -> bool:
        if not self.patience or self.best is None or not len(self.judges.images):
            return False
        return self.step % self.every == 0 and self.step - self.best.step >= self.patience

    def _evaluate(self) -> None:
        train = score(*self.trainable.predict_batch())
        if not math.isfinite(train.cross_entropy):
            raise not_finite(self.step, self.rate_flag)
        evaluation, losses = Evaluation(self.step, train, None), np.empty(0)
        images = self.judges.images
        if len(images):
            probabilities = self.trainable.predict(images)
            outcomes = Outcomes.of(probabilities, images.y)
            if not outcomes.is_finite:
                raise not_finite(self.step, self.rate_flag)
            losses = self.judges.weighed(outcomes.losses, probabilities)
            rows = sample_rows(len(images), self.validation_batch_size, self.random)
            evaluation = Evaluation(self.step, train, outcomes.score(), outcomes.score(rows))
        self.evaluations.append(evaluation)
        self.on_evaluation(evaluation, self.trainable.weights)
        self.last = Candidate(self.step, self.trainable.snapshot(), losses)
        if self.best is None or losses.sum() < self.best.losses.sum():
            self.best = self.last


def not_finite(step: int, rate_flag: str) -> UsageError:
    """The error of a training whose numbers have grown without end."""
    return UsageError(
        f"training came to numbers that are not finite within {step} steps; use a smaller "
        f"--{rate_flag}"
    )


def fit_head(
    settings: TrainingSettings,
    dataset: Dataset,
    l2: float | None = None,
    on_evaluation: OnEvaluation = lambda *_: None,
    on_step: Callable[[int, Trainable], None] = lambda *_: None,
) -> Fitted:
    """Train the softmax layer on ``dataset.training``, with the usual penalty or with ``l2``.

    Kept is the last step, as the problem is convex and the penalty keeps the layer from learning
    the training images by heart; unless an evaluated one before it is better on the validation
    set, and by more than chance would have it. With the recipe "classic", or without a validation
    set, always the last. ``on_step`` gets the steps taken, and what is trained.
    """
    random = np.random.default_rng((settings.seed, 1))
    with ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        # What becomes of it is checked at each evaluation.
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        fit = Fit(
            dataset.drawn,
            dataset.training.y,
            len(dataset.labels),
            steps=settings.how_many_training_steps,
            batch_size=settings.train_batch_size,
            learning_rate=settings.learning_rate or LEARNING_RATES[settings.head_recipe],
            seed=settings.seed,
            l2=l2,
            recipe=settings.head_recipe,
            class_balance=settings.class_balance,
        )
        stack.callback(fit.close)
        loop = Loop(
            fit,
            Judges.of(dataset, settings.class_balance, random),
            steps=settings.how_many_training_steps,
            every=settings.eval_step_interval,
            validation_batch_size=settings.validation_batch_size,
            patience=settings.patience,
            random=random,
            on_evaluation=on_evaluation,
            on_step=lambda step: on_step(step, fit),
        )
        loop.run()
        kept = loop.kept(takes_best=settings.head_recipe != "classic")
    evaluations = tuple(loop.evaluations)
    return Fitted(kept.model.head, kept.step, loop.step, fit.l2, kept.losses, evaluations)


def calibration_images(validation: Subset, classes: int, seed: int) -> Subset:
    """The validation images that the temperature is found by, drawn by ``seed`` where many.

    Their scores (n, ``classes``) are all in memory.
    """
    most = max(MAX_VALIDATION, min(MAX_CALIBRATION, _CALIBRATION_CELLS // classes))
    return validation.sample(most, np.random.default_rng((seed, 13)))


def find_temperature(model: Model, subset: Subset) -> float:
    """`temperature_of` the logits of ``model`` on ``subset``."""
    return temperature_of(model.logits_all(subset.vectors), subset.y)


def temperature_of(logits: np.ndarray, y: np.ndarray) -> float:
    """The likeliest temperature of ``logits`` (n, C) by labels ``y`` (n,), near 1 where n is small.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, with a log-normal
    prior around 1. It changes no ranking.
    """

    def loss(log_temperature: float) -> float:
        given = score(softmax(logits / np.exp(log_temperature)), y)
        return given.cross_entropy + (log_temperature / _LOG_TEMPERATURE) ** 2 / (2 * given.n)

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))
