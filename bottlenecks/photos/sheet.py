"""Pictures in rows -> a PNG of all of them, small, with captions: a contact sheet."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from bottlenecks.errors import shown

MARKER = b"Software\0retrain sheet"  # near the start of every sheet
MOST_BYTES = 2_000_000  # of the pictures together, before they are compressed
_MOST_SIDE, _LEAST_SIDE = 160, 16  # of a picture, in pixels
_GAP, _LINE, _FONT_SIZE = 4, 18, 12
_INK = "#222222"


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
    return _png(page)


def _side(count: int) -> int:
    """The side in pixels of each of ``count`` squares."""
    return max(_LEAST_SIDE, min(_MOST_SIDE, math.isqrt(MOST_BYTES // (3 * count))))


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """One line of ``text`` at ``place``, cut to ``width`` pixels."""
    font = ImageFont.load_default(_FONT_SIZE)
    line = shown(text)
    if font.getlength(line[:width]) > width or len(line) > width:
        line = line[:width]
        while line and font.getlength(line + "...") > width:
            line = line[:-1]
        line += "..."
    draw.text(place, line, _INK, font)


def _png(page: Image.Image) -> bytes:
    text = PngImagePlugin.PngInfo()
    name, value = MARKER.decode().split("\0")
    text.add_text(name, value)
    file = io.BytesIO()
    page.save(file, "PNG", pnginfo=text)
    return file.getvalue()
