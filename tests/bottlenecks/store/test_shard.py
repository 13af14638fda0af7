"""A shard gives back its rows, or `DamagedShardError`; never other rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottlenecks.errors import CacheError, DamagedShardError, OtherRowsError
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store.shard import FORMAT, name_of, pack, unpack, unpack_keys, unpack_offsets

FINGERPRINT = "ab" * 32
ROWS = 5


def rows(count: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``count`` keys and vectors."""
    random = np.random.default_rng(seed)
    keys = random.integers(0, 256, (count, 32), np.uint8)
    return keys, random.random((count, 2048), np.float32)


KEYS, VECTORS = rows()
NAME, IMAGE = pack(FINGERPRINT, BOTTLENECK, KEYS, VECTORS)


def flip_bit(image: bytes, position: int, bit: int = 0) -> bytes:
    flipped = bytearray(image)
    flipped[position] ^= 1 << bit
    return bytes(flipped)


def row_offsets(*shard: Any) -> np.ndarray:
    """Where each row begins, whose keys are those that the shard has."""
    keys, offsets = unpack_offsets(*shard)
    np.testing.assert_array_equal(keys, unpack_keys(*shard))
    return offsets


def assert_damaged(name: str, image: bytes, fingerprint: str = FINGERPRINT) -> str:
    """Neither the keys nor the vectors nor their places are served; returns the reason."""
    for serve in (unpack_keys, row_offsets):
        with pytest.raises(DamagedShardError):
            serve(name, image, fingerprint, BOTTLENECK)
    with pytest.raises(DamagedShardError) as caught:
        unpack(name, image, fingerprint, BOTTLENECK)
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 1000])
def test_round_trip(count: int) -> None:
    keys, vectors = rows(count)
    name, image = pack(FINGERPRINT, BOTTLENECK, keys, vectors)
    got_keys, got_vectors = unpack(name, image, FINGERPRINT, BOTTLENECK)
    np.testing.assert_array_equal(got_keys, keys)
    np.testing.assert_array_equal(got_vectors, vectors)
    np.testing.assert_array_equal(unpack_keys(name, image, FINGERPRINT, BOTTLENECK), keys)
    assert got_keys.dtype == np.uint8
    assert got_vectors.dtype == np.float32


@pytest.mark.parametrize("count", [1, 127, 128, 129, 1000])
def test_each_vector_lies_at_its_offset(count: int) -> None:
    keys, vectors = rows(count)
    name, image = pack(FINGERPRINT, BOTTLENECK, keys, vectors)
    assert_vectors_at(row_offsets(name, image, FINGERPRINT, BOTTLENECK), image, vectors)


def assert_vectors_at(offsets: np.ndarray, image: bytes, vectors: np.ndarray) -> None:
    assert offsets.shape == (len(vectors),)
    assert offsets.dtype == np.int64
    found = [np.frombuffer(image, "<f4", 2048, offset) for offset in offsets]
    np.testing.assert_array_equal(found, vectors)


def test_the_same_rows_give_the_same_bytes_and_others_do_not() -> None:
    assert pack(FINGERPRINT, BOTTLENECK, KEYS, VECTORS) == (NAME, IMAGE)
    assert name_of(IMAGE) == NAME
    for other in (
        pack(FINGERPRINT, BOTTLENECK, KEYS[::-1], VECTORS),
        pack(FINGERPRINT, BOTTLENECK, KEYS, VECTORS + 1),
        pack("cd" * 32, BOTTLENECK, KEYS, VECTORS),
    ):
        assert other[0] != NAME


