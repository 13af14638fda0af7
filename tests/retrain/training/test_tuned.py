"""Fine-tuning is taken where the validation set says that it is better, and not else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.builder import CachedImage
from bottlenecks.network import layers
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.store.vectors import InMemory
from retrain.config import Config
from retrain.data.dataset import Dataset, Subset, Variants
from retrain.evaluate import score
from retrain.training import checkpoint
from retrain.training.fine_tuning import Recipe
from retrain.training.fitting import Evaluation, Fitted, fit_head
from retrain.training.head import Standardisation, softmax
from retrain.training.tuned import FineTuned, fine_tune
from retrain.training.upper import UpperLayers, Variables
from tests.retrain.training.test_fine_tuning import distance, recipe, rows_and_labels
from tests.tiny import Tiny

FROZEN, SPEC = Tiny().frozen, Tiny("mixed7").spec
LABELS = ("a", "b", "c")


def bottlenecks_of(x: np.ndarray) -> np.ndarray:
    """(n, 2048) float32 that the network gives for rows (n, 13, 13, 3) of the cut."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        rows = tf.compat.v1.placeholder(tf.float32, (None, *SPEC.shape))
        part = layers.above(tf.compat.v1.GraphDef.FromString(FROZEN), "mixed7")
        initialise = import_frozen(part, {f"{layers.CUT_NODE}:0": rows})
        with tf.compat.v1.Session(graph=graph) as session:
            initialise(session)
            found: np.ndarray = session.run(f"{BOTTLENECK_NODE}:0", {rows: x})
    return found


class Data:
    """A data set at the cut and on bottlenecks, and the head that is to be beaten."""

    def __init__(
        self,
        training: int = 90,
        validation: int = 90,
        labels_by_chance: bool = False,
        variants: int = 0,
        noise: float = 2.0,
    ) -> None:
        n = training + validation
        x, y = rows_and_labels(n)
        x = x + np.random.default_rng(5).normal(0, noise, x.shape).astype(np.float16)
        if labels_by_chance:
            y = np.random.default_rng(1).permutation(y)
        keys = [i.to_bytes(32, "big") for i in range(n)]
        images = [CachedImage("a", f"a/{i}", f"D/a/{i}", key) for i, key in enumerate(keys)]
        sets = np.repeat(["training", "validation"], [training, validation])
        of_variants = None
        if variants:
            drawn = np.concatenate([x[:training]] * (1 + variants))
            of_variants = Variants(
                InMemory(drawn, spec=SPEC),
                [key + bytes([v]) for v in range(1 + variants) for key in keys[:training]],
            )
        at_cut = Subset(images, InMemory(x, spec=SPEC), y)
        self.at_cut = Dataset(LABELS, at_cut, sets, variants=of_variants)
        bottlenecks = InMemory(bottlenecks_of(x.astype(np.float32)))
        self.dataset = Dataset(LABELS, Subset(images, bottlenecks, y), sets)
        self.config = Config(image_dir="D", how_many_training_steps=200)
        self.fitted: Fitted = fit_head(self.config, self.dataset)

    def variables(self, **options: Any) -> Variables:
        standardisation = Standardisation.of_sample(self.dataset.training.vectors, 0)
        return Variables(FROZEN, "mixed7", self.fitted.head, standardisation, **options)

    def tuned(self, folder: Path, own: Recipe, **options: Any) -> FineTuned:
        before = self.fitted.model, self.dataset
        return fine_tune(self.variables(), self.at_cut, before, own, folder, **options)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


@pytest.fixture(scope="module")
def good(data: Data, tmp_path_factory: pytest.TempPathFactory) -> FineTuned:
    return data.tuned(tmp_path_factory.mktemp("good"), recipe(epochs=12))


def test_it_is_taken_where_it_lowers_the_validation_loss(data: Data, good: FineTuned) -> None:
    assert good.is_taken
    assert good.loss is not None
    assert good.loss_before is not None
    assert good.loss < good.loss_before - 0.05
    validation = data.at_cut.validation
    found = score(good.fitted.model.predict_all(validation.vectors), validation.y)
    assert found.cross_entropy == pytest.approx(good.loss, rel=1e-3)
    assert good.resumed_at == 0
    assert good.steps_in_epoch == 6
    assert good.fitted.steps == 12 * 6


