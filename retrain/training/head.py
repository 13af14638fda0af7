"""The softmax layer W (2048, C), b (C,): fit, predict."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from bottlenecks.parallel import blocks_of, for_each, product
from bottlenecks.row_spec import RowSpec
from bottlenecks.store.vectors import BLOCK_BYTES, Vectors, blocks
from retrain.data.dataset import Subset, sample_rows
from retrain.training.batches import balanced, epochs, varied
from retrain.training.optimizers import AveragedAdam, GradientDescent, Optimizer

# L2 penalty: this over the number of labels and the square root of the number of images. Fitted to
# the strengths at which logistic regression had the lowest cross-entropy on images it had not seen,
# for 50 to 1,250 flowers (2 and 5 labels) and 1,515 photos of Caltech-101. From half to twice of it
# the accuracy stays within 0.5 points.
_L2 = 20.0
_MOST_DEVIATION = 10.0  # times the median one; of InceptionV3's on photos none has 7
_IN_CACHE = 2**16  # logits that a core works on at once: 256 KB
_LEAST_SHARED = (
    2**20
)  # logits from which threads share them: their exponentials take 1 ms of a core
# Scores that are in memory at once, 128 MB, and rows that they are of: 256 MB of bottlenecks.
_CELLS, _SCORED_ROWS = 2**25, 2**15
# Training vectors that the mean and the deviation are taken over; of more, a sample this large
# gives the deviation within 0.4 % (its standard error is 1 / sqrt(2 n)).
STANDARDISATION_ROWS = 2**15


@dataclass(frozen=True)
class Head:
    """A softmax layer on raw vectors: ``weights`` (2048, C), ``bias`` (C,), both float32."""

    weights: np.ndarray
    bias: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(n, C) float32 of the vectors ``x`` (n, 2048) float32."""
        logits = product(x, self.weights)
        logits += self.bias
        return logits

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities (n, C) float32 of the vectors ``x`` (n, 2048) float32."""
        return softmax(self.logits(x))

    @property
    def head(self) -> "Head":
        """Itself: there is nothing else in it."""
        return self

    def logits_all(self, vectors: Vectors) -> np.ndarray:
        """`logits` for `Vectors` of one row or more, a block at a time."""
        return np.concatenate([self.logits(x) for x in blocks(vectors)])

    def predict_all(self, vectors: Vectors) -> np.ndarray:
        """`predict` for `Vectors` of one row or more, a block at a time."""
        return softmax(self.logits_all(vectors))

    def at_temperature(self, temperature: float) -> "Head":
        """The layer whose logits are divided by ``temperature``."""
        return Head(self.weights / np.float32(temperature), self.bias / np.float32(temperature))


@dataclass(frozen=True)
class Standardisation:
    """Shifts each of the 2048 numbers to mean 0 in training, and divides all by one deviation.

    It is the median one. Those that vary more than ten times as much are divided by a tenth of
    their own.
    """

    mean: np.ndarray  # (2048,) float64
    scale: np.ndarray  # (2048,) float64; 0 for a number that never varies

    @classmethod
    def of(cls, x: np.ndarray) -> "Standardisation":
        mean = x.mean(axis=0, dtype=np.float64)
        variance = np.zeros_like(mean)
        step = RowSpec.of(x).rows_in(BLOCK_BYTES)
        for start in range(0, len(x), step):  # a block at a time, not to copy x
            variance += ((x[start : start + step] - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(variance / len(x))
        # Untrained networks vary by 1e-4 and less, so "never varies" is relative to the mean:
        # what float32 rounding alone can make of a constant.
        varies = deviation > 1e-6 * np.abs(mean)
        # Numbers that vary little say little: blown up to deviation 1 they cost half a point of
        # accuracy. And one that hardly ever varied must not decide alone when it does.
        usual = np.median(deviation[varies]) if varies.any() else 1.0
        scale = np.where(varies, 1.0 / np.maximum(usual, deviation / _MOST_DEVIATION), 0.0)
        return cls(mean, scale)

    @classmethod
    def of_sample(cls, vectors: Vectors, seed: int) -> "Standardisation":
        """That of at most `STANDARDISATION_ROWS` vectors, drawn by ``seed``."""
        random = np.random.default_rng((seed, 3))
        return cls.of(vectors.take(sample_rows(len(vectors), STANDARDISATION_ROWS, random)))

    def apply(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Standardised ``x`` (n, 2048), float32; in ``out`` if it is given, which may be ``x``."""
        mean, scale = self._float32
        z: np.ndarray = np.subtract(x, mean, out=out)
        z *= scale
        return z

    @functools.cached_property
    def _float32(self) -> tuple[np.ndarray, np.ndarray]:
        return self.mean.astype(np.float32), self.scale.astype(np.float32)

    def fold(self, weights: np.ndarray, bias: np.ndarray) -> Head:
        """The layer on raw vectors that equals ``weights``, ``bias`` on standardised ones."""
        folded = weights.astype(np.float64) * self.scale[:, None]
        return Head(folded.astype(np.float32), (bias - self.mean @ folded).astype(np.float32))


