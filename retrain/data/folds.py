"""Deal images into parts for cross-validation: by label, and a unit at a time."""

import numpy as np


def deal(units: np.ndarray, y: np.ndarray, folds: int) -> np.ndarray:
    """(n,) int64: the part, of ``folds``, that each image is in.

    Images of one unit (``units`` (n,) int64, see `retrain.data.dataset.Dataset`) share a part;
    those of each label ``y`` (n,) int64 are spread over the parts as evenly as that allows.
    """
    order = np.lexsort((y, units))
    _, starts = np.unique(units[order], return_index=True)
    in_label: dict[int, list[int]] = {}  # images of a label in each part
    in_all = [0] * folds
    part_of = np.empty(len(units), np.int64)
    labels = y[order].tolist()
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        own = [in_label.setdefault(label, [0] * folds) for label in labels[start:end]]
        part = min(range(folds), key=lambda f: (sum([c[f] for c in own]), in_all[f]))
        for counts in own:
            counts[part] += 1
        in_all[part] += end - start
        part_of[order[start:end]] = part
    return part_of


def can_be_judged(fold_of: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) bool: whether the images outside an image's part include some of its label."""
    cells = np.zeros((int(y.max()) + 1, int(fold_of.max()) + 1), np.int64)
    np.add.at(cells, (y, fold_of), 1)
    result: np.ndarray = (cells.sum(axis=1, keepdims=True) > cells)[y, fold_of]
    return result
