"""python -m label_image --show: the photos with their labels as bars, on one page or picture."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from label_image import sheet as module
from label_image.classifier import Guess, Result
from label_image.cli import main
from label_image.sheet import Sheet
from tests.conftest import COLOURS, Call, Trained, assert_one_error_line, photo
from tests.pages import NASTY, Page


@pytest.fixture
def files(trained: Trained) -> list[str]:
    return [f"--graph={trained.graph}", f"--labels={trained.labels}"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with cyan.jpg, magenta.jpg and yellow.jpg, and one that is none."""
    (tmp_path / "photos").mkdir()
    for label, colour in COLOURS.items():
        photo(colour, 500).save(tmp_path / "photos" / f"{label}.jpg")
    (tmp_path / "photos" / "page.jpg").write_text("<html>not found</html>")
    return tmp_path / "photos"


def results(folder: Path, count: int, label: str = "cyan") -> Iterator[Result]:
    """Of ``count`` photos in ``folder``, which are made."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        path = folder / f"{i:03}.jpg"
        photo(COLOURS["cyan"], i).save(path)
        yield Result(str(path), (Guess(label, 0.75), Guess("other", 0.25)))


def drawn(path: Path, found: Iterator[Result], top: int = 5) -> Path:
    sheet = Sheet(str(path), "graph.pb", top)
    for result in found:
        sheet.add(result)
    sheet.write()
    return path


def test_a_page_shows_what_is_printed(call: Call, files: list[str], photos: Path) -> None:
    flags = ["--num_top_predictions=2", "--show=sheet.html"]
    result = call(main, photos, *files, *flags)
    assert_one_error_line(result, "page.jpg")  # as without --show
    page = Page((photos.parent / "sheet.html").read_text("utf-8"))
    assert page.texts["h1"][0] == "4 photos, labelled by graph.pb"
    assert len(page.texts["figure"]) == 4
    for figure, name in zip(page.texts["figure"], sorted(os.listdir(photos)), strict=True):
        assert figure.strip().endswith(name)
    cyan, magenta, broken, _ = page.texts["figure"]
    assert "HTML" in broken and "%" not in broken
    assert [len(re.findall(r"\d%", figure)) for figure in (cyan, magenta)] == [2, 2]
    lines = iter(result.stdout.splitlines())
    score = next(float(line.split()[-1][:-1]) for line in lines if line.startswith("cyan ("))
    assert f"cyan{score:.1%}" in cyan
    assert f"--share: {score:.1%}" in [
        attributes.get("style") for tag, attributes in page.elements if tag == "span"
    ]


def test_a_picture_has_each_photo(call: Call, files: list[str], photos: Path) -> None:
    result = call(main, photos, *files, "--show", "sheet.png")
    assert result.stdout.count("(score = ") == 9
    with Image.open(photos.parent / "sheet.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in COLOURS.values():
        near = (abs(pixels - colour) < 80).all(axis=-1)
        assert near.sum() > 30_000  # of 320 x 240


@pytest.mark.parametrize("count", [1, 5, 70])
@pytest.mark.parametrize("kind", ["html", "png"])
def test_any_number_of_photos(tmp_path: Path, count: int, kind: str) -> None:
    path = drawn(tmp_path / f"sheet.{kind}", results(tmp_path / "photos", count))
    if kind == "html":
        assert len(Page(path.read_text("utf-8")).texts["figure"]) == count
    else:
        with Image.open(path) as image:
            assert 480 < image.width < 2000
            assert image.height < 4000


def test_the_page_needs_nothing_else_and_nothing_in_it_is_obeyed(tmp_path: Path) -> None:
    name = f"{NASTY.replace('/', '')}.jpg"
    (found,) = results(tmp_path / "photos", 1, NASTY)
    shutil.copy(found.path, tmp_path / name)
    unreadable = Result(f"{NASTY}\n\x1b[2J", (), NASTY)
    both = [Result(str(tmp_path / name), found.ranking), unreadable]
    text = drawn(tmp_path / "sheet.html", iter(both)).read_text("utf-8")
    assert "alert(1)" in text
    assert "<script" not in text
    page = Page(text)
    assert NASTY in page.texts["figure"][0]
    assert "\\x1b[2J" in page.texts["figure"][1]
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "base", "form", "b")
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "//" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"url\(|@import", text)


@pytest.mark.parametrize("label", [NASTY, "ラーメン 日本", "ورود", "x" * 5000, "a\nb\0", "\udcff"])
@pytest.mark.parametrize("kind", ["html", "png"])
def test_labels_and_names_of_all_kinds(tmp_path: Path, label: str, kind: str) -> None:
    (found,) = results(tmp_path / "photos", 1, label)
    odd = Result(os.fsdecode(b"\xff\n.jpg"), (), label)
    path = drawn(tmp_path / f"sheet.{kind}", iter([found, odd]))
    if kind == "html":
        assert "\\xff\\n.jpg" in Page(path.read_text("utf-8")).texts["figure"][1]
    else:
        with Image.open(path) as image:
            assert image.width < 800


def test_scores_that_are_no_shares_stay_within_their_bars(tmp_path: Path) -> None:
    (found,) = results(tmp_path / "photos", 1)
    odd = Result(found.path, (Guess("a", 12.5), Guess("b", -3.0)))
    page = Page(drawn(tmp_path / "sheet.html", iter([odd])).read_text("utf-8"))
    assert "a12.5" in page.texts["figure"][0] and "b-3" in page.texts["figure"][0]
    styles = [attributes.get("style") for tag, attributes in page.elements if tag == "span"]
    assert [style for style in styles if style] == ["--share: 100.0%", "--share: 0.0%"]
    drawn(tmp_path / "sheet.png", iter([odd]))


def test_of_very_many_photos_and_labels_the_first_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", {".html": 3, ".png": 3})
    many = [
        Result(found.path, tuple(Guess(f"label {i}", 0.001) for i in range(1000)))
        for found in results(tmp_path / "photos", 5)
    ]
    page = Page(drawn(tmp_path / "sheet.html", iter(many), top=1000).read_text("utf-8"))
    assert page.texts["h1"][0] == "5 photos, labelled by graph.pb; shown are the first 3"
    assert [figure.count("label") for figure in page.texts["figure"]] == [10] * 3


def test_a_photo_that_is_gone_is_said(tmp_path: Path) -> None:
    (found,) = results(tmp_path / "photos", 1)
    Path(found.path).unlink()
    page = Page(drawn(tmp_path / "sheet.html", iter([found])).read_text("utf-8"))
    assert "cannot be read" in page.texts["figure"][0]


def test_a_sheet_replaces_one_of_its_own_alone(call: Call, files: list[str], photos: Path) -> None:
    one = photos / "cyan.jpg"
    for name in ("sheet.html", "sheet.png"):
        path = photos.parent / name
        path.write_text("mine")
        assert_one_error_line(call(main, one, *files, "--show", name), name, "would replace")
        assert path.read_text() == "mine"
        path.unlink()
        for _ in range(2):
            assert call(main, one, *files, "--show", name).returncode == 0
    names = {path.name for path in photos.parent.iterdir()}
    assert names == {"photos", "sheet.html", "sheet.png"}  # no partial file


BAD_PLACES = {
    "another kind": (["--show=sheet.pdf"], ["--show", ".html or .png", "sheet.pdf"]),
    "no name": (["--show="], ["--show"]),
    "a folder": (["--show=folder.html"], ["--show", "folder.html", "folder"]),
    "a photo": (["--show=photos/one.png"], ["--show", "photos/one.png"]),
    "beside the photos": (["--show=photos/sheet.png"], ["--show", "inside photos"]),
    "the labels": (["--show=labels.html", "--labels=labels.html"], ["in the way of --labels"]),
    "the graph": (["--show=graph.html", "--graph=graph.html"], ["in the way of --graph"]),
    "with --about": (["--about", "--show=sheet.html"], ["--about", "--show"]),
}


@pytest.mark.parametrize("case", BAD_PLACES)
def test_a_bad_place_is_one_error_line_before_anything_is_labelled(
    case: str, call: Call, tmp_path: Path
) -> None:
    arguments, mentions = BAD_PLACES[case]
    (tmp_path / "photos").mkdir()
    (tmp_path / "folder.html").mkdir()
    photo(COLOURS["cyan"], 0).save(tmp_path / "photos" / "one.png")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    named = [] if "--about" in arguments else ["photos"]
    assert_one_error_line(call(main, *named, *arguments), *mentions)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_page_may_lie_among_the_photos(call: Call, files: list[str], photos: Path) -> None:
    (photos / "page.jpg").unlink()
    for _ in range(2):
        assert call(main, photos, *files, "--show=photos/sheet.html").returncode == 0
    assert len(Page((photos / "sheet.html").read_text("utf-8")).texts["figure"]) == 3


def test_nothing_of_it_is_loaded_without_the_flag() -> None:
    code = (
        "import sys, label_image.cli\n"
        "label_image.cli.main(['missing.jpg'])\n"
        "print(sorted({'PIL', 'jinja2', 'matplotlib', 'label_image.sheet'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"
