"""retrain.training.head: it learns what can be learned, and only that."""

import os
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bottlenecks import parallel
from bottlenecks.store import vectors
from bottlenecks.store.vectors import InMemory
from retrain.training import head as head_module
from retrain.training import optimizers as optimizers_module
from retrain.training.head import (
    Fit,
    Head,
    Standardisation,
    softmax,
    truncated_normal,
    usual_l2,
)
from retrain.training.optimizers import Arrays, AveragedAdam, Gradient

SIZE = 64  # numbers in a vector; the head works for any


def gaussians(
    n: int, classes: int = 3, distance: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """``n`` vectors around the centres of ``classes``, and their labels."""
    centres = np.random.default_rng(99).normal(0, distance, (classes, SIZE))
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    return (centres[y] + random.normal(0, 1, (n, SIZE))).astype(np.float32), y


def fitted(x: np.ndarray, y: np.ndarray, **settings: Any) -> Fit:
    options = {"steps": 300, "batch_size": 100, "learning_rate": 0.01, "seed": 0, **settings}
    fit = Fit(InMemory(x), y, int(y.max()) + 1, **options)
    for _ in range(options["steps"]):
        fit.step()
    return fit


def accuracy(head: Head, x: np.ndarray, y: np.ndarray) -> float:
    return float((head.predict(x).argmax(axis=1) == y).mean())


def test_it_learns_separable_gaussians() -> None:
    head = fitted(*gaussians(500)).model()
    assert accuracy(head, *gaussians(500, seed=1)) == 1.0


def test_shuffled_labels_score_like_chance() -> None:
    """30 clusters of 3 labels: learned from the labels as they are, not from shuffled ones."""
    (x, y), (x_test, y_test) = gaussians(600, classes=30), gaussians(2_000, classes=30, seed=1)
    assert accuracy(fitted(x, y % 3).model(), x_test, y_test % 3) > 0.85
    shuffled = np.random.default_rng(2).permutation(y % 3)
    assert abs(accuracy(fitted(x, shuffled).model(), x_test, y_test % 3) - 1 / 3) < 0.1


def test_probabilities() -> None:
    x, y = gaussians(50)
    probabilities = fitted(x, y).model().predict(x)
    assert probabilities.shape == (50, 3)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_softmax_of_huge_logits_is_finite() -> None:
    np.testing.assert_array_equal(softmax(np.array([[1e30, 0, -1e30]], np.float32)), [[1, 0, 0]])


def test_the_folded_head_equals_the_standardised_one() -> None:
    random = np.random.default_rng(0)
    x = (random.gamma(1.0, 0.4, (200, 2048)) * random.gamma(2.0, 0.5, 2048)).astype(np.float32)
    weights = random.normal(0, 0.05, (2048, 5)).astype(np.float32)
    bias = random.normal(0, 1, 5).astype(np.float32)
    standardisation = Standardisation.of(x)
    expected = softmax(standardisation.apply(x) @ weights + bias)
    head = standardisation.fold(weights, bias)
    assert head.weights.dtype == head.bias.dtype == np.float32
    np.testing.assert_allclose(head.predict(x), expected, atol=1e-4)


def test_standardised_vectors_have_mean_0_and_the_documented_deviation() -> None:
    """Divided by the median deviation, or a tenth of their own where that is more."""
    deviations = np.r_[np.full(50, 7.0), 0.7, 69.0, 71.0, np.full(11, 700.0)]
    noise = np.random.default_rng(0).normal(0, 1, (400, SIZE))
    x = (3 + deviations * (noise - noise.mean(axis=0)) / noise.std(axis=0)).astype(np.float32)
    z = Standardisation.of(x).apply(x)
    np.testing.assert_allclose(z.mean(axis=0, dtype=np.float64), 0, atol=1e-4)
    expected = np.r_[np.full(50, 1.0), 0.1, 69 / 7, 10.0, np.full(11, 10.0)]
    np.testing.assert_allclose(z.std(axis=0, dtype=np.float64), expected, rtol=1e-3)


def test_standardising_looks_at_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained on may take most of the memory."""
    x = np.random.default_rng(0).normal(0, 1, (40_000, SIZE)).astype(np.float32)
    whole = Standardisation.of(x)
    monkeypatch.setattr(head_module, "BLOCK_BYTES", x.nbytes // 50)
    tracemalloc.start()
    try:
        by_blocks = Standardisation.of(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 4
    np.testing.assert_allclose(by_blocks.scale, whole.scale, rtol=1e-12)


def test_the_minimum_it_finds_is_the_documented_loss_s() -> None:
    """Full batches go to the minimum of mean cross-entropy + l2/2 |W|^2, as scikit-learn's."""
    x, y = gaussians(300, distance=0.3)
    fit = fitted(x, y, steps=2_000, batch_size=300, learning_rate=0.02)
    z = Standardisation.of(x).apply(x)
    exact = LogisticRegression(C=1 / (len(y) * usual_l2(3, len(y))), tol=1e-8, max_iter=10_000).fit(
        z, y
    )
    np.testing.assert_allclose(fit.model().predict(x), exact.predict_proba(z), atol=1e-3)


class Watched(AveragedAdam):
    """Keeps the gradients of its last step, with what its penalties add to them."""

    gradients: Arrays = ()

    def step(self, gradients: Sequence[Gradient]) -> None:
        self.gradients = [
            gradient(slice(None)) + penalty * parameter
            for gradient, penalty, parameter in zip(
                gradients, self._penalties, self.trained, strict=True
            )
        ]
        super().step(gradients)


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Those of all fits from now on."""
    made: list[Watched] = []

    def make(*settings: Any) -> Watched:
        made.append(Watched(*settings))
        return made[-1]

    monkeypatch.setattr(head_module, "AveragedAdam", make)
    return made


def gradients(fit: Fit, optimizer: Watched, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of the weights and of the biases at ``weights`` and biases of 0."""
    for parameter, value in zip(optimizer.trained, (weights, 0.0), strict=True):
        parameter[:] = value
    fit.step()
    of_weights, of_bias = optimizer.gradients
    return of_weights, of_bias


def test_the_gradient_is_that_of_the_documented_loss(optimizers: list[Watched]) -> None:
    x, y = gaussians(40)
    fit = Fit(InMemory(x), y, 3, steps=10, batch_size=40, learning_rate=0.0, seed=0)
    z = Standardisation.of(x).apply(x).astype(np.float64)
    start = np.random.default_rng(1).normal(0, 0.3, (SIZE, 3))
    gradient, _ = gradients(fit, optimizers[0], start)

    def loss(weights: np.ndarray) -> float:
        own = softmax(z @ weights)[np.arange(len(y)), y]
        return float(-np.log(own).mean() + usual_l2(3, len(y)) / 2 * (weights**2).sum())

    for i, j in [(0, 0), (10, 1), (33, 2), (63, 0)]:
        nudge = np.zeros_like(start)
        nudge[i, j] = 1e-5
        slope = (loss(start + nudge) - loss(start - nudge)) / 2e-5
        assert gradient[i, j] == pytest.approx(slope, abs=1e-5)


def test_as_accurate_as_logistic_regression_on_overlapping_gaussians() -> None:
    (x, y), test = gaussians(1_000, distance=0.25), gaussians(4_000, distance=0.25, seed=1)
    reference = (
        LogisticRegression(C=1 / (len(y) * usual_l2(3, len(y))), max_iter=2_000)
        .fit(x, y)
        .score(*test)
    )
    assert 0.6 < reference < 0.95  # they do overlap
    assert accuracy(fitted(x, y).model(), *test) == pytest.approx(reference, abs=0.02)


@pytest.mark.parametrize("mean", [0.0, 1.0, 10.0])
def test_features_that_vary_by_a_ten_thousandth_are_learned(mean: float) -> None:
    def tiny(seed: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = gaussians(500, seed=seed)
        return (mean + 1e-4 * x.astype(np.float64)).astype(np.float32), y

    assert accuracy(fitted(*tiny(0)).model(), *tiny(1)) > 0.99


@pytest.mark.parametrize("constant", [0.0, 1.0, -3.3, 1e6])
def test_constant_features_are_harmless(constant: float) -> None:
    (x, y), (x_test, y_test) = gaussians(500), gaussians(500, seed=1)
    x[:, ::2] = constant
    x_test[:, ::2] = constant
    head = fitted(x, y).model()
    assert (head.weights[::2] == 0).all()
    assert np.isfinite(head.weights).all() and np.isfinite(head.bias).all()
    assert accuracy(head, x_test, y_test) > 0.99


def test_a_feature_that_is_constant_in_training_only_decides_nothing() -> None:
    (x, y), (x_test, y_test) = gaussians(500), gaussians(500, seed=1)
    x[:, 0] = 0.5
    x_test[:, 0] = 1e6
    assert accuracy(fitted(x, y).model(), x_test, y_test) == 1.0


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones() -> None:
    x, y = gaussians(300)
    heads = [fitted(x, y, steps=50, seed=seed).model() for seed in (3, 3, 4)]
    saved = [head.weights.tobytes() + head.bias.tobytes() for head in heads]
    assert saved[0] == saved[1] != saved[2]


def test_another_seed_gives_other_batches() -> None:
    x, y = gaussians(300)
    batches = []
    for seed in (3, 3, 4):
        fit = fitted(x, y, steps=1, seed=seed)
        batches.append(fit.batch.tolist())
    assert batches[0] == batches[1] != batches[2]


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    x, y = gaussians(30)
    fit = fitted(x, y, steps=1, batch_size=100)
    assert sorted(fit.batch) == list(range(30))


def test_predict_batch_gives_the_last_batch_with_its_labels() -> None:
    x, y = gaussians(300)
    fit = fitted(x, y, steps=120, batch_size=50)
    probabilities, labels = fit.predict_batch()
    np.testing.assert_array_equal(labels, y[fit.batch])
    np.testing.assert_allclose(probabilities, fit.model().predict(x[fit.batch]), atol=1e-4)


def test_the_size_of_the_first_step_is_the_learning_rate(optimizers: list[Watched]) -> None:
    x, y = gaussians(300)
    fit = Fit(InMemory(x), y, 3, steps=100, batch_size=300, learning_rate=0.01, seed=0)
    fit.step()
    assert np.abs(optimizers[0].trained[0]).max() == pytest.approx(0.01, rel=1e-3)


def test_the_layer_is_the_running_average_of_what_is_trained(optimizers: list[Watched]) -> None:
    x, y = gaussians(300, distance=0.1)
    fit = fitted(x, y, steps=60, batch_size=10)
    (optimizer,) = optimizers
    weights, bias = optimizer.result
    assert (weights != optimizer.trained[0]).any()
    np.testing.assert_array_equal(fit.weights, weights)
    expected = fit.standardisation.fold(weights, bias)
    np.testing.assert_array_equal(fit.model().weights, expected.weights)
    np.testing.assert_array_equal(fit.model().bias, expected.bias)
    z = fit.standardisation.apply(x)
    np.testing.assert_array_equal(fit.predict_standardised(z), softmax(z @ weights + bias))


class Noted(InMemory):
    """Remembers which rows are taken at once."""

    def __init__(self, x: np.ndarray) -> None:
        super().__init__(x)
        self.taken: list[list[int]] = []

    def take(self, rows: np.ndarray) -> np.ndarray:
        self.taken.append(rows.tolist())
        return super().take(rows)


def standardised(x: np.ndarray, y: np.ndarray, seed: int = 0) -> tuple[Standardisation, list[int]]:
    """What `Fit` standardises by, and the rows that it looks at for it."""
    noted = Noted(x)
    fit = Fit(noted, y, 3, steps=1, batch_size=10, learning_rate=0.01, seed=seed)
    return fit.standardisation, max(noted.taken, key=len)


def test_many_vectors_are_standardised_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "STANDARDISATION_ROWS", 50)
    x, y = gaussians(300)
    found, rows = standardised(x, y)
    assert len(rows) == len(set(rows)) == 50
    assert 0 <= min(rows) < 50 and 250 <= max(rows) < 300  # from all over
    expected = Standardisation.of(x[rows])
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.scale, expected.scale)
    assert (found.mean != Standardisation.of(x).mean).all()


