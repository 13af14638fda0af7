"""How parameters move against their gradients, a step at a time."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

# Of the running average: about the last 50 steps count. With the parameters as they are, which
# step has the lowest validation loss is half chance, the more so the smaller the batch.
_DECAY = 0.98
# Kingma & Ba 2015, "Adam", algorithm 1: their defaults.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

Arrays = Sequence[np.ndarray]


class Optimizer(Protocol):
    """Takes gradients at ``trained`` and moves it; ``result`` is what to predict with."""

    trained: Arrays
    result: Arrays

    def step(self, gradients: Arrays) -> None:
        """Move all; overwrites ``gradients``."""


class GradientDescent:
    """At a constant ``rate``."""

    def __init__(self, parameters: Arrays, rate: float) -> None:
        self.trained: Arrays = parameters
        self.result: Arrays = parameters
        self._rate = np.float32(rate)

    def step(self, gradients: Arrays) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            gradient *= self._rate
            parameter -= gradient


class AveragedAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) whose result is the running average of the parameters.

    The step size falls from ``rate`` to 0 along half a cosine over ``steps`` steps (Loshchilov &
    Hutter 2017, "SGDR", eq. 5, without restarts). The average is exponential, as that of the
    network itself was (Szegedy et al. 2015, "Rethinking the Inception Architecture", section 8);
    the first steps are forgotten sooner (TensorFlow's ExponentialMovingAverage, ``num_updates``).
    """

    def __init__(self, parameters: Arrays, rate: float, steps: int) -> None:
        self.trained: Arrays = parameters
        self.result: Arrays = [parameter.copy() for parameter in parameters]
        self._first = [np.zeros_like(parameter) for parameter in parameters]
        self._second = [np.zeros_like(parameter) for parameter in parameters]
        self._rate, self._steps, self._done = rate, steps, 0

    def step(self, gradients: Arrays) -> None:
        rate = self._rate * 0.5 * (1 + np.cos(np.pi * self._done / self._steps))
        decay = min(_DECAY, (1 + self._done) / (10 + self._done))
        self._done += 1
        rate *= np.sqrt(1 - _BETA2**self._done) / (1 - _BETA1**self._done)
        for gradient, parameter, average, first, second in zip(
            gradients, self.trained, self.result, self._first, self._second, strict=True
        ):
            square = gradient * gradient
            square *= np.float32(1 - _BETA2)
            second *= np.float32(_BETA2)
            second += square
            gradient *= np.float32(1 - _BETA1)
            first *= np.float32(_BETA1)
            first += gradient
            move = np.sqrt(second, out=square)
            move += np.float32(_EPSILON)
            np.divide(first, move, out=move)
            move *= np.float32(rate)
            parameter -= move
            # decay * average + (1 - decay) * parameter
            np.subtract(parameter, average, out=move)
            move *= np.float32(1 - decay)
            average += move
