"""bottlenecks.photos.sheet: pictures in rows or on cards, with captions, as one PNG."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bottlenecks.photos.sheet import (
    CARDS_MARKER,
    MARKER,
    MOST_BYTES,
    Bar,
    Card,
    Row,
    cards,
    sheet,
)

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
    assert CARDS_MARKER in cards("title", [Card(plain(RED), [], "")], 100)[:200]


def test_a_card_has_its_picture_whole_and_in_proportion() -> None:
    upright = np.full((90, 30, 3), RED, np.uint8)
    lying = np.full((30, 90, 3), BLUE, np.uint8)
    page = opened(cards("title", [Card(upright, [], ""), Card(lying, [], "")], 150))
    for colour, shape in ((RED, (120, 40, 3)), (BLUE, (50, 150, 3))):
        place = page[of_colour(page, colour)]
        assert place.shape == shape
        assert (place == colour).all()


def test_bars_are_as_long_as_their_shares() -> None:
    def lengths(*shares: float) -> list[int]:
        """Of the bars: the pixels of their upper edge that are not as without a bar."""
        pages = [
            opened(cards("", [Card(None, [Bar("", "", share) for share in each], "")], 216))
            for each in (shares, [0.0] * len(shares))
        ]
        changed = (pages[0] != pages[1]).any(axis=-1).sum(axis=1)
        starts = [i for i in range(1, len(changed)) if changed[i] and not changed[i - 1]]
        return [int(changed[i]) for i in starts]

    assert lengths(1, 0.5, 0.25) == [200, 100, 50]
    assert lengths(12.5) == [200]
    assert lengths(-1, 0.001) == []


def test_cards_are_in_rows_and_what_is_missing_is_said() -> None:
    blank = opened(cards("", [Card(None, [], "")] * 7, 100))
    said = opened(cards("", [Card(None, [], "", "cannot be read: " + "x" * 999)] * 7, 100))
    assert blank.shape == said.shape
    assert (blank != said).any()
    assert opened(cards("", [Card(None, [], "")] * 3, 100)).shape[0] < blank.shape[0]
    assert opened(cards("no cards", [], 100)).shape[1] > 400
