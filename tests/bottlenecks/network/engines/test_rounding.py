"""Kernels in whole numbers give nearly what they gave, on inputs like those that were shown."""

import numpy as np
import pytest

from bottlenecks.network.engines.rounding import rounded


def inputs(rows: int = 400, d: int = 150) -> np.ndarray:
    """(rows, d) float32 above 0 whose columns go along with each other."""
    random = np.random.default_rng(1)
    mixed = random.normal(size=(rows, 12)) @ random.normal(size=(12, d))
    found: np.ndarray = np.maximum(mixed + 2, 0).astype(np.float32)
    return found


def moments(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = (x.T @ x / len(x)).astype(np.float32)
    return found


@pytest.mark.parametrize("most", [7, 64, 127])
def test_what_comes_out_is_closer_than_by_rounding_to_the_nearest(most: int) -> None:
    x = inputs()
    kernel = np.random.default_rng(2).normal(size=(x.shape[1], 8)).astype(np.float32)
    whole, steps = rounded(kernel, moments(x), most)
    assert (whole.dtype.name, steps.dtype.name) == ("int8", "float32")
    assert (whole.shape, steps.shape) == (kernel.shape, kernel.shape[1:])
    assert np.abs(whole).max() == most
    nearest = np.rint(kernel / steps) * steps
    assert np.linalg.norm(x @ (whole * steps - kernel)) < 0.5 * np.linalg.norm(
        x @ (nearest - kernel)
    )


def test_each_number_is_within_the_range_and_near_its_weight() -> None:
    x = inputs()
    kernel = np.random.default_rng(3).normal(size=(x.shape[1], 4)).astype(np.float32)
    whole, steps = rounded(kernel, moments(x), 64)
    assert np.abs(whole).max() <= 64
    assert np.abs(whole * steps - kernel).max() < 8 * steps.max()


def test_numbers_that_go_along_with_nothing_are_rounded_to_the_nearest() -> None:
    kernel = np.random.default_rng(4).normal(size=(200, 4)).astype(np.float32)
    whole, steps = rounded(kernel, np.eye(200, dtype=np.float32), 127)
    np.testing.assert_array_equal(whole, np.rint(kernel / steps))


def test_a_kernel_of_zeros_and_inputs_that_were_never_seen_are_no_trouble() -> None:
    kernel = np.zeros((5, 3), np.float32)
    whole, steps = rounded(kernel, np.zeros((5, 5), np.float32), 127)
    assert not whole.any()
    np.testing.assert_array_equal(steps, np.ones(3))
