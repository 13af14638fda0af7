"""The numbers of a network in 8 bits: what photos have shown, kept as bytes and read back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import CacheError
from bottlenecks.network.engines import int8
from bottlenecks.network.messages import message
from bottlenecks.network.operations import run
from bottlenecks.network.tensorflow import import_tensorflow
from tests.small_network import CONVOLUTIONS, small_frozen


@pytest.fixture(scope="module")
def graph_def() -> Any:
    return message("GraphDef").FromString(small_frozen())


def observe(graph_def: Any) -> int8.Observe:
    """By TensorFlow's operations, of what no engine is part."""
    tf = import_tensorflow()
    of_tf = tf.compat.v1.GraphDef.FromString(graph_def.SerializeToString())
    names = int8.observed(int8.convolutions_of(graph_def))

    def given(pixels: np.ndarray) -> list[np.ndarray]:
        constants = {
            n.name: tf.make_ndarray(n.attr["value"].tensor) for n in of_tf.node if n.op == "Const"
        }
        floats = tf.constant(pixels, tf.float32) / 127.5 - 1.0
        shapes = {name: value for name, value in constants.items() if value.dtype == np.float32}
        found = run(of_tf, {"Mul": floats, **shapes}, {})
        return [found[name].numpy() for name in names]

    return given


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (6, 299, 299, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def numbers(graph_def: Any, photos: np.ndarray) -> int8.Int8:
    return int8.calibrated(graph_def, observe(graph_def), (photos[:4], photos[4:]), 127)


def test_all_convolutions_but_the_first_read_levels(graph_def: Any) -> None:
    found = {one.name: one for one in int8.convolutions_of(graph_def)}
    assert len(found) == CONVOLUTIONS
    assert found["s/wide"].relus == ("s/one_relu", "s/two_relu")
    assert found["s/two"].relus == ("s/stem_relu",)
    assert found["s/two"].reads == "s/mean"
    assert found["s/high"].behind == "s/high_relu"
    assert (found["s/high"].is_same, found["s/high"].strides) == (False, (2, 2))


def test_a_level_is_a_part_of_the_largest_number_that_was_seen(
    graph_def: Any, photos: np.ndarray, numbers: int8.Int8
) -> None:
    names = int8.observed(int8.convolutions_of(graph_def))
    seen = dict(zip(names, observe(graph_def)(photos), strict=True))
    for name, relus in (("s/mixed", ("s/one_relu", "s/two_relu")), ("s/wide_relu", ())):
        largest = seen[name].max(axis=(0, 1, 2))
        levels = numbers.levels_of(relus or (name,))
        assert (levels * int8.LEVELS >= largest * (1 - 1e-5)).all()
        assert (levels * int8.LEVELS).max() == pytest.approx(largest.max(), rel=1e-5)
    assert "s/last_relu" not in numbers.levels  # whose mean is the bottleneck


def test_what_is_shown_decides_and_how_it_is_dealt_out_does_not(
    graph_def: Any, photos: np.ndarray, numbers: int8.Int8
) -> None:
    again = int8.calibrated(graph_def, observe(graph_def), (photos[:4], photos[4:]), 127)
    assert int8.to_bytes(again, {}) == int8.to_bytes(numbers, {})
    other = int8.calibrated(graph_def, observe(graph_def), (photos[:1] // 2,), 127)
    assert int8.to_bytes(other, {}) != int8.to_bytes(numbers, {})


def test_the_steps_are_told(graph_def: Any, photos: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    note: Callable[[int, int], None] = lambda *step: told.append(step)  # noqa: E731
    int8.calibrated(graph_def, observe(graph_def), (photos[:1],), 127, note)
    assert told == [(done, CONVOLUTIONS) for done in range(1, CONVOLUTIONS + 1)]


def test_bytes_are_the_numbers_and_what_was_told(graph_def: Any, numbers: int8.Int8) -> None:
    data = int8.to_bytes(numbers, {"photos": ["ab"], "most": 127})
    assert int8.about_of(data)["photos"] == ["ab"]
    found = int8.from_bytes(data, graph_def)
    for name in ("kernels", "steps", "levels"):
        expected, got = getattr(numbers, name), getattr(found, name)
        assert expected.keys() == got.keys()
        for key, value in expected.items():
            assert value.dtype == got[key].dtype
            np.testing.assert_array_equal(value, got[key])


def test_numbers_larger_than_was_said_are_refused(graph_def: Any, numbers: int8.Int8) -> None:
    with pytest.raises(CacheError, match="no calibration gives"):
        int8.from_bytes(int8.to_bytes(numbers, {"most": 100}), graph_def)


@pytest.mark.parametrize(
    ("kernel", "strides", "is_same"),
    [
        ((3, 3), (1, 1), True),
        ((1, 7), (1, 1), True),
        ((3, 3), (2, 2), False),
        ((1, 1), (1, 1), True),
    ],
)
def test_patches_are_what_a_convolution_multiplies(
    kernel: tuple[int, int], strides: tuple[int, int], is_same: bool
) -> None:
    tf = import_tensorflow()
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 9, 9, 3)).astype(np.float32)
    weights = random.normal(size=(*kernel, 3, 1)).astype(np.float32)
    given = tf.nn.conv2d(x, weights, strides, "SAME" if is_same else "VALID").numpy().ravel()
    patches = int8._patches(x, ("x", kernel, strides, is_same), np.random.default_rng(1))
    apart = np.abs((patches @ weights.transpose(2, 0, 1, 3).ravel())[:, np.newaxis] - given)
    assert apart.min(axis=1).max() < 1e-4
    assert len(set(apart.argmin(axis=1))) > min(len(given), 20) // 2  # all over


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: data[:-1], "cut off"),
        (lambda data: data.partition(b"\n")[0] + b"\n", "cut off"),
        (lambda data: data + b"\0", "more in it"),
        (lambda data: data[:-4] + np.float32("nan").tobytes(), "no calibration gives"),
        (lambda data: data[:-4] + np.float32(0).tobytes(), "no calibration gives"),
        (lambda data: data[:-4] + np.float32("inf").tobytes(), "no calibration gives"),
        (lambda data: data.replace(b'"version": 1', b'"version": 9'), "of this version"),
        (lambda data: b"[1]\n" + data, "of this version"),
        (lambda data: b"[" * 100_000, "of this version"),
        (lambda data: b"", "of this version"),
    ],
)
def test_other_bytes_are_refused(
    graph_def: Any, numbers: int8.Int8, spoil: Callable[[bytes], bytes], problem: str
) -> None:
    with pytest.raises(CacheError, match=problem):
        int8.from_bytes(spoil(int8.to_bytes(numbers, {})), graph_def)
