"""retrain.training.regularisation: a strength that images not seen ask for."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bottlenecks.builder import CachedImage
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Dataset, Subset
from retrain.data.folds import deal
from retrain.evaluate import losses_of
from retrain.training import regularisation
from retrain.training.head import Standardisation, usual_l2
from retrain.training.regularisation import search

SIZE = 256


def made_up(
    per_label: int = 60,
    classes: int = 3,
    *,
    distance: float = 0.08,
    wrong: float = 0.0,
    seed: int = 0,
    copies: int = 1,
) -> Dataset:
    """Gaussians, a share ``wrong`` of which got another label; each photo ``copies`` times."""
    random = np.random.default_rng(seed)
    y = np.arange(per_label * classes) % classes
    x = random.normal(0, distance, (classes, SIZE))[y] + random.normal(0, 1, (len(y), SIZE))
    given = np.where(random.random(len(y)) < wrong, random.integers(0, classes, len(y)), y)
    x, given = np.repeat(x, copies, axis=0), np.repeat(given, copies)
    n = len(given)
    keys = [hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(n)]
    images = [CachedImage(str(c), f"{c}/{i}", f"{i}", keys[i]) for i, c in enumerate(given)]
    sets = np.where(np.arange(n) % 10 == 9, "validation", "training")
    groups = [f"group {i // copies}" for i in range(n)]
    subset = Subset(images, InMemory(x.astype(np.float32)), given)
    return Dataset(tuple("abcdefgh"[:classes]), subset, sets, groups)


def test_rightly_labelled_and_overlapping_images_keep_about_the_usual_strength() -> None:
    found = search(made_up())
    assert found is not None
    assert 0.3 < found.times_the_usual < 4


@pytest.mark.parametrize("thorough", [False, True])
def test_wrong_labels_ask_for_a_stronger_penalty_and_easy_ones_for_a_weaker(thorough: bool) -> None:
    times = []
    kinds: list[dict[str, Any]] = [{"distance": 0.5}, {}, {"distance": 0.12, "wrong": 0.6}]
    for settings in kinds:
        found = search(made_up(**settings), thorough=thorough)
        assert found is not None
        times.append(found.times_the_usual)
    assert times[0] < times[1] < times[2]
    assert times[0] <= 0.1 and times[2] >= 3


def test_losses_are_those_of_a_plain_cross_validation_of_a_softmax() -> None:
    """By scikit-learn on the standardised vectors themselves, each strength from nothing."""
    for classes in (2, 3):
        dataset = made_up(30, classes)
        found = search(dataset)
        assert found is not None
        training = dataset.training
        units = dataset.units[dataset.set_of == "training"]
        fold_of = deal(units, training.y, 5)
        z = Standardisation.of(training.x).apply(training.x).astype(np.float64)
        for trial in found.trials[1::2]:
            losses = np.empty(len(training))
            for fold in range(5):
                seen = fold_of != fold
                # Two labels: the one column of scikit-learn is the difference of two of a softmax.
                strength = trial.l2 / (2 if classes == 2 else 1) * seen.sum()
                model = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000)
                model.fit(z[seen], training.y[seen])
                losses[~seen] = losses_of(model.predict_proba(z[~seen]), training.y[~seen])
            assert trial.cross_entropy == pytest.approx(losses.mean(), rel=0.01)


def test_strengths_go_from_weak_to_strong_around_the_usual_one() -> None:
    dataset = made_up()
    usual = usual_l2(3, len(dataset.training))
    for thorough in (False, True):
        found = search(dataset, thorough=thorough)
        assert found is not None
        strengths = [trial.l2 for trial in found.trials]
        assert strengths == sorted(strengths)
        assert strengths[0] < 0.05 * usual and strengths[-1] > 20 * usual
        assert any(l2 == pytest.approx(usual) for l2 in strengths)
        assert found.l2 in strengths
        assert found.l2 == pytest.approx(found.times_the_usual * usual)


def test_a_strength_that_is_better_by_chance_alone_is_not_taken() -> None:
    """The nearest to the usual one of those within a standard error of the best."""
    for seed in range(6):
        found = search(made_up(12, seed=seed))
        assert found is not None
        best = min(found.trials, key=lambda trial: trial.cross_entropy)
        usual = usual_l2(3, len(made_up(12).training))
        assert abs(np.log(found.l2 / usual)) <= abs(np.log(best.l2 / usual)) + 1e-9


def test_images_that_belong_together_do_not_vouch_for_each_other() -> None:
    """With copies in other folds learning by heart would look best."""
    dataset = made_up(distance=0.12, wrong=0.6, copies=4)
    grouped = search(dataset)
    apart = search(dataclasses.replace(dataset, groups=None))
    assert grouped is not None and apart is not None
    assert apart.times_the_usual < 0.2 < 1 <= grouped.times_the_usual


def test_with_class_balance_rare_labels_count_as_much() -> None:
    random = np.random.default_rng(0)
    dataset = made_up(150, 3, distance=0.1, wrong=0.2)
    rare = (dataset.everything.y == 0) & (random.random(450) < 0.9)
    dataset = dataclasses.replace(dataset, set_of=np.where(rare, "testing", dataset.set_of))
    found = {
        balance: search(dataset, class_balance=balance)
        for balance in ("none", "weights", "sampling")
    }
    assert found["weights"] == found["sampling"] != found["none"]
    assert found["weights"] is not None and found["none"] is not None
    # Unweighed, the loss is mostly that of the two labels with many images.
    pairs = zip(found["weights"].trials, found["none"].trials, strict=True)
    assert all(weighed.cross_entropy > plain.cross_entropy for weighed, plain in pairs)


def test_it_is_seeded_and_reads_training_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regularisation, "QUICK_CELLS", 3 * 40**2)
    dataset = made_up()
    first, again, other = (search(dataset, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    x = dataset.everything.x.copy()
    x[dataset.set_of != "training"] = np.nan
    changed = Subset(dataset.everything.images, InMemory(x), dataset.everything.y)
    assert search(dataclasses.replace(dataset, everything=changed), seed=1) == first


@pytest.mark.parametrize(("per_label", "classes"), [(4, 3), (300, 8)], ids=["few", "slow"])
def test_too_few_or_too_many_are_not_searched_unless_asked(
    monkeypatch: pytest.MonkeyPatch, per_label: int, classes: int
) -> None:
    monkeypatch.setattr(regularisation, "QUICK_CELLS", 2**13)
    assert search(made_up(per_label, classes)) is None
    monkeypatch.setattr(regularisation, "THOROUGH_CELLS", 400)
    assert search(made_up(per_label, classes), thorough=True) is not None


def test_labels_that_are_one_group_each_cannot_be_cross_validated() -> None:
    dataset = made_up()
    groups = [str(y) for y in dataset.everything.y]
    assert search(dataclasses.replace(dataset, groups=groups)) is None
    assert search(dataclasses.replace(dataset, groups=groups), thorough=True) is None


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_a_label_that_is_one_group_leaves_the_others_to_choose(classes: int) -> None:
    """What is judged are the others, by models that know them."""
    dataset = made_up(30, classes, distance=0.12, wrong=0.6)
    groups = ["one" if y == 0 else str(i) for i, y in enumerate(dataset.everything.y)]
    found = search(dataclasses.replace(dataset, groups=groups))
    if classes > 2:
        assert found is not None
        assert found.times_the_usual >= 1


@pytest.mark.parametrize("counts", [[80] * 150, [700] * 4 + [12]], ids=["many", "one is rare"])
def test_labels_that_a_sample_by_chance_would_miss_do_not_stop_the_search(
    counts: list[int],
) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    random = np.random.default_rng(0)
    x = random.normal(0, 0.3, (len(counts), 32))[y] + random.normal(0, 1, (len(y), 32))
    keys = [hashlib.sha256(str(i).encode()).digest() for i in range(len(y))]
    images = [CachedImage(str(c), f"{c}/{i}", f"{i}", keys[i]) for i, c in enumerate(y)]
    subset = Subset(images, InMemory(x.astype(np.float32)), y)
    dataset = Dataset(tuple(map(str, range(len(counts)))), subset, np.full(len(y), "training"))
    for seed in range(3):
        assert search(dataset, thorough=len(counts) > 5, seed=seed) is not None


def test_where_the_best_is_the_strongest_that_is_tried_stronger_ones_are_too() -> None:
    found = search(made_up(distance=0.02, wrong=0.5))
    assert found is not None
    strengths = [trial.l2 for trial in found.trials]
    losses = [trial.cross_entropy for trial in found.trials]
    usual = found.l2 / found.times_the_usual
    assert strengths[-1] > 50 * usual
    assert losses[-1] < losses[0]


def test_chosen_is_the_nearest_to_the_usual_one_within_one_standard_error() -> None:
    """By the losses of scikit-learn's own cross-validation, with the rule written out."""
    taken = set()
    for seed in range(4):
        dataset = made_up(16, seed=seed)
        found = search(dataset)
        assert found is not None
        usual = usual_l2(3, len(dataset.training))
        y = dataset.training.y
        z = Standardisation.of(dataset.training.x).apply(dataset.training.x).astype(np.float64)
        fold_of = deal(dataset.units_of("training"), y, 5)
        losses = {}
        for trial in found.trials:
            own = np.empty(len(y))
            for fold in range(5):
                seen = fold_of != fold
                model = LogisticRegression(C=1 / (trial.l2 * seen.sum()), tol=1e-8, max_iter=5000)
                model.fit(z[seen], y[seen])
                own[~seen] = losses_of(model.predict_proba(z[~seen]), y[~seen])
            losses[trial.l2] = own
        best = min(losses.values(), key=np.mean)
        within = [
            l2
            for l2, own in losses.items()
            if own.mean() - best.mean() <= max(1e-3, (own - best).std(ddof=1) / np.sqrt(len(y)))
        ]
        nearest = min(within, key=lambda l2: abs(np.log(l2 / usual)))
        assert found.l2 == pytest.approx(nearest)
        taken.add(losses[found.l2] is best)
    assert False in taken  # else the rule itself was not seen at work


