"""Fine-tuning: the layers above a cut are trained together with the head, on cached rows."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks.errors import UsageError
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.store.vectors import Stream, Vectors, blocks
from retrain.data.dataset import Subset
from retrain.training.batches import balanced, epochs, varied
from retrain.training.fitting import not_finite
from retrain.training.head import label_weights, softmax
from retrain.training.recipes import LAYER_RECIPES, USUAL, LayerRecipe
from retrain.training.settings import FineTuneSettings, TrainingSettings
from retrain.training.upper import UpperLayers, Variables

AVERAGE = 0.99  # of the running average: about the last 100 steps count
RATE_FLAG = "fine_tune_learning_rate"
# Rows whose gradients are summed at once, of cuts with maps as large as before mixed3: training the
# whole network takes 150 MB for each.
_AT_ONCE_EARLY, _EARLY_SIDE = 8, 35
_AHEAD = 4  # batches that are read ahead
_PREDICTED = 32  # rows at once


@dataclass(frozen=True)
class Recipe:
    """How the layers move: through ``epochs``, in steps of ``batch_size`` images.

    The largest step has the size ``learning_rate``.

    ``weight_decay`` is the share of a weight that a step of size 1 takes off (Loshchilov & Hutter
    2019, "Decoupled Weight Decay Regularization"); ``smoothing`` of the labels as in Szegedy et al.
    2015, section 7; ``l2`` the penalty of the head, as in the warm-up. What else there is to it is
    in `LAYER_RECIPES` by its ``name``.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    smoothing: float
    l2: float
    class_balance: str
    seed: int
    name: str = USUAL

    @classmethod
    def of(cls, training: TrainingSettings, tuning: FineTuneSettings, l2: float) -> "Recipe":
        """What the flags say."""
        layers = LAYER_RECIPES[training.layer_recipe]
        return cls(
            epochs=tuning.fine_tune_epochs,
            batch_size=tuning.fine_tune_batch_size,
            learning_rate=tuning.fine_tune_learning_rate or layers.rate,
            weight_decay=tuning.fine_tune_weight_decay,
            smoothing=tuning.fine_tune_label_smoothing,
            l2=l2,
            class_balance=training.class_balance,
            seed=training.seed,
            name=training.layer_recipe,
        )

    @property
    def layers(self) -> LayerRecipe:
        return LAYER_RECIPES[self.name]

    def steps_in_epoch(self, images: int) -> int:
        """How many batches so many images fill, the last perhaps in part."""
        return math.ceil(images / self.batch_of(images))

    def batch_of(self, images: int) -> int:
        """How many of so many images are in a batch."""
        return min(self.batch_size, images)


