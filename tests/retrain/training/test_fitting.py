"""retrain.training.fitting: which step is kept, when it stops, what is searched."""

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import pytest

from bottlenecks.builder import CachedImage
from bottlenecks.errors import UsageError
from bottlenecks.store.vectors import InMemory
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset
from retrain.evaluate import Score, losses_of, score
from retrain.training import fitting
from retrain.training.fitting import Fitted, calibration_images, find_temperature, fit_head
from retrain.training.head import Fit, Head, softmax
from retrain.training.regularisation import search

SIZE = 64


class Watched(InMemory):
    """Remembers which rows, counted from the beginning, are taken at once."""

    def __init__(self, x: np.ndarray, rows: np.ndarray | None = None) -> None:
        super().__init__(x, rows)
        self.taken: list[list[int]] = []

    def take(self, rows: np.ndarray) -> np.ndarray:
        self.taken.append(self._rows[rows].tolist())
        return super().take(rows)

    def select(self, rows: np.ndarray) -> "Watched":
        selected = Watched(self._x, self._rows[rows])
        selected.taken = self.taken
        return selected


def overlapping(
    training: int = 60,
    validation: int = 90,
    noise: float = 0.2,
    classes: int = 3,
    seed: int = 0,
) -> Dataset:
    """So few and so alike that a fit without a penalty learns the training images by heart."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 0.2, (classes, SIZE))
    n = training + validation + 30
    y = np.arange(n) % classes
    x = (centres[y] + random.normal(0, 1, (n, SIZE))).astype(np.float32)
    given = np.where(random.random(n) < noise, random.integers(0, classes, n), y)
    images = [CachedImage("a", f"a/{i}", f"D/a/{i}", i.to_bytes(32, "big")) for i in range(n)]
    sets = np.repeat(["training", "validation", "testing"], [training, validation, 30])
    labels = tuple("abcdefgh"[:classes])
    return Dataset(labels, Subset(images, Watched(x), given), sets)


def config(**settings: Any) -> Config:
    values = {"how_many_training_steps": 200, "learning_rate": 0.02, "train_batch_size": 20}
    return Config(**{"image_dir": "Dataset", **values, **settings})


def saved(head: Head) -> bytes:
    return head.weights.tobytes() + head.bias.tobytes()


def heads_of_evaluated_steps(
    config: Config, dataset: Dataset, l2: float | None = None
) -> dict[int, Head]:
    """The layer at each evaluated step, by steps taken one by one here."""
    assert config.learning_rate is not None
    fit = Fit(
        dataset.training.vectors,
        dataset.training.y,
        len(dataset.labels),
        steps=config.how_many_training_steps,
        batch_size=config.train_batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        l2=l2,
        recipe=config.recipe,
        class_balance=config.class_balance,
    )
    heads = {}
    for step in range(1, config.how_many_training_steps + 1):
        fit.step()
        if step % config.eval_step_interval == 0 or step == config.how_many_training_steps:
            heads[step] = fit.model()
    return heads


def cross_entropies(heads: dict[int, Head], subset: Subset) -> dict[int, float]:
    return {
        step: score(head.predict(subset.x), subset.y).cross_entropy for step, head in heads.items()
    }


def test_of_steps_that_the_validation_set_tells_apart_the_best_evaluated_one_is_kept() -> None:
    dataset = overlapping(validation=300, noise=0.4)
    settings = config(eval_step_interval=7, validation_batch_size=10, learning_rate=0.003)
    fitted = fit_head(settings, dataset, l2=0.0)
    heads = heads_of_evaluated_steps(settings, dataset, l2=0.0)
    losses = cross_entropies(heads, dataset.validation)
    assert [evaluation.step for evaluation in fitted.evaluations] == list(heads)
    assert list(heads)[-2:] == [196, 200]
    best = min(losses, key=losses.__getitem__)
    assert 7 < best < 196  # it does overfit
    assert losses[200] > losses[best] + 0.04
    assert (fitted.step, fitted.steps, fitted.l2) == (best, 200, 0.0)
    assert saved(fitted.head) == saved(heads[best])
    # Over all validation images, not over the ten that the terminal shows.
    assert fitted.cross_entropy == pytest.approx(losses[best], rel=1e-5)
    for evaluation, loss in zip(fitted.evaluations, losses.values(), strict=True):
        assert evaluation.validation is not None and evaluation.validation_batch is not None
        assert evaluation.validation.n == len(dataset.validation)
        assert evaluation.validation.cross_entropy == pytest.approx(loss, rel=1e-5)
        assert evaluation.validation_batch.n == 10


@pytest.mark.parametrize("interval", [1, 10, 50])
def test_a_few_validation_images_do_not_choose_a_step_by_chance(interval: int) -> None:
    """Which of the first steps is the best by a few images, is chance; the last one is trained."""
    early = 0
    for seed in range(8):
        dataset = overlapping(training=900, validation=10, noise=0.0, seed=seed)
        settings = config(eval_step_interval=interval, learning_rate=0.005)
        fitted = fit_head(settings, dataset, 0.3)
        heads = heads_of_evaluated_steps(settings, dataset, 0.3)
        losses = cross_entropies(heads, dataset.validation)
        assert fitted.step == fitted.steps == 200
        early += min(losses, key=losses.__getitem__) < 200
    assert early > 2


def test_an_early_step_is_kept_only_if_its_lead_is_more_than_three_standard_errors() -> None:
    kept = []
    for validation in (6, 12, 24, 48, 90, 180):
        dataset = overlapping(validation=validation, noise=0.4)
        settings = config()
        fitted = fit_head(settings, dataset, 0.0)
        heads = heads_of_evaluated_steps(settings, dataset, 0.0)
        x, y = dataset.validation.x, dataset.validation.y
        losses = {step: losses_of(head.predict(x), y) for step, head in heads.items()}
        best = min(losses, key=lambda step: losses[step].mean())
        lead = losses[200] - losses[best]
        certain = lead.mean() > 3 * lead.std(ddof=1) / len(lead) ** 0.5
        assert fitted.step == (best if certain else 200)
        kept.append(certain)
    assert not kept[0] and kept[-1]


def test_with_class_balance_the_step_is_chosen_by_weighed_losses() -> None:
    """A rare label's images count as much in the choice as they do in training."""
    dataset = overlapping(training=90, validation=180, noise=0.3)
    y = dataset.everything.y
    rare = np.flatnonzero((y == 0) & (dataset.set_of == "training"))[3:]
    sets = dataset.set_of.copy()
    sets[rare] = "testing"  # label 0 has 3 images to train on
    dataset = dataclasses.replace(dataset, set_of=sets)
    steps = []
    for balance in ("none", "weights", "sampling"):
        settings = config(class_balance=balance, learning_rate=0.01, eval_step_interval=1)
        fitted = fit_head(settings, dataset, 0.0)
        heads = heads_of_evaluated_steps(settings, dataset, 0.0)
        counts = np.bincount(dataset.training.y)
        weights = np.ones(3) if balance == "none" else 1 / counts
        x, own = dataset.validation.x, dataset.validation.y
        weights = weights[own] / weights[own].mean()
        losses = {
            s: float((losses_of(h.predict(x), own) * weights).mean()) for s, h in heads.items()
        }
        assert fitted.step == min(losses, key=losses.__getitem__) < 200
        assert fitted.cross_entropy == pytest.approx(losses[fitted.step], rel=1e-4)
        steps.append(fitted.step)
    assert steps[0] != steps[1]


