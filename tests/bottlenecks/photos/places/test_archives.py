"""Archives are folders of photos, and hostile ones one bad image or one error."""

import io
import os
import random
import struct
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bottlenecks.errors import BadImageError, ImageFolderError, ImageFolderNotFoundError
from bottlenecks.photos import reading
from bottlenecks.photos.images import find_images
from bottlenecks.photos.labels import LabeledImage, scan
from bottlenecks.photos.places import archives, members, tars, zips
from bottlenecks.photos.places.place import source_of
from bottlenecks.photos.reading import file_bytes
from tests.places import tar_of, zip_of

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
Pack = Callable[[Path, Path], Path]
both = pytest.mark.parametrize("pack", [zip_of, tar_of])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labels of two images each, not all named as such, and some that are none."""
    files = {
        **{f"{label}/{i}.jpg": JPEG + f"{label}{i}".encode() for label in "ab" for i in range(2)},
        "a/no suffix": JPEG,
        "a/text.txt": b"no image",
        "a/.hidden.jpg": JPEG,
        ".hidden/1.jpg": JPEG,
        "a/2019/é.png": JPEG + b"2019",
    }
    for name, data in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "photos"


def read(path: str | Path) -> bytes:
    with file_bytes(path) as (data, _):
        return data


def make_zip(path: Path, *files: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def make_tar(path: Path, *files: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, data in files:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@both
def test_an_archive_is_the_folder_that_it_was_made_of(
    folder: Path, tmp_path: Path, pack: Pack
) -> None:
    archive = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")
    own, packed = scan(folder), scan(archive)
    assert packed.images == own.images
    assert (packed.passed_over, packed.counts) == (own.passed_over, own.counts)
    for one, other in zip(own.images, packed.images, strict=True):
        assert other.path == f"{archive}/{other.relpath}"
        assert read(other.path) == read(one.path)


@both
def test_a_folder_within_an_archive(folder: Path, tmp_path: Path, pack: Pack) -> None:
    archive = pack(folder.parent, tmp_path.parent / f"{tmp_path.name}.{pack.__name__[:3]}")
    assert scan(archive / "photos").images == scan(folder).images
    with pytest.raises(ImageFolderNotFoundError, match="does not exist"):
        scan(archive / "others")
    with pytest.raises(ImageFolderNotFoundError, match="is a file"):
        scan(archive / "photos/a/0.jpg")


@both
def test_sets_in_an_archive(folder: Path, tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "split").mkdir()
    for name in ("train", "test"):
        os.symlink(folder, tmp_path / "split" / name)
    (tmp_path / "all").mkdir()
    copy = tmp_path / "all" / "photos"
    os.system(f"cp -rL {tmp_path / 'split'} {copy}")
    archive = pack(copy, tmp_path / f"split.{pack.__name__[:3]}")
    assert scan(archive).images == scan(copy).images
    assert {image.given for image in scan(archive).images} == {"training", "testing"}
    apart = scan(archive / "train", test_dir=archive / "test")
    assert apart.images == scan(copy / "train", test_dir=copy / "test").images
    beside = scan(archive / "train", test_dir=folder)
    assert [image.name for image in beside.images] == [image.name for image in apart.images]
    assert beside.images[0].relpath.startswith("../../photos/")


def test_a_folder_may_be_called_like_an_archive(folder: Path, tmp_path: Path) -> None:
    os.rename(folder, tmp_path / "photos.zip")
    assert len(scan(tmp_path / "photos.zip").images) == 6
    zip_of(tmp_path / "photos.zip", tmp_path / "photos.zip" / "inner.zip")
    inside = scan(tmp_path / "photos.zip" / "inner.zip")
    assert len(inside.images) == 6
    assert read(inside.images[0].path) == read(tmp_path / "photos.zip" / "a" / "0.jpg")


@both
def test_threads_read_at_once(folder: Path, tmp_path: Path, pack: Pack) -> None:
    archive = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")
    images = scan(archive).images * 50
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: read(image.path), images))
    assert found == [read(folder / image.relpath) for image in images]


@both
def test_a_child_reads_too(folder: Path, tmp_path: Path, pack: Pack) -> None:
    archive = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")
    path = scan(archive).images[0].path
    with archives._opened().lock:  # as by another thread
        child = os.fork()
        if child == 0:
            os._exit(0 if read(path).startswith(JPEG) else 1)
        assert os.waitpid(child, 0)[1] == 0


@both
def test_the_signature_changes_with_the_archive_and_the_member(
    folder: Path, tmp_path: Path, pack: Pack
) -> None:
    archive = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")

    def signatures() -> dict[str, tuple[int, ...]]:
        return {image.relpath: image.file.signature for image in scan(archive).images}

    before = signatures()
    assert before == signatures()
    assert len(set(before.values())) == len(before)
    sizes = {name: (folder / name).stat().st_size for name in before}
    assert {name: signature[0] for name, signature in before.items()} == sizes
    os.utime(archive, ns=(1, 1))
    assert not set(before.values()) & set(signatures().values())


@both
def test_an_archive_that_is_changed_meanwhile(folder: Path, tmp_path: Path, pack: Pack) -> None:
    archive = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")
    source = source_of(str(archive))
    assert source is not None
    path = f"{archive}/a/0.jpg"
    assert source.read(path, 3) == JPEG[:3]
    with open(archive, "ab") as file:
        file.write(b"\0" * 10240)
    with pytest.raises(BadImageError, match="was changed while this ran"):
        source.read(path, 3)
    os.remove(archive)
    with pytest.raises(BadImageError, match="cannot be read"):
        read(path)


def test_few_archives_are_open_at_once(folder: Path, tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for i in range(10):
        scan(zip_of(folder, tmp_path / f"{i}.zip"))
    assert count() <= before + archives._MOST_OPEN


def bad_images(archive: Path) -> dict[str, str]:
    """Why each image of an archive cannot be read; empty for those that can."""

    def problem(image: LabeledImage) -> str:
        try:
            if image.file.problem:
                return image.file.problem
            with file_bytes(image.path, image.file.signature):
                return ""
        except BadImageError as error:
            return str(error)

    return {image.relpath: problem(image) for image in scan(archive).images}


def unix(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def test_members_of_a_zip_that_are_no_plain_files(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    path = make_zip(
        tmp_path / "photos.zip",
        ("a/good.jpg", JPEG),
        (unix("a/mode.jpg", 0o100644), JPEG),
        (unix("a/link.jpg", 0o120777), str(tmp_path / "secret.jpg").encode()),
        (unix("a/device.jpg", 0o020666), b""),
    )
    found = bad_images(path)
    assert found["a/good.jpg"] == found["a/mode.jpg"] == ""
    assert "link or a device" in found["a/link.jpg"]
    assert "link or a device" in found["a/device.jpg"]


def test_members_of_a_tar_that_are_no_plain_files(tmp_path: Path) -> None:
    kinds = {
        "link": (tarfile.SYMTYPE, "/etc/passwd"),
        "hard": (tarfile.LNKTYPE, "a/good.jpg"),
        "pipe": (tarfile.FIFOTYPE, ""),
        "device": (tarfile.CHRTYPE, ""),
    }
    path = make_tar(
        tmp_path / "photos.tar",
        (tar_info("a/good.jpg"), JPEG),
        *((tar_info(f"a/{name}.jpg", *kind), b"") for name, kind in kinds.items()),
    )
    found = bad_images(path)
    assert found.pop("a/good.jpg") == ""
    assert found.keys() == {f"a/{name}.jpg" for name in kinds}
    assert "link" in found["a/link.jpg"]
    assert "link" in found["a/hard.jpg"]
    assert "plain file" in found["a/pipe.jpg"]
    assert "plain file" in found["a/device.jpg"]


def test_a_sparse_file_of_a_tar_is_not_filled(tmp_path: Path) -> None:
    """It would be a terabyte that 10 KB stand for."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    info = tar_info("a/sparse.jpg")
    info.pax_headers = headers
    path = make_tar(tmp_path / "photos.tar", (info, b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)))
    (problem,) = bad_images(path).values()
    assert "plain file" in problem


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg"])
@both
def test_names_that_lead_out_are_an_error(tmp_path: Path, pack: Pack, name: str) -> None:
    path = tmp_path / f"photos.{pack.__name__[:3]}"
    if pack is zip_of:
        make_zip(path, ("a/1.jpg", JPEG), (name, JPEG))
    else:
        make_tar(path, (tar_info("a/1.jpg"), JPEG), (tar_info(name), JPEG))
    with pytest.raises(ImageFolderError, match=r"lie outside of it.*\.jpg.*unpack it"):
        scan(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@both
def test_two_members_of_one_name(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / f"photos.{pack.__name__[:3]}"
    names = ("a/1.jpg", "a/2.jpg", "a/1.jpg")
    if pack is zip_of:
        make_zip(path, *((name, JPEG + bytes([i])) for i, name in enumerate(names)))
    else:
        make_tar(path, *((tar_info(name), JPEG + bytes([i])) for i, name in enumerate(names)))
    found = bad_images(path)
    assert "more than once" in found["a/1.jpg"]
    assert found["a/2.jpg"] == ""


def patched(path: Path, find: bytes, offset: int, new: bytes) -> Path:
    """The archive with other bytes at an offset from each place where ``find`` is."""
    data = bytearray(path.read_bytes())
    at = data.find(find)
    while at >= 0:
        data[at + offset : at + offset + len(new)] = new
        at = data.find(find, at + len(find))
    path.write_bytes(data)
    return path


CENTRAL, LOCAL = b"PK\1\2", b"PK\3\4"


@pytest.mark.parametrize(
    ("offset", "new", "problem"),
    [
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 14), "method that is not read"),  # LZMA: its dictionary may be large
        (16, b"\1\2\3\4", "damaged"),  # the checksum
        (24, struct.pack("<I", 10), "damaged"),  # a size that is too small
        (24, struct.pack("<I", 2**28), "damaged"),  # and one too large
        (24, struct.pack("<I", 2**28 + 1), "MB, at most"),
        (20, struct.pack("<I", 10), "damaged"),  # the packed size
        (42, struct.pack("<I", 7), "damaged"),  # where it begins
        (42, struct.pack("<I", 2**31), "damaged"),
    ],
)
def test_lies_of_a_zip(tmp_path: Path, offset: int, new: bytes, problem: str) -> None:
    path = make_zip(tmp_path / "photos.zip", ("a/1.jpg", JPEG))
    (found,) = bad_images(patched(path, CENTRAL, offset, new)).values()
    assert problem in found


