"""The cached vectors of a data set as one HDF5 or NPZ file, for other programs."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from bottlenecks import atomic
from bottlenecks.builder import BuildReport
from bottlenecks.errors import utf8


def export_hdf5(report: BuildReport, path: str | os.PathLike[str]) -> None:
    """Write the readable images of ``report`` to an HDF5 file, a row each.

    ``vectors`` (n, 2048) float32, ``paths`` (n,) UTF-8 relative to the image folder, ``labels``
    (n,) int64 into ``label_names`` (C,) UTF-8. Raises ``OSError`` with no file left.
    """
    with _partial(path) as partial, h5py.File(partial, "x") as file:
        for name, array in _arrays(report).items():
            if array.dtype.kind == "U":
                file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=array)


def export_npz(report: BuildReport, path: str | os.PathLike[str]) -> None:
    """The arrays of `export_hdf5` for ``np.load(path, allow_pickle=False)``."""
    with _partial(path) as partial, open(partial, "xb") as file:
        np.savez(file, **_arrays(report))  # type: ignore[arg-type]


def _arrays(report: BuildReport) -> dict[str, np.ndarray]:
    label_names = list(report.counts)
    number = {label: i for i, label in enumerate(label_names)}
    return {
        "vectors": report.cache.read(image.key for image in report.images),
        "paths": np.array([utf8(image.relpath) for image in report.images]),
        "labels": np.array([number[image.label] for image in report.images], np.int64),
        "label_names": np.array(label_names),
    }


@contextlib.contextmanager
def _partial(path: str | os.PathLike[str]) -> Iterator[Path]:
    atomic.make_parents(path)
    with atomic.replacing(path) as partial:
        yield partial
