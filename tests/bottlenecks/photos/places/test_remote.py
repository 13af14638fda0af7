"""A bucket of a real S3 server on loopback, and what stores say of versions."""

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bottlenecks.builder import build
from bottlenecks.cli import main
from bottlenecks.config import Config
from bottlenecks.errors import BadImageError, ImageFolderError, ImageFolderNotFoundError
from bottlenecks.forks import PerProcess
from bottlenecks.photos.labels import scan
from bottlenecks.photos.places import store
from bottlenecks.photos.places.remote import signature_in
from bottlenecks.photos.places.tree import UNKNOWN
from bottlenecks.photos.reading import file_bytes, threads_for
from bottlenecks.store.folder import Folder
from bottlenecks.store.stat_index import StatIndex
from tests.conftest import Call, Run, assert_one_error_line, make_dataset
from tests.places import in_memory, in_s3, s3_server
from tests.standin import StandIn

SECRETS = ("AKIDNOTTOBESHOWN", "not-to-be-shown")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 images in each of 3 labels, and some odd names."""
    folder = make_dataset(tmp_path_factory.mktemp("own") / "Dataset", 4)
    for name in ("a b%41#ü.jpg", "100%.jpg", "+&::.jpg", "no suffix", "[x]*.jpg"):
        shutil.copy(folder / "cyan" / "cyan_000.jpg", folder / "cyan" / name)
    (folder / "cyan" / ".hidden.jpg").write_bytes(b"x")
    (folder / "notes.txt").write_text("notes")
    return folder


@pytest.fixture(scope="module")
def photos(bucket: str, folder: Path) -> str:
    """The address of the same in the bucket."""
    return in_s3(bucket, folder, "some/photos")


def config(photos: str, tmp_path: Path) -> Config:
    return Config(image_dir=photos, bottleneck_dir=str(tmp_path / "cache"))


class Requests:
    """Counts the requests to the S3 server, by their names."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        import s3fs

        self.names: list[str] = []
        real = s3fs.S3FileSystem._call_s3

        async def call(own: Any, method: str, *arguments: Any, **options: Any) -> Any:
            self.names.append(method)
            return await real(own, method, *arguments, **options)

        patch.setattr(s3fs.S3FileSystem, "_call_s3", call)


def test_a_bucket_is_the_folder(photos: str, folder: Path, tmp_path: Path) -> None:
    own, found = scan(folder), scan(photos)
    assert found.images == own.images
    assert (found.counts, found.passed_over) == (own.counts, own.passed_over)
    local = build(config(str(folder), tmp_path / "1"), extractor=StandIn())
    remote = build(config(photos, tmp_path / "2"), extractor=StandIn())
    assert [image.key for image in remote.images] == [image.key for image in local.images]
    assert (remote.computed, remote.copies, remote.failed) == (12, 5, ())


