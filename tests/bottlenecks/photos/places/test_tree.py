"""A list of names is the folders that it would be on a disk, and nothing else."""

import pytest

from bottlenecks.errors import ImageFolderError
from bottlenecks.photos.images import FILE, FOLDER
from bottlenecks.photos.places import tree
from bottlenecks.photos.places.tree import Found, Tree, below


def of(*names: str) -> Tree:
    made = Tree()
    for name in names:
        made.add(Found(name, is_folder=name.endswith("/")))
    return made


def names(made: Tree, folder: str = "") -> list[str]:
    return [entry.name for entry in made.list(folder, folder)]


def test_folders_and_files() -> None:
    made = of("daisy/b.jpg", "daisy/a.jpg", "./roses/2019/c.jpg", "empty/", "top.jpg", "./", "")
    assert names(made) == ["daisy", "empty", "roses", "top.jpg"]
    assert names(made, "daisy") == ["a.jpg", "b.jpg"]
    assert names(made, "roses/2019") == ["c.jpg"]
    assert names(made, "empty") == []
    kinds = [made.kind(name) for name in ("", "daisy", "daisy/a.jpg", "daisy/x", "x/y")]
    assert kinds == [FOLDER, FOLDER, FILE, "", ""]
    assert not made.unsafe
    paths = [entry.path for entry in made.list("daisy", "s3://b/daisy/")]
    assert paths == ["s3://b/daisy/a.jpg", "s3://b/daisy/b.jpg"]
    with pytest.raises(FileNotFoundError):
        made.list("daisy/a.jpg", "x")


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd.jpg", "../a.jpg", "daisy/../../a.jpg", "daisy/./a.jpg", "daisy//a.jpg"),
        *("daisy/..", "a\0b.jpg", "d/" * 101 + "a.jpg", "daisy/" + "a" * 5000),
    ],
)
def test_names_that_lead_elsewhere_make_no_entry(name: str) -> None:
    made = of("roses/a.jpg", name)
    assert made.unsafe == [name]
    assert names(made) == ["roses"]
    assert made.folders.keys() == {"", "roses"}


def test_of_two_of_one_name_none_can_be_read() -> None:
    made = of("daisy/a.jpg", "./daisy/a.jpg", "daisy/a.jpg")
    (entry,) = made.list("daisy", "daisy")
    assert entry.found is not None
    assert "more than once" in entry.found.problem


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_with_the_name_of_a_folder(order: int) -> None:
    made = of(*["daisy", "daisy/a.jpg"][::order])
    assert made.unsafe == ["daisy"]
    assert names(made, "daisy") == ["a.jpg"]


def test_a_listing_cannot_take_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_FOLDERS", 10)
    with pytest.raises(ImageFolderError, match="more than 10 folders"):
        of(*(f"{i}/a.jpg" for i in range(11)))


def test_what_is_below() -> None:
    assert below("a.zip/daisy", "a.zip") == "daisy"
    assert below("a.zip/", "a.zip") == ""
    assert below("a.zipper/daisy", "a.zip") is None
