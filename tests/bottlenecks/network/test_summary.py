"""What is said of the network is what Keras builds, and adds up to what is published of it."""

import math
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from bottlenecks.cli import main
from bottlenecks.network.cuts import CUTS, SHAPES
from bottlenecks.network.inception import untrained
from bottlenecks.network.summary import (
    Kernel,
    Part,
    kernels_of,
    parts_of,
    reductions,
    summary,
    without_reductions,
)
from tests.conftest import Call, assert_one_error_line

CLASSES = 1000


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return parts_of(untrained(CLASSES))


@pytest.fixture(scope="module")
def kernels(parts: list[Part]) -> list[Kernel]:
    return kernels_of(parts)


@pytest.fixture(scope="module")
def text() -> str:
    return summary()


def multiply_adds(kernels: Iterable[Kernel]) -> int:
    return sum(kernel.multiply_adds for kernel in kernels)


def block(parts: list[Part], name: str) -> tuple[Kernel, ...]:
    """The convolutions of a block."""
    (part,) = [part for part in parts if part.name == name]
    return part.kernels


def test_the_totals_are_those_that_are_published(kernels: list[Kernel]) -> None:
    """Keras' table of its applications: 23.9 million; torchvision's of its models: 5.71 billion."""
    assert round(sum(kernel.parameters for kernel in kernels) / 1e6, 1) == 23.9
    assert round(multiply_adds(kernels) / 1e9, 2) == 5.71


@pytest.mark.parametrize("classes", [CLASSES, 7])
def test_no_parameter_is_left_out(classes: int) -> None:
    model = untrained(classes)
    counted = kernels_of(parts_of(model))
    assert sum(kernel.parameters for kernel in counted) == model.count_params()


def test_the_parts_end_where_the_network_can_be_cut(parts: list[Part]) -> None:
    assert [part.name for part in parts] == [*CUTS, "avg_pool", "predictions"]
    assert {part.name: part.shape for part in parts[:-2]} == SHAPES
    assert [part.shape for part in parts[-2:]] == [(2048,), (CLASSES,)]


def test_the_94_convolutions_lie_in_the_blocks_of_the_paper(parts: list[Part]) -> None:
    counts = {part.name: sum(1 for kernel in part.kernels if kernel.size) for part in parts}
    assert [counts[name] for name in CUTS] == [
        *(0, 1, 1, 1, 0, 1, 1, 0),
        *(7, 7, 7, 4, 10, 10, 10, 10, 6, 9, 9),
    ]


def test_the_first_block_by_hand(parts: list[Part]) -> None:
    """Branches of 1x1, 5x5, twice 3x3 and of pooling (Szegedy et al. 2015, figure 5)."""
    narrow = 64 + 48 + 64 + 32  # 1x1 convolutions of the 192 channels that come in
    with_them = 192 * narrow + 25 * 48 * 64 + 9 * (64 * 96 + 96 * 96)
    without = 192 * (64 + 32) + 25 * 192 * 64 + 9 * (192 * 96 + 96 * 96)
    assert multiply_adds(block(parts, "mixed0")) == 35 * 35 * with_them
    assert multiply_adds(without_reductions(block(parts, "mixed0"))) == 35 * 35 * without


def test_the_last_block_by_hand(parts: list[Part]) -> None:
    """What two convolutions read is widened for both (figure 7)."""
    branches = 3 * 384 * 384 * 4 + 9 * 448 * 384
    with_them = 2048 * (320 + 384 + 448 + 192) + branches
    wide = 2 * 3 * 2048 * 384 + 9 * 2048 * 384 + 2 * 3 * 384 * 384
    assert multiply_adds(block(parts, "mixed10")) == 8 * 8 * with_them
    assert multiply_adds(without_reductions(block(parts, "mixed10"))) == 8 * 8 * (
        2048 * (320 + 192) + wide
    )


def test_a_reduction_has_fewer_channels_and_a_convolution_behind(parts: list[Part]) -> None:
    """So the stem's 1x1, which widens 64 to 80, is none, nor are those whose output is joined."""
    found = reductions(kernels_of(parts))
    assert {kernel.size for kernel in found} == {(1, 1)}
    assert all(kernel.outputs < kernel.inputs for kernel in found)
    counts = [len(reductions(block(parts, f"mixed{i}"))) for i in range(11)]
    assert counts == [2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 2]
    assert len(found) == sum(counts)


def test_without_reductions_nothing_is_left_to_reduce(kernels: list[Kernel]) -> None:
    without = without_reductions(kernels)
    assert reductions(without) == []
    assert {kernel.outputs for kernel in without} <= {kernel.outputs for kernel in kernels}
    assert len(without) == len(kernels) - 21


def test_the_text_says_the_same(text: str, kernels: list[Kernel]) -> None:
    for name in [*CUTS, "avg_pool", "predictions"]:
        assert re.search(rf"^{name} ", text, re.MULTILINE), name
    for those in (kernels, without_reductions(kernels)):
        assert f"{sum(kernel.parameters for kernel in those):,}" in text
        assert f"{multiply_adds(those):,}" in text


def test_a_terminal_of_80_columns_shows_it(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80


def test_the_arithmetic_that_is_shown_is_right(text: str) -> None:
    shown = re.findall(r"((?:\d+ x ){3}\d+) = +([\d,]+) x ([\d,]+) = +([\d,]+)$", text, re.M)
    assert len(shown) == 3
    for factors, *numbers in shown:
        weights, places, products = (int(number.replace(",", "")) for number in numbers)
        assert math.prod(map(int, factors.split(" x "))) == weights
        assert weights * places == products


def test_the_command_prints_it_and_makes_nothing(call: Call, text: str, tmp_path: Path) -> None:
    result = call(main, "--summary")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == text + "\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "mention"), [(["--list"], "one at a time"), (["--export_npz=a.npz"], "with a run")]
)
def test_the_command_does_one_thing_at_a_time(call: Call, flags: list[str], mention: str) -> None:
    assert_one_error_line(call(main, "--summary", *flags), mention)
