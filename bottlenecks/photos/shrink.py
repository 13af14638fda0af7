"""An image of any mode and size -> 8 bits at the size that is wanted, in little memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

STRIP_PIXELS = 4_000_000  # what is larger is shrunk in strips of this size


def shrink(image: Any, size: tuple[int, int]) -> Any:
    """The Pillow ``image`` resized to ``size`` (width, height), in mode L, RGB or RGBA.

    Grey of more than 8 bits is scaled to 8. A PNG uses all 16, and so does what Pillow no longer
    knows the file of. Cameras for TIFF have 10, 12 or 14 and write them as 16: the fewest bits are
    taken that hold the brightest pixel, as in whole numbers of 32 bits. Floating point is from 0 to
    1, or from its least to its greatest.
    """
    levels = _levels(image) if image.mode[0] in "IF" else None
    x = max(1, image.width // (2 * size[0]))
    y = max(1, image.height // (2 * size[1]))
    if image.width * image.height > STRIP_PIXELS and max(x, y) > 1:
        # Converting and premultiplying alpha copy an image several times: do so strip by strip.
        strips = [_as_8_bit(strip, levels).reduce((x, y)) for strip in _strips(image, y)]
        shrunk = Image.new(strips[0].mode, (strips[0].width, sum(s.height for s in strips)))
        top = 0
        for strip in strips:
            shrunk.paste(strip, (0, top))
            top += strip.height
        # The last blocks may stand for less than x by y pixels.
        box = (0, 0, image.width / x, image.height / y)
        return shrunk.resize(size, Image.Resampling.BILINEAR, box)
    return _as_8_bit(image, levels).resize(size, Image.Resampling.BILINEAR)


def _strips(image: Any, multiple: int) -> Iterator[Any]:
    """``image`` cut into strips of a ``multiple`` of rows, but for the last."""
    rows = max(1, STRIP_PIXELS // image.width // multiple) * multiple
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _levels(image: Any) -> tuple[float, float]:
    """What is black in a grey image, and the steps of 8 bits that a step of it is."""
    if image.format != "TIFF" and image.mode.startswith("I;16"):
        return 0.0, 2.0**-8
    low, high = float("inf"), float("-inf")
    for strip in _strips(image, 1):
        values = np.asarray(strip)
        values = values[np.isfinite(values)]
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode != "F":
        bits = next(bits for bits in (8, 10, 12, 14, 16, 24, 32) if high < 2**bits)
        return 0.0, 2.0 ** (8 - bits)
    if low >= 0 and high <= 1:
        return 0.0, 255.0
    return low, 255.0 / max(high - low, float(np.finfo(np.float32).tiny))


def _as_8_bit(image: Any, levels: tuple[float, float] | None) -> Any:
    """``image`` in a mode that can be resized: L, RGB, or RGBA where it has transparency."""
    if levels is not None:
        black, steps = levels
        values = np.asarray(image)
        scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(steps)
        np.clip(np.nan_to_num(scaled, copy=False, posinf=255.0), 0, 255, out=scaled)
        grey = Image.fromarray(scaled.astype(np.uint8))
        if "transparency" not in image.info:
            return grey
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        return Image.merge("LA", (grey, Image.fromarray(alpha))).convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
