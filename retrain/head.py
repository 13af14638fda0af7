"""The softmax layer W (2048, C), b (C,): fit, predict."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bottlenecks.vectors import Vectors, blocks

# L2 penalty: this over the square root of the number of labels. Measured on 1,850 vectors of flower
# photos (5 labels) and 2,020 of Caltech-101 (101 labels), five splits each: from half to twice of
# it the accuracy stays within 0.5 points.
_L2_OF_ONE_LABEL = 0.3
_BLOCK_ROWS = 4096
# Training vectors that the mean and the deviation are taken over; of more, a sample this large
# gives the deviation within 0.4 % (its standard error is 1 / sqrt(2 n)).
_STANDARDISATION_ROWS = 2**15
# Kingma & Ba 2015, "Adam", algorithm 1: their defaults.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Head:
    """A softmax layer on raw vectors: ``weights`` (2048, C), ``bias`` (C,), both float32."""

    weights: np.ndarray
    bias: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities (n, C) float32 of the vectors ``x`` (n, 2048) float32."""
        return softmax(x @ self.weights + self.bias)

    def predict_all(self, vectors: Vectors) -> np.ndarray:
        """The same for `Vectors` of one row or more, a block at a time."""
        return np.concatenate([self.predict(x) for x in blocks(vectors)])

    def at_temperature(self, temperature: float) -> "Head":
        """The layer whose logits are divided by ``temperature``."""
        return Head(self.weights / np.float32(temperature), self.bias / np.float32(temperature))


