"""How parameters move against their gradients, a step at a time.

A step passes over some arrays of the size of the parameters. It takes one block after another
through all of them, so that what it needs is in the cache of a core; threads share the blocks of
large ones.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from bottlenecks.parallel import blocks_of, for_each

# Of the running average: about the last 50 steps count. With the parameters as they are, which
# step has the lowest validation loss is half chance, the more so the smaller the batch.
_DECAY = 0.98
# Kingma & Ba 2015, "Adam", algorithm 1: their defaults.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_BLOCK = 2**18  # numbers whose gradient is computed at once: of fewer the products are slower
_IN_CACHE = 2**16  # numbers of each of six arrays that a core works on at once
_LEAST_SHARED = 2**19  # numbers of a parameter from which threads share its blocks

Arrays = Sequence[np.ndarray]
# Some rows of a parameter -> the gradient there, a new array; several threads may ask at once.
Gradient = Callable[[slice], np.ndarray]


class Optimizer(Protocol):
    """Takes gradients at ``trained`` and moves it; ``result`` is what to predict with."""

    trained: Arrays

    @property
    def result(self) -> Arrays:
        """As of the last step; a step leaves what was given out before as it is, or moves it."""

    def step(self, gradients: Sequence[Gradient]) -> None:
        """Move all parameters, a block of rows at a time."""


def _by_blocks(parameter: np.ndarray, move: Callable[[slice], object]) -> None:
    if parameter.size <= _BLOCK:
        move(slice(None))
        return
    rows = max(1, _BLOCK * len(parameter) // parameter.size)
    for_each(blocks_of(len(parameter), rows), move, shared=parameter.size >= _LEAST_SHARED)


class GradientDescent:
    """At a constant ``rate``."""

    def __init__(self, parameters: Arrays, rate: float) -> None:
        self.trained: Arrays = parameters
        self.result: Arrays = parameters
        self._rate = rate

    def step(self, gradients: Sequence[Gradient]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            _by_blocks(parameter, functools.partial(self._move, parameter, gradient))

    def _move(self, parameter: np.ndarray, gradient: Gradient, rows: slice) -> None:
        move = gradient(rows)
        move *= self._rate
        parameter[rows] -= move


class AveragedAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) whose result is the running average of the parameters.

    The step size falls from ``rate`` to 0 along half a cosine over ``steps`` steps (Loshchilov &
    Hutter 2017, "SGDR", eq. 5, without restarts). The average is exponential, as that of the
    network itself was (Szegedy et al. 2015, "Rethinking the Inception Architecture", section 8);
    the first steps are forgotten sooner (TensorFlow's ExponentialMovingAverage, ``num_updates``).

    To the gradients that it is given it adds those of ``penalties``: p / 2 times the squares of a
    parameter.
    """

    def __init__(
        self, parameters: Arrays, rate: float, steps: int, penalties: Sequence[float]
    ) -> None:
        self.trained: Arrays = parameters
        # In units that save passes: the moments over 1 - beta, and how far the parameters are
        # ahead of their average.
        self._first, self._second, self._ahead = (
            [np.zeros_like(parameter) for parameter in parameters] for _ in range(3)
        )
        self._rate, self._steps, self._done = rate, steps, 0
        self._penalties = penalties
        self._result: Arrays | None = None

    @property
    def result(self) -> Arrays:
        """The averages as of the last step; new arrays, which later steps leave as they are."""
        if self._result is None:
            self._result = [
                _difference(parameter, ahead)
                for parameter, ahead in zip(self.trained, self._ahead, strict=True)
            ]
        return self._result

    def step(self, gradients: Sequence[Gradient]) -> None:
        rate = self._rate * 0.5 * (1 + np.cos(np.pi * self._done / self._steps))
        decay = min(_DECAY, (1 + self._done) / (10 + self._done))
        self._done += 1
        self._result = None
        rate *= np.sqrt(1 - _BETA2**self._done) / (1 - _BETA1**self._done)
        scaled = float(rate * (1 - _BETA1) / math.sqrt(1 - _BETA2)), float(decay)
        states = zip(self.trained, self._first, self._second, self._ahead, strict=True)
        for arrays, gradient, penalty in zip(states, gradients, self._penalties, strict=True):
            _by_blocks(arrays[0], functools.partial(_move, arrays, gradient, penalty, *scaled))


def _move(
    arrays: Arrays,
    gradient: Gradient,
    penalty: float,
    rate: float,
    decay: float,
    rows: slice,
) -> None:
    """A step of Adam at some rows of ``arrays``: a parameter, its moments, what it is ahead by."""
    for g, parameter, first, second, ahead in _in_cache(gradient(rows), *(x[rows] for x in arrays)):
        move = parameter * penalty
        g += move
        first *= _BETA1
        first += g
        np.multiply(g, g, out=g)
        second *= _BETA2
        second += g
        np.sqrt(second, out=move)
        move += _EPSILON / math.sqrt(1 - _BETA2)
        np.divide(first, move, out=move)
        move *= rate
        parameter -= move
        # The average becomes decay * average + (1 - decay) * parameter.
        ahead -= move
        ahead *= decay


def _in_cache(*arrays: np.ndarray) -> Iterator[Arrays]:
    """The same parts of C-contiguous ``arrays`` of one shape, one after the other."""
    if arrays[0].size <= _IN_CACHE:
        yield arrays
        return
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, len(flat[0]), _IN_CACHE):
        yield [array[start : start + _IN_CACHE] for array in flat]


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result = np.empty_like(a)
    _by_blocks(a, lambda rows: np.subtract(a[rows], b[rows], out=result[rows]))
    return result
