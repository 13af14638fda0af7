"""retrain.data.matching: a folder is a label of the classifier by its name, or it is an error."""

import pytest

from bottlenecks.errors import ImageFolderError
from retrain.data.matching import match


@pytest.mark.parametrize(
    ("folder", "labels"),
    [
        ("daisy", ["roses", "daisy"]),
        ("Daisy", ["roses", "daisy"]),
        ("Red_Roses (2019)", ["daisy", "red roses 2019"]),
        ("red roses", ["daisy", "Red Roses"]),  # of another program
        ("Red", ["red", "Red"]),  # the same name comes first
        ("Red_Roses_", ["daisy", "red roses "]),  # retrain.py kept the space
        ("Żółta róża", ["daisy", "żółta róża"]),
        ("Żółta róża", ["daisy", " ta r a"]),  # retrain.py dropped what is not ASCII
        ("Größe", ["gräße", "gr e"]),
        ("日本", ["daisy", "日本"]),
    ],
)
def test_a_folder_is_the_label_that_its_name_means(folder: str, labels: list[str]) -> None:
    assert match([folder], labels, "Other") == {folder: 1}


@pytest.mark.parametrize(
    ("folder", "labels"),
    [
        ("tulips", ["daisy", "roses"]),
        ("RED", ["red", "Red"]),  # either
        ("daisy", ["daisy", "daisy"]),
        ("Größe", ["gräße", "daisy"]),  # alike only without their letters
        ("日本", ["daisy", " "]),
    ],
)
def test_a_folder_of_no_label_or_of_two_is_an_error_that_lists_both(
    folder: str, labels: list[str]
) -> None:
    with pytest.raises(ImageFolderError) as caught:
        match([labels[0], folder], labels, "Other")
    assert f"does not know the folder {folder!r} of Other" in str(caught.value) or folder == "daisy"
    assert "its labels are " + ", ".join(map(repr, labels)) in str(caught.value)


def test_all_unknown_folders_are_named_and_of_many_the_first_ten() -> None:
    folders = [f"f{i:02}" for i in range(25)]
    with pytest.raises(ImageFolderError) as caught:
        match(folders, ["daisy", *(f"l{i}" for i in range(30))], "Other")
    message = str(caught.value)
    assert "the folders 'f00', 'f01'" in message and "'f09' and 15 more of Other" in message
    assert "'daisy', 'l0'" in message and "and 21 more" in message
    assert "\n" not in message


def test_two_folders_of_one_label_are_an_error() -> None:
    with pytest.raises(ImageFolderError, match=r"'gräße' and 'größe' .*both .*label 'gr e'"):
        match(["größe", "gräße"], ["gr e", "daisy"], "Other")


def test_names_cannot_command_the_terminal() -> None:
    with pytest.raises(ImageFolderError) as caught:
        match(["a\x1b[31m"], ["b\x1b[0m"], "Other")
    assert "\x1b" not in str(caught.value)
