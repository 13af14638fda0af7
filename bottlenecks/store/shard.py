"""One shard: rows <-> the bytes of an immutable HDF5 file that is named by their sha256.

Nothing here touches the disk. Bytes are checked against the name before HDF5 parses them,
because its own checksum (fletcher32) covers the data but not the file's structure; then the
structure is checked before a row is read, because a cache may come from somebody else.
"""

import hashlib
import io
import math
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from bottlenecks.errors import CacheError, DamagedShardError, OtherRowsError
from bottlenecks.row_spec import IMAGE_KEY_BYTES, VARIANT_KEY_BYTES, RowSpec

SUFFIX = ".h5"
FORMAT = "retrain-bottlenecks-1"
_CHUNK_BYTES = 2**20
_DTYPES = ("float32", "float16", "uint8")  # of rows
_MOST_DIMENSIONS = 4
_CHECKSUM_BYTES = 4  # fletcher32, at the end of each chunk


def pack(
    fingerprint: str, spec: RowSpec, keys: np.ndarray, vectors: np.ndarray
) -> tuple[str, bytes]:
    """Make a shard of ``keys`` (n, 32 or 64) uint8 and ``vectors`` (n, ...) of ``spec``, n > 0.

    Returns its file name and bytes. The same rows give the same bytes. Raises ``ValueError`` for
    rows of another kind.
    """
    if spec.dtype not in _DTYPES or not 1 <= len(spec.shape) < _MOST_DIMENSIONS or not spec.nbytes:
        raise ValueError(f"rows of this kind are not kept: {spec}")
    if keys.shape[1] not in (IMAGE_KEY_BYTES, VARIANT_KEY_BYTES) or len(keys) != len(vectors):
        raise ValueError(f"{keys.shape} bytes are no keys of {len(vectors)} rows")
    if not spec.fits(vectors):
        raise ValueError(f"rows are {vectors.shape[1:]} {vectors.dtype}, expected {spec}")
    # HDF5's core driver builds the file in memory; the name is never opened.
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["fingerprint"] = np.bytes_(fingerprint)
        chunk_rows = min(len(keys), spec.rows_in(_CHUNK_BYTES))
        for name, data in (("vectors", vectors), ("sha256", keys)):
            chunks = (chunk_rows, *data.shape[1:])
            file.create_dataset(name, data=data, chunks=chunks, fletcher32=True)
        file.flush()
        image: bytes = file.id.get_file_image()
    return name_of(image), image