def test_what_is_shown_does_not_decide_what_is_kept() -> None:
    fits = [
        fit_head(config(validation_batch_size=size), overlapping(), 0.0) for size in (3, 40, -1)
    ]
    assert len({fitted.step for fitted in fits}) == 1
    assert len({saved(fitted.head) for fitted in fits}) == 1
    for fitted in fits:
        losses = {e.step: e.validation.cross_entropy for e in fitted.evaluations if e.validation}
        assert losses[fitted.step] == fitted.cross_entropy == fits[0].cross_entropy
    assert [e.validation_batch for e in fits[2].evaluations] == [
        e.validation for e in fits[2].evaluations
    ]


def without_validation(dataset: Dataset) -> Dataset:
    sets = np.where(dataset.set_of == "validation", "testing", dataset.set_of)
    return dataclasses.replace(dataset, set_of=sets)


def test_without_a_validation_set_the_last_step_is_kept() -> None:
    dataset, settings = without_validation(overlapping()), config(validation_percentage=0)
    fitted = fit_head(settings, dataset, 0.0)
    assert (fitted.step, fitted.steps, fitted.cross_entropy) == (200, 200, math.inf)
    assert saved(fitted.head) == saved(heads_of_evaluated_steps(settings, dataset, 0.0)[200])
    assert [evaluation.validation for evaluation in fitted.evaluations] == [None] * 20