def test_the_file_is_plain_hdf5_with_checksums(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(IMAGE)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["vectors"].fletcher32
        assert file["sha256"].fletcher32
        assert bytes(file.attrs["fingerprint"]).decode() == FINGERPRINT
        np.testing.assert_array_equal(file["vectors"], VECTORS)


def test_packing_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pack(FINGERPRINT, BOTTLENECK, KEYS, VECTORS)
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_anywhere_is_damage() -> None:
    random = np.random.default_rng(0)
    positions = [*range(0, 96, 4), *random.integers(96, len(IMAGE), 40), len(IMAGE) - 1]
    for position in positions:
        assert_damaged(NAME, flip_bit(IMAGE, position, int(random.integers(8))))


@pytest.mark.parametrize("length", [0, 1, 8, 512, len(IMAGE) // 2, len(IMAGE) - 1])
def test_a_truncated_shard_is_damaged(length: int) -> None:
    assert_damaged(NAME, IMAGE[:length])
    assert_damaged(name_of(IMAGE[:length]), IMAGE[:length])


def test_a_shard_that_grew_is_damaged() -> None:
    assert_damaged(NAME, IMAGE + b"\0")


def test_the_fingerprint_must_fit() -> None:
    reason = assert_damaged(NAME, IMAGE, "cd" * 32)
    assert "fingerprint" in reason
    assert FINGERPRINT in reason


def test_damage_is_a_cache_error() -> None:
    with pytest.raises(CacheError):
        unpack(NAME, b"", FINGERPRINT, BOTTLENECK)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    vectors = VECTORS.copy()
    vectors[2, 1000] = value
    with pytest.raises(DamagedShardError, match="finite"):
        unpack(*pack(FINGERPRINT, BOTTLENECK, KEYS, vectors), FINGERPRINT, BOTTLENECK)


# Hostile or foreign files, whose name fits their bytes. Each function fills an open file.

Fill = Callable[[h5py.File], object]


def put_attributes(file: h5py.File) -> None:
    file.attrs["format"] = np.bytes_(FORMAT)
    file.attrs["fingerprint"] = np.bytes_(FINGERPRINT)


def put_data(file: h5py.File, *names: str) -> None:
    for name, data in (("vectors", VECTORS), ("sha256", KEYS)):
        if name in names:
            file.create_dataset(name, data=data, chunks=data.shape, fletcher32=True)


def as_written(file: h5py.File) -> None:
    put_attributes(file)
    put_data(file, "vectors", "sha256")


def with_vectors(make: Fill) -> Fill:
    """All as it should be, but the vectors made by ``make``."""

    def fill(file: h5py.File) -> None:
        put_attributes(file)
        put_data(file, "sha256")
        make(file)

    return fill


def changed(change: Fill) -> Fill:
    def fill(file: h5py.File) -> None:
        as_written(file)
        change(file)

    return fill


def external_storage(file: h5py.File) -> None:
    file.create_dataset(
        "vectors", VECTORS.shape, np.float32, external=[("/etc/passwd", 0, VECTORS.nbytes)]
    )


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(VECTORS.shape, np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "vectors", VECTORS.shape)
    file.create_virtual_dataset("vectors", layout)


def huge(file: h5py.File) -> None:
    file.create_dataset("vectors", (10**9, 2048), np.float32, chunks=(128, 2048), fletcher32=True)


def never_filled(file: h5py.File) -> None:
    """Both datasets declare as many rows, of which not one is in the file."""
    put_attributes(file)
    for name, width, dtype in (("vectors", 2048, np.float32), ("sha256", 32, np.uint8)):
        file.create_dataset(name, (10**7, width), dtype, chunks=(128, width), fletcher32=True)


def no_rows(file: h5py.File) -> None:
    put_attributes(file)
    for name, width, dtype in (("vectors", 2048, np.float32), ("sha256", 32, np.uint8)):
        file.create_dataset(name, (0, width), dtype, chunks=(1, width), maxshape=(None, width),
                            fletcher32=True)  # fmt: skip


def soft_link_inside(file: h5py.File) -> None:
    file.move("vectors", "elsewhere")
    file["vectors"] = h5py.SoftLink("/elsewhere")


def make_vectors(data: object, **options: object) -> Fill:
    """Vectors of other data or stored in another way."""
    options.setdefault("fletcher32", True)
    return with_vectors(lambda file: file.create_dataset("vectors", data=data, **options))


def set_attribute(name: str, value: object, dtype: object = None) -> Fill:
    return changed(lambda file: file.attrs.create(name, value, dtype=dtype))


CHUNKS = {"chunks": VECTORS.shape}
HOSTILE: dict[str, Fill] = {
    "external link": with_vectors(
        lambda file: file.__setitem__("vectors", h5py.ExternalLink("/tmp/other.h5", "/vectors"))
    ),
    "dangling soft link": with_vectors(
        lambda file: file.__setitem__("vectors", h5py.SoftLink("/sha256"))
    ),
    "soft link and its target": changed(soft_link_inside),
    "external storage": with_vectors(external_storage),
    "virtual dataset": with_vectors(virtual),
    "gzip": make_vectors(VECTORS, **CHUNKS, compression="gzip"),
    "shuffle": make_vectors(VECTORS, **CHUNKS, shuffle=True),
    "no checksum": make_vectors(VECTORS, **CHUNKS, fletcher32=False),
    "contiguous": make_vectors(VECTORS, fletcher32=False),
    "huge shape": with_vectors(huge),
    "declared and never filled": never_filled,
    "no rows": no_rows,
    "float64": make_vectors(VECTORS.astype(np.float64), **CHUNKS),
    "big endian": make_vectors(VECTORS.astype(">f4"), **CHUNKS),
    "integers": make_vectors(VECTORS.astype(np.int32), **CHUNKS),
    "fewer vectors than keys": make_vectors(VECTORS[:-1], chunks=(4, 2048)),
    "one dimension": make_vectors(VECTORS[:, 0], chunks=(5,)),
    "five dimensions": make_vectors(VECTORS[..., None, None, None], chunks=(5, 2048, 1, 1, 1)),
    "no vectors": with_vectors(lambda file: None),
    "vectors are a group": with_vectors(lambda file: file.create_group("vectors")),
    "extra dataset": changed(lambda file: file.create_dataset("extra", data=[1])),
    "extra group": changed(lambda file: file.create_group("extra")),
    "keys of int8": changed(
        lambda file: (
            file.__delitem__("sha256"),
            file.create_dataset("sha256", data=KEYS.view(np.int8), fletcher32=True),
        )
    ),
    "no format": changed(lambda file: file.attrs.__delitem__("format")),
    "no fingerprint": changed(lambda file: file.attrs.__delitem__("fingerprint")),
    "another format": set_attribute("format", np.bytes_("retrain-bottlenecks-0")),
    "a format that begins alike": set_attribute("format", np.bytes_(FORMAT + "0")),
    "vlen fingerprint": set_attribute("fingerprint", FINGERPRINT, h5py.string_dtype()),
    "fingerprint of numbers": set_attribute("fingerprint", 5),
    "fingerprint array": set_attribute("fingerprint", np.array([FINGERPRINT.encode()] * 2)),
    "empty fingerprint": set_attribute("fingerprint", h5py.Empty("S10")),
    "somebody else's file": lambda file: file.create_dataset("weights", data=VECTORS),
    "empty": lambda file: None,
}
OTHER_ROWS: dict[str, Fill] = {
    "float16": make_vectors(VECTORS.astype(np.float16), **CHUNKS),
    "other width": make_vectors(VECTORS[:, :2047], chunks=(5, 2047)),
    "three dimensions": make_vectors(VECTORS[..., None], chunks=(5, 2048, 1)),
}


def hdf5(path: Path, fill: Fill, **options: object) -> tuple[str, bytes]:
    """The name and bytes of an HDF5 file that ``fill`` filled."""
    with h5py.File(path, "w", **options) as file:
        fill(file)
    image = path.read_bytes()
    return name_of(image), image


def test_the_frame_of_the_hostile_files_is_itself_accepted(tmp_path: Path) -> None:
    got = unpack(*hdf5(tmp_path / "a.h5", as_written), FINGERPRINT, BOTTLENECK)
    np.testing.assert_array_equal(got[1], VECTORS)
    got = unpack(*hdf5(tmp_path / "b.h5", make_vectors(VECTORS, **CHUNKS)), FINGERPRINT, BOTTLENECK)
    np.testing.assert_array_equal(got[1], VECTORS)


@pytest.mark.parametrize("fill", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_damaged(tmp_path: Path, fill: Fill) -> None:
    reason = assert_damaged(*hdf5(tmp_path / "a.h5", fill))
    assert reason
    assert "\n" not in reason


@pytest.mark.parametrize("fill", OTHER_ROWS.values(), ids=OTHER_ROWS)
def test_a_sound_file_of_other_rows_is_not_served_and_not_damaged(
    tmp_path: Path, fill: Fill
) -> None:
    name, image = hdf5(tmp_path / "a.h5", fill)
    for serve in (unpack, unpack_keys, row_offsets):
        with pytest.raises(OtherRowsError, match=r"its rows are .*, expected \(2048,\) float32"):
            serve(name, image, FINGERPRINT, BOTTLENECK)
    assert_damaged(name, image, "cd" * 32)


def test_a_hostile_file_opens_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links name a good shard beside it, which must not be read through them."""
    monkeypatch.chdir(tmp_path)
    hdf5(tmp_path / "other.h5", as_written)
    link = with_vectors(
        lambda file: file.__setitem__("vectors", h5py.ExternalLink("other.h5", "/vectors"))
    )
    for fill in (link, with_vectors(virtual)):
        assert_damaged(*hdf5(tmp_path / "a.h5", fill))


# Files that HDF5 reads, but whose rows are not where those of `pack` are.


def empty_vectors(file: h5py.File, chunk_rows: int = ROWS) -> h5py.Dataset:
    """Vectors of which no chunk is written, in a file that is large enough to hold them."""
    file.attrs["padding"] = np.zeros(60_000, np.uint8)
    return file.create_dataset(
        "vectors", VECTORS.shape, np.float32, chunks=(chunk_rows, 2048), fletcher32=True
    )


def first_chunks_only(file: h5py.File) -> None:
    empty_vectors(file, chunk_rows=2)[:4] = VECTORS[:4]


def last_chunk_only(file: h5py.File) -> None:
    empty_vectors(file, chunk_rows=2)[4:] = VECTORS[4:]


def without_checksum(file: h5py.File) -> None:
    """The filter's mask says that the checksum was left out for this chunk."""
    empty_vectors(file).id.write_direct_chunk((0, 0), VECTORS.tobytes(), filter_mask=1)


def of_one_chunk(name: str, data: np.ndarray, stored: bytes, rows: int = ROWS) -> Fill:
    """``name`` in one chunk of ``rows`` rows, of which ``stored`` is in the file."""

    def fill(file: h5py.File) -> None:
        as_written(file)
        del file[name]
        file.attrs["padding"] = np.zeros(60_000, np.uint8)
        shape = (rows, data.shape[1])
        file.create_dataset(
            name, data.shape, data.dtype, chunks=shape, maxshape=(None, shape[1]), fletcher32=True
        ).id.write_direct_chunk((0, 0), stored)

    return fill


MISPLACED: dict[str, Fill] = {
    "chunks of half a row": make_vectors(VECTORS, chunks=(5, 1024)),
    "chunks of one number": make_vectors(VECTORS, chunks=(5, 1)),
    "no chunk": with_vectors(empty_vectors),
    "the first chunks only": with_vectors(first_chunks_only),
    "the last chunk only": with_vectors(last_chunk_only),
    "a chunk without its checksum": with_vectors(without_checksum),
    # HDF5 would read on behind the few bytes that it has of these, as far as a crash.
    "a chunk of 100 bytes": of_one_chunk("vectors", VECTORS, bytes(100)),
    "a chunk one byte too short": of_one_chunk("vectors", VECTORS, bytes(VECTORS.nbytes + 3)),
    "a chunk one byte too long": of_one_chunk("vectors", VECTORS, bytes(VECTORS.nbytes + 5)),
    "a short chunk of 100,000 rows": of_one_chunk("vectors", VECTORS, bytes(100), rows=10**5),
    "keys of 16 bytes": of_one_chunk("sha256", KEYS, bytes(16)),
    "keys one byte too short": of_one_chunk("sha256", KEYS, bytes(KEYS.nbytes + 3)),
}


@pytest.mark.parametrize("fill", MISPLACED.values(), ids=MISPLACED)
def test_rows_that_are_not_where_they_should_be_are_damage(tmp_path: Path, fill: Fill) -> None:
    name, image = hdf5(tmp_path / "a.h5", fill)
    assert "stored in chunks that" in assert_damaged(name, image)  # so nothing else is wrong


@pytest.mark.parametrize("chunk_rows", [1, 2, 4, 5])
def test_chunks_of_other_heights_are_found(tmp_path: Path, chunk_rows: int) -> None:
    fill = make_vectors(VECTORS, chunks=(chunk_rows, 2048))
    name, image = hdf5(tmp_path / "a.h5", fill)
    assert_vectors_at(row_offsets(name, image, FINGERPRINT, BOTTLENECK), image, VECTORS)


def test_chunks_that_were_written_backwards_are_found(tmp_path: Path) -> None:
    def backwards(file: h5py.File) -> None:
        data = empty_vectors(file, chunk_rows=2)
        for start in (4, 2, 0):
            data[start : start + 2] = VECTORS[start : start + 2]
            file.flush()

    name, image = hdf5(tmp_path / "a.h5", with_vectors(backwards))
    offsets = row_offsets(name, image, FINGERPRINT, BOTTLENECK)
    assert offsets[4] < offsets[0]
    assert_vectors_at(offsets, image, VECTORS)


def test_a_chunk_taller_than_the_vectors_is_cut_to_them(tmp_path: Path) -> None:
    fill = make_vectors(VECTORS, chunks=(100, 2048), maxshape=(None, 2048))
    name, image = hdf5(tmp_path / "a.h5", fill)
    assert_vectors_at(row_offsets(name, image, FINGERPRINT, BOTTLENECK), image, VECTORS)


def test_a_file_with_bytes_before_its_beginning_is_damaged(tmp_path: Path) -> None:
    """HDF5 counts from the end of this userblock, the file's reader from its beginning."""
    name, image = hdf5(tmp_path / "a.h5", as_written, userblock_size=512)
    assert "stored in chunks that" in assert_damaged(name, image)


def chunk_address(image: bytes) -> int:
    """Where in the file the only chunk's address is written."""
    address = row_offsets(name_of(image), image, FINGERPRINT, BOTTLENECK)[0].tobytes()
    assert image.count(address) == 1
    return image.index(address)


@pytest.mark.parametrize(
    "address", [len(IMAGE) - 1, len(IMAGE) - 4 * 8192, len(IMAGE) + 1, 2**62, 2**63, 2**64 - 2]
)
def test_a_chunk_beyond_the_end_of_the_file_is_damage(address: int) -> None:
    image = bytearray(IMAGE)
    at = chunk_address(IMAGE)
    image[at : at + 8] = address.to_bytes(8, "little")
    with pytest.raises(DamagedShardError):
        row_offsets(name_of(bytes(image)), bytes(image), FINGERPRINT, BOTTLENECK)


def test_no_crafted_structure_leads_out_of_the_file() -> None:
    """Bytes of the file that are not of a vector are changed, under a name that fits."""
    first = int(row_offsets(NAME, IMAGE, FINGERPRINT, BOTTLENECK)[0])
    structure = [*range(first), *range(first + VECTORS.nbytes, len(IMAGE))]
    random = np.random.default_rng(0)
    refused = 0
    for position in random.choice(structure, 500, replace=False):
        image = flip_bit(IMAGE, position, int(random.integers(8)))
        try:
            offsets = row_offsets(name_of(image), image, FINGERPRINT, BOTTLENECK)
        except DamagedShardError:
            refused += 1
        else:
            assert (offsets >= 0).all()
            assert (offsets + 8192 <= len(image)).all()
    assert 10 < refused < 490
