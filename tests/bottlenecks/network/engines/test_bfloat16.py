"""The network in bfloat16 is the network in float32, rounded as little as can be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # comes with TensorFlow, which rounds by it
import numpy as np
import pytest

from bottlenecks.network import inception
from bottlenecks.network.engines import bfloat16
from bottlenecks.network.engines.bfloat16 import (
    FLOAT32_CONVOLUTIONS,
    diffused,
    rounded,
    scale_for_exact,
)
from bottlenecks.network.engines.bfloat16 import to_bfloat16 as rewrite
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow

HALF_STEP = 2.0**-8  # half the distance of two bfloat16 numbers in [1, 2)


def as_tensorflow_rounds(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    return result


def assert_bfloat16(x: np.ndarray) -> None:
    """float32 numbers of which bfloat16 loses nothing."""
    assert x.dtype == np.float32
    assert not (x.view(np.uint32) & 0xFFFF).any()


def numbers() -> np.ndarray:
    """Of all sizes and both signs, (20_000,) float32."""
    random = np.random.default_rng(0)
    size = 10.0 ** random.uniform(-37, 37, 20_000)
    return (random.choice([-1.0, 1.0], 20_000) * size).astype(np.float32)


def near_ties() -> np.ndarray:
    """Halfway between two bfloat16 numbers, and the float32 numbers next to that."""
    upper = np.random.default_rng(1).integers(0, 0x7F7F, 5_000).astype(np.uint32)
    upper |= np.random.default_rng(2).integers(0, 2, 5_000).astype(np.uint32) << 15
    bits = [(upper << 16) + lower for lower in (0x7FFF, 0x8000, 0x8001, 0xFFFF, 0)]
    return np.concatenate(bits).view(np.float32)


@pytest.mark.parametrize(
    "x",
    [
        numbers(),
        near_ties(),
        np.array(
            [0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, np.inf, -np.inf, 1e-45, -1e-40], np.float32
        ),
        np.array([[1.003, -1.003], [1.005, 0.1]], np.float32),
    ],
    ids=["numbers", "ties", "special", "matrix"],
)
def test_rounding_is_tensorflow_s(x: np.ndarray) -> None:
    before = x.copy()
    got = rounded(x)
    assert_bfloat16(got)
    np.testing.assert_array_equal(got.view(np.uint32), as_tensorflow_rounds(x).view(np.uint32))
    np.testing.assert_array_equal(x, before)


def test_ties_go_to_even() -> None:
    step = 2 * HALF_STEP
    x = np.array([1 + 0.5 * step, 1 + 1.5 * step, -1 - 0.5 * step, -1 - 1.5 * step])
    np.testing.assert_array_equal(rounded(x), [1, 1 + 2 * step, -1, -1 - 2 * step])


def test_scaled_biases_are_exact() -> None:
    bias = np.random.default_rng(0).normal(0, 0.5, 10_000).astype(np.float32)
    assert (rounded(bias) != bias).mean() > 0.9
    scale = scale_for_exact(bias)
    assert scale.shape == (10_000,)
    assert scale.dtype == np.float64
    assert (np.abs(scale - 1) <= HALF_STEP).all()
    np.testing.assert_array_equal((bias * scale).astype(np.float32), rounded(bias))


def test_a_bias_that_needs_no_scale_has_none() -> None:
    bias = np.array([0.0, -0.0, 1.0, -0.5, 0.0078125, 1.0078125], np.float32)
    np.testing.assert_array_equal(scale_for_exact(bias), np.ones(6))


def test_the_scale_of_the_smallest_biases_is_near_1_too() -> None:
    """A scale of 0 would make the next kernel infinite."""
    scale = scale_for_exact(np.array([1e-41, -1e-41, 5e-41, 1e-45, 1e-38, -9e-31], np.float32))
    np.testing.assert_array_equal(scale, np.ones(6))  # as for 0


def test_the_smallest_biases_that_are_scaled_are_exact() -> None:
    bias = np.array([1.1e-30, -1.234e-30, 3.3e-29], np.float32)
    scale = scale_for_exact(bias)
    assert ((scale != 1) & (np.abs(scale - 1) <= HALF_STEP)).all()
    np.testing.assert_array_equal((bias * scale).astype(np.float32), rounded(bias))


def kernel_of(height: int, width: int) -> np.ndarray:
    """Weights in [1.1, 1.9], where all steps of bfloat16 are the same; (.., .., 48, 8) float32."""
    return np.random.default_rng(0).uniform(1.1, 1.9, (height, width, 48, 8)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (1, 7), (7, 1), (5, 2)])
def test_a_diffused_kernel_carries_its_errors_on(height: int, width: int) -> None:
    kernel = kernel_of(height, width)
    before = kernel.copy()
    got = diffused(kernel)
    assert got.shape == kernel.shape
    assert_bfloat16(got)
    np.testing.assert_array_equal(kernel, before)
    error = got.astype(np.float64) - kernel
    slack = 1.01  # for what float32 loses of the carried error
    assert np.abs(error).max() <= 2 * HALF_STEP * slack
    # All that is left of a sum over the kernel is the last error.
    assert np.abs(error.sum(axis=(0, 1, 2))).max() <= HALF_STEP * slack
    # It is carried on through the pixels first, so their sum is as good for each input alone.
    assert np.abs(error.sum(axis=(0, 1))).max() <= 2 * HALF_STEP * slack


def test_sums_over_a_diffused_kernel_are_closer_than_over_a_rounded_one() -> None:
    kernel = np.random.default_rng(0).normal(0, 0.1, (3, 3, 64, 32)).astype(np.float32)
    exact = kernel.sum(axis=(0, 1, 2), dtype=np.float64)

    def error(of: Callable[[np.ndarray], np.ndarray]) -> float:
        return float(np.abs(of(kernel).sum(axis=(0, 1, 2), dtype=np.float64) - exact).mean())

    assert 0 < error(diffused) < 0.1 * error(rounded)


def test_a_kernel_of_bfloat16_numbers_stays_as_it_is() -> None:
    kernel = rounded(kernel_of(3, 3))
    np.testing.assert_array_equal(diffused(kernel), kernel)


# The whole network.


def parsed(graph: bytes) -> Any:
    return import_tensorflow().compat.v1.GraphDef.FromString(graph)


@pytest.fixture(scope="module")
def network(model_dir: Path) -> bytes:
    """The network of random weights, whose biases are 0, with random ones."""
    tf = import_tensorflow()
    graph = parsed(InceptionV3("random", model_dir).frozen)
    nodes = {node.name: node for node in graph.node}
    random = np.random.default_rng(0)
    for node in graph.node:
        if node.op == "BiasAdd":
            tensor = nodes[node.input[1]].attr["value"].tensor
            bias = random.normal(0, 0.1, tf.make_ndarray(tensor).shape)
            tensor.CopyFrom(tf.make_tensor_proto(bias, tf.float32))
    serialized: bytes = graph.SerializeToString()
    return serialized


@pytest.fixture(scope="module")
def rewritten(network: bytes) -> bytes:
    serialized: bytes = rewrite(parsed(network)).SerializeToString()
    return serialized


@pytest.fixture(scope="module")
def reference(network: bytes) -> np.ndarray:
    """What the network in float32 gives."""
    return run(network)


def pictures() -> np.ndarray:
    """Noise of all colours, and a little noise on orange, (2, 107, 107, 3) float32."""
    random = np.random.default_rng(0)
    noise = random.uniform(-1, 1, (107, 107, 3))
    orange = np.array([0.7, -0.3, -0.8], np.float64) + random.uniform(-0.2, 0.2, (107, 107, 3))
    return np.stack([noise, orange]).astype(np.float32)


def run(graph_bytes: bytes) -> np.ndarray:
    """The vectors of `pictures` from this network."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        pixels = v1.placeholder(tf.float32, (None, None, None, 3))
        initialise = import_frozen(parsed(graph_bytes), {f"{INPUT_NODE}:0": pixels})
    with v1.Session(graph=graph) as session:
        initialise(session)
        vectors: np.ndarray = session.run(f"{BOTTLENECK_NODE}:0", {pixels: pictures()})
    assert vectors.shape == (2, 2048)
    assert vectors.dtype == np.float32
    return vectors