def test_the_models_that_are_compared_are_weighed_as_training_is() -> None:
    dataset = made_up(80, 2, distance=0.06)
    rare = (dataset.everything.y == 0) & (np.arange(160) % 5 != 0)
    dataset = dataclasses.replace(dataset, set_of=np.where(rare, "testing", dataset.set_of))
    found = search(dataset, class_balance="weights")
    assert found is not None
    y = dataset.training.y
    weights = (len(y) / (2 * np.bincount(y)))[y]
    z = Standardisation.of(dataset.training.x).apply(dataset.training.x).astype(np.float64)
    fold_of = deal(dataset.units_of("training"), y, 5)
    for trial in found.trials[1::2]:
        losses = np.empty(len(y))
        for fold in range(5):
            seen = fold_of != fold
            strength = trial.l2 / 2 * weights[seen].sum()
            model = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000)
            model.fit(z[seen], y[seen], weights[seen])
            losses[~seen] = losses_of(model.predict_proba(z[~seen]), y[~seen])
        expected = (losses * weights).sum() / weights.sum()
        assert trial.cross_entropy == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_the_softmax_is_scikit_learns(classes: int, weighed: bool, rotated: bool) -> None:
    """From strong to weak, each strength from where the last one ended."""
    random = np.random.default_rng(classes)
    y = np.arange(150) % classes
    x = random.normal(0, 0.3, (classes, 64))[y] + random.normal(0, 1, (150, 64))
    z = (x * random.lognormal(0, 1, 64)).astype(np.float32)  # of different sizes
    if rotated:
        z = regularisation._rotated(z.repeat(4, axis=1))
    weights = random.lognormal(0, 1, 150) if weighed else np.ones(150)
    own = regularisation._Softmax(z, y, weights)
    for l2 in (1.0, 0.1, 0.01):
        own.fit(l2)
        strength = l2 / (2 if classes == 2 else 1) * weights.sum()
        theirs = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
        theirs.fit(z.astype(np.float64), y, weights)
        found, expected = own.log_probabilities(z), theirs.predict_log_proba(z)
        np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-2)
        rows = np.arange(150)
        losses = [-(weights @ log[rows, y]) / weights.sum() for log in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_the_minimum_of_a_convex_function_is_found_from_anywhere() -> None:
    """Also where a whole step leads far beyond it."""
    bends = np.logspace(-0.5, 1.5, 20)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float((bends * (x - 3) ** 2).sum()), 2 * bends * (x - 3)

    for start in (np.zeros(20), np.full(20, 1e3), np.full(20, 3.0)):
        np.testing.assert_allclose(regularisation._minimised(function, start), 3, atol=2e-3)


def test_numbers_that_are_not_finite_end_it() -> None:
    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float("nan"), x * np.nan

    assert len(regularisation._minimised(function, np.ones(3))) == 3
