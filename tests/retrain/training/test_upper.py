"""What is above a cut: the same numbers as variables, as a model, and as a network."""

import numpy as np
import pytest

from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.store.vectors import InMemory
from retrain.training.head import Head, Standardisation
from retrain.training.upper import UpperLayers, Variables
from tests.tiny import Tiny

LABELS = 3
FROZEN = Tiny().frozen
SPECS = {cut: Tiny(cut).spec for cut in ("input", "mixed7")}


def head_and_standardisation() -> tuple[Head, Standardisation]:
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.1, (2048, LABELS)).astype(np.float32)
    weights[5] = 0
    scale = random.uniform(0.5, 2, 2048)
    scale[5] = 0  # a number that never varies
    return (
        Head(weights, random.normal(0, 1, LABELS).astype(np.float32)),
        Standardisation(random.uniform(0, 1, 2048), scale),
    )


def rows(cut: str, count: int = 20) -> InMemory:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 299, 299, 3)).astype(np.uint8)
    return InMemory(Tiny(cut)(pixels), spec=SPECS[cut])


def variables(cut: str = "mixed7", **options: object) -> Variables:
    return Variables(FROZEN, cut, *head_and_standardisation(), **options)  # type: ignore[arg-type]


def moved(own: Variables) -> Variables:
    """``own`` with other numbers in it."""
    random = np.random.default_rng(2)
    for average in own.averages:
        average.assign(average.numpy() + random.normal(0, 0.1, average.shape))
    for i, moment in enumerate(own.moments):
        moment.assign(moment.numpy() + np.float32(0.1 + 0.5 * (i % 2)))
    return own


def whole(network: bytes, pixels: np.ndarray) -> np.ndarray:
    """The bottlenecks (n, 2048) that a network gives for pixels."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3))
        definition = tf.compat.v1.GraphDef.FromString(network)
        tf.import_graph_def(definition, {f"{INPUT_NODE}:0": x}, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            result: np.ndarray = session.run(f"{BOTTLENECK_NODE}:0", {x: pixels / 127.5 - 1})
    return result


@pytest.mark.parametrize("cut", SPECS)
def test_before_a_step_the_head_gives_what_it_gave_on_bottlenecks(cut: str) -> None:
    head, _ = head_and_standardisation()
    pixels = np.random.default_rng(1).integers(0, 256, (20, 299, 299, 3)).astype(np.uint8)
    expected = head.logits(Tiny()(pixels))
    found = variables(cut).result().logits_all(rows(cut))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2 if cut == "mixed7" else 1e-3)


@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("cut", SPECS)
def test_the_model_gives_what_the_variables_give(cut: str, normalises: bool) -> None:
    own = moved(variables(cut, normalises=normalises))
    model = own.result()
    expected = own.logits(own.averages, rows(cut).take(np.arange(20))).numpy()
    np.testing.assert_allclose(model.logits_all(rows(cut)), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(model.predict_all(rows(cut)).sum(axis=1), 1, rtol=1e-5)


def test_the_network_of_a_model_has_its_numbers_and_is_else_the_same() -> None:
    model = moved(variables()).result()
    tf = import_tensorflow()
    networks = [tf.compat.v1.GraphDef.FromString(data) for data in (FROZEN, model.network())]
    assert [(n.name, n.op, n.input[:]) for n in networks[0].node] == [
        (n.name, n.op, n.input[:]) for n in networks[1].node
    ]
    pixels = np.random.default_rng(1).integers(0, 256, (20, 299, 299, 3)).astype(np.uint8)
    expected = model.head.logits(whole(model.network(), pixels))
    np.testing.assert_allclose(model.logits_all(rows("mixed7")), expected, rtol=0, atol=2e-2)
    assert variables().result().network() != model.network()


def test_a_temperature_divides_the_logits() -> None:
    model = moved(variables()).result()
    np.testing.assert_allclose(
        model.at_temperature(2.0).logits_all(rows("mixed7")),
        model.logits_all(rows("mixed7")) / 2,
        rtol=1e-5,
        atol=1e-5,
    )
    assert model.at_temperature(2.0).network() == model.network()


def test_steps_of_one_size_move_every_output_by_the_same_share() -> None:
    own = variables()
    before = own.result()
    for average in own.averages:
        average.assign(average.numpy() + np.float32(0.01))
    after = own.result()
    for name, value in before.constants.items():
        if value.ndim == 4:
            deviation = np.sqrt((value.astype(np.float64) ** 2).mean(axis=(0, 1, 2)))
            change = (after.constants[name] - value).mean(axis=(0, 1, 2))
            np.testing.assert_allclose(change, 0.01 * deviation, rtol=1e-3)


def test_the_same_beginning_has_the_same_identity() -> None:
    head, standardisation = head_and_standardisation()
    other = Head(head.weights + 1, head.bias)
    found = [
        variables().identity,
        moved(variables()).identity,
        variables("input").identity,
        variables(precision="bfloat16").identity,
        variables(normalises=True).identity,
        Variables(FROZEN, "mixed7", other, standardisation).identity,
        Variables(FROZEN + b"", "mixed7", head, standardisation).identity,
    ]
    assert found[0] == found[1] == found[-1]
    assert len(set(found)) == len(found) - 2


def test_bfloat16_is_near(capfd: pytest.CaptureFixture[str]) -> None:
    exact, rounded = moved(variables()), moved(variables(precision="bfloat16"))
    x = rows("mixed7").take(np.arange(20))
    expected = exact.logits(exact.averages, x).numpy()
    found = rounded.logits(rounded.averages, x).numpy()
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_model_tells_which_arrays_made_it() -> None:
    own = moved(variables())
    again = own.model_of(own.result().arrays)
    assert isinstance(again, UpperLayers)
    assert again.network() == own.result().network()