def distance(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Of each vector, relative to its length; the largest."""
    difference = np.linalg.norm(vectors - reference, axis=1)
    return float((difference / np.linalg.norm(reference, axis=1)).max())


def constants(graph: Any, op: str) -> list[Any]:
    """The constant that each ``op`` has as its second input, as it is held in the graph."""
    tf = import_tensorflow()
    nodes = {node.name: node for node in graph.node}
    held = [nodes[node.input[1]] for node in graph.node if node.op == op]
    assert {node.op for node in held} == {"Const"}
    return [tf.make_ndarray(node.attr["value"].tensor) for node in held]


def test_it_gives_what_float32_gives(rewritten: bytes, reference: np.ndarray) -> None:
    vectors = run(rewritten)
    assert 1e-5 < distance(vectors, reference) < 0.02
    assert distance(reference[::-1], reference) > 0.5  # of the two pictures


def test_its_kernels_and_biases_are_held_in_bfloat16_after_the_first(
    network: bytes, rewritten: bytes
) -> None:
    for op in ("Conv2D", "BiasAdd"):
        before, after = (constants(parsed(graph), op) for graph in (network, rewritten))
        assert len(before) == len(after) == 94
        types = [x.dtype.name for x in after]
        assert types[:FLOAT32_CONVOLUTIONS] == ["float32"] * FLOAT32_CONVOLUTIONS
        assert set(types[FLOAT32_CONVOLUTIONS:]) == {"bfloat16"}
        for x, y in zip(before[:FLOAT32_CONVOLUTIONS], after, strict=False):
            np.testing.assert_array_equal(x, y)


def test_its_biases_are_as_exact_as_the_scales_can_make_them(
    network: bytes, rewritten: bytes
) -> None:
    before, after = (constants(parsed(graph), "BiasAdd") for graph in (network, rewritten))
    for x, y in zip(before[FLOAT32_CONVOLUTIONS:], after[FLOAT32_CONVOLUTIONS:], strict=True):
        np.testing.assert_array_equal(y.astype(np.float32), rounded(x))


def test_its_kernels_are_diffused(network: bytes, rewritten: bytes) -> None:
    """The first that is rounded: what it reads has no scale of its own yet."""
    (kernel, bias), (got, _) = (
        [constants(parsed(graph), op)[FLOAT32_CONVOLUTIONS] for op in ("Conv2D", "BiasAdd")]
        for graph in (network, rewritten)
    )
    expected = diffused(kernel * scale_for_exact(bias))
    np.testing.assert_array_equal(got.astype(np.float32), expected)
    assert (expected != rounded(kernel * scale_for_exact(bias))).any()


def test_its_input_and_output_are_float32(rewritten: bytes) -> None:
    graph = parsed(rewritten)
    names = {node.name for node in graph.node}
    read = {source for node in graph.node for source in node.input} - names
    assert read == {INPUT_NODE}
    (output,) = [node for node in graph.node if node.name == BOTTLENECK_NODE]
    tf = import_tensorflow()
    assert tf.as_dtype(output.attr["T"].type) == tf.float32
    first = next(node for node in graph.node if INPUT_NODE in node.input)
    assert (first.op, tf.as_dtype(first.attr["T"].type)) == ("Conv2D", tf.float32)
    assert not graph.library.function


def test_the_scales_of_the_channels_do_not_show(
    network: bytes, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales that are far from 1, so that leaving one in anywhere would show."""
    random = np.random.default_rng(0)

    def powers_of_two(bias: np.ndarray) -> np.ndarray:
        return np.exp2(random.integers(-2, 3, len(bias)))

    monkeypatch.setattr(bfloat16, "scale_for_exact", powers_of_two)
    graph = rewrite(parsed(network)).SerializeToString()
    assert 1e-5 < distance(run(graph), reference) < 0.03


def test_an_operation_that_the_network_does_not_have() -> None:
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        tf.tanh(tf.compat.v1.placeholder(tf.float32, (None, 3), name=INPUT_NODE))
    graph_def = graph.as_graph_def()
    del graph_def.node[0]
    with pytest.raises(AssertionError, match="Tanh"):
        rewrite(graph_def)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_extractor_rewrites_its_network_for_bfloat16_alone(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    asked: list[str] = []

    def recorded(graph: Any) -> Any:
        asked.append("bfloat16")
        return graph

    monkeypatch.setattr(inception, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(bfloat16, "to_bfloat16", recorded)
    extractor = InceptionV3("random", model_dir, precision)
    assert extractor(np.zeros((1, 299, 299, 3), np.uint8)).shape == (1, 2048)
    assert asked == [precision] * (precision == "bfloat16")