@dataclass(frozen=True)
class Snapshot:
    """A layer (2048, C), (C,) on standardised vectors; its `head` is made when it is wanted."""

    weights: np.ndarray
    bias: np.ndarray
    standardisation: Standardisation

    @functools.cached_property
    def head(self) -> Head:
        return self.standardisation.fold(self.weights, self.bias)

    def logits_all(self, vectors: Vectors) -> np.ndarray:
        return self.head.logits_all(vectors)

    def predict_all(self, vectors: Vectors) -> np.ndarray:
        return self.head.predict_all(vectors)

    def at_temperature(self, temperature: float) -> Head:
        return self.head.at_temperature(temperature)


def usual_l2(classes: int, images: int) -> float:
    """The strength of the L2 penalty where it is not searched for."""
    return float(_L2 / (classes * np.sqrt(images)))


def label_weights(y: np.ndarray, classes: int, class_balance: str) -> np.ndarray:
    """(C,) float32: how much an image of each label counts, 1 on average over the images ``y``.

    "sampling" balances by what is drawn; how much images count in it comes to the same as with
    "weights".
    """
    if class_balance == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(y, minlength=classes)
    weights: np.ndarray = (len(y) / (classes * np.maximum(counts, 1))).astype(np.float32)
    return weights


class Fit:
    """Softmax regression on cached vectors, a step at a time.

    ``vectors`` (n, 2048) float32, ``y`` (n,) int64 in [0, classes), every class in it. Where
    ``vectors`` has 1 + V rows for each image, row v * n + i is of image i, plain for v = 0 and else
    a variant; each draw of an image takes one of them.

    The recipe "adam" minimises mean cross-entropy + ``l2`` / 2 * |W|^2 on standardised vectors by
    `AveragedAdam`, its first steps of size ``learning_rate``; batches of ``batch_size`` walk
    through shuffled epochs. The biases start at the labels' shares (unless balanced), which small
    steps may not reach. "classic" is retrain.py's: plain gradient descent on raw vectors, without a
    penalty; an image of a batch is drawn by its label first, each label being as likely as any
    other.

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
        classic = recipe == "classic"
        self._y = y
        self.l2 = 0.0 if classic else usual_l2(classes, len(y)) if l2 is None else l2
        counts = np.bincount(y, minlength=classes)
        weighted = class_balance if class_balance == "weights" else "none"
        self._class_weights = label_weights(y, classes, weighted)
        random = np.random.default_rng(seed)
        if classic or class_balance == "sampling":
            batches = balanced(y, counts, batch_size, random)
        else:
            batches = epochs(len(y), min(batch_size, len(y)), random)
        variants = len(vectors) // len(y) - 1
        rows = varied(batches, len(y), variants, np.random.default_rng((seed, 9)))
        self._stream = vectors.stream(itertools.islice(rows, steps))
        (size,) = vectors.spec.shape
        weights, bias = np.zeros((size, classes), np.float32), np.zeros(classes, np.float32)
        self._optimizer: Optimizer
        if classic:
            self.standardisation = Standardisation(np.zeros(size), np.ones(size))
            # retrain.py: tf.truncated_normal(stddev=0.001)
            weights[:] = truncated_normal(weights.shape, 0.001, np.random.default_rng((seed, 4)))
            self._optimizer = GradientDescent((weights, bias), learning_rate)
        else:
            self.standardisation = Standardisation.of_sample(vectors, seed)
            if class_balance == "none":  # from what is known without a look at an image
                bias[:] = np.log(counts) - np.log(counts).mean()
            self._optimizer = AveragedAdam((weights, bias), learning_rate, steps, (self.l2, 0.0))
        self.batch = np.empty(0, np.int64)  # indices of the last batch
        self._z = np.empty((0, size), np.float32)  # its standardised vectors
        self._held: Subset | None = None  # the images that were predicted last
        self._held_z = np.empty((0, size), np.float32)

    @property
    def weights(self) -> np.ndarray:
        """Those of the layer on standardised vectors, as they are now."""
        return self._optimizer.result[0]

    def step(self) -> None:
        """Take one step on the next batch; there are as many as ``steps``."""
        rows, x = next(self._stream)
        self.batch = rows % len(self._y)
        self._z = z = self.standardisation.apply(x, out=x)
        y = self._y[self.batch]
        error = _probabilities(z, *self._optimizer.trained)  # (batch, classes)
        error[np.arange(len(y)), y] -= 1.0
        error *= self._class_weights[y][:, None] / len(y)
        self._optimizer.step(
            (lambda rows: z[:, rows].T @ error, lambda labels: error[:, labels].sum(axis=0))
        )

    def close(self) -> None:
        """Stop reading ahead."""
        self._stream.close()

    def predict_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (batch, C) of the last batch as they are now, and its labels (batch,)."""
        return self.predict_standardised(self._z), self._y[self.batch]

    def predict_standardised(self, z: np.ndarray) -> np.ndarray:
        """Probabilities (n, C) of vectors ``z`` (n, 2048) that `standardisation` was applied to."""
        return _probabilities(z, *self._optimizer.result)

    def predict(self, images: Subset) -> np.ndarray:
        """Probabilities (n, C) of ``images``, which are kept standardised until others are."""
        if self._held is not images:
            self._held, self._held_z = images, self._standardised(images)
        return self.predict_standardised(self._held_z)

    def _standardised(self, images: Subset) -> np.ndarray:
        x = images.x
        return self.standardisation.apply(x, out=x)

    def snapshot(self) -> Snapshot:
        """The layer as it is now."""
        weights, bias = self._optimizer.result
        return Snapshot(weights, bias, self.standardisation)

    def model(self) -> Head:
        """The same on raw vectors."""
        return self.snapshot().head


