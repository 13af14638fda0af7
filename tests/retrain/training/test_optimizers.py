"""retrain.training.optimizers: against the formulas as they are written, in float64."""

import numpy as np
import pytest

from retrain.training.optimizers import Arrays, AveragedAdam, GradientDescent

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


def test_adam_and_its_running_average() -> None:
    optimizer = AveragedAdam(parameters(), RATE, STEPS)
    trained = [x.astype(np.float64) for x in parameters()]
    average = [x.copy() for x in trained]
    m, v = [np.zeros_like(x) for x in trained], [np.zeros_like(x) for x in trained]
    for t, gradients in enumerate(some_gradients(), start=1):
        optimizer.step([gradient.copy() for gradient in gradients])
        rate = RATE * (1 + np.cos(np.pi * (t - 1) / STEPS)) / 2
        decay = min(0.98, t / (9 + t))
        for i, g in enumerate(gradients):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g.astype(np.float64) ** 2
            move = (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            trained[i] = trained[i] - rate * move
            average[i] = decay * average[i] + (1 - decay) * trained[i]
            np.testing.assert_allclose(optimizer.trained[i], trained[i], atol=1e-5)
            np.testing.assert_allclose(optimizer.result[i], average[i], atol=1e-5)


def test_the_average_of_a_parameter_that_stays_is_that_parameter() -> None:
    optimizer = AveragedAdam(parameters(), 0.0, STEPS)
    for gradients in some_gradients():
        optimizer.step(gradients)
    for result, start in zip(optimizer.result, parameters(), strict=True):
        np.testing.assert_array_equal(result, start)


def test_the_average_follows_what_the_first_steps_reach() -> None:
    """Ten steps in one direction: the average is not held back by the start."""
    optimizer = AveragedAdam([np.zeros(1, np.float32)], RATE, 10_000)
    for _ in range(10):
        optimizer.step([np.full(1, -1.0, np.float32)])
    assert optimizer.trained[0][0] == pytest.approx(10 * RATE, rel=1e-3)
    assert optimizer.result[0][0] > 0.75 * optimizer.trained[0][0]


def test_the_average_is_steadier_than_what_is_trained() -> None:
    random = np.random.default_rng(2)
    optimizer = AveragedAdam([np.zeros(1000, np.float32)], RATE, 10_000)
    for _ in range(400):
        noise = random.normal(0, 1, 1000).astype(np.float32)
        optimizer.step([noise + optimizer.trained[0]])  # the minimum is at 0
    assert optimizer.result[0].std() < 0.7 * optimizer.trained[0].std()


def test_gradient_descent() -> None:
    optimizer = GradientDescent(parameters(), RATE)
    expected = [x.astype(np.float64) for x in parameters()]
    for gradients in some_gradients():
        expected = [x - RATE * gradient for x, gradient in zip(expected, gradients, strict=True)]
        optimizer.step(gradients)
    for result, trained, wanted in zip(optimizer.result, optimizer.trained, expected, strict=True):
        assert result is trained
        np.testing.assert_allclose(result, wanted, atol=1e-5)
