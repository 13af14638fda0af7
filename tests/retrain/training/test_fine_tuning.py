"""Fine-tuning learns what the head alone cannot, by steps that can be repeated and shared out."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import UsageError
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Subset
from retrain.evaluate import score
from retrain.training.fine_tuning import FineTuning, Recipe
from retrain.training.head import Head, Standardisation, softmax
from retrain.training.upper import UpperLayers, Variables
from tests.conftest import ROOT
from tests.tiny import Tiny

FROZEN, SPEC = Tiny().frozen, Tiny("mixed7").spec
CLASSES = 3


def rows_and_labels(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps (n, 13, 13, 3) float16 of three kinds, which differ in how their rows change."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    waves = np.sin(np.arange(13)[None, :] * (y[:, None] + 1) + random.uniform(0, 6, (count, 1)))
    x = waves[:, :, None, None] + random.normal(0, 1.5, (count, 13, 13, 3))
    return x.astype(np.float16), y


def bottlenecks_of(x: np.ndarray) -> np.ndarray:
    """What the network gives for maps at mixed7, (n, 2048)."""
    head = Head(np.zeros((2048, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    standardisation = Standardisation(np.zeros(2048), np.ones(2048))
    part = Variables(FROZEN, "mixed7", head, standardisation)
    columns = [np.eye(2048, CLASSES, -start, np.float32) for start in range(0, 2048, CLASSES)]
    found = []
    for weights in columns:
        own = [*part.trained[:-2], weights, np.zeros(CLASSES, np.float32)]
        part_units = part.in_use([1.0] * len(own))
        own[-2] = weights / part_units[-2]
        found.append(part.logits(own, x).numpy())
    return np.concatenate(found, axis=1)[:, :2048]


def recipe(**changes: object) -> Recipe:
    usual: dict[str, object] = {
        **{"epochs": 10, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.01},
        **{"smoothing": 0.1, "l2": 0.001, "class_balance": "none", "seed": 0},
    }
    return Recipe(**{**usual, **changes})  # type: ignore[arg-type]


def tuning(x: np.ndarray, y: np.ndarray, own: Recipe, **options: Any) -> FineTuning:
    head = Head(np.zeros((2048, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    standardisation = Standardisation(np.full(2048, 0.5), np.full(2048, 1.0))
    variables = Variables(FROZEN, "mixed7", head, standardisation, **options)
    return FineTuning(variables, InMemory(x, spec=SPEC), y, CLASSES, own)


def after_steps(steps: int, own: Recipe | None = None, **options: Any) -> UpperLayers:
    fit = tuning(*rows_and_labels(60), own or recipe(), **options)
    for _ in range(steps):
        fit.step()
    fit.close()
    return fit.model()


def subset(x: np.ndarray, y: np.ndarray) -> Subset:
    return Subset([], InMemory(x, spec=SPEC), y)


def distance(one: UpperLayers, other: UpperLayers) -> float:
    """The largest difference of two arrays, relative to their largest number."""
    pairs = zip(one.arrays, other.arrays, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-9)) for a, b in pairs)


@pytest.mark.parametrize(("name", "rate"), [("adam", 0.01), ("inception", 0.3)])
def test_it_learns(name: str, rate: float) -> None:
    own = recipe(epochs=30, learning_rate=rate, name=name)
    options: dict[str, Any] = {
        "in_own_units": own.layers.in_own_units,
        "normalises": own.layers.normalises_untrained,
    }
    fit = tuning(*rows_and_labels(240), own, **options)
    x, y = rows_and_labels(90, seed=1)
    before = score(fit.predict(subset(x, y)), y)
    for _ in range(fit.steps):
        fit.step()
    after = score(fit.predict(subset(x, y)), y)
    fit.close()
    assert before.accuracy < 0.5
    assert after.accuracy > 0.9
    exported = score(fit.model().predict_all(InMemory(x, spec=SPEC)), y)
    assert exported.cross_entropy == pytest.approx(after.cross_entropy, rel=1e-2)


def test_labels_by_chance_are_not_learned() -> None:
    x, y = rows_and_labels(240)
    shuffled = np.random.default_rng(0).permutation(y)
    fit = tuning(x, shuffled, recipe())
    for _ in range(fit.steps):
        fit.step()
    x, y = rows_and_labels(300, seed=1)
    assert abs(score(fit.predict(subset(x, y)), y).accuracy - 1 / 3) < 0.15
    fit.close()


def test_the_same_seed_gives_the_same_steps() -> None:
    assert distance(after_steps(5), after_steps(5)) < 1e-5
    assert distance(after_steps(5), after_steps(5, recipe(seed=1))) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 1.0},
        {"smoothing": 0.5},
        {"l2": 1.0},
        {"learning_rate": 0.02},
        {"class_balance": "sampling"},
        {"name": "inception"},
        {"batch_size": 8},
    ],
    ids=str,
)
def test_every_part_of_the_recipe_does_something(changes: dict[str, object]) -> None:
    assert distance(after_steps(8), after_steps(8, recipe(**changes))) > 1e-4


def test_class_weights_count() -> None:
    x, y = rows_and_labels(60)
    y = np.where(np.arange(60) < 40, 0, y)  # labels of 46, 7 and 7 images

    def step(balance: str) -> UpperLayers:
        fit = tuning(x, y, recipe(class_balance=balance))
        fit.step()
        fit.step()
        fit.close()
        return fit.model()

    assert distance(step("none"), step("weights")) > 1e-4


def test_an_interrupted_run_goes_on_to_the_same_end() -> None:
    x, y = rows_and_labels(60)
    whole = after_steps(12)
    first = tuning(x, y, recipe())
    for _ in range(7):
        first.step()
    arrays = {name: array.copy() for name, array in first.arrays().items()}
    first.close()
    second = tuning(x, y, recipe())
    second.restore(7, arrays)
    for _ in range(5):
        second.step()
    second.close()
    assert distance(whole, second.model()) < 1e-5


def test_what_is_drawn_are_plain_images_and_their_variants_alike() -> None:
    """Row v * n + i is of image i: its label goes with each of its variants."""
    x, y = rows_and_labels(30)
    variants = np.concatenate([x, x * 0 + 1, x * 0 + 2])
    fit = tuning(variants, y, recipe(epochs=20, batch_size=30))
    seen: list[np.ndarray] = []
    take = fit._vectors.stream  # what is asked for

    def recording(batches: object, ahead: int) -> object:
        for rows, found in take(batches, ahead=ahead):  # type: ignore[arg-type]
            seen.append(rows)
            yield rows, found

    fit._vectors.stream = recording  # type: ignore[method-assign, assignment]
    fit.restore(0, fit.arrays())
    for _ in range(20):
        fit.step()
        assert sorted(seen[-1] % 30) == list(range(30))
    fit.close()
    versions = np.bincount(np.concatenate(seen) // 30)
    assert len(versions) == 3
    assert versions.min() > 150


TWO_DEVICES = """
import sys
from bottlenecks.network.tensorflow import import_tensorflow
tf = import_tensorflow()
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from retrain.training.devices import strategy_for
from tests.retrain.training.test_fine_tuning import after_steps, distance, recipe
strategy = strategy_for("mirrored")
assert strategy.num_replicas_in_sync == 2, strategy
inception = {"name": "inception", "learning_rate": 0.3, "l2": 0.1}
for changes in ({}, {"batch_size": 7}, {"class_balance": "weights"}, inception):
    one, two = (after_steps(20, recipe(**changes), strategy=s) for s in (None, strategy))
    assert distance(one, two) < 1e-4, (changes, distance(one, two))