def test_it_is_not_taken_with_steps_that_are_too_large(data: Data, tmp_path: Path) -> None:
    found = data.tuned(tmp_path, recipe(epochs=3, learning_rate=5.0))
    assert not found.is_taken
    assert found.loss is not None
    assert found.loss_before is not None
    assert found.loss > found.loss_before


def test_labels_by_chance_do_not_get_far(tmp_path: Path) -> None:
    """What chance lowers the loss by, if it does, is far from what a pattern does."""
    found = Data(labels_by_chance=True).tuned(tmp_path, recipe(epochs=12))
    assert found.loss is not None
    assert found.loss > np.log(3) - 0.05


def test_without_a_validation_set_it_is_taken(tmp_path: Path) -> None:
    found = Data(validation=0).tuned(tmp_path, recipe(epochs=2))
    assert found.is_taken
    assert (found.loss, found.loss_before, found.temperature) == (None, None, 1.0)
    assert found.fitted.step == found.fitted.steps == 12


def test_the_temperature_is_applied(data: Data, good: FineTuned) -> None:
    assert good.temperature != 1.0
    vectors = data.at_cut.validation.vectors
    unscaled = good.fitted.model.at_temperature(1 / good.temperature).logits_all(vectors)
    np.testing.assert_allclose(
        softmax(unscaled / good.temperature),
        good.fitted.model.predict_all(vectors),
        rtol=1e-3,
        atol=1e-4,
    )


def test_each_epoch_is_evaluated(data: Data, tmp_path: Path) -> None:
    seen: list[Evaluation] = []
    steps: list[tuple[int, int]] = []
    found = data.tuned(
        tmp_path,
        recipe(epochs=3),
        on_evaluation=lambda evaluation, _: seen.append(evaluation),
        on_step=lambda step, of_all: steps.append((step, of_all)),
    )
    assert [evaluation.step for evaluation in seen] == [6, 12, 18]
    assert found.fitted.evaluations == tuple(seen)
    assert steps == [(step, 18) for step in range(19)]


def test_an_epoch_is_kept_that_is_better_than_the_last_by_more_than_chance(
    data: Data, tmp_path: Path
) -> None:
    """Steps that are too large for so many epochs."""
    found = data.tuned(tmp_path, recipe(epochs=40, learning_rate=0.15))
    assert found.fitted.step < found.fitted.steps == 240
    assert found.loss == pytest.approx(found.fitted.cross_entropy, rel=0.05)


def test_no_epoch_is_given_up_for_being_too_sure(tmp_path: Path) -> None:
    """Scores that are too sure are scaled; what is kept is judged after that."""
    few = Data(training=15, validation=300, noise=3.0)
    found = few.tuned(
        tmp_path, recipe(epochs=40, learning_rate=0.05, smoothing=0.0, weight_decay=0.0, l2=0.0)
    )
    losses = [e.validation.cross_entropy for e in found.fitted.evaluations if e.validation]
    assert losses[-1] > min(losses) + 0.1
    assert found.fitted.step == found.fitted.steps
    assert found.temperature > 1.5


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_labels_can_be_balanced(balance: str, data: Data, tmp_path: Path) -> None:
    plain = data.tuned(tmp_path, recipe(epochs=1)).fitted.model
    found = data.tuned(tmp_path, recipe(epochs=1, class_balance=balance)).fitted.model
    assert isinstance(plain, UpperLayers)
    assert isinstance(found, UpperLayers)
    equal_labels = balance == "weights"  # as many images of each: nothing to weigh
    assert (distance(plain, found) < 1e-5) == equal_labels


def test_one_epoch_of_fewer_images_than_a_batch(tmp_path: Path) -> None:
    found = Data(training=6, validation=6).tuned(tmp_path, recipe(epochs=1, batch_size=32))
    assert found.fitted.steps == found.steps_in_epoch == 1
    assert found.fitted.step == 1


class Killed(BaseException):
    """What ends a run in the middle."""