@pytest.mark.parametrize("settings", [{"recipe": "classic"}, {}], ids=str)
def test_a_learning_rate_that_leads_to_no_numbers_is_an_error(settings: dict[str, str]) -> None:
    with (
        warnings.catch_warnings(action="error"),  # the error is all that is said
        pytest.raises(UsageError, match=r"not finite within \d+ steps; use a smaller --learning"),
    ):
        fit_head(config(learning_rate=1e38, **settings), overlapping())


def test_classic_keeps_the_last_step() -> None:
    dataset, settings = overlapping(), config(recipe="classic", learning_rate=0.3)
    fitted = fit_head(settings, dataset)
    heads = heads_of_evaluated_steps(settings, dataset)
    losses = cross_entropies(heads, dataset.validation)
    assert min(losses.values()) < losses[200]  # so the last is not the best
    assert (fitted.step, fitted.steps) == (200, 200)
    assert saved(fitted.head) == saved(heads[200])
    assert fitted.cross_entropy == pytest.approx(losses[200], rel=1e-5)


@pytest.mark.parametrize(("recipe", "rate"), [("adam", 0.001), ("classic", 0.01)])
def test_each_recipe_has_its_own_learning_rate(recipe: str, rate: float) -> None:
    heads = [
        fit_head(config(recipe=recipe, learning_rate=given), overlapping()).head
        for given in (None, rate, rate / 2)
    ]
    assert saved(heads[0]) == saved(heads[1]) != saved(heads[2])


@pytest.mark.parametrize("class_balance", ["weights", "sampling"])
def test_the_class_balance_is_that_of_the_settings(class_balance: str) -> None:
    dataset, settings = overlapping(), config(class_balance=class_balance)
    fitted = fit_head(settings, dataset)
    assert saved(fitted.head) == saved(heads_of_evaluated_steps(settings, dataset)[fitted.step])
    assert saved(fitted.head) != saved(fit_head(config(), dataset).head)


@pytest.mark.parametrize("patience", [1, 20, 35])
def test_patience_stops_when_so_many_steps_have_not_lowered_the_loss(patience: int) -> None:
    dataset = overlapping()
    whole = fit_head(config(), dataset, 0.0)
    fitted = fit_head(config(patience=patience), dataset, 0.0)
    losses = cross_entropies(heads_of_evaluated_steps(config(), dataset, 0.0), dataset.validation)
    best = min((e.step for e in fitted.evaluations), key=losses.__getitem__)
    # Looked for at evaluations alone, every 10 steps.
    assert fitted.steps == best + math.ceil(patience / 10) * 10 < 200
    assert [e.step for e in fitted.evaluations] == list(range(10, fitted.steps + 1, 10))
    assert fitted.evaluations == whole.evaluations[: len(fitted.evaluations)]
    assert fitted.step in (best, fitted.steps)


def test_no_patience_never_stops_and_much_of_it_changes_nothing() -> None:
    whole, patient = (fit_head(config(patience=n), overlapping(), 0.0) for n in (0, 200))
    assert whole.step < 100  # half of the steps lower the loss no more
    assert whole.steps == patient.steps == 200
    assert saved(whole.head) == saved(patient.head)


