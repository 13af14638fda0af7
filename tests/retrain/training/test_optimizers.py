"""retrain.training.optimizers: against the formulas as they are written, in float64."""

import numpy as np
import pytest

from retrain.training import optimizers
from retrain.training.optimizers import Arrays, AveragedAdam, Gradient, GradientDescent

RATE, STEPS = 0.05, 80


def parameters() -> Arrays:
    random = np.random.default_rng(0)
    return [random.normal(0, 1, shape).astype(np.float32) for shape in ((6, 3), (3,))]


def some_gradients() -> list[list[np.ndarray]]:
    random = np.random.default_rng(1)
    return [
        [random.normal(0.2, 1, shape).astype(np.float32) for shape in ((6, 3), (3,))]
        for _ in range(STEPS)
    ]


def given(gradients: Arrays) -> list[Gradient]:
    """What an optimizer asks for gradients; it may overwrite what it gets."""

    def of(gradient: np.ndarray) -> Gradient:
        return lambda rows: gradient[rows].copy()

    return [of(gradient) for gradient in gradients]


@pytest.mark.parametrize("block", [2**18, 7, 1])
@pytest.mark.parametrize("in_cache", [2**16, 5, 1])
@pytest.mark.parametrize("least_shared", [2**19, 1])
def test_adam_and_its_running_average(
    block: int, in_cache: int, least_shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece or in many, by one thread or by several."""
    monkeypatch.setattr(optimizers, "_BLOCK", block)
    monkeypatch.setattr(optimizers, "_IN_CACHE", in_cache)
    monkeypatch.setattr(optimizers, "_LEAST_SHARED", least_shared)
    optimizer = AveragedAdam(parameters(), RATE, STEPS, (0.3, 0.0))
    trained = [x.astype(np.float64) for x in parameters()]
    average = [x.copy() for x in trained]
    m, v = [np.zeros_like(x) for x in trained], [np.zeros_like(x) for x in trained]
    for t, gradients in enumerate(some_gradients(), start=1):
        optimizer.step(given(gradients))
        rate = RATE * (1 + np.cos(np.pi * (t - 1) / STEPS)) / 2
        decay = min(0.98, t / (9 + t))
        for i, own in enumerate(gradients):
            g = own + (0.3 * trained[0] if i == 0 else 0.0)
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            move = (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            trained[i] = trained[i] - rate * move
            average[i] = decay * average[i] + (1 - decay) * trained[i]
            np.testing.assert_allclose(optimizer.trained[i], trained[i], atol=1e-5)
            np.testing.assert_allclose(optimizer.result[i], average[i], atol=1e-5)


def test_the_average_of_a_parameter_that_stays_is_that_parameter() -> None:
    optimizer = AveragedAdam(parameters(), 0.0, STEPS, (0.0, 0.0))
    for gradients in some_gradients():
        optimizer.step(given(gradients))
    for result, start in zip(optimizer.result, parameters(), strict=True):
        np.testing.assert_array_equal(result, start)


def test_the_average_follows_what_the_first_steps_reach() -> None:
    """Ten steps in one direction: the average is not held back by the start."""
    optimizer = AveragedAdam([np.zeros(1, np.float32)], RATE, 10_000, [0.0])
    for _ in range(10):
        optimizer.step(given([np.full(1, -1.0, np.float32)]))
    assert optimizer.trained[0][0] == pytest.approx(10 * RATE, rel=1e-3)
    assert optimizer.result[0][0] > 0.75 * optimizer.trained[0][0]


def test_the_average_is_steadier_than_what_is_trained() -> None:
    random = np.random.default_rng(2)
    optimizer = AveragedAdam([np.zeros(1000, np.float32)], RATE, 10_000, [0.0])
    for _ in range(400):
        noise = random.normal(0, 1, 1000).astype(np.float32)
        optimizer.step(given([noise + optimizer.trained[0]]))  # the minimum is at 0
    assert optimizer.result[0].std() < 0.7 * optimizer.trained[0].std()


def test_gradient_descent() -> None:
    optimizer = GradientDescent(parameters(), RATE)
    expected = [x.astype(np.float64) for x in parameters()]
    for gradients in some_gradients():
        expected = [x - RATE * gradient for x, gradient in zip(expected, gradients, strict=True)]
        optimizer.step(given(gradients))
    for result, trained, wanted in zip(optimizer.result, optimizer.trained, expected, strict=True):
        assert result is trained
        np.testing.assert_allclose(result, wanted, atol=1e-5)