@pytest.mark.parametrize("count", [49, 50])
def test_few_vectors_are_standardised_by_all(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(head_module, "STANDARDISATION_ROWS", 50)
    x, y = gaussians(count)
    found, rows = standardised(x, y)
    assert sorted(rows) == list(range(count))
    np.testing.assert_array_equal(found.mean, Standardisation.of(x).mean)


def test_the_sample_is_that_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "STANDARDISATION_ROWS", 50)
    x, y = gaussians(300)
    samples = [standardised(x, y, seed)[1] for seed in (3, 3, 4)]
    assert samples[0] == samples[1] != samples[2]
    heads = [fitted(x, y, steps=20, seed=seed).model() for seed in (3, 3, 4)]
    saved = [head.weights.tobytes() + head.bias.tobytes() for head in heads]
    assert saved[0] == saved[1] != saved[2]


def test_a_sample_is_enough_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "STANDARDISATION_ROWS", 100)
    assert accuracy(fitted(*gaussians(500)).model(), *gaussians(500, seed=1)) == 1.0


@pytest.mark.parametrize("size", [1, 7, 50, 51])
def test_predicting_block_by_block_is_predicting(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    x, y = gaussians(50)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", size * x[0].nbytes)
    head = fitted(x, y, steps=20).model()
    expected = head.predict(x)
    assert len(np.unique(expected, axis=0)) == 50  # so that their order shows
    found = head.predict_all(InMemory(x))
    assert found.shape == (50, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_temperature_divides_the_logits_and_changes_no_ranking() -> None:
    x, y = gaussians(200, distance=0.3)
    head = fitted(x, y).model()
    cool = head.at_temperature(2.5)
    assert cool.weights.dtype == cool.bias.dtype == np.float32
    expected = softmax((x @ head.weights + head.bias) / 2.5)
    np.testing.assert_allclose(cool.predict(x), expected, atol=1e-5)
    np.testing.assert_array_equal(np.argsort(cool.predict(x)), np.argsort(head.predict(x)))
    same = head.at_temperature(1.0)
    assert same.weights.tobytes() + same.bias.tobytes() == (
        head.weights.tobytes() + head.bias.tobytes()
    )


# The recipe "classic": retrain.py's.


def classic(x: np.ndarray, y: np.ndarray, **settings: Any) -> Fit:
    """Before its first step."""
    options = {"steps": 100, "batch_size": 20, "learning_rate": 0.01, "seed": 0, **settings}
    return Fit(InMemory(x), y, int(y.max()) + 1, recipe="classic", **options)


def test_a_classic_step_is_one_of_plain_gradient_descent_on_raw_vectors() -> None:
    x, y = gaussians(50)
    x = x * 3 + 5  # far from standardised
    fit = classic(x, y, learning_rate=0.05)
    weights, bias = fit.weights.astype(np.float64), np.zeros(3)
    for _ in range(3):
        fit.step()
        batch, own = x[fit.batch].astype(np.float64), y[fit.batch]
        error = softmax(batch @ weights + bias) - np.eye(3)[own]
        weights -= 0.05 * batch.T @ error / len(own)
        bias -= 0.05 * error.mean(axis=0)
        head = fit.model()
        np.testing.assert_allclose(head.weights, weights, atol=1e-5)
        np.testing.assert_allclose(head.bias, bias, atol=1e-5)


def test_classic_weights_start_within_two_deviations_of_0() -> None:
    x = np.zeros((20, 2048), np.float32)
    y = np.arange(20) % 5
    starts = [classic(x, y, seed=seed).model() for seed in (3, 3, 4)]
    for head in starts:
        assert np.abs(head.weights).max() <= np.float32(0.002)
        assert head.weights.std() == pytest.approx(0.00088, rel=0.06)  # but for what is cut off
        assert abs(head.weights.mean()) < 1e-4
        assert (head.bias == 0).all()
    saved = [head.weights.tobytes() for head in starts]
    assert saved[0] == saved[1] != saved[2]


def test_classic_has_no_penalty() -> None:
    """With it, weights that no image moves would shrink."""
    x, y = gaussians(50)
    x[:, 0] = 0
    fits = [classic(x, y, l2=l2) for l2 in (0.0, 1e6)]
    for fit in fits:
        start = fit.weights[0].copy()
        for _ in range(20):
            fit.step()
        assert start.all()
        np.testing.assert_array_equal(fit.weights[0], start)
    np.testing.assert_array_equal(fits[0].weights, fits[1].weights)


def test_the_classic_step_size_does_not_fall() -> None:
    x, y = gaussians(1)
    x, y = np.repeat(x, 2, axis=0), np.array([0, 1])  # cannot be told apart
    fit = classic(x, y, steps=100, batch_size=1, learning_rate=1e-3)
    changes = []
    for _ in range(100):
        before = fit.weights.copy()
        fit.step()
        changes.append(float(np.abs(fit.weights - before).max()))
    assert changes[-1] == pytest.approx(changes[0], rel=0.2)


LOPSIDED = np.repeat([0, 1], [990, 10])  # 99 : 1


def drawn(steps: int = 60, **settings: Any) -> np.ndarray:
    """The rows of all batches of a fit on `LOPSIDED` labels."""
    x = np.random.default_rng(0).normal(0, 1, (1000, SIZE)).astype(np.float32)
    options = {"batch_size": 100, "learning_rate": 0.01, "seed": 0, **settings}
    fit = Fit(InMemory(x), LOPSIDED, 2, steps=steps, **options)
    batches = []
    for _ in range(steps):
        fit.step()
        batches.append(fit.batch)
    assert {len(batch) for batch in batches} == {100}
    return np.concatenate(batches)


@pytest.mark.parametrize(
    "settings", [{"recipe": "classic"}, {"class_balance": "sampling"}], ids=str
)
def test_labels_are_drawn_evenly_and_so_are_the_images_of_each(settings: dict[str, Any]) -> None:
    rows = drawn(**settings)
    share = LOPSIDED[rows].mean()
    assert share == pytest.approx(0.5, abs=4 * (0.25 / len(rows)) ** 0.5)
    times = np.bincount(rows, minlength=1000)
    rare, common = times[990:], times[:990]
    assert np.abs(rare - 300).max() < 4.5 * 300**0.5
    assert len(np.flatnonzero(common)) > 900  # each with chance 1 - exp(-3)
    assert (drawn(**settings) == rows).all()
    assert (drawn(**settings, seed=1) != rows).any()


@pytest.mark.parametrize("class_balance", ["none", "weights"])
def test_otherwise_images_are_drawn_evenly(class_balance: str) -> None:
    times = np.bincount(drawn(class_balance=class_balance), minlength=1000)
    np.testing.assert_array_equal(times, np.full(1000, 6))


def test_the_biases_start_at_the_shares_of_the_labels() -> None:
    x, _ = gaussians(100)
    y = np.repeat([0, 1, 2], [70, 20, 10])
    start = Fit(InMemory(x), y, 3, steps=1, batch_size=10, learning_rate=0.01, seed=0)
    np.testing.assert_allclose(
        start.predict_standardised(np.zeros((1, SIZE), np.float32)), [[0.7, 0.2, 0.1]], rtol=1e-5
    )
    for balance in ("weights", "sampling"):
        even = fitted(x, y, steps=0, class_balance=balance)
        assert not even.model().bias.any()


def test_a_label_with_nearly_all_images_is_not_given_up_for_the_others() -> None:
    """Labels that cannot be told apart: as good as the larger one, after few steps too."""
    x = np.random.default_rng(0).normal(0, 1, (400, SIZE)).astype(np.float32)
    head = fitted(x, np.repeat([0, 1], [384, 16]), steps=50, learning_rate=0.001).model()
    unseen = np.random.default_rng(1).normal(0, 1, (500, SIZE)).astype(np.float32)
    assert (head.predict(unseen).argmax(axis=1) == 0).mean() > 0.98


# What makes up for labels with few images.


def test_the_gradient_with_class_weights_is_that_of_the_weighted_loss(
    optimizers: list[Watched],
) -> None:
    """Each image counts n / (classes * images of its label)."""
    x, _ = gaussians(40)
    y = np.repeat([0, 1, 2], [30, 8, 2])
    fit = Fit(
        InMemory(x),
        y,
        3,
        steps=1,
        batch_size=40,
        learning_rate=0.0,
        seed=0,
        class_balance="weights",
    )
    z = Standardisation.of(x).apply(x).astype(np.float64)
    start = np.random.default_rng(1).normal(0, 0.3, (SIZE, 3))
    gradient, of_bias = gradients(fit, optimizers[0], start)
    weight = np.array([40 / 90, 40 / 24, 40 / 6])[y]

    def loss(weights: np.ndarray, bias: np.ndarray) -> float:
        own = softmax(z @ weights + bias)[np.arange(40), y]
        return float(-(weight * np.log(own)).mean() + usual_l2(3, len(y)) / 2 * (weights**2).sum())

    none = np.zeros(3)
    for i, j in [(0, 0), (10, 1), (33, 2), (63, 0)]:
        nudge = np.zeros_like(start)
        nudge[i, j] = 1e-5
        slope = (loss(start + nudge, none) - loss(start - nudge, none)) / 2e-5
        assert gradient[i, j] == pytest.approx(slope, abs=1e-5)
    for j in range(3):
        nudge = 1e-5 * np.eye(3)[j]
        slope = (loss(start, nudge) - loss(start, -nudge)) / 2e-5
        assert of_bias[j] == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("class_balance", ["weights", "sampling"])
def test_balancing_lifts_the_recall_of_a_rare_label(class_balance: str) -> None:
    """On overlapping labels of 1,000, 200 and 20 images, told from as many of each."""
    x, y = gaussians(6_000, distance=0.3)
    rows = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in enumerate((1000, 200, 20))])
    x_test, y_test = gaussians(3_000, distance=0.3, seed=1)

    def recalls(class_balance: str) -> np.ndarray:
        head = fitted(x[rows], y[rows], steps=400, class_balance=class_balance).model()
        right = head.predict(x_test).argmax(axis=1) == y_test
        return np.bincount(y_test, right) / np.bincount(y_test)

    without, balanced = recalls("none"), recalls(class_balance)
    assert without[0] > 0.9 > without[2]
    assert balanced[2] > without[2] + 0.1
    assert balanced.mean() > without.mean() + 0.02


