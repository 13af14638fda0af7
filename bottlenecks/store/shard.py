"""One shard: rows <-> the bytes of an immutable HDF5 file that is named by their sha256.

Nothing here touches the disk. Bytes are checked against the name before HDF5 parses them,
because its own checksum (fletcher32) covers the data but not the file's structure; then the
structure is checked before a row is read, because a cache may come from somebody else.
"""

import hashlib
import io
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from bottlenecks.errors import DamagedShardError

SUFFIX = ".h5"
KEY_BYTES = 32  # sha256 of an image file's content
VECTOR_SIZE = 2048
ROW_BYTES = VECTOR_SIZE * 4 + KEY_BYTES
FORMAT = "retrain-bottlenecks-1"
_CHUNK_ROWS = 128
_CHECKSUM_BYTES = 4  # fletcher32, at the end of each chunk


def pack(fingerprint: str, keys: np.ndarray, vectors: np.ndarray) -> tuple[str, bytes]:
    """Make a shard of ``keys`` (n, 32) uint8 and ``vectors`` (n, 2048) float32, n > 0.

    Returns its file name and bytes. The same rows give the same bytes.
    """
    rows = len(keys)
    # HDF5's core driver builds the file in memory; the name is never opened.
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["fingerprint"] = np.bytes_(fingerprint)
        for name, data in (("vectors", vectors), ("sha256", keys)):
            chunks = (min(rows, _CHUNK_ROWS), data.shape[1])
            file.create_dataset(name, data=data, chunks=chunks, fletcher32=True)
        file.flush()
        image: bytes = file.id.get_file_image()
    return name_of(image), image


def name_of(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest() + SUFFIX


def unpack_keys(name: str, image: bytes, fingerprint: str) -> np.ndarray:
    """The keys (n, 32) uint8 of a shard; raises `DamagedShardError`."""
    with _checked(name, image, fingerprint) as file:
        keys: np.ndarray = file["sha256"][...]
        return keys


def fingerprint_of(name: str, image: bytes, beginning: str) -> str:
    """The whole fingerprint of a shard whose fingerprint has this ``beginning``, 12 digits."""
    with _checked(name, image, beginning) as file:
        return bytes(file.attrs["fingerprint"]).decode("ascii")


def unpack(name: str, image: bytes, fingerprint: str) -> tuple[np.ndarray, np.ndarray]:
    """The keys (n, 32) uint8 and vectors (n, 2048) float32; raises `DamagedShardError`."""
    with _checked(name, image, fingerprint) as file:
        keys, vectors = file["sha256"][...], file["vectors"][...]
    if not np.isfinite(vectors).all():
        raise DamagedShardError("it holds numbers that are not finite")
    return keys, vectors


def row_offsets(name: str, image: bytes, fingerprint: str) -> np.ndarray:
    """Where in the file each vector begins, (n,) int64 bytes; raises `DamagedShardError`.

    Chunks are stored as they are, row by row, each with 4 bytes of checksum at its end.
    """
    with _checked(name, image, fingerprint) as file:
        vectors = file["vectors"]
        rows = vectors.chunks[0]
        offsets = np.empty(-(-len(vectors) // rows), np.int64)

        def place(chunk: Any) -> None:
            offsets[chunk.chunk_offset[0] // rows] = chunk.byte_offset

        vectors.id.chunk_iter(place)
        within = np.arange(rows) * (VECTOR_SIZE * 4)
        result: np.ndarray = (offsets[:, None] + within).reshape(-1)[: len(vectors)]
        return result


@contextmanager
def _checked(name: str, image: bytes, fingerprint: str) -> Any:
    if name_of(image) != name:
        raise DamagedShardError("its bytes are not those it was written with")
    try:
        with h5py.File(io.BytesIO(image), "r") as file:
            _check_structure(file, len(image), fingerprint)
            yield file
    except (DamagedShardError, MemoryError):
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ...
        raise DamagedShardError(f"it is no readable HDF5 file ({error})") from error


def _check_structure(file: h5py.File, size: int, fingerprint: str) -> None:
    """Only what `pack` makes passes: no links to other files, no filters but fletcher32."""
    if sorted(file) != ["sha256", "vectors"]:
        raise DamagedShardError("it does not hold exactly the datasets sha256 and vectors")
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise DamagedShardError(f"{name} is a link to somewhere else")
        if file.get(name, getclass=True) is not h5py.Dataset:
            raise DamagedShardError(f"{name} is no dataset")
    rows = file["sha256"].shape[0] if file["sha256"].ndim == 2 else -1
    _check_dataset(file["sha256"], (rows, KEY_BYTES), np.dtype("u1"), size)
    _check_dataset(file["vectors"], (rows, VECTOR_SIZE), np.dtype("<f4"), size)
    # Of the fingerprint the 12 digits of the folder's name may be all that is known.
    for name, expected in (("format", FORMAT), ("fingerprint", fingerprint)):
        attribute = file.attrs.get_id(name) if name in file.attrs else None
        if attribute is None or attribute.shape != () or attribute.dtype.kind != "S":
            raise DamagedShardError(f"it has no {name}")
        found = bytes(file.attrs[name]).decode("ascii", "replace")
        if found != expected and (name == "format" or found[:12] != expected):
            raise DamagedShardError(f"it is of the {name} {found[:64]}, not {expected}")


def _check_dataset(
    data: h5py.Dataset, shape: tuple[int, int], dtype: np.dtype[Any], size: int
) -> None:
    name = data.name.strip("/")
    if data.shape != shape or data.dtype != dtype:
        raise DamagedShardError(
            f"{name} is {data.shape} {data.dtype}, expected (n, {shape[1]}) {dtype}"
        )
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
    rows, columns = data.chunks
    expected = rows * columns * data.dtype.itemsize + _CHECKSUM_BYTES
    found = set()

    def check(chunk: Any) -> None:
        if (
            chunk.filter_mask == 0
            and chunk.size == expected
            and chunk.byte_offset + chunk.size <= size
        ):
            found.add(chunk.chunk_offset)

    data.id.chunk_iter(check)
    places = {(start, 0) for start in range(0, len(data), rows)}
    if columns != data.shape[1] or data.file.userblock_size or found != places:
        raise DamagedShardError(
            f"{data.name.strip('/')} is stored in chunks that this program does not write"
        )
