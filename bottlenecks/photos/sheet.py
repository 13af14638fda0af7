"""Pictures in rows, or on cards -> a PNG of all of them, small, with captions."""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from bottlenecks.errors import shown
from bottlenecks.photos.fonts import font_for

# Near the start of every sheet of that kind.
MARKER = b"Software\0retrain sheet"
CARDS_MARKER = b"Software\0retrain cards"
MOST_BYTES = 2_000_000  # of the pictures together, before they are compressed
_MOST_SIDE, _LEAST_SIDE = 160, 16  # of a picture, in pixels
_GAP, _LINE, _FONT_SIZE = 4, 18, 12
_INK, _SOFT, _BACK, _FRAME, _FILL = "#1b1f24", "#5b6570", "#f6f8fa", "#e9edf1", "#bfd7f2"
_INSET, _BAR, _BAR_SIZE, _BETWEEN = 8, 22, 13, 14  # of cards, in pixels
_LETTER = 9  # what a letter takes, about
_LEAST_WIDTH = 480  # of a page of cards: for its title


class Row(NamedTuple):
    """A row of a sheet: ``pictures``, each (height, width, 3) uint8, below their ``caption``."""

    caption: str
    pictures: Sequence[np.ndarray]


def sheet(title: str, headings: Sequence[str], rows: Sequence[Row]) -> bytes:
    """A PNG file of ``rows``, each as many squares as there are ``headings`` of columns.

    The squares are as large as `MOST_BYTES` allow, within 16 and 160 pixels.
    """
    side = _side(len(headings) * len(rows))
    width = _GAP + len(headings) * (side + _GAP)
    page = Image.new("RGB", (width, 2 * _LINE + len(rows) * (_LINE + side + _GAP)), "white")
    draw = ImageDraw.Draw(page)
    _write(draw, (_GAP, 0), title, width - 2 * _GAP)
    for i, heading in enumerate(headings):
        _write(draw, (_GAP + i * (side + _GAP), _LINE), heading, side)
    for i, (caption, pictures) in enumerate(rows):
        top = 2 * _LINE + i * (_LINE + side + _GAP)
        _write(draw, (_GAP, top), caption, width - 2 * _GAP)
        for j, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            page.paste(small, (_GAP + j * (side + _GAP), top + _LINE))
    return _png(page, MARKER)


class Bar(NamedTuple):
    """A line of a card: ``name``, ``figure``, and a bar of ``share`` of the width, 0 to 1."""

    name: str
    figure: str
    share: float


class Card(NamedTuple):
    """A ``picture``, (height, width, 3) uint8 or None, with bars below it and a caption.

    ``instead`` is what stands in the place of a picture that there is none of.
    """

    picture: np.ndarray | None
    bars: Sequence[Bar]
    caption: str
    instead: str = ""


def cards(title: str, cards: Sequence[Card], side: int) -> bytes:
    """A PNG file of ``cards``, each ``side`` pixels wide, on a page about as wide as high."""
    columns = min(len(cards), math.ceil(math.sqrt(1.5 * len(cards))))
    frame = side * 4 // 5
    height = frame + max((len(card.bars) for card in cards), default=0) * _BAR + _LINE + 3 * _INSET
    rows = -(-len(cards) // max(1, columns))
    width = max(_LEAST_WIDTH, columns * (side + _BETWEEN)) + _BETWEEN
    top = _BAR + 2 * _BETWEEN
    page = Image.new("RGB", (width, top + rows * (height + _BETWEEN)), "white")
    draw = ImageDraw.Draw(page)
    _write(draw, (_BETWEEN, _BETWEEN), title, width - 2 * _BETWEEN, _BAR_SIZE + 2)
    for i, card in enumerate(cards):
        x = _BETWEEN + i % columns * (side + _BETWEEN)
        y = top + i // columns * (height + _BETWEEN)
        draw.rounded_rectangle((x, y, x + side - 1, y + height - 1), 8, _BACK)
        _frame(page, draw, (x, y, side, frame), card)
        _bars(draw, (x + _INSET, y + frame + _INSET), side - 2 * _INSET, card.bars)
        below = y + frame + 2 * _INSET + len(card.bars) * _BAR
        _write(draw, (x + _INSET, below), card.caption, side - 2 * _INSET, ink=_SOFT, both=True)
    return _png(page, CARDS_MARKER)


def _frame(
    page: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int, int, int], card: Card
) -> None:
    """The picture of a card at ``place`` (x, y, width, height), whole, or what stands instead."""
    x, y, width, height = place
    draw.rectangle((x, y, x + width - 1, y + height - 1), _FRAME)
    if card.picture is None:
        lines = textwrap.wrap(shown(card.instead), width // _LETTER)[: height // _LINE]
        top = y + (height - len(lines) * _LINE) // 2
        for i, line in enumerate(lines):
            _write(draw, (x + _INSET, top + i * _LINE), line, width - 2 * _INSET, ink=_SOFT)
        return
    picture = Image.fromarray(card.picture)
    scale = min(width / picture.width, height / picture.height)
    size = [max(1, round(scale * pixels)) for pixels in picture.size]
    small = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    page.paste(small, (x + (width - size[0]) // 2, y + (height - size[1]) // 2))


def _bars(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], width: int, bars: Sequence[Bar]
) -> None:
    x, y = place
    for bar in bars:
        filled = round(width * min(1.0, max(0.0, bar.share)))
        draw.rectangle((x, y, x + width - 1, y + _BAR - 5), _FRAME)
        if filled:
            draw.rectangle((x, y, x + filled - 1, y + _BAR - 5), _FILL)
        figure = font_for(bar.figure, _BAR_SIZE).getlength(bar.figure)
        draw.text((x + width - figure - 4, y + 1), bar.figure, _INK, font_for("", _BAR_SIZE))
        _write(draw, (x + 4, y + 1), bar.name, int(width - figure - 16), _BAR_SIZE)
        y += _BAR


def _side(count: int) -> int:
    """The side in pixels of each of ``count`` squares."""
    return max(_LEAST_SIDE, min(_MOST_SIDE, math.isqrt(MOST_BYTES // (3 * count))))


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    size: int = _FONT_SIZE,
    ink: str = _INK,
    both: bool = False,
) -> None:
    """One line of ``text`` at ``place``, cut to ``width`` pixels at its end.

    Or in its middle, where ``both`` ends are kept.
    """
    line = shown(text)
    font = font_for(line, size)
    if len(line) > width or font.getlength(line) > width:
        start, rest = (line[: width // 2], line[-width:]) if both else (line[:width], "")
        while start and font.getlength(f"{start}...{rest}") > width:
            if len(rest) > len(start):
                rest = rest[1:]
            else:
                start = start[:-1]
        line = f"{start}...{rest}"
    draw.text(place, line, ink, font)


def _png(page: Image.Image, marker: bytes) -> bytes:
    text = PngImagePlugin.PngInfo()
    name, value = marker.decode().split("\0")
    text.add_text(name, value)
    file = io.BytesIO()
    page.save(file, "PNG", pnginfo=text, compress_level=3)  # 6 takes twice as long for 8 % less
    return file.getvalue()
