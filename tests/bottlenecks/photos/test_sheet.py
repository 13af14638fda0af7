"""bottlenecks.photos.sheet: pictures in rows, with captions, as one PNG."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bottlenecks.photos.sheet import MARKER, MOST_BYTES, Row, sheet

RED, BLUE = (200, 0, 0), (0, 0, 200)


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((60, 60, 3), colour, np.uint8)


def opened(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def of_colour(page: np.ndarray, colour: tuple[int, int, int]) -> tuple[slice, slice]:
    """The rows and columns in which ``page`` has pixels of ``colour``."""
    y, x = np.nonzero((page == colour).all(axis=-1))
    return slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)


def test_each_picture_has_its_place_as_a_square() -> None:
    rows = [Row("one", [plain(RED), plain(BLUE)]), Row("two", [plain((0, 200, 0))])]
    page = opened(sheet("title", ["photo", "variant 1"], rows))
    red, blue, green = (of_colour(page, colour) for colour in (RED, BLUE, (0, 200, 0)))
    for colour, place in ((RED, red), (BLUE, blue), ((0, 200, 0), green)):
        assert (page[place] == colour).all()
        assert page[place].shape == (160, 160, 3)
    assert red[0] == blue[0] and red[1].stop < blue[1].start  # beside it
    assert red[1] == green[1] and red[0].stop < green[0].start  # below it


def test_title_headings_and_captions_are_written_above_what_they_name() -> None:
    blank = opened(sheet("", [""], [Row("", [plain(RED)])]))
    for texts in (("title", "", ""), ("", "heading", ""), ("", "", "caption")):
        title, heading, caption = texts
        page = opened(sheet(title, [heading], [Row(caption, [plain(RED)])]))
        y, _ = np.nonzero((page != blank).any(axis=-1))
        line = texts.index(title or heading or caption)
        assert 18 * line <= y.min() and y.max() < 18 * (line + 1)


@pytest.mark.parametrize("text", ["word " * 1000, "a\nb\0c", "\udcff", "玫瑰 ورود", ""])
def test_any_text_is_one_line_and_stays_on_the_page(text: str) -> None:
    page = opened(sheet(text, [text, text], [Row(text, [plain(RED), plain(BLUE)])]))
    assert page.shape == opened(sheet("", ["", ""], [Row("", [plain(RED), plain(BLUE)])])).shape
    assert (page[:, -4:] == 255).all()
    assert page[of_colour(page, RED)].shape == (160, 160, 3)


def test_a_full_sheet_of_noise_is_of_a_sensible_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (299, 299, 3), np.uint8)
    data = sheet("title", ["photo"] * 9, [Row("caption", [noise] * 9)] * 8)
    assert len(data) < 1.05 * MOST_BYTES
    assert opened(data).shape[1] > 800


def test_its_marker_is_near_its_start() -> None:
    assert MARKER in sheet("title", ["photo"], [Row("caption", [plain(RED)])])[:200]
