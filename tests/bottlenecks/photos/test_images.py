"""Which files of a folder are images, and of which label."""

import os
import unicodedata
from pathlib import Path

import pytest

from bottlenecks.errors import CacheError, ImageFolderError, ImageFolderNotFoundError
from bottlenecks.photos import images
from bottlenecks.photos.images import find_images, sniff
from bottlenecks.photos.labels import ImageFolder, normalise, scan
from bottlenecks.store.housekeeping import plan_pruning

JPEG = b"\xff\xd8\xff\xe0" + bytes(60)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


def put(path: Path, data: bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def relpaths(found: ImageFolder) -> list[str]:
    return [image.relpath for image in found.images]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one image of the label ``rose``."""
    put(tmp_path / "Dataset" / "rose" / "a.jpg")
    return tmp_path / "Dataset"


@pytest.mark.parametrize(
    ("folder_name", "label"),
    [
        ("daisy", "daisy"),
        ("Red Roses", "red roses"),
        ("Red_Roses (2019)", "red roses 2019"),
        ("__a--b..c__", "a b c"),
        ("007", "007"),
        ("Rosé", "rosé"),
        (unicodedata.normalize("NFD", "Rosé"), "rosé"),
        ("ÄRGER", "ärger"),
        ("Straße", "straße"),
        ("Ромашка", "ромашка"),
        ("たんぽぽ", "たんぽぽ"),
        ("हिन्दी", "हिन्दी"),  # vowel signs and the virama are combining marks
        ("İstanbul", unicodedata.normalize("NFC", "i̇stanbul")),
        ("rose\nred", "rose red"),
        (os.fsdecode(b"ros\xe9"), "ros"),
        ("🌹", ""),
        ("___", ""),
    ],
)
def test_labels(folder_name: str, label: str) -> None:
    assert normalise(folder_name) == label


@pytest.mark.parametrize("name", ["Rosé", "İstanbul", "हिन्दी", "Straße", "ΣΑΣ"])
def test_a_label_is_its_own_label_and_nfc(name: str) -> None:
    label = normalise(name)
    assert normalise(label) == label
    assert unicodedata.is_normalized("NFC", label)
    assert normalise(unicodedata.normalize("NFD", name)) == label


@pytest.mark.parametrize(
    ("header", "image_format"),
    [
        (b"\xff\xd8\xff\xdb", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WEBP"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "BMP"),
        (b"BM" + bytes(12) + b"\x7c\0\0\0", "BMP"),
        (b"BMW is a maker of cars and of motor cycles", None),
        (b"BM", None),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypmif1", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", None),  # a film
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_sniff(header: bytes, image_format: str | None) -> None:
    assert sniff(header) == image_format


def test_labels_paths_and_signatures(root: Path) -> None:
    daisy = put(root / "Daisy" / "b.jpg")
    found = scan(root)
    assert [(x.label, x.relpath, x.path) for x in found.images] == [
        ("daisy", "Daisy/b.jpg", str(daisy)),
        ("rose", "rose/a.jpg", str(root / "rose" / "a.jpg")),
    ]
    status = daisy.stat()
    assert found.images[0].file.signature == (
        *(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino),
    )
    assert (found.root, found.counts) == (str(root), {"daisy": 1, "rose": 1})
    assert (found.passed_over, found.empty_folders) == (0, ())


def test_a_trailing_slash_changes_no_relpath(root: Path) -> None:
    assert relpaths(scan(f"{root}/")) == relpaths(scan(root)) == ["rose/a.jpg"]


def test_two_folders_of_one_label_are_an_error_that_names_both(root: Path) -> None:
    put(root / "Red_Roses" / "a.jpg")
    put(root / "red roses" / "a.jpg")
    with pytest.raises(ImageFolderError) as caught:
        scan(root)
    for mention in ("'Red_Roses'", "'red roses'"):
        assert mention in str(caught.value)


def test_nfc_and_nfd_folders_are_one_label(root: Path) -> None:
    put(root / unicodedata.normalize("NFC", "é") / "a.jpg")
    put(root / unicodedata.normalize("NFD", "é") / "a.jpg")
    if len(list(root.iterdir())) == 2:
        pytest.skip("this file system has one name for both")
    with pytest.raises(ImageFolderError, match="same label"):
        scan(root)


def test_an_empty_folder_shares_a_label_with_no_harm(root: Path) -> None:
    (root / "Rose").mkdir()
    assert scan(root).empty_folders == ("Rose",)


def test_a_folder_name_that_makes_no_label(root: Path) -> None:
    put(root / "---" / "a.jpg")
    with pytest.raises(ImageFolderError, match="---"):
        scan(root)


def test_photos_in_sub_folders_belong_to_the_label(root: Path) -> None:
    put(root / "rose" / "2019" / "june" / "b.jpg")
    found = scan(root)
    assert found.counts == {"rose": 2}
    assert relpaths(found) == ["rose/2019/june/b.jpg", "rose/a.jpg"]


def test_what_is_no_image_is_passed_over_and_counted(root: Path) -> None:
    put(root / "LICENSE.txt", b"a licence")
    put(root / "stray.jpg")
    put(root / ".DS_Store")
    put(root / ".hidden" / "a.jpg")
    put(root / "rose" / ".hidden.jpg")
    put(root / "rose" / ".thumbnails" / "a.jpg")
    put(root / "rose" / "Thumbs.db", b"thumbs")
    put(root / "rose" / "notes", b"")
    found = scan(root)
    assert relpaths(found) == ["rose/a.jpg"]
    assert found.passed_over == 8


@pytest.mark.parametrize("data", [JPEG, PNG])
def test_an_image_without_suffix_is_found_by_its_content(root: Path, data: bytes) -> None:
    put(root / "rose" / "IMG_0001", data)
    put(root / "rose" / "photo.txt", data)
    assert relpaths(scan(root)) == ["rose/IMG_0001", "rose/a.jpg", "rose/photo.txt"]


def test_a_file_named_like_an_image_is_kept_unread(root: Path) -> None:
    for name in ("text.jpg", "b.JPEG", "c.heic", "d.tiff"):
        put(root / "rose" / name, b"a text")
    found = scan(root)
    assert {"rose/text.jpg", "rose/b.JPEG", "rose/c.heic", "rose/d.tiff"} < set(relpaths(found))
    assert not any(image.file.problem for image in found.images)


def test_a_text_that_begins_with_bm_is_no_image(root: Path) -> None:
    put(root / "rose" / "cars", b"BMW is a maker of cars and motor cycles, as you may know.")
    found = scan(root)
    assert (relpaths(found), found.passed_over) == (["rose/a.jpg"], 1)


def test_a_folder_without_images_is_named_and_no_label(root: Path) -> None:
    put(root / "tulip" / "notes.txt", b"text")
    found = scan(root)
    assert (found.empty_folders, found.counts) == (("tulip",), {"rose": 1})


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.* not exist"):
        scan(tmp_path / "nowhere")


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageFolderNotFoundError, match="is a file"):
        scan(put(tmp_path / "a.jpg"))


@pytest.mark.parametrize("stray", [[], ["LICENSE.txt"], ["tulip/notes.txt"]])
def test_no_images_at_all(tmp_path: Path, stray: list[str]) -> None:
    for name in stray:
        put(tmp_path / name, b"text")
    with pytest.raises(ImageFolderError, match="no images") as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_images_without_label_folders(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG"):
        put(tmp_path / name)
    with pytest.raises(ImageFolderError, match=r"2 images .*sub-folders"):
        scan(tmp_path)


def test_symlinks_are_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere" / "b.jpg")
    (root / "rose" / "linked.jpg").symlink_to(elsewhere)
    (root / "tulip").symlink_to(elsewhere.parent)
    (root / "rose" / "more").symlink_to(elsewhere.parent)
    found = scan(root)
    assert relpaths(found) == ["rose/a.jpg", "rose/linked.jpg", "rose/more/b.jpg", "tulip/b.jpg"]
    assert found.images[1].file.signature[0] == len(JPEG)


def test_a_symlinked_image_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert relpaths(scan(tmp_path / "link")) == ["rose/a.jpg"]


def test_a_link_to_a_folder_above_is_not_followed(root: Path) -> None:
    (root / "rose" / "self").symlink_to(root / "rose")
    (root / "rose" / "root").symlink_to(root)
    (root / "rose" / "deep").mkdir()
    (root / "rose" / "deep" / "up").symlink_to("..")
    found = scan(root)
    assert (relpaths(found), found.passed_over) == (["rose/a.jpg"], 3)


def test_a_link_to_the_image_folder_itself_is_no_label(root: Path) -> None:
    (root / "all").symlink_to(root)
    found = scan(root)
    assert (found.counts, found.passed_over) == ({"rose": 1}, 1)


def test_two_folders_that_link_to_each_other(root: Path) -> None:
    put(root / "tulip" / "b.jpg")
    (root / "rose" / "x").symlink_to(root / "tulip")
    (root / "tulip" / "y").symlink_to(root / "rose")
    assert relpaths(scan(root)) == [
        *("rose/a.jpg", "rose/x/b.jpg", "tulip/b.jpg", "tulip/y/a.jpg"),
    ]


def test_dangling_and_looping_links_are_a_problem(root: Path) -> None:
    (root / "rose" / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "rose" / "loop.jpg").symlink_to("loop.jpg")
    (root / "rose" / "dangling").symlink_to("nowhere")  # not named like an image
    found = scan(root)
    problems = {image.relpath: image.file.problem for image in found.images}
    assert list(problems) == ["rose/a.jpg", "rose/dangling.jpg", "rose/loop.jpg"]
    assert problems["rose/a.jpg"] == ""
    assert "link" in problems["rose/dangling.jpg"]
    assert "link" in problems["rose/loop.jpg"]
    assert found.passed_over == 1


def test_a_pipe_is_a_problem_and_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "rose" / "pipe.jpg")
    os.mkfifo(root / "rose" / "pipe")
    opened = []
    monkeypatch.setattr(images, "open", lambda path, *_: opened.append(path), raising=False)
    found = scan(root)
    assert opened == []
    assert found.passed_over == 1
    assert relpaths(found) == ["rose/a.jpg", "rose/pipe.jpg"]
    assert "regular" in found.images[1].file.problem


def test_names_that_are_not_utf8(root: Path) -> None:
    name = os.fsdecode(b"\xff\xe9.jpg")
    put(root / "rose" / name)
    put(root / os.fsdecode(b"tulipe\xff") / "c.jpg")
    found = scan(root)
    assert relpaths(found) == ["rose/a.jpg", f"rose/{name}", os.fsdecode(b"tulipe\xff/c.jpg")]
    assert found.images[2].label == "tulipe"


def test_a_name_with_a_newline(root: Path) -> None:
    put(root / "rose" / "a\nb.jpg")
    assert relpaths(scan(root)) == ["rose/a\nb.jpg", "rose/a.jpg"]


def test_order_is_that_of_the_bytes_of_the_relpath(root: Path) -> None:
    for name in ("b/a.jpg", "b-c/a.jpg", "rose/B.jpg", "rose/a/z.jpg", "rose/é.jpg", "rose/z.jpg"):
        put(root / name)
    put(root / "rose" / os.fsdecode(b"\x80.jpg"))
    found = relpaths(scan(root))
    assert len(found) == 8
    assert found == sorted(found, key=os.fsencode)
    assert found[:2] == ["b-c/a.jpg", "b/a.jpg"]


@pytest.fixture
def unreadable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder rose/2019 cannot be read, not by root either."""

    def scandir(folder: str) -> object:
        if str(folder).endswith("2019"):
            raise PermissionError(13, "Permission denied", folder)
        return listing(folder)

    listing = os.scandir
    put(root / "rose" / "2019" / "b.jpg")
    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.usefixtures("unreadable")
def test_an_unreadable_folder_is_listed_and_the_rest_is_found(root: Path) -> None:
    bad, good = scan(root).images
    assert good.relpath == "rose/a.jpg"
    assert (bad.relpath, bad.file.is_folder) == ("rose/2019", True)
    assert bad.file.problem == "is a folder that cannot be read: Permission denied"


@pytest.mark.usefixtures("unreadable")
def test_a_top_folder_that_is_unreadable_is_an_error(root: Path) -> None:
    (root / "rose" / "2019").rename(root / "2019")
    for look in (scan, find_images):
        with pytest.raises(ImageFolderError, match=r"2019.*Permission denied"):
            look(root / "2019")


@pytest.mark.usefixtures("unreadable")
def test_nothing_is_pruned_while_a_folder_is_unreadable(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / f"inception_v3-{12 * '0'}").mkdir(parents=True)
    with pytest.raises(CacheError, match="2019 is a folder that cannot be read"):
        plan_pruning(tmp_path / "cache", [], root)


def test_folders_deeper_than_a_path_can_be_long_are_listed(root: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(root / "rose")
        for _ in range(25):
            os.mkdir("deep" * 50)
            os.chdir("deep" * 50)
        Path("b.jpg").touch()
    finally:
        os.chdir(here)
    good, bad = scan(root).images
    assert good.relpath == "rose/a.jpg"
    assert bad.file.is_folder and "File name too long" in bad.file.problem


def test_find_images_is_recursive_and_sorted(root: Path) -> None:
    put(root / "z.jpg")
    put(root / "rose" / ".hidden.jpg")
    put(root / "rose" / "IMG", PNG)
    put(root / "notes.txt", b"text")
    assert find_images(root) == [str(root / name) for name in ("rose/IMG", "rose/a.jpg", "z.jpg")]