print("equal")
"""


def test_two_devices_give_the_weights_of_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.endswith("equal\n"), done.stderr


@pytest.mark.parametrize("in_own_units", [False, True])
def test_a_step_follows_the_gradient_of_the_weighed_smoothed_loss_and_the_penalty(
    in_own_units: bool,
) -> None:
    """The head's, by hand: RMSProp with an epsilon of 1 moves by about the gradient itself."""
    x, y = rows_and_labels(40)
    y = np.where(np.arange(40) < 25, 0, y)
    rate, smoothing, l2 = 0.045, 0.2, 0.3
    own = recipe(
        **{"batch_size": 40, "epochs": 1, "learning_rate": rate, "smoothing": smoothing, "l2": l2},
        class_balance="weights",
        name="inception",
    )
    random = np.random.default_rng(3)
    head = Head(
        random.normal(0, (0.01, 0.02, 0.04), (2048, CLASSES)).astype(np.float32),
        np.zeros(3, np.float32),
    )
    standardisation = Standardisation(np.full(2048, 0.5), np.full(2048, 1.0))
    variables = Variables(FROZEN, "mixed7", head, standardisation, in_own_units=in_own_units)
    bottlenecks = bottlenecks_of(x) - 0.5
    start = variables.trained[-2].numpy()
    unit = variables.in_use([1.0] * len(variables.trained))[-2]
    before = variables.in_use([v.numpy() for v in variables.trained])
    logits = bottlenecks @ before[-2] + before[-1]
    targets = np.full((40, CLASSES), smoothing / CLASSES)
    targets[np.arange(40), y] += 1 - smoothing
    weights = (40 / (CLASSES * np.bincount(y)))[y]
    error = (softmax(logits) - targets) * weights[:, None] / 40
    fit = FineTuning(variables, InMemory(x, spec=SPEC), y, CLASSES, own)
    fit.step()
    fit.close()
    gradient = unit * (bottlenecks.T @ error + l2 * before[-2])
    moved = (start - variables.trained[-2].numpy()) / rate
    cosine = (moved * gradient).sum() / np.linalg.norm(moved) / np.linalg.norm(gradient)
    assert cosine > 0.9999
    assert np.linalg.norm(moved) < 2.01  # it is clipped