@pytest.mark.parametrize("settings", [{}, {"recipe": "classic"}, {"class_balance": "sampling"}])
def test_the_same_seed_gives_the_same_bytes(settings: dict[str, str]) -> None:
    fits = [fit_head(config(seed=seed, **settings), overlapping()) for seed in (3, 3, 4)]
    assert saved(fits[0].head) == saved(fits[1].head) != saved(fits[2].head)
    assert fits[0].evaluations == fits[1].evaluations != fits[2].evaluations


def test_each_evaluation_is_told_with_the_weights_as_they_are() -> None:
    told: list[tuple[int, np.ndarray]] = []
    dataset = overlapping()
    fitted = fit_head(config(), dataset, 0.0, lambda e, w: told.append((e.step, w.copy())))
    assert [step for step, _ in told] == [e.step for e in fitted.evaluations]
    fit = Fit(
        dataset.training.vectors,
        dataset.training.y,
        3,
        steps=200,
        batch_size=20,
        learning_rate=0.02,
        seed=0,
        l2=0.0,
    )
    done = 0
    for step, weights in told:
        for _ in range(step - done):
            fit.step()
        done = step
        np.testing.assert_array_equal(weights, fit.weights)


def validation_rows(dataset: Dataset) -> list[list[int]]:
    """The rows of the validation set that were read, read by read."""
    own = set(np.flatnonzero(dataset.set_of == "validation").tolist())
    vectors = dataset.everything.vectors
    assert isinstance(vectors, Watched)
    return [rows for rows in vectors.taken if own & set(rows)]


def test_few_images_that_are_all_right_do_not_make_the_scores_certain() -> None:
    """Their likelihood alone would have the temperature at its lower bound."""
    dataset = overlapping()
    head = fit_head(config(), dataset).head
    validation = dataset.validation
    right = np.flatnonzero(head.predict(validation.x).argmax(axis=1) == validation.y)[:5]
    assert 0.8 < find_temperature(head, validation.select(right)) < 1
    many = np.tile(right, 1000)
    assert find_temperature(head, validation.select(many)) < 0.4


def test_of_a_large_validation_set_a_sample_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_VALIDATION", 25)
    fits: list[Fitted] = []
    samples = []
    for seed in (0, 0, 1):
        dataset = overlapping()
        fits.append(fit_head(config(seed=seed, validation_batch_size=-1), dataset))
        (rows,) = validation_rows(dataset)
        assert len(rows) == len(set(rows)) == 25
        samples.append(rows)
    assert samples[0] == samples[1] != samples[2]
    shown = [evaluation.validation for evaluation in fits[0].evaluations]
    assert {one.n for one in shown if one} == {25}
    assert fits[0].cross_entropy in {one.cross_entropy for one in shown if one}


def test_a_validation_set_that_is_not_large_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_VALIDATION", 90)
    dataset = overlapping(validation=90)
    fit_head(config(), dataset)
    (rows,) = validation_rows(dataset)
    assert sorted(rows) == np.flatnonzero(dataset.set_of == "validation").tolist()


def test_of_many_validation_images_a_sample_finds_the_temperature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validation = overlapping(validation=90).validation
    assert calibration_images(validation, 3, 0) is validation
    monkeypatch.setattr(fitting, "MAX_VALIDATION", 20)
    for cells, images, most in ((3 * 50, 10**6, 50), (10**6, 40, 40), (3, 10**6, 20)):
        monkeypatch.setattr(fitting, "_CALIBRATION_CELLS", cells)
        monkeypatch.setattr(fitting, "MAX_CALIBRATION", images)
        drawn = [calibration_images(validation, 3, seed).images for seed in (0, 0, 1)]
        assert len({image.path for image in drawn[0]}) == most
        assert drawn[0] == drawn[1] != drawn[2]


