"""A store that fails, throttles or hangs: again, within a time, then one reason."""

import logging
import threading
import time
from pathlib import Path

import pytest

from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.errors import BadImageError, ImageFolderError, StoreLostError, UsageError
from bottlenecks.forks import PerProcess
from bottlenecks.photos.labels import scan
from bottlenecks.photos.places import store
from bottlenecks.photos.reading import file_bytes
from tests.conftest import make_dataset
from tests.places import Faults, faults, in_memory
from tests.standin import StandIn

__all__ = ["faults"]  # a fixture
SECRET = "not-to-be-shown"


@pytest.fixture
def photos(faults: type[Faults], tmp_path: Path) -> str:
    """The address of 4 images in each of 3 labels."""
    return in_memory(make_dataset(tmp_path / "Dataset", 4), "photos", "faulty")


def config(photos: str, tmp_path: Path) -> Config:
    return Config(image_dir=photos, bottleneck_dir=str(tmp_path / "cache"), batch_size=2)


def test_one_request_in_five_fails(photos: str, tmp_path: Path) -> None:
    Faults.each = 5
    report = build(config(photos, tmp_path), extractor=StandIn())
    assert (report.computed, report.failed) == (12, ())
    assert Faults.requests > 14  # a look, a list, and 12 photos


def test_a_photo_that_never_comes_is_bad_with_its_reason(photos: str) -> None:
    images = scan(photos).images
    Faults.each, Faults.after = 1, Faults.requests
    with pytest.raises(BadImageError, match=r"^cannot be read: it fails \(OSError\)$"):
        read(images[0].path)
    assert Faults.requests == Faults.after + 6


def read(path: str) -> bytes:
    with file_bytes(path) as (data, _):
        return data


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(SECRET), "it is not there"),
        (PermissionError(SECRET), "no permission"),
        (ValueError(SECRET), r"it fails \(ValueError\)"),
    ],
)
def test_what_is_final_is_not_asked_again(photos: str, error: Exception, reason: str) -> None:
    image = scan(photos).images[0]
    Faults.each, Faults.error, Faults.after = 1, error, Faults.requests
    with pytest.raises(BadImageError, match=f"^cannot be read: {reason}$"):
        read(image.path)
    assert Faults.requests == Faults.after + 1


def test_a_store_that_hangs_is_waited_for_no_longer_than_is_said(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scan(photos).images[0]
    monkeypatch.setattr(store, "_REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(store, "READ_SECONDS", 0.2)
    monkeypatch.setattr(store, "_SLOWEST", 1e12)
    Faults.hangs, Faults.after = True, Faults.requests
    with pytest.raises(BadImageError, match="does not answer in time"):
        read(image.path)
    assert Faults.requests > Faults.after + 1


@pytest.mark.parametrize("hangs", [True, False])
def test_a_folder_that_cannot_be_listed_is_one_error(
    photos: str, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(store, "CONTACT_SECONDS", 0.2)
    Faults.hangs, Faults.each = hangs, 1
    with pytest.raises(ImageFolderError, match=r"^cannot list faulty://photos: it ") as error:
        scan(photos)
    assert SECRET not in str(error.value)


def test_a_store_that_is_gone_ends_the_run_and_what_it_gave_is_kept(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a million photos would be waited for, one by one."""
    monkeypatch.setattr(store, "MOST_LOST", 3)
    Faults.each, Faults.after = 1, 8
    with pytest.raises(StoreLostError, match="gives no photos any more") as error:
        build(config(photos, tmp_path), extractor=StandIn())
    assert SECRET not in str(error.value)
    Faults.reset()
    store._stores().of_origin.clear()
    report = build(config(photos, tmp_path), extractor=StandIn())
    assert report.computed + report.cached == 12
    assert report.cached > 0


def test_some_that_fail_among_others_do_not_end_it(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_LOST", 2)
    monkeypatch.setattr(store, "_PAUSES", ())
    images = scan(photos).images
    Faults.each, Faults.requests = 2, 1
    for image in images:
        if Faults.requests % 2:
            with pytest.raises(BadImageError):
                read(image.path)
        else:
            read(image.path)


def test_a_warm_run_reads_no_photo(photos: str, tmp_path: Path) -> None:
    time.sleep(0.1)  # older than a tick of the clock
    build(config(photos, tmp_path), extractor=StandIn())
    before = Faults.requests
    report = build(config(photos, tmp_path), extractor=StandIn())
    assert (report.computed, report.cached) == (0, 12)
    assert Faults.requests == before + 2


def test_only_a_changed_photo_is_read_again(photos: str, tmp_path: Path) -> None:
    import fsspec

    time.sleep(0.1)
    build(config(photos, tmp_path), extractor=StandIn())
    memory = fsspec.filesystem("memory")
    changed = memory.cat_file("/photos/cyan/cyan_000.jpg") + b"\0"
    memory.pipe_file("/photos/cyan/cyan_000.jpg", changed)
    before = Faults.requests
    report = build(config(photos, tmp_path), extractor=StandIn())
    assert (report.computed, report.cached) == (1, 11)
    assert Faults.requests == before + 3


def test_requests_of_several_threads_overlap(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = threading.Barrier(8, timeout=10)
    monkeypatch.setattr(Faults, "meet", classmethod(lambda cls: None))
    images = scan(photos).images[:8]
    monkeypatch.setattr(Faults, "meet", classmethod(lambda cls: at_once.wait()))
    threads = [threading.Thread(target=read, args=[image.path]) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not at_once.broken


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing://bucket/photos", "nothing here knows addresses that begin with nothing://"),
        ("memory://photos::file:///etc", "is a chain of addresses"),
    ],
)
def test_an_address_that_is_not_followed(faults: type[Faults], address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scan(address)


@pytest.mark.parametrize(
    ("address", "packages"),
    [
        ("s3://bucket/photos", "fsspec s3fs"),
        ("gs://bucket/photos", "fsspec gcsfs"),
        ("abfs://box/photos", "fsspec adlfs"),
        ("https://host/photos", "fsspec aiohttp"),
        ("memory://photos", "fsspec"),
    ],
)
def test_what_is_missing_is_said_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, address: str, packages: str
) -> None:
    monkeypatch.setattr(store, "_stores", PerProcess(store._Stores))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"pip install {packages}$"):
        scan(address)


def test_nothing_of_a_store_s_own_words_is_logged(
    photos: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    Faults.each = 5
    with caplog.at_level(logging.INFO):
        build(config(photos, tmp_path), extractor=StandIn())
    assert SECRET not in caplog.text
