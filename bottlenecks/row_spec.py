"""What a row is: what the network gives for one image, or for one variant of it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

IMAGE_KEY_BYTES = 32  # sha256 of an image file's content
VARIANT_KEY_BYTES = 64  # that, and the sha256 of what makes a variant of the image


@dataclass(frozen=True)
class RowSpec:
    """A ``name``, the ``shape`` and ``dtype`` of a row, and the ``input_size`` it is made from.

    ``dtype`` is NumPy's name of it; ``input_size`` (height, width) in pixels. Whatever limits rows
    follows from ``nbytes``: how many are committed at once, lie in a chunk, or are in memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    input_size: tuple[int, int]

    @classmethod
    def of(cls, rows: Any) -> "RowSpec":
        """That of an array or an HDF5 dataset (n, ...) of which nothing else is known."""
        return cls("rows", rows.shape[1:], rows.dtype.name, (0, 0))

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def rows_in(self, nbytes: int) -> int:
        """How many rows ``nbytes`` hold; one at least."""
        return max(1, nbytes // self.nbytes)

    def empty(self, rows: int) -> np.ndarray:
        """An array for so many rows, (rows, ...)."""
        return np.empty((rows, *self.shape), self.dtype)

    def fits(self, rows: np.ndarray) -> bool:
        """Whether an array holds such rows."""
        return rows.shape[1:] == self.shape and rows.dtype == self.dtype


# The cut that stage two trains on, unless told otherwise: InceptionV3's last pooling.
BOTTLENECK = RowSpec("bottleneck", (2048,), "float32", (299, 299))


def image_of(key: bytes) -> bytes:
    """The key of the image that a row's key is of: its first `IMAGE_KEY_BYTES`."""
    return key[:IMAGE_KEY_BYTES]