def test_a_bomb_is_unpacked_no_further_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 2**20)
    monkeypatch.setattr(reading, "LARGE_FILE_BYTES", 2**18)
    path = make_zip(tmp_path / "photos.zip", ("a/1.jpg", bytes(2**26)), ("a/2.jpg", JPEG))
    assert path.stat().st_size < 2**17
    patched(path, CENTRAL, 24, struct.pack("<I", 2**19))
    tracemalloc.start()
    found = bad_images(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["a/1.jpg"]
    assert most < 2**22


@both
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.98])
def test_an_archive_that_is_cut_off(folder: Path, tmp_path: Path, pack: Pack, share: float) -> None:
    path = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageFolderError, match=r"archive .* is no whole (zip|tar) archive"):
        scan(path)


def test_a_tar_that_is_cut_off_between_two_members(folder: Path, tmp_path: Path) -> None:
    path = tar_of(folder, tmp_path / "photos.tar")
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1].offset
    os.truncate(path, last)
    with pytest.raises(ImageFolderError, match="cut off"):
        scan(path)


@both
def test_damage_is_an_error_or_a_bad_image(folder: Path, tmp_path: Path, pack: Pack) -> None:
    """Whatever bytes are changed, nothing else is raised, and a zip serves no other bytes."""
    path = pack(folder, tmp_path / f"photos.{pack.__name__[:3]}")
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            found = bad_images(path)
        except ImageFolderError:
            continue
        if pack is zip_of:
            good = [name for name, problem in found.items() if not problem]
            assert all(read(path / name).startswith(JPEG) for name in good)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_of_a_tar_cannot_take_all_memory(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "photos.tar"
    with open(path, "wb") as file:
        info = tar_info("long", kind)
        info.size = 2**33
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**33 + 2**20)
    with pytest.raises(ImageFolderError, match="no whole tar"):
        scan(path)


