"""OpenVINO gives the rows of TensorFlow, and in 8 bits rows that are near them."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bottlenecks import machine
from bottlenecks.errors import CacheError, UsageError
from bottlenecks.network.engines import bfloat16, int8, openvino_graph, with_openvino
from bottlenecks.network.engines.bfloat16 import FLOAT32_CONVOLUTIONS
from bottlenecks.network.engines.engine import ENGINES
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.messages import constants_of
from bottlenecks.network.names import ENGINES as NAMES
from tests.small_network import small as small  # a fixture

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)
Small = Callable[[], InceptionV3]


def photos(count: int = 8) -> np.ndarray:
    """Smooth pictures, as photos are."""
    random = np.random.default_rng(7)
    coarse = random.integers(0, 256, (count, 13, 13, 3)).astype(np.uint8)
    return coarse.repeat(23, axis=1).repeat(23, axis=2)


def numbers_for(network: InceptionV3, most: int) -> bytes:
    graph_def, observe = with_openvino.observe(network.frozen)
    found = int8.calibrated(graph_def, observe, (photos(),), most)
    return int8.to_bytes(found, {"most": most})


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


def test_the_engines_are_those_that_the_flags_name() -> None:
    assert tuple(ENGINES) == NAMES


def test_float32_rows_are_those_of_tensorflow_and_are_shared_with_it(small: Small) -> None:
    one = small()
    other = one.computed_in("float32", "openvino")
    np.testing.assert_allclose(other(photos()), one(photos()), rtol=1e-4, atol=1e-5)
    assert other.fingerprint == one.fingerprint
    assert other(photos()[:0].reshape(0, 299, 299, 3)).shape == (0, 2048)


@pytest.mark.parametrize("most", [64, 127])
def test_rows_of_8_bits_are_near_those_of_float32(
    small: Small, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small()
    numbers = numbers_for(network, most)
    for instructions in (0, most):  # as floats that are whole, and in 8 bits
        if instructions > machine.most_of_int8():
            continue  # this processor would cut off what is large
        monkeypatch.setattr(machine, "most_of_int8", lambda found=instructions: found)
        of_int8 = network.computed_in("int8", "openvino", numbers)
        assert 0 < distance(of_int8(photos()), network(photos())) < 0.05
        assert of_int8(photos()[:3]).dtype == np.float32
        monkeypatch.undo()


def test_the_same_numbers_give_nearly_the_same_rows_without_instructions(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    if machine.most_of_int8() < 64:
        pytest.skip("this processor has no instructions for 8 bits")
    network = small()
    numbers = numbers_for(network, 64)
    with_them = network.computed_in("int8", "openvino", numbers)(photos())
    monkeypatch.setattr(machine, "most_of_int8", lambda: 0)
    without = network.computed_in("int8", "openvino", numbers)(photos())
    assert distance(with_them, without) < 0.2 * distance(with_them, network(photos()))


@pytest.mark.parametrize(("here", "most"), [(64, 64), (127, 64), (64, 127), (0, 64)])
def test_openvino_is_told_of_levels_where_the_processor_multiplies_them_exactly(
    small: Small, monkeypatch: pytest.MonkeyPatch, here: int, most: int
) -> None:
    network = small()
    made: list[Any] = []
    numbers = numbers_for(network, most)
    monkeypatch.setattr(machine, "most_of_int8", lambda: here)

    def model(*arguments: Any) -> Any:
        made.append(openvino_graph.model_of(*arguments))
        return made[-1]

    monkeypatch.setattr(with_openvino, "model_of", model)
    with_openvino.start(network.frozen, None, "int8", numbers)
    kinds = {operation.get_type_name() for operation in made[-1].get_ops()}
    assert ("FakeQuantize" in kinds) == (most <= here)


def test_the_hash_of_the_numbers_is_in_the_fingerprint(small: Small) -> None:
    network = small()
    numbers = numbers_for(network, 64)
    one = network.computed_in("int8", "openvino", numbers)
    other = network.computed_in("int8", "openvino", numbers[:-4] + np.float32(1).tobytes())
    assert len({network.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert one.description["precision"] == "int8"
    assert one.description["engine"] == "openvino"


def test_a_part_of_it_is_of_the_next_best_precision(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottlenecks.network import inception

    network = small()
    of_int8 = network.computed_in("int8", "openvino", b"{}\n")
    monkeypatch.setattr(inception, "cpu_has_bfloat16", lambda: False)
    assert of_int8.precision == "float32"
    assert of_int8.at("mixed7").fingerprint == network.at("mixed7").fingerprint
    monkeypatch.setattr(inception, "cpu_has_bfloat16", lambda: True)
    assert of_int8.precision == "bfloat16"
    assert of_int8.at("mixed7").description["precision"] == "bfloat16"


def test_numbers_of_another_network_are_an_error(small: Small) -> None:
    network = small()
    spoiled = network.computed_in("int8", "openvino", numbers_for(network, 64)[:-1])
    with pytest.raises(CacheError, match=r"8 bits.*cut off.*remove"):
        spoiled(photos())


def test_int8_needs_numbers_and_nothing_else_takes_them(small: Small) -> None:
    for precision, numbers in (("int8", None), ("float32", b"{}\n")):
        with pytest.raises(UsageError, match="calibration"):
            small().computed_in(precision, "openvino", numbers)


def test_bfloat16_kernels_are_rounded_and_the_rows_are_those_of_openvino(small: Small) -> None:
    network = small()
    graph_def, _ = with_openvino.observe(network.frozen)
    rounded = with_openvino.with_rounded_kernels(graph_def)
    before, after = (constants_of(x) for x in (graph_def, rounded))
    changed = [name for name in before if (before[name] != after[name]).any()]
    kernels = [one.kernel for one in int8.convolutions_of(graph_def)]
    assert len(changed) == len(kernels) + 1 - FLOAT32_CONVOLUTIONS
    marks = {"engine": "openvino", "openvino": 1, "bfloat16": bfloat16.VERSION}
    assert with_openvino.marks("bfloat16") == marks
