"""--show_distortions: a sheet of what the distortions make of some photos, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retrain.cli
from bottlenecks.errors import ImageFolderError, UsageError
from retrain.config import Config
from retrain.preview import PHOTOS, VARIANTS, Preview, preview
from tests.conftest import Call, assert_one_error_line, photo
from tests.standin import StandIn

FLAGS = ["--image_dir", "Dataset", "--random_crop", "20", "--model_dir", "models"]


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def colours_of(path: Path) -> set[str]:
    """Which of the data set's labels a sheet shows, by the colours of its photos."""
    page = pixels(path).reshape(-1, 3).astype(int)
    dark = page.min(axis=1) < 100
    least = page[dark & (page.max(axis=1) > 150)].argmin(axis=1)
    names = ("cyan", "magenta", "yellow")
    return {names[i] for i in range(3) if (least == i).sum() > 1000}


def test_a_sheet_is_written_and_nothing_is_trained(
    call: Call, dataset: Path, tmp_path: Path
) -> None:
    before = files_below(tmp_path)
    extractor = StandIn()
    result = call(
        retrain.cli.main, *FLAGS, "--show_distortions", "out/sheet.png", extractor=extractor
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "out/sheet.png (8 photos, 4 variants of each)" in result.stdout
    assert "Nothing was computed or trained." in result.stdout
    sheet = tmp_path / "out" / "sheet.png"
    assert set(files_below(tmp_path)) - set(before) == {sheet.parent, sheet}
    assert sheet.stat().st_size < 2_100_000
    assert extractor.batches == []
    assert colours_of(sheet) == {"cyan", "magenta", "yellow"}


def test_the_seed_chooses_the_photos(call: Call, dataset: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("again", 0), ("b", 1)):
        flags = ["--seed", str(seed), "--show_distortions", f"{name}.png"]
        assert call(retrain.cli.main, *FLAGS, *flags).returncode == 0
    a, again, b = ((tmp_path / f"{name}.png").read_bytes() for name in ("a", "again", "b"))
    assert a == again
    assert a != b


def test_as_many_variants_as_there_are_up_to_what_fits(dataset: Path, tmp_path: Path) -> None:
    for count in (1, 2, VARIANTS, VARIANTS + 1):
        config = Config(image_dir=str(dataset), random_crop=20, distortions_per_image=count)
        path = str(tmp_path / "sheet.png")
        assert preview(config, path) == Preview(path, PHOTOS, min(count, VARIANTS))


def test_each_column_is_another_variant_and_the_first_is_the_photo(
    dataset: Path, tmp_path: Path
) -> None:
    sheets = []
    for percent in (50, 51):
        path = tmp_path / f"{percent}.png"
        preview(Config(image_dir=str(dataset), random_brightness=percent), str(path))
        below_the_heading = pixels(path)[40:, 4:]
        sheets.append(np.split(below_the_heading, 5, axis=1))
    one, other = ([int(column.sum()) for column in sheet] for sheet in sheets)
    assert len(set(one)) == 5
    assert [mine == its for mine, its in zip(one, other, strict=True)] == [True] + 4 * [False]


def test_photos_that_cannot_be_read_are_passed_over(small_dataset: Path, tmp_path: Path) -> None:
    paths = sorted(small_dataset.rglob("*.jpg"))
    for path in paths[1:]:
        path.write_bytes(b"\xff\xd8\xff broken")
    config = Config(
        image_dir=str(small_dataset),
        flip_up_down=True,
        validation_percentage=0,
        testing_percentage=0,
    )
    assert preview(config, str(tmp_path / "sheet.png")).photos == 1
    paths[0].write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ImageFolderError, match="none of the training photos"):
        preview(config, str(tmp_path / "other.png"))
    assert not (tmp_path / "other.png").exists()


def test_only_training_photos_are_shown(dataset: Path, tmp_path: Path) -> None:
    """All others are green, and none of a green is seen."""
    for label in ("cyan", "magenta", "yellow"):
        held_out = tmp_path / "Validation" / label
        held_out.mkdir(parents=True)
        for i in range(30):
            photo((0, 200, 0), i).save(held_out / f"{label}_{i}.png")
    config = Config(
        image_dir=str(dataset),
        validation_dir=str(tmp_path / "Validation"),
        testing_percentage=0,
        flip_left_right=True,
    )
    sheet = tmp_path / "sheet.png"
    preview(config, str(sheet))
    page = pixels(sheet).astype(int)
    green = (page[..., 1] > 150) & (page[..., 0] < 60) & (page[..., 2] < 60)
    assert green.sum() < 1000


def test_a_sheet_without_a_distortion_says_which_to_add(call: Call, dataset: Path) -> None:
    result = call(retrain.cli.main, "--image_dir", dataset, "--show_distortions", "sheet.png")
    assert_one_error_line(result, "--show_distortions", "add one", "--flip_left_right")


@pytest.mark.parametrize(
    ("path", "mentions"),
    [
        ("sheet.jpg", ["must be a file called .png", "sheet.jpg"]),
        ("", ["--show_distortions must be a path"]),
        ("Dataset/cyan/sheet.png", ["is inside --image_dir"]),
        ("Dataset/cyan/cyan_000.png", ["is inside --image_dir"]),
        ("mine.png", ["--show_distortions would replace mine.png"]),
        ("text.png", ["--show_distortions would replace text.png"]),
        ("folder.png", ["is a folder"]),
        ("mine.png/sheet.png", ["is a file"]),
        ("graph.png", ["--output_graph", "in the way of --show_distortions"]),
        ("bottleneck_cache/inception_v3-0123456789ab/a.png", ["in a folder of the cache"]),
    ],
)
def test_a_sheet_replaces_nothing_and_lies_beside_the_photos(
    path: str, mentions: list[str], call: Call, dataset: Path, tmp_path: Path
) -> None:
    photo((0, 200, 0), 0).save(tmp_path / "mine.png")
    (tmp_path / "text.png").write_text("notes")
    (tmp_path / "folder.png").mkdir()
    before = {name: name.read_bytes() for name in files_below(tmp_path) if name.is_file()}
    flags = [*FLAGS, "--output_graph", "graph.png", f"--show_distortions={path}"]
    result = call(retrain.cli.main, *flags)
    assert_one_error_line(result, *mentions)
    after = {name: name.read_bytes() for name in files_below(tmp_path) if name.is_file()}
    assert after == before


def test_a_sheet_replaces_an_earlier_one(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    found = []
    for percent in (10, 90):
        preview(Config(image_dir=str(dataset), random_brightness=percent), str(path))
        found.append(path.read_bytes())
    assert found[0] != found[1]


def test_a_sheet_finds_what_a_run_would_refuse(call: Call, dataset: Path) -> None:
    for flags in (["--output_graph", "Dataset"], ["--group_by", "nothing"], ["--dry_run"]):
        result = call(retrain.cli.main, *FLAGS, *flags, "--show_distortions", "sheet.png")
        assert_one_error_line(result, flags[0])


def test_the_home_folder_is_found(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config(image_dir=str(dataset), random_rotation=10)
    assert preview(config, "~/sheet.png").path == str(tmp_path / "sheet.png")
    with pytest.raises(UsageError, match="--show_distortions must be a path"):
        preview(config, "")
