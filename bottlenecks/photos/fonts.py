"""Text of any script -> a font that has its letters, if one is installed."""

import functools
from collections.abc import Sequence

from PIL import ImageFont

# For scripts that matplotlib's own font has not.
FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("Hiragino Sans GB", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI", "Tahoma"),
)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has all letters of ``text``, else DejaVu Sans, which draws boxes."""
    letters = set(map(ord, text))
    path = next((path for path, has in _faces() if letters <= has), _faces()[0][0])
    return _font(path, size)


@functools.cache
def _faces() -> Sequence[tuple[str, frozenset[int]]]:
    """The files of DejaVu Sans and of those of `FONTS` that are installed, and their letters."""
    from matplotlib.font_manager import findfont, get_font, get_font_names

    installed = set(get_font_names())
    paths = [str(findfont(name)) for name in ("DejaVu Sans", *FONTS) if name in installed]
    return [(path, frozenset(get_font(path).get_charmap())) for path in paths]


@functools.cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