def test_training_reads_no_test_image() -> None:
    dataset = overlapping()
    assert search(dataset, thorough=True) is not None
    fitted = fit_head(config(), dataset)
    find_temperature(fitted.head, dataset.validation)
    vectors = dataset.everything.vectors
    assert isinstance(vectors, Watched)
    read = {row for rows in vectors.taken for row in rows}
    assert read == set(np.flatnonzero(dataset.set_of != "testing").tolist())


# Temperature.


def sharpened(times: float, n: int = 4_000, classes: int = 5) -> tuple[Head, Subset]:
    """A layer whose logits are ``times`` those that the labels were drawn by."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (n, classes)).astype(np.float32)
    y = np.array([random.choice(classes, p=p / p.sum()) for p in softmax(logits).astype(float)])
    images = [CachedImage("a", f"{i}", f"{i}", i.to_bytes(32, "big")) for i in range(n)]
    head = Head(np.eye(classes, dtype=np.float32) * np.float32(times), np.zeros(classes, "f4"))
    return head, Subset(images, InMemory(logits), y)


def scored(head: Head, subset: Subset) -> Score:
    return score(head.predict(subset.x), subset.y)


@pytest.mark.parametrize("times", [0.2, 0.5, 1.0, 3.0, 10.0])
def test_logits_that_are_too_sharp_are_divided_by_as_much(times: float) -> None:
    head, subset = sharpened(times)
    temperature = find_temperature(head, subset)
    assert temperature == pytest.approx(times, rel=0.08)
    calibrated = head.at_temperature(temperature)
    assert scored(calibrated, subset).cross_entropy <= scored(head, subset).cross_entropy + 1e-6
    assert scored(calibrated, subset).accuracy == scored(head, subset).accuracy
    np.testing.assert_array_equal(
        calibrated.predict(subset.x).argmax(axis=1), head.predict(subset.x).argmax(axis=1)
    )
    assert find_temperature(head, subset) == temperature


@pytest.mark.parametrize("times", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["all wrong", "half", "all right"])
def test_a_temperature_never_raises_the_cross_entropy(share: float, times: float) -> None:
    """However far from any sensible one."""
    head, subset = sharpened(times, n=200)
    likeliest = subset.x.argmax(axis=1)
    wrong = np.arange(200) >= share * 200
    subset = dataclasses.replace(subset, y=(likeliest + wrong) % 5)
    temperature = find_temperature(head, subset)
    assert 0.05 <= temperature <= 20
    after = scored(head.at_temperature(temperature), subset).cross_entropy
    assert after <= scored(head, subset).cross_entropy + 1e-6


def test_one_validation_image_is_enough_for_a_temperature() -> None:
    head, subset = sharpened(1.0, n=1)
    assert 0.05 <= find_temperature(head, subset) <= 20


def test_without_a_validation_set_patience_stops_nothing() -> None:
    dataset = overlapping()
    nothing = np.where(dataset.set_of == "validation", "testing", dataset.set_of)
    fitted = fit_head(config(patience=20), dataclasses.replace(dataset, set_of=nothing))
    assert fitted.step == fitted.steps == config().how_many_training_steps


def test_copies_do_not_vouch_for_each_other_in_the_choice_of_the_step() -> None:
    """Ten photos that were copied ten times are surer of nothing than the ten are."""

    def copied(dataset: Dataset, times: int) -> Dataset:
        counts = np.where(dataset.set_of == "validation", times, 1)
        rows = np.repeat(np.arange(len(counts)), counts)
        images = [dataset.everything.images[row] for row in rows.tolist()]
        everything = Subset(
            images, InMemory(dataset.everything.x[rows]), dataset.everything.y[rows]
        )
        return Dataset(dataset.labels, everything, dataset.set_of[rows])

    kept = {}
    for times in (1, 10):
        kept[times] = 0
        for seed in range(12):
            dataset = copied(overlapping(training=900, validation=10, noise=0.0, seed=seed), times)
            fitted = fit_head(config(eval_step_interval=10, learning_rate=0.005), dataset, 0.3)
            kept[times] += fitted.step < fitted.steps
    assert kept[10] <= kept[1] + 1