def scored_at_once(n: int, classes: int) -> list[slice]:
    """Parts of n rows, each of which has few enough scores (rows, classes) to hold them."""
    return blocks_of(n, max(1, min(_SCORED_ROWS, _CELLS // classes)))


def truncated_normal(
    shape: tuple[int, ...], deviation: float, random: np.random.Generator
) -> np.ndarray:
    """Normal numbers around 0; those more than two deviations off are drawn again.

    As ``tf.random.truncated_normal`` does.
    """
    numbers = random.normal(0.0, deviation, shape)
    while (far := np.abs(numbers) > 2 * deviation).any():
        numbers[far] = random.normal(0.0, deviation, int(far.sum()))
    return numbers


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax of ``logits`` (n, C)."""
    return _to_softmax(logits.copy())


def _to_softmax(logits: np.ndarray) -> np.ndarray:
    """``logits`` (n, C) themselves, made their row-wise softmax."""

    def replace(rows: slice) -> None:
        own = logits[rows]
        own -= own.max(axis=1, keepdims=True)
        np.exp(own, out=own)
        own /= own.sum(axis=1, keepdims=True)

    if logits.size <= _IN_CACHE:
        replace(slice(None))
    else:
        rows = max(1, _IN_CACHE // logits.shape[1])
        for_each(blocks_of(len(logits), rows), replace, shared=logits.size >= _LEAST_SHARED)
    return logits


def _probabilities(z: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The softmax (n, C) of ``z`` (n, 2048) @ ``weights`` (2048, C) + ``bias`` (C,)."""
    logits = product(z, weights)
    logits += bias
    return _to_softmax(logits)