@pytest.mark.parametrize("batch", [1, 3, 33])
def test_no_device_is_left_without_images(batch: int) -> None:
    code = (
        TWO_DEVICES.split("strategy = ")[0]
        + f"""
from tests.retrain.training.test_fine_tuning import after_steps, distance, recipe
strategy = strategy_for("mirrored")
try:
    after_steps(2, recipe(batch_size={batch}), strategy=strategy)
except Exception as error:
    print(type(error).__name__, error)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if batch == 1:
        assert "UsageError 1 images in a step cannot be shared out among 2" in done.stdout
    else:
        assert not done.stdout, done.stderr


def test_numbers_without_end_are_an_error_that_names_the_flag() -> None:
    fit = tuning(*rows_and_labels(60), recipe(learning_rate=1e30))
    for _ in range(3):
        fit.step()
    with pytest.raises(UsageError, match=r"not finite .* smaller --fine_tune_learning_rate"):
        fit.model()
    fit.close()


def test_a_single_step_moves_something() -> None:
    assert distance(after_steps(0), after_steps(1, recipe(epochs=1, batch_size=60))) > 1e-4


def test_few_steps_find_the_moments_that_layers_normalise_by() -> None:
    """Of rows that are far from mean 0 and variance 1, after as few steps as a small folder has."""
    x, y = rows_and_labels(60)
    fit = tuning(
        (x * 8 + 3).astype(np.float16),
        y,
        recipe(epochs=12, learning_rate=0.3, name="inception"),
        in_own_units=False,
        normalises=True,
    )
    for _ in range(fit.steps):
        fit.step()
    images = subset((x * 8 + 3).astype(np.float16), y)
    assert score(fit.predict(images), y).accuracy > 0.9
    fit.close()
