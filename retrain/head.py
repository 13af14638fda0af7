"""The softmax layer W (2048, C), b (C,): fit, predict."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bottlenecks.vectors import Vectors, blocks

# L2 penalty on the weights of the standardised vectors. Measured with Adam over 5 splits of 1,850
# vectors of flower photos: 0.01 to 0.3 stay within 0.4 points of the best logistic regression.
L2 = 0.1
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


@dataclass(frozen=True)
class Standardisation:
    """Shifts and scales each of the 2048 numbers to mean 0 and deviation 1 in training."""

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
        # A number that hardly ever varied in training must not decide alone when it does.
        floor = 0.01 * np.median(deviation[varies]) if varies.any() else 1.0
        scale = np.where(varies, 1.0 / np.maximum(deviation, floor), 0.0)
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


class Fit:
    """Softmax regression by Adam on standardised vectors, a step at a time.

    ``vectors`` (n, 2048) float32, ``y`` (n,) int64 in [0, classes). The step size falls from
    ``learning_rate`` to 0 along half a cosine over ``steps`` steps (Loshchilov & Hutter 2017,
    "SGDR", eq. 5, without restarts). Batches of ``batch_size`` walk through shuffled epochs; the
    same ``seed`` gives the same batches.
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
    ) -> None:
        sample = np.arange(len(y))
        if len(y) > _STANDARDISATION_ROWS:
            random = np.random.default_rng((seed, 3))
            sample = np.sort(random.choice(sample, _STANDARDISATION_ROWS, replace=False))
        self.standardisation = Standardisation.of(vectors.take(sample))
        self._y = y
        self._steps = steps
        self._learning_rate = learning_rate
        batches = _batches(len(y), min(batch_size, len(y)), np.random.default_rng(seed))
        self._stream = vectors.stream(itertools.islice(batches, steps))
        self._weights = np.zeros((len(self.standardisation.mean), classes), np.float32)
        self._bias = np.zeros(classes, np.float32)
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in (self._weights, self._bias)]
        self.steps_done = 0
        self.batch = np.empty(0, np.int64)  # indices of the last batch
        self._z = np.empty((0, len(self._weights)), np.float32)  # its standardised vectors

    def step(self) -> None:
        """Take one step on the next batch; there are as many as ``steps``."""
        self.batch, x = next(self._stream)
        self._z, y = self.standardisation.apply(x), self._y[self.batch]
        z = self._z
        error = softmax(z @ self._weights + self._bias)  # (batch, classes)
        error[np.arange(len(y)), y] -= 1.0
        error /= len(y)
        rate = self._learning_rate * 0.5 * (1 + np.cos(np.pi * self.steps_done / self._steps))
        self.steps_done += 1
        rate *= np.sqrt(1 - _BETA2**self.steps_done) / (1 - _BETA1**self.steps_done)
        gradients = (z.T @ error + np.float32(L2) * self._weights, error.sum(axis=0))
        for parameter, gradient, (first, second) in zip(
            (self._weights, self._bias), gradients, self._moments, strict=True
        ):
            first += np.float32(1 - _BETA1) * (gradient - first)
            second += np.float32(1 - _BETA2) * (gradient * gradient - second)
            parameter -= np.float32(rate) * first / (np.sqrt(second) + np.float32(_EPSILON))

    def predict_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (batch, C) of the last batch as they are now, and its labels (batch,)."""
        logits = self._z @ self._weights + self._bias
        return softmax(logits), self._y[self.batch]

    def head(self) -> Head:
        """The layer as it is now, on raw vectors."""
        return self.standardisation.fold(self._weights, self._bias)


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