def test_balancing_balanced_labels_weighs_nothing() -> None:
    x, _ = gaussians(300)
    y = np.arange(300) % 3
    heads = [fitted(x, y, steps=30, class_balance=name).model() for name in ("none", "weights")]
    np.testing.assert_array_equal(heads[0].weights, heads[1].weights)


def test_starting_weights_beyond_two_deviations_are_drawn_again() -> None:
    """Not moved to the bound, where one in twenty would lie."""
    numbers = truncated_normal((400, 500), 0.5, np.random.default_rng(0))
    assert np.abs(numbers).max() <= 1.0
    assert (np.abs(numbers) > 0.999).mean() < 0.001
    # scipy.stats.truncnorm(-2, 2).std()
    assert numbers.std() == pytest.approx(0.5 * 0.8796, rel=0.01)


def with_variants(x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Rows as training draws from them: row v * n + i is of image i."""
    return np.concatenate([x, *others])


@pytest.mark.parametrize("settings", [{}, {"recipe": "classic", "class_balance": "sampling"}])
def test_variants_that_are_the_images_themselves_change_nothing(settings: dict[str, Any]) -> None:
    x, y = gaussians(100)
    plain, same = fitted(x, y, **settings), fitted(with_variants(x, x, x), y, **settings)
    np.testing.assert_allclose(same.model().weights, plain.model().weights, atol=1e-4)
    np.testing.assert_array_equal(same.batch, plain.batch)  # images, not rows


@pytest.mark.parametrize("variants", [0, 2])
def test_the_same_seed_gives_the_same_bytes_with_variants(variants: int) -> None:
    x, y = gaussians(100)
    moved = [x + np.float32(shift) for shift in range(1, 1 + variants)]
    one, two, other = (fitted(with_variants(x, *moved), y, seed=seed) for seed in (5, 5, 6))
    assert one.model().weights.tobytes() == two.model().weights.tobytes()
    assert one.model().bias.tobytes() == two.model().bias.tobytes()
    assert other.model().weights.tobytes() != one.model().weights.tobytes()


@pytest.mark.parametrize("class_balance", ["none", "weights", "sampling"])
def test_what_only_variants_show_is_learned(class_balance: str) -> None:
    """Each label has a number of its own, which is large in its variants alone."""
    random = np.random.default_rng(0)
    x, y = random.normal(0, 1, (300, SIZE)).astype(np.float32), np.arange(300) % 3
    variant = random.normal(0, 1, (300, SIZE)).astype(np.float32)
    variant[np.arange(300), y] += 6
    fit = fitted(with_variants(x, variant), y, class_balance=class_balance)
    new = random.normal(0, 1, (300, SIZE)).astype(np.float32)
    new[np.arange(300), y] += 6
    assert accuracy(fit.model(), new, y) > 0.95
    assert accuracy(fitted(x, y, class_balance=class_balance).model(), new, y) < 0.8


def test_the_labels_of_variants_are_those_of_their_images() -> None:
    x, y = gaussians(60)
    shuffled = np.random.default_rng(1).permutation(60)
    right, wrong = with_variants(x, x), with_variants(x, x[shuffled])
    test = gaussians(1000, seed=1)
    assert accuracy(fitted(right, y).model(), *test) > accuracy(fitted(wrong, y).model(), *test)


def plain_fit(x: np.ndarray, y: np.ndarray, classes: int, steps: int) -> np.ndarray:
    """The averaged weights after ``steps`` on all of ``x``, as the papers write Adam; float64."""
    z = Standardisation.of(x).apply(x).astype(np.float64)
    counts = np.bincount(y)
    weights, bias = np.zeros((x.shape[1], classes)), np.log(counts) - np.log(counts).mean()
    state = [(p, np.zeros_like(p), np.zeros_like(p), p.copy()) for p in (weights, bias)]
    for t in range(1, steps + 1):
        error = softmax(z @ weights + bias)
        error[np.arange(len(y)), y] -= 1
        error /= len(y)
        gradients = (z.T @ error + usual_l2(classes, len(y)) * weights, error.sum(axis=0))
        rate = 0.01 * (1 + np.cos(np.pi * (t - 1) / steps)) / 2
        decay = min(0.98, t / (9 + t))
        for g, (p, first, second, average) in zip(gradients, state, strict=True):
            first += 0.1 * (g - first)
            second += 0.001 * (g * g - second)
            p -= rate * first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
            average += (1 - decay) * (p - average)
    return state[0][3]


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with thousands of labels: everything is in many blocks, which threads share."""
    monkeypatch.setattr(parallel, "LEAST_SHARED", 1)
    monkeypatch.setattr(parallel, "_ROWS", 7)
    monkeypatch.setattr(parallel, "_COLUMNS", 4)
    monkeypatch.setattr(optimizers_module, "_BLOCK", 160)
    monkeypatch.setattr(optimizers_module, "_IN_CACHE", 33)
    monkeypatch.setattr(optimizers_module, "_LEAST_SHARED", 1)
    monkeypatch.setattr(head_module, "_IN_CACHE", 40)
    monkeypatch.setattr(head_module, "_LEAST_SHARED", 1)


def test_in_blocks_it_learns_what_a_plain_fit_learns(in_small_blocks: None) -> None:
    x, y = gaussians(200, classes=15, distance=0.3)
    fit = fitted(x, y, steps=60, batch_size=200)
    np.testing.assert_allclose(fit.weights, plain_fit(x, y, 15, 60), atol=2e-4)


def test_it_learns_the_same_bytes_on_any_number_of_cores(
    in_small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = gaussians(200, classes=15)
    heads = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False
        )
        fit = fitted(x, y, steps=40)
        predicted = fit.predict_standardised(fit.standardisation.apply(x))
        heads.append(fit.model().weights.tobytes() + predicted.tobytes())
    assert len(set(heads)) == 1


def test_a_snapshot_is_the_layer_of_its_step() -> None:
    x, y = gaussians(100)
    fit = Fit(InMemory(x), y, 3, steps=30, batch_size=50, learning_rate=0.01, seed=0)
    for _ in range(10):
        fit.step()
    snapshot, then = fit.snapshot(), fit.model()
    for _ in range(10):
        fit.step()
    np.testing.assert_array_equal(snapshot.head.weights, then.weights)
    np.testing.assert_array_equal(snapshot.head.bias, then.bias)
    assert (fit.model().weights != then.weights).any()
    np.testing.assert_array_equal(snapshot.predict_all(InMemory(x)), then.predict(x))