def name_of(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest() + SUFFIX


def unpack_keys(name: str, image: bytes, fingerprint: str, spec: RowSpec) -> np.ndarray:
    """The keys (n, 32 or 64) uint8 of a shard; raises as `unpack` does."""
    with _checked(name, image, fingerprint, spec) as file:
        keys: np.ndarray = file["sha256"][...]
        return keys


def describe(name: str, image: bytes, beginning: str) -> tuple[str, RowSpec]:
    """The whole fingerprint, of which ``beginning`` is 12 digits, and what rows a shard holds.

    Raises `DamagedShardError`, also for rows of no kind that this program writes.
    """
    with _checked(name, image, beginning, None) as file:
        return bytes(file.attrs["fingerprint"]).decode("ascii"), RowSpec.of(file["vectors"])


def unpack(
    name: str, image: bytes, fingerprint: str, spec: RowSpec
) -> tuple[np.ndarray, np.ndarray]:
    """The keys (n, 32 or 64) uint8 and rows (n, ...) of ``spec``.

    Raises `DamagedShardError`, and `OtherRowsError` where it is sound but of another kind of rows.
    """
    with _checked(name, image, fingerprint, spec) as file:
        keys, vectors = file["sha256"][...], file["vectors"][...]
    if not np.isfinite(vectors).all():
        raise DamagedShardError("it holds numbers that are not finite")
    return keys, vectors


def unpack_offsets(
    name: str, image: bytes, fingerprint: str, spec: RowSpec
) -> tuple[np.ndarray, np.ndarray]:
    """The keys (n, 32 or 64) uint8 and where in the file each row of ``spec`` begins, (n,) int64.

    Raises as `unpack` does.

    Chunks are stored as they are, row by row, each with 4 bytes of checksum at its end.
    """
    with _checked(name, image, fingerprint, spec) as file:
        vectors = file["vectors"]
        rows = vectors.chunks[0]
        offsets = np.empty(-(-len(vectors) // rows), np.int64)

        def place(chunk: Any) -> None:
            offsets[chunk.chunk_offset[0] // rows] = chunk.byte_offset

        vectors.id.chunk_iter(place)
        within = np.arange(rows) * spec.nbytes
        return file["sha256"][...], (offsets[:, None] + within).reshape(-1)[: len(vectors)]


@contextmanager
def _checked(name: str, image: bytes, fingerprint: str, spec: RowSpec | None) -> Any:
    if name_of(image) != name:
        raise DamagedShardError("its bytes are not those it was written with")
    try:
        with h5py.File(io.BytesIO(image), "r") as file:
            _check_structure(file, len(image), fingerprint, spec)
            yield file
    except (CacheError, MemoryError):
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ...
        raise DamagedShardError(f"it is no readable HDF5 file ({error})") from error


def _check_structure(file: h5py.File, size: int, fingerprint: str, spec: RowSpec | None) -> None:
    """Only what `pack` makes passes: no links to other files, no filters but fletcher32.

    Without a ``spec`` rows of any kind that can be packed do; with one, those of another kind
    raise `OtherRowsError` where all else is sound.
    """
    if sorted(file) != ["sha256", "vectors"]:
        raise DamagedShardError("it does not hold exactly the datasets sha256 and vectors")
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise DamagedShardError(f"{name} is a link to somewhere else")
        if file.get(name, getclass=True) is not h5py.Dataset:
            raise DamagedShardError(f"{name} is no dataset")
    keys, vectors = file["sha256"], file["vectors"]
    if keys.ndim != 2 or keys.shape[1] not in (IMAGE_KEY_BYTES, VARIANT_KEY_BYTES):
        raise DamagedShardError(f"sha256 is {keys.shape}, expected (n, 32) or (n, 64)")
    if not 2 <= vectors.ndim <= _MOST_DIMENSIONS or vectors.dtype.name not in _DTYPES:
        raise DamagedShardError(f"vectors are {vectors.shape} {vectors.dtype}")
    found = RowSpec.of(vectors)
    _check_dataset(keys, keys.shape, np.dtype("u1"), size)
    little_endian = np.dtype(found.dtype).newbyteorder("<")
    _check_dataset(vectors, (len(keys), *found.shape), little_endian, size)
    # Of the fingerprint the 12 digits of the folder's name may be all that is known.
    for name, expected in (("format", FORMAT), ("fingerprint", fingerprint)):
        attribute = file.attrs.get_id(name) if name in file.attrs else None
        if attribute is None or attribute.shape != () or attribute.dtype.kind != "S":
            raise DamagedShardError(f"it has no {name}")
        value = bytes(file.attrs[name]).decode("ascii", "replace")
        if value != expected and (name == "format" or value[:12] != expected):
            raise DamagedShardError(f"it is of the {name} {value[:64]}, not {expected}")
    if spec is not None and (found.shape, found.dtype) != (spec.shape, spec.dtype):
        raise OtherRowsError(
            f"its rows are {found.shape} {found.dtype}, expected {spec.shape} {spec.dtype}"
        )


def _check_dataset(
    data: h5py.Dataset, shape: tuple[int, ...], dtype: np.dtype[Any], size: int
) -> None:
    name = data.name.strip("/")
    if data.shape != shape or data.dtype != dtype:
        raise DamagedShardError(f"{name} is {data.shape} {data.dtype}, expected {shape} {dtype}")
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if data.is_virtual or data.external or filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise DamagedShardError(f"{name} is stored in a way that this program does not write")
    # Without compression a dataset cannot hold more than its file.
    if not 0 < data.size * dtype.itemsize <= size or data.id.get_storage_size() > size:
        raise DamagedShardError(f"{name} declares more data than the file has")
    _check_chunks(data, size)


def _check_chunks(data: h5py.Dataset, size: int) -> None:
    """Each chunk holds whole rows, is there, and lies in the file; HDF5 does not check its size."""
    rows, *rest = data.chunks
    expected = math.prod(data.chunks) * data.dtype.itemsize + _CHECKSUM_BYTES
    found = set()

    def check(chunk: Any) -> None:
        if (
            chunk.filter_mask == 0
            and chunk.size == expected
            and chunk.byte_offset + chunk.size <= size
        ):
            found.add(chunk.chunk_offset)

    data.id.chunk_iter(check)
    places = {(start, *[0] * len(rest)) for start in range(0, len(data), rows)}
    if tuple(rest) != data.shape[1:] or data.file.userblock_size or found != places:
        raise DamagedShardError(
            f"{data.name.strip('/')} is stored in chunks that this program does not write"
        )