def kill_at(step: int) -> Any:
    def on_step(taken: int, _: int) -> None:
        if taken == step + 1:  # the checkpoint of this one is not written
            raise Killed

    return on_step


@pytest.fixture
def always_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    yield


@pytest.mark.usefixtures("always_time")
def test_a_killed_run_goes_on_to_the_same_end(data: Data, tmp_path: Path) -> None:
    whole = data.tuned(tmp_path / "undisturbed", recipe(epochs=3))
    folder = tmp_path / "killed"
    for step in (2, 7, 13):
        with pytest.raises(Killed):
            data.tuned(folder, recipe(epochs=3), on_step=kill_at(step))
    found = data.tuned(folder, recipe(epochs=3))
    assert found.resumed_at == 13
    one, other = whole.fitted.model, found.fitted.model
    assert isinstance(one, UpperLayers)
    assert isinstance(other, UpperLayers)
    assert distance(one, other) < 1e-5
    assert [e.step for e in found.fitted.evaluations] == [6, 12, 18]
    assert not list(folder.glob("*.checkpoint"))


@pytest.mark.usefixtures("always_time")
def test_what_changes_a_step_begins_again_and_nothing_else_does(data: Data, tmp_path: Path) -> None:
    own = recipe(epochs=2)
    with pytest.raises(Killed):
        data.tuned(tmp_path, own, on_step=kill_at(3))
    (kept,) = tmp_path.glob("*.checkpoint")
    content = kept.read_bytes()

    def resumed_at(variables: Variables, at_cut: Dataset, changed: Recipe) -> int:
        found: list[int] = []

        def on_step(step: int, _: int) -> None:
            found.append(step)
            raise Killed

        with pytest.raises(Killed):
            fine_tune(
                variables,
                at_cut,
                (data.fitted.model, data.dataset),
                changed,
                tmp_path,
                on_step=on_step,
            )
        for path in tmp_path.glob("*.checkpoint"):
            path.unlink()
        kept.write_bytes(content)
        return found[0]

    at_cut, everything = data.at_cut, data.at_cut.everything

    def with_images(images: list[CachedImage]) -> Dataset:
        return replace(at_cut, everything=replace(everything, images=images))

    moved = [replace(i, path=f"E/{i.relpath}", relpath="b") for i in everything.images]
    edited = [replace(everything.images[0], key=b"e" * 32), *everything.images[1:]]
    sets = at_cut.set_of.copy()
    sets[[0, 100]] = "validation", "training"
    y = everything.y.copy()
    y[0] = (y[0] + 1) % 3
    tested = at_cut.set_of.copy()
    tested[-1] = "validation"

    assert resumed_at(data.variables(), at_cut, own) == 3
    assert resumed_at(data.variables(), with_images(moved), own) == 3
    assert resumed_at(data.variables(), replace(at_cut, set_of=tested), own) == 3

    assert resumed_at(data.variables(), with_images(edited), own) == 0
    assert resumed_at(data.variables(), replace(at_cut, set_of=sets), own) == 0
    relabelled = replace(at_cut, everything=replace(everything, y=y))
    assert resumed_at(data.variables(), relabelled, own) == 0
    training = at_cut.training.vectors
    keys = [image.key for image in at_cut.training.images]
    varied = replace(at_cut, variants=Variants(training, keys))
    assert resumed_at(data.variables(), varied, own) == 0
    assert resumed_at(data.variables(normalises=True), at_cut, own) == 0
    assert resumed_at(data.variables(precision="bfloat16"), at_cut, own) == 0
    for changes in (
        {"seed": 1}, {"learning_rate": 0.02}, {"l2": 0.5}, {"batch_size": 15}, {"epochs": 3},
        {"weight_decay": 0.5}, {"smoothing": 0.2}, {"class_balance": "sampling"},
        {"name": "inception"},
    ):  # fmt: skip
        assert resumed_at(data.variables(), at_cut, replace(own, **changes)) == 0, changes


def test_variants_are_trained_on(tmp_path: Path) -> None:
    varied = Data(variants=2)
    found = varied.tuned(tmp_path, recipe(epochs=2))
    assert found.fitted.steps == 12  # an epoch is of images, not of rows