class FineTuning:
    """Trains `Variables` on ``vectors`` of a cut, a step at a time; a `Trainable`.

    ``vectors`` has 1 + V rows for each of the n images of ``y`` (n,) int64: row v * n + i is of
    image i, plain for v = 0 and else a variant. Each draw of an image takes one of them.

    The optimizer is that of the recipe (see `retrain.training.recipes`). What predicts is a running
    average (see `retrain.training.optimizers`). The same ``seed`` gives the same batches.

    Where layers normalise by the batch, it is by the part of it that a device has at once.

    Each step is shared out among the replicas of the variables' ``tf.distribute`` strategy.
    """

    def __init__(
        self, variables: Variables, vectors: Vectors, y: np.ndarray, classes: int, recipe: Recipe
    ) -> None:
        tf = import_tensorflow()

        self._tf, self._variables, self._recipe = tf, variables, recipe
        self._vectors, self._y, self._classes = vectors, y, classes
        weighted = recipe.class_balance if recipe.class_balance == "weights" else "none"
        self._class_weights = label_weights(y, classes, weighted)
        self.steps = recipe.epochs * recipe.steps_in_epoch(len(y))
        with variables.strategy.scope():
            self._optimizer = recipe.layers.optimizer(
                tf.keras.optimizers,
                recipe.learning_rate,
                recipe.weight_decay,
                self.steps,
                recipe.epochs,
            )
            self._optimizer.build(variables.trained)
            self._sums = [
                tf.Variable(
                    tf.zeros(variable.shape),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
                for variable in variables.trained
            ]
        replicas, batch = variables.strategy.num_replicas_in_sync, recipe.batch_of(len(y))
        if batch < replicas:
            raise UsageError(
                f"{batch} images in a step cannot be shared out among {replicas} devices; use "
                "--strategy none, a larger --fine_tune_batch_size, or more photos"
            )
        # Every device has some of each part.
        is_early = vectors.spec.shape[0] >= _EARLY_SIDE
        at_once = replicas * _AT_ONCE_EARLY if is_early else batch
        self._parts = min(math.ceil(batch / at_once), batch // replicas)
        self._sum = tf.function(self._add, reduce_retracing=True, autograph=False)
        self._move = tf.function(self._apply, autograph=False)
        self._logits = tf.function(self._predict, reduce_retracing=True, autograph=False)
        self._taken = 0
        self._stream = self._rows_from(0)
        self._batch = (np.empty(0), np.empty(0, np.int64))  # the last one's logits and labels

    @property
    def weights(self) -> np.ndarray:
        weights: np.ndarray = self._variables.in_use(self._variables.averages)[-2].numpy()
        return weights

    def step(self) -> None:
        """Take one step on the next batch."""
        rows, x = next(self._stream)
        labels = self._y[rows % len(self._y)]
        decay = min(AVERAGE, (1 + self._taken) / (10 + self._taken))
        arrays = x, self._targets(labels), self._class_weights[labels]
        logits, own = [], []
        for part in np.array_split(np.arange(len(x)), self._parts):
            spread = [self._spread(array[part]) for array in arrays]
            logits.append(self._local(self._sum(spread, np.float32(decay))))
            own.append(self._local(self._spread(labels[part])))
        self._move(np.float32(decay))
        self._batch = np.concatenate(logits), np.concatenate(own)
        self._taken += 1

    def predict_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (batch, C) of the last batch before its step, and its labels (batch,)."""
        logits, labels = self._batch
        return softmax(logits), labels

    def predict(self, images: Subset) -> np.ndarray:
        """Probabilities (n, C) of ``images``, whose rows are of the cut."""
        found = [
            self._logits(x[start : start + _PREDICTED]).numpy()
            for x in blocks(images.vectors)
            for start in range(0, len(x), _PREDICTED)
        ]
        return softmax(np.concatenate(found))

    def model(self) -> UpperLayers:
        """What the averages are now. Raises `UsageError` where they are no finite numbers."""
        model = self._variables.result()
        if not all(np.isfinite(array).all() for array in model.arrays):
            raise not_finite(self._taken, RATE_FLAG)
        return model

    snapshot = model

    def close(self) -> None:
        """Stop reading ahead."""
        self._stream.close()

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers that the next step hangs on, for `restore`."""
        return {f"{i:04}": variable.numpy() for i, variable in enumerate(self._all)}

    def restore(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from ``step``, with what `arrays` gave after it."""
        for i, variable in enumerate(self._all):
            variable.assign(arrays[f"{i:04}"])
        self._taken = step
        self._stream.close()
        self._stream = self._rows_from(step)

    @property
    def _all(self) -> list[Any]:
        own = self._variables
        return [*own.trained, *own.averages, *own.moments, *self._optimizer.variables]

    def _rows_from(self, step: int) -> Stream:
        """Batches of rows from ``step`` on; where they begin says nothing of what they are."""
        recipe, n = self._recipe, len(self._y)
        random = np.random.default_rng((recipe.seed, 8))
        size = recipe.batch_of(n)
        batches: Iterator[np.ndarray]
        if recipe.class_balance == "sampling":
            counts = np.bincount(self._y, minlength=self._classes)
            batches = balanced(self._y, counts, size, random)
        else:
            batches = epochs(n, size, random)
        variants = len(self._vectors) // n - 1
        rows = varied(batches, n, variants, np.random.default_rng((recipe.seed, 9)))
        return self._vectors.stream(itertools.islice(rows, step, self.steps), ahead=_AHEAD)

    def _targets(self, labels: np.ndarray) -> np.ndarray:
        """(n, C) float32 smoothed."""
        smoothing = self._recipe.smoothing
        targets = np.full((len(labels), self._classes), smoothing / self._classes, np.float32)
        targets[np.arange(len(labels)), labels] += 1 - smoothing
        return targets

    def _spread(self, array: np.ndarray) -> Any:
        """``array`` (batch, ...) dealt out to the replicas, in order."""
        strategy = self._variables.strategy
        parts = np.array_split(array, strategy.num_replicas_in_sync)
        return strategy.experimental_distribute_values_from_function(
            lambda context: self._tf.constant(parts[context.replica_id_in_sync_group])
        )

    def _local(self, values: Any) -> np.ndarray:
        """What the replicas of this process have of ``values``, (n, ...)."""
        parts = self._variables.strategy.experimental_local_results(values)
        return np.concatenate([part.numpy() for part in parts])

    def _add(self, parts: list[Any], decay: Any) -> Any:
        """Add the gradients of rows to what is summed, on all replicas; returns their logits."""
        own = self._variables
        logits, moments = own.strategy.run(self._add_part, parts)
        if own.moments:
            mean = self._tf.distribute.ReduceOp.MEAN
            moments = [own.strategy.reduce(mean, moment, axis=None) for moment in moments]
            own.follow(moments, decay)
        return logits

    def _add_part(self, x: Any, targets: Any, weights: Any) -> Any:
        """One replica's part of it."""
        tf, own = self._tf, self._variables
        values = [tf.convert_to_tensor(variable) for variable in own.trained]
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits, moments = own.logits_and_moments(values, x)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_sum(losses * weights) / self._recipe.batch_of(len(self._y))
        for total, gradient in zip(self._sums, tape.gradient(loss, values), strict=True):
            total.assign_add(gradient)
        return logits, moments

    def _apply(self, decay: Any) -> None:
        """Take a step by what is summed."""
        own = self._variables
        own.strategy.run(self._apply_part)
        for average, variable in zip(own.averages, own.trained, strict=True):
            average.assign_sub((1 - decay) * (average - variable))

    def _apply_part(self) -> None:
        tf, own = self._tf, self._variables
        sums = [tf.identity(total) for total in self._sums]
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        unit = own.in_use([1.0] * len(own.trained))[-2]
        gradients[-2] += self._recipe.l2 * unit**2 * own.trained[-2]  # of the penalty
        most_norm = self._recipe.layers.most_norm
        if most_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, most_norm)
        # The optimizer adds up what the replicas give it.
        replicas = own.strategy.num_replicas_in_sync
        self._optimizer.apply([gradient / replicas for gradient in gradients], own.trained)
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _predict(self, x: Any) -> Any:
        return self._variables.logits(self._variables.averages, x)
