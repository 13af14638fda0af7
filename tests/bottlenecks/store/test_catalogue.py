"""A catalogue gives the keys of the shard that it was made of, or nothing."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.photos.images import Signature
from bottlenecks.row_spec import BOTTLENECK, RowSpec
from bottlenecks.store import catalogue
from bottlenecks.store.catalogue import pack
from bottlenecks.store.folder import Folder

FINGERPRINT = "ab" * 32
SIGNATURE = (10_000, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790, 77)
KEYS = np.random.default_rng(0).integers(0, 256, (5, 32), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / f"{'0' * 64}.keys"
    path.write_bytes(pack(FINGERPRINT, BOTTLENECK, SIGNATURE, KEYS))
    return path


def read(path: Path, fingerprint: str, spec: RowSpec, signature: Signature) -> np.ndarray | None:
    """What a catalogue says, as a shelf reads it."""
    try:
        data, _ = Folder(path.parent).read(path.name, catalogue.most_bytes(signature))
    except OSError:
        return None
    return catalogue.unpack(data, fingerprint, spec, signature)


def keys_in(path: Path) -> np.ndarray | None:
    return read(path, FINGERPRINT, BOTTLENECK, SIGNATURE)


@pytest.mark.parametrize("key_bytes", [32, 64])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_round_trip(path: Path, count: int, key_bytes: int) -> None:
    keys = np.random.default_rng(1).integers(0, 256, (count, key_bytes), np.uint8)
    signature = (count * 100, *SIGNATURE[1:])
    path.write_bytes(pack(FINGERPRINT, BOTTLENECK, signature, keys))
    got = read(path, FINGERPRINT, BOTTLENECK, signature)
    assert got is not None
    np.testing.assert_array_equal(got, keys)
    assert got.dtype == np.uint8


@pytest.mark.parametrize("part", range(4))
def test_a_shard_that_looks_otherwise_has_none(path: Path, part: int) -> None:
    other = [*SIGNATURE]
    other[part] += 1
    assert read(path, FINGERPRINT, BOTTLENECK, (other[0], other[1], other[2], other[3])) is None


def test_another_fingerprint_has_none(path: Path) -> None:
    assert read(path, "cd" * 32, BOTTLENECK, SIGNATURE) is None
    assert read(path, FINGERPRINT[:12], BOTTLENECK, SIGNATURE) is None


@pytest.mark.parametrize(("shape", "dtype"), [((2047,), "float32"), ((2048,), "float16")])
def test_rows_of_another_kind_have_none(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    other = RowSpec("bottleneck", shape, dtype, (299, 299))
    assert read(path, FINGERPRINT, other, SIGNATURE) is None


def test_one_of_another_version_is_as_good_as_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "FORMAT", "retrain-keys-2")
    assert keys_in(path) is None


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        assert keys_in(path) is None, position


def test_every_truncation_is_noticed(path: Path) -> None:
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert keys_in(path) is None, length


def with_checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[: -KEYS.nbytes],  # no key at all
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: b" " + body,
        lambda body: body.replace(b'"key_bytes": 32', b'"key_bytes": 16'),
        lambda body: body.replace(b'"key_bytes": 32', b'"key_bytes": 10000000000'),
        lambda _: b"",
        lambda _: b"[" * 1000,
    ],
)
def test_what_this_program_would_not_write_is_as_good_as_none(
    path: Path, change: Callable[[bytes], bytes]
) -> None:
    """Though its checksum is right."""
    path.write_bytes(with_checksum(change(path.read_bytes()[32:])))
    assert keys_in(path) is None


def as_link(path: Path, good: Path) -> None:
    path.symlink_to(good)


def as_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def as_folder(path: Path, _: Path) -> None:
    path.mkdir()


def as_nothing(_: Path, __: Path) -> None:
    pass


@pytest.mark.parametrize("what", [as_link, as_pipe, as_folder, as_nothing])
def test_only_a_file_is_one(path: Path, what: Callable[[Path, Path], None]) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    what(path, moved)
    assert keys_in(path) is None


def test_one_larger_than_its_shard_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(path, "r+b") as file:
        file.truncate(2**40)  # sparse

    def read_whole(*_: object) -> bytes:
        raise AssertionError("it was hashed")

    monkeypatch.setattr(hashlib, "sha256", read_whole)
    assert keys_in(path) is None
