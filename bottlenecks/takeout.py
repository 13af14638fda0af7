"""The cached rows of a data set as one HDF5 or NPZ file, for other programs."""

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from bottlenecks import atomic
from bottlenecks.builder import BuildReport
from bottlenecks.errors import utf8
from bottlenecks.store.vectors import Vectors, blocks, vectors_of

_HDF5_OVERHEAD = 2**20  # bytes, more than the format itself takes


def export_hdf5(report: BuildReport, path: str | os.PathLike[str]) -> None:
    """Write the readable images of ``report`` to an HDF5 file, a row each.

    ``vectors`` (n, 2048) float32, ``paths`` (n,) UTF-8 relative to the image folder, ``labels``
    (n,) int64 into ``label_names`` (C,) UTF-8. Of vectors that do not fit into memory a block at a
    time is read. Raises ``OSError`` with no file left.
    """
    vectors, columns = _vectors(report), _columns(report)
    atomic.make_parents(path)
    # HDF5 loses what goes wrong while it closes a file, so there must be room before it is opened.
    _check_room(path, len(vectors) * vectors.spec.nbytes + sum(a.nbytes for a in columns.values()))
    with atomic.replacing(path) as partial, h5py.File(partial, "x") as file:
        spec = vectors.spec
        rows = file.create_dataset("vectors", (len(vectors), *spec.shape), spec.dtype)
        start = 0
        for block in blocks(vectors):
            rows[start : start + len(block)] = block
            start += len(block)
        for name, array in columns.items():
            if array.dtype.kind == "U":
                file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=array)
        file.flush()


def export_npz(report: BuildReport, path: str | os.PathLike[str]) -> None:
    """The arrays of `export_hdf5` for ``np.load(path, allow_pickle=False)``."""
    vectors = _vectors(report)
    atomic.make_parents(path)
    # The format of np.savez, which would want all vectors in memory: an archive of NPY files.
    with atomic.replacing(path) as partial, zipfile.ZipFile(partial, "x") as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as file:
            for data in _as_npy(vectors):
                file.write(data)
        for name, array in _columns(report).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _check_room(path: str | os.PathLike[str], nbytes: int) -> None:
    free = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
    if free < nbytes + _HDF5_OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


def _vectors(report: BuildReport) -> Vectors:
    return vectors_of(report.cache, [image.key for image in report.images])


def _as_npy(vectors: Vectors) -> Iterator[bytes]:
    """The bytes of an NPY file (version 1.0), a block of rows at a time."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(np.dtype(vectors.spec.dtype)),
            "fortran_order": False,
            "shape": (len(vectors), *vectors.spec.shape),
        },
    )
    yield header.getvalue()
    for block in blocks(vectors):
        yield block.tobytes()


def _columns(report: BuildReport) -> dict[str, np.ndarray]:
    label_names = list(report.counts)
    number = {label: i for i, label in enumerate(label_names)}
    return {
        "paths": np.array([utf8(image.relpath) for image in report.images]),
        "labels": np.array([number[image.label] for image in report.images], np.int64),
        "label_names": np.array(label_names),
    }