def test_a_list_of_members_cannot_take_all_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_of(folder, tmp_path / "photos.zip")
    monkeypatch.setattr(zips, "MOST_LIST_BYTES", 200)
    with pytest.raises(ImageFolderError, match="no whole zip"):
        scan(path)
    path = tar_of(folder, tmp_path / "photos.tar")
    monkeypatch.setattr(tars, "MOST_MEMBERS", 3)
    with pytest.raises(ImageFolderError, match="more than 3 files"):
        scan(path)


def test_no_more_is_read_at_once_than_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    with open(tmp_path / "a", "rb") as file, members.Sparing(file, 10) as sparing:
        assert sparing.read(10) == bytes(10)
        for size in (11, -1, None):
            with pytest.raises(ValueError, match="too much"):
                sparing.read(size)
        sparing.seek(95)
        assert sparing.read() == bytes(5)
        assert sparing.read(2**40) == b""


@both
def test_a_hundred_thousand_members(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / f"photos.{pack.__name__[:3]}"
    names = [f"{'ab'[i % 2]}/{i}.jpg" for i in range(100_000)]
    if pack is zip_of:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"x")
    else:
        block = bytes(511)
        with open(path, "wb") as file:
            info = tar_info("")
            info.size = 1
            for name in names:
                info.name = name
                file.write(info.tobuf(tarfile.USTAR_FORMAT) + b"x" + block)
            file.write(bytes(1024))
    assert len(scan(path).images) == len(names)
    assert read(path / names[-1]) == b"x"


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.TGZ", "photos.7z", "photos.tar.xz"])
def test_what_has_no_random_access_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ImageFolderNotFoundError, match=r"packed so that .* unpack it"):
        scan(tmp_path / name)


def test_a_pipe_called_like_an_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photos.zip")
    with pytest.raises(ImageFolderNotFoundError, match="is a file"):
        scan(tmp_path / "photos.zip")


def test_large_members_are_read_one_at_a_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGE_FILE_BYTES", 100)
    path = zip_of(folder, tmp_path / "photos.zip")
    first, second = (image.path for image in scan(path).images[:2])
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with file_bytes(first) as (data, _):
            assert len(data) > 100
            pool.submit(read, second).add_done_callback(lambda _: done.set())
            assert not done.wait(0.2)
        assert done.wait(10)


@both
def test_find_images_in_an_archive(folder: Path, tmp_path: Path, pack: Pack) -> None:
    path = str(pack(folder, tmp_path / f"photos.{pack.__name__[:3]}"))
    source = source_of(path)
    assert source is not None
    expected = [found.replace(str(folder), path) for found in find_images(folder)]
    assert find_images(path, source) == expected
    assert find_images(f"{path}/b", source) == [f"{path}/b/{i}.jpg" for i in range(2)]
