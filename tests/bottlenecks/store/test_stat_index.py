"""The index answers only for a file that cannot have changed."""

import os
import time
from pathlib import Path

import pytest

from bottlenecks.photos.images import signature_of
from bottlenecks.store.folder import Folder
from bottlenecks.store.layout import INDEX_FILE
from bottlenecks.store.stat_index import StatIndex

SECOND = 1_000_000_000
OLD = 1_600_000_000 * SECOND + 123_456_789  # a time long ago, with a fraction of a second
SIGNATURE = (100, OLD, OLD + 1, 7)  # size, mtime_ns, ctime_ns, inode
HASH = bytes(range(32))
LATER = OLD + 3600 * SECOND


@pytest.fixture
def index(tmp_path: Path) -> StatIndex:
    """An index that knows ``/a.jpg``."""
    index = StatIndex(Folder(tmp_path))
    index.put("/a.jpg", SIGNATURE, HASH, LATER)
    return index


def file_of(index: StatIndex) -> Path:
    return index.store.folder / INDEX_FILE


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_hit_before_and_after_saving(index: StatIndex) -> None:
    assert index.get("/a.jpg", SIGNATURE) == HASH
    index.save()
    assert StatIndex(index.store).get("/a.jpg", SIGNATURE) == HASH


def test_what_is_not_saved_is_not_there(index: StatIndex) -> None:
    assert StatIndex(index.store).get("/a.jpg", SIGNATURE) is None
    assert not file_of(index).exists()


def test_an_unknown_path_is_a_miss(index: StatIndex) -> None:
    assert index.get("/b.jpg", SIGNATURE) is None


@pytest.mark.parametrize("field", range(4), ids=["size", "mtime", "ctime", "inode"])
def test_a_changed_signature_is_a_miss(index: StatIndex, field: int) -> None:
    index.save()
    changed = list(SIGNATURE)
    changed[field] += 1
    size, mtime, ctime, inode = changed
    assert StatIndex(index.store).get("/a.jpg", (size, mtime, ctime, inode)) is None


@pytest.mark.parametrize("field", [1, 2], ids=["mtime", "ctime"])
@pytest.mark.parametrize(
    ("changed_ns", "age_ns", "remembered"),
    [
        (LATER, 0, False),
        (LATER, -SECOND, False),  # a time stamp in the future
        (LATER, 10_000_000, False),
        (LATER, 30_000_000, True),
        (LATER // SECOND * SECOND, SECOND, False),  # whole seconds: a coarse file system?
        (LATER // SECOND * SECOND, 3 * SECOND, True),
    ],
)
def test_a_file_as_young_as_its_reading_is_not_remembered(
    tmp_path: Path, field: int, changed_ns: int, age_ns: int, remembered: bool
) -> None:
    signature = (100, changed_ns, OLD, 7) if field == 1 else (100, OLD, changed_ns, 7)
    index = StatIndex(Folder(tmp_path))
    index.put("/a.jpg", signature, HASH, changed_ns + age_ns)
    assert index.get("/a.jpg", signature) == (HASH if remembered else None)


def test_a_racy_file_is_forgotten_for_good(index: StatIndex) -> None:
    index.save()
    young = (100, LATER, LATER, 7)
    index.put("/a.jpg", young, HASH, LATER)
    index.save()
    reopened = StatIndex(index.store)
    assert reopened.get("/a.jpg", young) is None
    assert reopened.get("/a.jpg", SIGNATURE) is None


def test_a_real_edit_of_the_same_size_and_mtime_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")
    before = path.stat()
    index = StatIndex(Folder(tmp_path))
    index.put(str(path), signature_of(before), HASH, time.time_ns() + 10 * SECOND)
    assert index.get(str(path), signature_of(path.stat())) == HASH
    time.sleep(0.03)  # more than a tick of the kernel's clock
    path.write_bytes(b"new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert index.get(str(path), signature_of(after)) is None


@pytest.mark.parametrize("position", [0, 63, 64, 70, -1])
def test_a_flipped_bit_makes_it_empty(index: StatIndex, position: int) -> None:
    index.save()
    flip_bit(file_of(index), position)
    assert StatIndex(index.store).get("/a.jpg", SIGNATURE) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"\n\n", b"null"])
def test_a_damaged_file_is_ignored_and_replaced(index: StatIndex, data: bytes) -> None:
    file_of(index).write_bytes(data)
    again = StatIndex(index.store)
    assert again.get("/a.jpg", SIGNATURE) is None
    again.put("/a.jpg", SIGNATURE, HASH, LATER)
    again.save()
    assert StatIndex(index.store).get("/a.jpg", SIGNATURE) == HASH


def test_a_truncated_file_is_ignored(index: StatIndex) -> None:
    index.save()
    data = file_of(index).read_bytes()
    for length in range(0, len(data), 9):
        file_of(index).write_bytes(data[:length])
        assert StatIndex(index.store).get("/a.jpg", SIGNATURE) is None


def test_names_that_are_not_utf8_round_trip(index: StatIndex) -> None:
    names = [os.fsdecode(b"/ros\xe9.jpg"), "/rosé.jpg", "/a\nb.jpg", "/🌹"]
    for i, name in enumerate(names):
        index.put(name, SIGNATURE, bytes([i]) * 32, LATER)
    index.save()
    again = StatIndex(index.store)
    assert [again.get(name, SIGNATURE) for name in names] == [bytes([i]) * 32 for i in range(4)]


def test_saving_without_a_change_writes_nothing(index: StatIndex) -> None:
    index.save()
    before = file_of(index).stat()
    index.save()
    StatIndex(index.store).save()
    assert signature_of(file_of(index).stat()) == signature_of(before)
