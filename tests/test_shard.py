"""A shard gives back its rows, or `DamagedShardError`; never other rows."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottlenecks.errors import CacheError, DamagedShardError
from bottlenecks.shard import FORMAT, name_of, pack, unpack, unpack_keys

FINGERPRINT = "ab" * 32
ROWS = 5


def rows(count: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``count`` keys and vectors."""
    random = np.random.default_rng(seed)
    keys = random.integers(0, 256, (count, 32), np.uint8)
    return keys, random.random((count, 2048), np.float32)


KEYS, VECTORS = rows()
NAME, IMAGE = pack(FINGERPRINT, KEYS, VECTORS)


def flip_bit(image: bytes, position: int, bit: int = 0) -> bytes:
    flipped = bytearray(image)
    flipped[position] ^= 1 << bit
    return bytes(flipped)


def assert_damaged(name: str, image: bytes, fingerprint: str = FINGERPRINT) -> str:
    """Neither the keys nor the vectors are served; returns the reason."""
    with pytest.raises(DamagedShardError):
        unpack_keys(name, image, fingerprint)
    with pytest.raises(DamagedShardError) as caught:
        unpack(name, image, fingerprint)
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 1000])
def test_round_trip(count: int) -> None:
    keys, vectors = rows(count)
    name, image = pack(FINGERPRINT, keys, vectors)
    got_keys, got_vectors = unpack(name, image, FINGERPRINT)
    np.testing.assert_array_equal(got_keys, keys)
    np.testing.assert_array_equal(got_vectors, vectors)
    np.testing.assert_array_equal(unpack_keys(name, image, FINGERPRINT), keys)
    assert (got_keys.dtype, got_vectors.dtype) == (np.uint8, np.float32)


def test_the_same_rows_give_the_same_bytes_and_others_do_not() -> None:
    assert pack(FINGERPRINT, KEYS, VECTORS) == (NAME, IMAGE)
    assert name_of(IMAGE) == NAME
    for other in (
        pack(FINGERPRINT, KEYS[::-1], VECTORS),
        pack(FINGERPRINT, KEYS, VECTORS + 1),
        pack("cd" * 32, KEYS, VECTORS),
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
    pack(FINGERPRINT, KEYS, VECTORS)
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
        unpack(NAME, b"", FINGERPRINT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    vectors = VECTORS.copy()
    vectors[2, 1000] = value
    with pytest.raises(DamagedShardError, match="finite"):
        unpack(*pack(FINGERPRINT, KEYS, vectors), FINGERPRINT)


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
    "float16": make_vectors(VECTORS.astype(np.float16), **CHUNKS),
    "big endian": make_vectors(VECTORS.astype(">f4"), **CHUNKS),
    "integers": make_vectors(VECTORS.astype(np.int32), **CHUNKS),
    "fewer vectors than keys": make_vectors(VECTORS[:-1], chunks=(4, 2048)),
    "other width": make_vectors(VECTORS[:, :2047], chunks=(5, 2047)),
    "three dimensions": make_vectors(VECTORS[..., None], chunks=(5, 2048, 1)),
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


def hdf5(path: Path, fill: Fill) -> tuple[str, bytes]:
    """The name and bytes of an HDF5 file that ``fill`` filled."""
    with h5py.File(path, "w") as file:
        fill(file)
    image = path.read_bytes()
    return name_of(image), image


def test_the_frame_of_the_hostile_files_is_itself_accepted(tmp_path: Path) -> None:
    got = unpack(*hdf5(tmp_path / "a.h5", as_written), FINGERPRINT)
    np.testing.assert_array_equal(got[1], VECTORS)
    got = unpack(*hdf5(tmp_path / "b.h5", make_vectors(VECTORS, **CHUNKS)), FINGERPRINT)
    np.testing.assert_array_equal(got[1], VECTORS)


@pytest.mark.parametrize("fill", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_damaged(tmp_path: Path, fill: Fill) -> None:
    reason = assert_damaged(*hdf5(tmp_path / "a.h5", fill))
    assert reason
    assert "\n" not in reason


def test_a_hostile_file_opens_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links name a good shard beside it, which must not be read through them."""
    monkeypatch.chdir(tmp_path)
    hdf5(tmp_path / "other.h5", as_written)
    link = with_vectors(
        lambda file: file.__setitem__("vectors", h5py.ExternalLink("other.h5", "/vectors"))
    )
    for fill in (link, with_vectors(virtual)):
        assert_damaged(*hdf5(tmp_path / "a.h5", fill))
