"""A ready-made split is used; what only looks like one is an error, and labels stay labels."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bottlenecks.errors import ImageFolderError, ImageFolderNotFoundError, UsageError
from bottlenecks.photos import images
from bottlenecks.photos.labels import ImageFolder, check_labels, scan, single_folder
from tests.conftest import photo


def make(folder: Path, paths: Iterable[str]) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        photo((200, 0, 0), 1).save(folder / path)
    return folder


def given(found: ImageFolder) -> dict[str, tuple[str, str, str]]:
    return {image.relpath: (image.label, image.given, image.name) for image in found.images}


@pytest.mark.parametrize(
    ("names", "sets"),
    [
        (("train", "validation"), ("training", "validation")),
        (("Train", "Val", "Test"), ("training", "validation", "testing")),
        (("training", "testing"), ("training", "testing")),
        (("train", "dev"), ("training", "validation")),
        (("training_set", "test_set"), ("training", "testing")),
        (("seg_train", "seg_test"), ("training", "testing")),
        (("train2017", "val2017"), ("training", "validation")),
        (("train", "valid", "holdout"), ("training", "validation", "testing")),
    ],
)
def test_a_ready_made_split_is_recognised(
    tmp_path: Path, names: tuple[str, ...], sets: tuple[str, ...]
) -> None:
    paths = [f"{name}/{label}/{label}.jpg" for name in names for label in ("Horses", "humans")]
    found = scan(make(tmp_path, paths))
    assert found.counts == {"horses": len(names), "humans": len(names)}
    assert found.sets == dict(zip(sets, names, strict=True))
    for name, set_ in zip(names, sets, strict=True):
        assert given(found)[f"{name}/Horses/Horses.jpg"] == ("horses", set_, "Horses/Horses.jpg")
    for image in found.images:
        assert os.path.samefile(found.absolute(image), image.path)


def test_photos_in_deeper_folders_belong_to_the_label_folder(tmp_path: Path) -> None:
    paths = ["train/a/2019/1.jpg", "train/b/2.jpg", "val/a/x/y/3.jpg", "val/b/4.jpg"]
    found = scan(make(tmp_path, paths))
    assert given(found)["val/a/x/y/3.jpg"] == ("a", "validation", "a/x/y/3.jpg")


@pytest.mark.parametrize(
    "beside", ["unlabeled/1.jpg", "test/1.jpg", "train/stray.jpg", "notes/2.jpg"]
)
def test_what_lies_beside_the_sets_without_labels_is_passed_over(
    tmp_path: Path, beside: str
) -> None:
    """As the photos of a competition whose labels are not given."""
    paths = ["train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/2.jpg", beside]
    found = scan(make(tmp_path, paths))
    assert len(found.images) == 4 and found.passed_over == 1
    assert set(found.sets) == {"training", "validation"}


SPLIT = [f"{name}/{label}/1.jpg" for name in ("train", "val") for label in "ab"]


@pytest.mark.parametrize(
    ("make_test", "why"),
    [
        (lambda test: make(test, ["1.jpg"]), "holds no label folders"),
        (lambda test: test.mkdir(), "holds no label folders"),
        (lambda test: (test / "a").mkdir(parents=True), "holds no label folders"),
        (lambda test: test.symlink_to("missing"), "is a link to nothing"),
        (lambda test: test.symlink_to("test"), "is a link to nothing"),
    ],
    ids=["loose photos", "empty", "empty labels", "dangling", "looping"],
)
def test_a_set_of_a_split_that_is_passed_over_is_one_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make_test: Callable[[Path], object],
    why: str,
) -> None:
    make_test(make(tmp_path, SPLIT) / "test")
    with caplog.at_level(logging.WARNING):
        found = scan(tmp_path)
    assert set(found.sets) == {"training", "validation"}
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{tmp_path / 'test'} is called as the testing set, but {why}")


def test_only_folders_that_are_called_as_sets_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, [*SPLIT, "unlabeled/1.jpg", ".test/1.jpg", "test/a/2.jpg", "test/b/2.jpg"])
    (tmp_path / "holdout").write_text("a file")
    with caplog.at_level(logging.WARNING):
        assert len(scan(tmp_path).images) == 6
        assert len(scan(tmp_path, test_dir=tmp_path / "test").images) == 6
        make(tmp_path / "labels", ["a/1.jpg", "b/1.jpg"])
        (tmp_path / "labels" / "test").mkdir()
        assert scan(tmp_path / "labels").empty_folders == ("test",)
    assert not caplog.records


@pytest.mark.parametrize(
    "paths",
    [
        ["train/1.jpg", "test/1.jpg"],
        ["train/a/1.jpg", "test/1.jpg"],
        ["val/a/1.jpg", "test/a/1.jpg"],
    ],
    ids=str,
)
def test_sets_without_labels_are_an_error_that_says_so(tmp_path: Path, paths: list[str]) -> None:
    with pytest.raises(ImageFolderError, match=r"looks like a ready-made split.*one folder"):
        scan(make(tmp_path, paths))


def test_two_folders_for_one_set_are_an_error(tmp_path: Path) -> None:
    paths = [f"{name}/{label}/1.jpg" for name in ("train1", "train2", "val") for label in "ab"]
    with pytest.raises(ImageFolderError, match=r"two folders for training, train1 and train2"):
        scan(make(tmp_path, paths))


@pytest.mark.parametrize("only", ["train", "val"])
def test_a_label_in_one_set_only_is_an_error(tmp_path: Path, only: str) -> None:
    paths = [f"{name}/{label}/1.jpg" for name in ("train", "val") for label in "ab"]
    with pytest.raises(ImageFolderError, match=rf"'c' is in the .* set only, {only}"):
        check_labels(scan(make(tmp_path, [*paths, f"{only}/c/1.jpg"])))


def test_folders_that_give_one_label_in_one_set_are_an_error_and_in_two_are_not(
    tmp_path: Path,
) -> None:
    make(tmp_path, ["train/Cats/1.jpg", "train/dogs/1.jpg", "val/cats/2.jpg", "val/dogs/2.jpg"])
    assert scan(tmp_path).counts == {"cats": 2, "dogs": 2}
    make(tmp_path, ["train/cats!/1.jpg"])
    with pytest.raises(ImageFolderError, match="give the same label 'cats'"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_set_beside_the_labels_is_no_label(tmp_path: Path, name: str) -> None:
    make(tmp_path, ["daisy/1.jpg", "Red Roses/1.jpg", f"{name}/daisy/2.jpg"])
    with pytest.raises(
        ImageFolderError, match=rf"{name} is no label but a set.*daisy.*--{name}_dir"
    ):
        scan(tmp_path)


@pytest.mark.parametrize(
    "paths",
    [
        ["train/steam/1.jpg", "bus/city/1.jpg"],
        ["train/1.jpg", "plane/1.jpg", "bus/1.jpg"],
        ["train station/1.jpg", "train interior/1.jpg"],
        ["pregnancy test/1.jpg", "covid test/1.jpg"],
        ["test/paper/1.jpg", "exam/paper/1.jpg"],
    ],
    ids=str,
)
def test_labels_that_happen_to_be_called_as_sets_are_labels(
    tmp_path: Path, paths: list[str]
) -> None:
    found = scan(make(tmp_path, paths))
    assert not found.sets
    assert set(found.counts) == {path.split("/")[0] for path in paths}


# Sets that lie elsewhere.


def test_sets_elsewhere_are_named(tmp_path: Path) -> None:
    make(tmp_path / "D", ["a/1.jpg", "b/1.jpg"])
    make(tmp_path / "held" / "V", ["a/x/1.jpg", "b/1.jpg"])
    make(tmp_path / "T", ["A/9.jpg", "B/9.jpg"])
    found = scan(
        tmp_path / "D", validation_dir=tmp_path / "held" / "V", test_dir=str(tmp_path / "T")
    )
    assert given(found) == {
        "a/1.jpg": ("a", "training", "a/1.jpg"),
        "b/1.jpg": ("b", "training", "b/1.jpg"),
        "../held/V/a/x/1.jpg": ("a", "validation", "a/x/1.jpg"),
        "../held/V/b/1.jpg": ("b", "validation", "b/1.jpg"),
        "../T/A/9.jpg": ("a", "testing", "A/9.jpg"),
        "../T/B/9.jpg": ("b", "testing", "B/9.jpg"),
    }
    assert set(found.sets) == {"training", "validation", "testing"}
    for image in found.images:
        assert os.path.samefile(found.absolute(image), image.path)


def test_label_folders_without_images_are_named_in_each_set(tmp_path: Path) -> None:
    for name in ("D", "V", "T"):
        make(tmp_path / name, ["a/1.jpg", "b/1.jpg"])
        (tmp_path / name / f"empty in {name}").mkdir()
    found = scan(tmp_path / "D", validation_dir=tmp_path / "V", test_dir=tmp_path / "T")
    assert found.empty_folders == ("empty in D", "empty in V", "empty in T")
    make(tmp_path / "S", SPLIT)
    (tmp_path / "S" / "empty").mkdir()
    assert scan(tmp_path / "S").empty_folders == ("empty",)


def test_a_set_elsewhere_completes_a_ready_made_split(tmp_path: Path) -> None:
    make(tmp_path / "D", [f"{name}/{label}/1.jpg" for name in ("train", "val") for label in "ab"])
    make(tmp_path / "T", ["a/9.jpg", "b/9.jpg"])
    found = scan(tmp_path / "D", test_dir=tmp_path / "T")
    assert Counter(image.given for image in found.images) == {
        "training": 2,
        "validation": 2,
        "testing": 2,
    }
    with pytest.raises(UsageError, match=r"--validation_dir .* is a second set: .* holds val"):
        scan(tmp_path / "D", validation_dir=tmp_path / "T")
    same = scan(tmp_path / "D", validation_dir=tmp_path / "D" / "val")  # that it holds already
    assert Counter(image.given for image in same.images) == {"training": 2, "validation": 2}


def test_one_folder_is_not_two_sets(tmp_path: Path) -> None:
    make(tmp_path / "D", ["a/1.jpg", "b/1.jpg"])
    make(tmp_path / "V", ["a/2.jpg", "b/2.jpg"])
    (tmp_path / "link").symlink_to("V")
    for other in ("V", "V/../V", "link"):
        with pytest.raises(UsageError, match="--test_dir and --validation_dir are the same folder"):
            scan(tmp_path / "D", validation_dir=tmp_path / "V", test_dir=tmp_path / other)


@pytest.mark.parametrize("place", ["validation", "a/held_out"])
def test_a_named_set_within_the_training_folder_is_only_that(tmp_path: Path, place: str) -> None:
    make(tmp_path, ["a/1.jpg", "b/1.jpg", f"{place}/a/2.jpg", f"{place}/b/2.jpg"])
    found = scan(tmp_path, validation_dir=tmp_path / place)
    assert given(found) == {
        "a/1.jpg": ("a", "training", "a/1.jpg"),
        "b/1.jpg": ("b", "training", "b/1.jpg"),
        f"{place}/a/2.jpg": ("a", "validation", "a/2.jpg"),
        f"{place}/b/2.jpg": ("b", "validation", "b/2.jpg"),
    }


def test_a_label_that_is_not_trained_on_is_an_error(tmp_path: Path) -> None:
    paths = [f"{name}/{label}/1.jpg" for name in ("train", "val", "test") for label in "ab"]
    make(tmp_path, [*paths, "val/c/1.jpg", "test/c/1.jpg"])
    with pytest.raises(ImageFolderError, match="'c' is not in the training set, train"):
        check_labels(scan(tmp_path))


def test_a_folder_too_high_is_told(tmp_path: Path) -> None:
    found = scan(make(tmp_path / "1", ["archive/train/a/1.jpg", "archive/test/a/1.jpg"]))
    assert single_folder(found) == str(tmp_path / "1" / "archive")
    assert single_folder(scan(make(tmp_path / "2", ["a/1.jpg", "a/x/2.jpg"]))) == ""
    assert single_folder(scan(make(tmp_path / "3", ["a/x/1.jpg", "b/x/2.jpg"]))) == ""


def test_a_set_elsewhere_must_be_another_folder_with_the_same_labels(tmp_path: Path) -> None:
    make(tmp_path / "D", ["a/1.jpg", "b/1.jpg"])
    with pytest.raises(UsageError, match="--test_dir and --image_dir are the same folder"):
        scan(tmp_path / "D", test_dir=tmp_path / "D" / "." / "")
    with pytest.raises(ImageFolderNotFoundError, match="--test_dir takes a folder"):
        scan(tmp_path / "D", test_dir=tmp_path / "missing")
    make(tmp_path / "T", ["a/1.jpg", "c/1.jpg"])
    with pytest.raises(ImageFolderError, match="'b' is in the training set only"):
        check_labels(scan(tmp_path / "D", test_dir=tmp_path / "T"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
def test_a_label_folder_of_a_set_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    make(tmp_path, [f"{name}/{label}/1.jpg" for name in ("train", "val") for label in "ab"])
    (tmp_path / "val" / "b").chmod(0)
    try:
        (bad,) = [image for image in scan(tmp_path).images if image.file.is_folder]
    finally:
        (tmp_path / "val" / "b").chmod(0o755)
    assert (bad.label, bad.given) == ("b", "validation")


@pytest.mark.parametrize("broken", ["val/b", "val"])
def test_a_folder_of_a_set_that_cannot_be_looked_into_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    make(tmp_path, [f"{name}/{label}/1.jpg" for name in ("train", "val") for label in "ab"])
    real = images.entries_of

    def entries_of(folder: str) -> list[os.DirEntry[str]]:
        if folder == str(tmp_path / broken):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(images, "entries_of", entries_of)
    if broken == "val":
        with pytest.raises(ImageFolderError, match="val is a folder that cannot be read"):
            scan(tmp_path)
    else:
        (bad,) = [image for image in scan(tmp_path).images if image.file.is_folder]
        assert (bad.label, bad.given, bad.relpath) == ("b", "validation", "val/b")