def test_a_warm_run_reads_no_photo(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(config(photos, tmp_path), extractor=StandIn())
    requests = Requests(monkeypatch)
    report = build(config(photos, tmp_path), extractor=StandIn())
    assert (report.computed, report.cached) == (0, 17)
    assert requests.names.count("get_object") == 1  # the start of "no suffix"
    assert requests.names.count("list_objects_v2") <= 2


def test_a_photo_that_was_replaced_is_read_again(bucket: str, folder: Path, tmp_path: Path) -> None:
    import s3fs

    photos = in_s3(bucket, folder, "replaced")
    build(config(photos, tmp_path), extractor=StandIn())
    place = f"{bucket}/replaced/cyan/cyan_000.jpg"
    data = bytearray(s3fs.S3FileSystem().cat_file(place))
    data[-20] ^= 1
    s3fs.S3FileSystem().pipe_file(place, bytes(data))  # of the same size, at once
    report = build(config(photos, tmp_path), extractor=StandIn())
    assert (report.computed, report.cached) == (1, 16)


def test_folders_are_listed_by_pages(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    for i in range(2500):
        backend.put_object(bucket, f"many/{'ab'[i % 2]}/{i}.jpg", b"x")
    requests = Requests(monkeypatch)
    assert len(scan(f"s3://{bucket}/many").images) == 2500
    assert len(requests.names) <= 6
    assert "get_object" not in requests.names


def test_a_hundred_thousand_objects() -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/many/a/0.jpg", b"x")
    file = memory.store["/many/a/0.jpg"]
    names = [f"/many/{'ab'[i % 2]}/{i}.jpg" for i in range(100_000)]
    try:
        memory.store.update(dict.fromkeys(names, file))
        assert scan("memory://many").counts == {"a": 50_000, "b": 50_000}
    finally:
        for name in names:
            memory.store.pop(name, None)


def test_sets_may_lie_anywhere(photos: str, folder: Path, bucket: str) -> None:
    test_dir = in_s3(bucket, folder, "held out")
    names = [image.name for image in scan(folder, test_dir=make_copy(folder)).images]
    for found in (scan(photos, test_dir=test_dir), scan(folder, test_dir=test_dir)):
        assert sorted(image.name for image in found.images) == sorted(names)
        held_out = [image for image in found.images if image.given == "testing"]
        assert len(held_out) == 17
        with file_bytes(held_out[0].path) as (data, _):
            assert data
    above = {image.relpath.removesuffix(image.name) for image in held_out}
    assert above == {f"s3://{bucket}/held out/"}


def make_copy(folder: Path) -> Path:
    copy = folder.parent / "copy"
    if not copy.exists():
        shutil.copytree(folder, copy)
    return copy


def test_a_ready_made_split_is_recognised(bucket: str, folder: Path, tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        shutil.copytree(folder, tmp_path / "split" / name)
    address = in_s3(bucket, tmp_path / "split", "split")
    assert scan(address).images == scan(tmp_path / "split").images
    assert scan(address).sets.keys() == {"training", "validation", "testing"}
    within = scan(f"{address}/train", test_dir=f"{address}/test")
    own = scan(tmp_path / "split" / "train", test_dir=tmp_path / "split" / "test")
    assert within.images == own.images
    apart = scan(address.removesuffix("/split"), test_dir=f"{address}/test").images
    assert not [image for image in apart if not image.given]


def test_keys_that_no_file_can_have_are_passed_over(
    bucket: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import s3fs

    address = in_s3(bucket, folder, "odd")
    for key in ("cyan//a.jpg", "../b.jpg", "cyan/../../c.jpg"):
        s3fs.S3FileSystem().pipe_file(f"{bucket}/odd/{key}", b"x")
    assert len(scan(address).images) == 17
    assert "names that no file can have are passed over" in caplog.text
    assert all(".." not in image.path for image in scan(address).images)


def test_objects_that_stand_for_folders(bucket: str) -> None:
    import s3fs

    for key in ("", "daisy/", "roses/", "roses/a.jpg"):
        s3fs.S3FileSystem().pipe_file(f"{bucket}/marked/{key}", b"x" if "jpg" in key else b"")
    found = scan(f"s3://{bucket}/marked")
    assert [image.relpath for image in found.images] == ["roses/a.jpg"]
    assert found.empty_folders == ("daisy",)


def test_an_object_that_went_is_bad(bucket: str, folder: Path) -> None:
    address = in_s3(bucket, folder, "going")
    images = scan(address).images
    import s3fs

    s3fs.S3FileSystem().rm(f"{bucket}/going", recursive=True)
    gone = file_bytes(images[0].path, images[0].file.signature)
    with pytest.raises(BadImageError, match="cannot be read: it is not there"), gone:
        pass


def test_an_empty_object_is_bad_without_a_request(
    bucket: str, tmp_path: Path, folder: Path
) -> None:
    import s3fs

    address = in_s3(bucket, folder, "empty")
    s3fs.S3FileSystem().pipe_file(f"{bucket}/empty/cyan/empty.jpg", b"")
    report = build(config(address, tmp_path), extractor=StandIn())
    (bad,) = report.failed
    assert bad.path == f"{address}/cyan/empty.jpg"
    local = tmp_path / "local"
    shutil.copytree(folder, local)
    (local / "cyan" / "empty.jpg").touch()
    (own,) = build(config(str(local), tmp_path / "2"), extractor=StandIn()).failed
    assert own.reason == bad.reason


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{bucket}/nothing", ImageFolderNotFoundError, "does not exist"),
        ("no-such-bucket-here/photos", ImageFolderNotFoundError, "does not exist"),
        ("{bucket}/some/photos/notes.txt", ImageFolderNotFoundError, "is a file, not a folder"),
    ],
)
def test_where_there_is_no_folder(
    photos: str, bucket: str, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scan(f"s3://{name.format(bucket=bucket)}")


def test_without_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(store, "_stores", PerProcess(store._Stores))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImageFolderError, match=r"no credentials were found.*FSSPEC_S3_ANON=true"):
        scan(f"s3://{bucket}/some/photos")
    s3fs.S3FileSystem.clear_instance_cache()


def test_without_permission(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    async def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("key AKIDNOTTOBESHOWN may not")

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
    with pytest.raises(ImageFolderError, match=r"^cannot list s3://.*: no permission$"):
        scan(photos)


def test_the_command_and_nothing_secret_in_what_it_writes(
    photos: str, bucket: str, tmp_path: Path, run: Run
) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe_file(f"{bucket}/some/photos/cyan/bad.jpg", b"bad")
    try:
        line = ("tests.standin", "bottlenecks", "--image_dir", photos)
        first, second = run(*line), run(*line)
        assert first.returncode == second.returncode == 0, first.stderr
        assert "computed             12" in first.stdout
        assert "already cached       17" in second.stdout
        assert f"{photos}/cyan/bad.jpg: " in first.stdout
        assert not first.stderr
        for path in tmp_path.rglob("*"):
            if path.is_file():
                text = path.read_bytes()
                assert not [secret for secret in SECRETS if secret.encode() in text]
        (bad,) = tmp_path.rglob("bad_images.csv")
        assert photos in bad.read_text()
    finally:
        s3fs.S3FileSystem().rm(f"{bucket}/some/photos/cyan/bad.jpg")


def test_one_line_where_there_is_no_such_bucket(bucket: str, run: Run) -> None:
    result = run(
        "bottlenecks", "--image_dir", "s3://no-such-bucket-here/photos", "--weights=random"
    )
    assert_one_error_line(result, "s3://no-such-bucket-here/photos", "does not exist")


def test_rows_of_photos_that_are_gone_are_pruned(
    bucket: str, folder: Path, tmp_path: Path, call: Call
) -> None:
    import s3fs

    address = in_s3(bucket, folder, "pruned")
    line = ("--image_dir", address, "--bottleneck_dir", tmp_path / "cache")
    assert call(main, *line, extractor=StandIn()).returncode == 0
    s3fs.S3FileSystem().rm(f"{bucket}/pruned/yellow/yellow_001.jpg")
    result = call(main, "--prune", *line, "--yes")
    assert "1 of 12 rows" in result.stdout


def test_the_index_holds_nothing_of_the_user(tmp_path: Path, folder: Path) -> None:
    address = in_memory(folder, "photos").replace("memory://", "memory://me@")
    found = scan(in_memory(folder, "me@photos"))
    assert address == "memory://me@photos"
    assert found.absolute(found.images[0]).startswith("memory://photos/cyan/")


@pytest.mark.parametrize(
    ("about", "other"),
    [
        ({"ETag": '"a"', "size": 1}, {"ETag": '"b"', "size": 1}),
        ({"etag": '"a"', "size": 1}, {"etag": '"a"', "size": 2}),
        ({"generation": "1", "size": 1}, {"generation": "2", "size": 1}),
        ({"mtime": 1.5, "size": 1}, {"mtime": 1.6, "size": 1}),
        (
            {"created": datetime(2026, 1, 1, tzinfo=UTC), "size": 1},
            {"created": datetime(2026, 1, 2, tzinfo=UTC), "size": 1},
        ),
        ({"updated": "2026-01-01T00:00:00+00:00"}, {"updated": "2026-01-01T00:00:01+00:00"}),
    ],
)
def test_a_change_shows_in_the_signature(
    about: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    signature = signature_in(about)
    assert signature == signature_in(dict(about)) != signature_in(other)
    index = StatIndex(Folder(tmp_path))
    index.put("a", signature, bytes(32), time.time_ns())
    assert index.get("a", signature) == bytes(32)
    assert index.get("a", signature_in(other)) is None


@pytest.mark.parametrize("about", [{}, {"size": 7}, {"mtime": "?"}, {"ETag": ""}])
def test_what_says_nothing_is_not_remembered(about: dict[str, Any], tmp_path: Path) -> None:
    index = StatIndex(Folder(tmp_path))
    signature = signature_in(about)
    assert signature[1:] == UNKNOWN[1:]
    index.put("a", signature, bytes(32), time.time_ns())
    assert index.get("a", signature) is None


def test_more_photos_are_under_way_than_there_are_cores() -> None:
    assert threads_for(None, ["a.jpg"]) <= max(8, os.cpu_count() or 1)
    assert threads_for(None, ["a.jpg", "s3://bucket/a.jpg"]) >= 16
    assert threads_for(3, ["s3://bucket/a.jpg"]) == 3