@dataclass(frozen=True)
class Standardisation:
    """Shifts each of the 2048 numbers to mean 0 in training, and scales them by their deviation.

    All are divided by the median deviation, but those that vary more than twice as much are divided
    by half of their own.
    """

    mean: np.ndarray  # (2048,) float64
    scale: np.ndarray  # (2048,) float64; 0 for a number that never varies

    @classmethod
    def of(cls, x: np.ndarray) -> "Standardisation":
        mean = x.mean(axis=0, dtype=np.float64)
        variance = np.zeros_like(mean)
        for start in range(0, len(x), _BLOCK_ROWS):  # a block at a time, not to copy x
            variance += ((x[start : start + _BLOCK_ROWS] - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(variance / len(x))
        # Untrained networks vary by 1e-4 and less, so "never varies" is relative to the mean:
        # what float32 rounding alone can make of a constant.
        varies = deviation > 1e-6 * np.abs(mean)
        # Numbers that vary little say little: blown up to deviation 1 they cost half a point of
        # accuracy. And one that hardly ever varied must not decide alone when it does.
        usual = np.median(deviation[varies]) if varies.any() else 1.0
        scale = np.where(varies, 1.0 / np.maximum(usual, deviation / 2), 0.0)
        return cls(mean, scale)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Standardised ``x`` (n, 2048), float32."""
        z: np.ndarray = x - self.mean.astype(np.float32)
        z *= self.scale.astype(np.float32)
        return z

    def fold(self, weights: np.ndarray, bias: np.ndarray) -> Head:
        """The layer on raw vectors that equals ``weights``, ``bias`` on standardised ones."""
        folded = weights.astype(np.float64) * self.scale[:, None]
        return Head(folded.astype(np.float32), (bias - self.mean @ folded).astype(np.float32))


def usual_l2(classes: int) -> float:
    """The strength of the L2 penalty where it is not searched for."""
    return float(_L2_OF_ONE_LABEL / np.sqrt(classes))


class Fit:
    """Softmax regression on cached vectors, a step at a time.

    ``vectors`` (n, 2048) float32, ``y`` (n,) int64 in [0, classes), every class in it.

    The recipe "adam" minimises mean cross-entropy + ``l2`` / 2 * |W|^2 on standardised vectors by
    Adam; the step size falls from ``learning_rate`` to 0 along half a cosine over ``steps`` steps
    (Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts). Batches of ``batch_size`` walk
    through shuffled epochs. "classic" is retrain.py's: plain gradient descent on raw vectors at a
    constant rate, without a penalty; an image of a batch is drawn by its label first, each label
    being as likely as any other.

    ``class_balance`` makes up for labels with few images: "weights" weighs an image by
    n / (classes * images of its label), "sampling" draws batches as "classic" does.
    The same ``seed`` gives the same batches.
    """

    def __init__(
        self,
        vectors: Vectors,
        y: np.ndarray,
        classes: int,
        *,
        steps: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        l2: float | None = None,
        recipe: str = "adam",
        class_balance: str = "none",
    ) -> None:
        self._y, self._steps, self._learning_rate = y, steps, learning_rate
        self._classic = recipe == "classic"
        self._l2 = np.float32(0.0 if self._classic else usual_l2(classes) if l2 is None else l2)
        counts = np.bincount(y, minlength=classes)
        self._class_weights = np.ones(classes, np.float32)
        if class_balance == "weights":
            self._class_weights = (len(y) / (classes * counts)).astype(np.float32)
        random = np.random.default_rng(seed)
        if self._classic or class_balance == "sampling":
            batches = _balanced_batches(y, counts, batch_size, random)
        else:
            batches = _batches(len(y), min(batch_size, len(y)), random)
        self._stream = vectors.stream(itertools.islice(batches, steps))
        size = vectors.take(np.arange(1)).shape[1]
        self.standardisation = Standardisation(np.zeros(size), np.ones(size))
        self.weights = np.zeros((size, classes), np.float32)  # on standardised vectors
        if self._classic:  # retrain.py: tf.truncated_normal(stddev=0.001)
            start = np.random.default_rng((seed, 4)).normal(0.0, 0.001, self.weights.shape)
            self.weights[:] = np.clip(start, -0.002, 0.002)
        else:
            self.standardisation = Standardisation.of(vectors.take(_sample(len(y), seed)))
        self._bias = np.zeros(classes, np.float32)
        self._adam = [_Adam(self.weights), _Adam(self._bias)]
        self.steps_done = 0
        self.batch = np.empty(0, np.int64)  # indices of the last batch
        self._z = np.empty((0, size), np.float32)  # its standardised vectors

    def step(self) -> None:
        """Take one step on the next batch; there are as many as ``steps``."""
        self.batch, x = next(self._stream)
        self._z, y = self.standardisation.apply(x), self._y[self.batch]
        error = softmax(self._z @ self.weights + self._bias)  # (batch, classes)
        error[np.arange(len(y)), y] -= 1.0
        error *= self._class_weights[y][:, None] / len(y)
        gradients = (self._z.T @ error + self._l2 * self.weights, error.sum(axis=0))
        rate = self._learning_rate
        if self._classic:
            for parameter, gradient in zip((self.weights, self._bias), gradients, strict=True):
                parameter -= np.float32(rate) * gradient
        else:
            rate *= 0.5 * (1 + np.cos(np.pi * self.steps_done / self._steps))
            for adam, gradient in zip(self._adam, gradients, strict=True):
                adam.step(gradient, rate)
        self.steps_done += 1

    def close(self) -> None:
        """Stop reading ahead."""
        self._stream.close()

    def predict_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (batch, C) of the last batch as they are now, and its labels (batch,)."""
        return self.predict_standardised(self._z), self._y[self.batch]

    def predict_standardised(self, z: np.ndarray) -> np.ndarray:
        """Probabilities (n, C) of vectors ``z`` (n, 2048) that `standardisation` was applied to."""
        return softmax(z @ self.weights + self._bias)

    def head(self) -> Head:
        """The layer as it is now, on raw vectors."""
        return self.standardisation.fold(self.weights, self._bias)


class _Adam:
    """Moves ``parameter`` against its gradients: Kingma & Ba 2015, algorithm 1."""

    def __init__(self, parameter: np.ndarray) -> None:
        self._parameter = parameter
        self._first, self._second = np.zeros_like(parameter), np.zeros_like(parameter)
        self._steps = 0

    def step(self, gradient: np.ndarray, rate: float) -> None:
        """Overwrites ``gradient``."""
        self._steps += 1
        corrected = rate * np.sqrt(1 - _BETA2**self._steps) / (1 - _BETA1**self._steps)
        square = gradient * gradient
        square *= np.float32(1 - _BETA2)
        self._second *= np.float32(_BETA2)
        self._second += square
        gradient *= np.float32(1 - _BETA1)
        self._first *= np.float32(_BETA1)
        self._first += gradient
        move = np.sqrt(self._second, out=square)
        move += np.float32(_EPSILON)
        np.divide(self._first, move, out=move)
        move *= np.float32(corrected)
        self._parameter -= move


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax of ``logits`` (n, C)."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = exp / exp.sum(axis=1, keepdims=True)
    return result


def _batches(n: int, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of ``size`` <= n indices that go through one shuffled epoch after another."""
    order = random.permutation(n)
    at = 0
    while True:
        if at + size > len(order):
            order = np.concatenate([order[at:], random.permutation(n)])
            at = 0
        yield order[at : at + size]
        at += size


def _balanced_batches(
    y: np.ndarray, counts: np.ndarray, size: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Endless batches of ``size`` rows: a label by chance, then one of its rows by chance."""
    by_label = np.argsort(y, kind="stable")
    starts = np.cumsum(counts) - counts
    while True:
        labels = random.integers(0, len(counts), size)
        yield by_label[starts[labels] + random.integers(0, counts[labels])]


def _sample(n: int, seed: int) -> np.ndarray:
    """The rows, of ``n``, to standardise by."""
    rows = np.arange(n)
    if n <= _STANDARDISATION_ROWS:
        return rows
    return np.sort(np.random.default_rng((seed, 3)).choice(rows, _STANDARDISATION_ROWS, False))
