"""File bytes -> (height, width, 3) uint8 RGB: the only decoder of the project.

Training and labelling both read photos here, so that they see the same pixels.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from bottlenecks.errors import BadImageError
from bottlenecks.forks import PerProcess
from bottlenecks.machine import MOST_THREADS, threads
from bottlenecks.photos.images import HEADER_BYTES, sniff
from bottlenecks.photos.shrink import shrink
from bottlenecks.photos.structure import check_structure
from bottlenecks.row_spec import BOTTLENECK

# Part of the fingerprint: change it with anything here that changes a pixel.
DECODE_VERSION = "pillow-bilinear-2"
INPUT_SIZE = BOTTLENECK.input_size  # (height, width) unless said otherwise

MAX_PIXELS = 90_000_000  # as Pillow's own limit
MAX_JPEG_PIXELS = 200_000_000  # what phones make; baseline JPEG decodes scaled down
MAX_MEMORY = 400_000_000  # bytes of an image's file and of its decoding together
LARGE_MEMORY = 128_000_000  # bytes, of all threads: who takes more than a share decodes alone

# Large images are decoded one at a time, and all by one thread: memory that is freed stays with
# the thread that took it.
_large_images = PerProcess(lambda: ThreadPoolExecutor(1, "large image"))


def _heif(file: BytesIO) -> Any:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise BadImageError(
            "HEIC photos need pillow-heif: pip install pillow-heif, or convert it to JPEG"
        ) from error
    return HeifImageFile(file)  # type: ignore[no-untyped-call]


# The plugin classes are called directly: Image.open would apply Pillow's global pixel limit.
OPENERS: dict[str, Callable[[BytesIO], Any]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "HEIC": _heif,
}
_ORIENTATION_TAG, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 278, 322, 323
# EXIF orientation -> how to turn the stored image upright (EXIF 2.3, 4.6.4 A).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, size: tuple[int, int] = INPUT_SIZE) -> np.ndarray:
    """Decode the bytes of an image file.

    Turned upright by EXIF, transparency on white, the first frame or page, in 8 bits (see
    `shrink`), resized to ``size`` (height, width) without keeping the aspect ratio (bilinear,
    antialiased).

    Returns an array of shape (height, width, 3), dtype uint8. Raises `BadImageError`, whose
    message is the reason, for whatever is not a whole image of a known format.
    """
    image_format = sniff(data[:HEADER_BYTES])
    if image_format not in OPENERS:
        raise BadImageError(_why_not(data, image_format))
    try:
        has_scans = check_structure(data, image_format)
        if image_format == "WEBP":  # its plugin allocates the canvas when it opens the file
            _check_pixels(*_webp_size(data), image_format)
        with OPENERS[image_format](BytesIO(data)) as image:
            width, height = image.size
            _check_pixels(width, height, image_format)
            full_size = image.size
            if image_format == "JPEG":
                # Its decoder can scale by 1/2, 1/4, 1/8 at almost no cost; twice the size that is
                # needed leaves the rest to the antialiased resize.
                target = _stored_size(size, _orientation(image))
                image.draft(None, (2 * target[0], 2 * target[1]))
            memory = _decoding_memory(image, full_size, has_scans)
            if len(data) + memory > MAX_MEMORY:
                raise BadImageError(
                    f"takes {(len(data) + memory) / 1e6:.0f} MB of memory to decode, at most "
                    f"{MAX_MEMORY / 1e6:.0f} are used; save it smaller, or as an ordinary JPEG"
                )
            if _is_large(memory):
                frame, orientation = _large_images().submit(_load, image, size).result()
            else:
                frame, orientation = _load(image, size)
    except BadImageError:
        raise
    except MemoryError as error:
        raise BadImageError("needs more memory than there is; save it smaller") from error
    except Exception as error:  # Pillow raises nearly everything on broken files
        reason = str(error) or type(error).__name__
        raise BadImageError(f"broken {image_format} file: {reason}") from error
    return _finish(frame, orientation)


def thumbnail(data: bytes, side: int) -> np.ndarray:
    """The image as `decode` sees it, in its own proportions: (height, width, 3) uint8.

    Its longer side has ``side`` pixels. Raises `BadImageError`.
    """
    decode(data, (1, 1))  # it may be opened only where that passes
    with OPENERS[str(sniff(data[:HEADER_BYTES]))](BytesIO(data)) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # 5 to 8 swap the sides
            width, height = height, width
    scale = side / max(width, height)
    return decode(data, (max(1, round(height * scale)), max(1, round(width * scale))))


def decode_picture(picture: Image.Image, size: tuple[int, int] = INPUT_SIZE) -> np.ndarray:
    """A picture that Pillow has opened or made, by the rules of `decode`; its current frame.

    Only that a JPEG's decoder is not asked to scale it, which can change a pixel a little.
    ``picture`` itself is not changed. Returns (height, width, 3) uint8; raises `BadImageError`.
    """
    try:
        _check_pixels(*picture.size, picture.format or "")
        if 0 in picture.size:
            raise BadImageError(f"is empty: {picture.width} x {picture.height} pixels")
        picture.load()
        if picture.mode == "F" and not np.isfinite(np.asarray(picture)).any():
            raise BadImageError("holds no finite number")
        orientation = _orientation(picture)
        return _finish(shrink(picture, _stored_size(size, orientation)), orientation)
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises nearly everything on broken files
        raise BadImageError(f"broken picture: {error or type(error).__name__}") from error


def _load(image: Any, size: tuple[int, int]) -> tuple[Any, int]:
    """``image`` shrunk but not yet turned, in mode L, RGB or RGBA, and its EXIF orientation."""
    image.load()
    orientation = _orientation(image)  # which loads a PNG, so only now
    frame = shrink(image, _stored_size(size, orientation))
    image.close()  # frees the pixels before the next large image is loaded
    return frame, orientation


def _is_large(memory: int) -> bool:
    """Whether ``memory`` bytes are more than each of the threads may take at a time."""
    # It takes a moment to look up how many there are.
    return memory > LARGE_MEMORY // MOST_THREADS and memory > LARGE_MEMORY // threads()


def _finish(frame: Any, orientation: int) -> np.ndarray:
    """A frame of `shrink` on white and turned upright, (height, width, 3) uint8."""
    if frame.mode == "RGBA":
        frame = Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame)
    frame = frame.convert("RGB")
    if orientation in _UPRIGHT:
        frame = frame.transpose(_UPRIGHT[orientation])
    return np.asarray(frame)


def _check_pixels(width: int, height: int, image_format: str) -> None:
    limit = MAX_JPEG_PIXELS if image_format == "JPEG" else MAX_PIXELS
    if width * height > limit:
        raise BadImageError(
            f"declares {width} x {height} pixels, at most {limit / 1e6:.0f} million are read; save "
            "it smaller"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) that the header of a WebP file declares (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    sides = data[26:28], data[28:30]
    width, height = (int.from_bytes(side, "little") & 0x3FFF for side in sides)
    return width, height


def _decoding_memory(image: Any, full_size: tuple[int, int], has_scans: bool) -> int:
    """Bytes that decoding takes at its peak, by the header (measured with Pillow 13).

    ``full_size`` is that of the image before `draft`; ``has_scans`` is `check_structure`'s.
    """
    pixels: int = image.width * image.height
    if has_scans:
        # All coefficients are kept, 2 bytes each, whatever the scale.
        sampling = [horizontal * vertical for _, horizontal, vertical, _ in image.layer]
        return int(2 * full_size[0] * full_size[1] * sum(sampling) / max(sampling))
    if image.format == "WEBP":
        return 20 * pixels
    if image.format == "HEIF":
        return 40_000_000 + 7 * pixels
    if image.format == "TIFF":
        return _tiff_memory(image)
    return pixels * _pixel_bytes(image)


def _tiff_memory(image: Any) -> int:
    """The pixels, turned by Pillow itself, and the strip or tile that libtiff decodes into."""
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))
    width, height = image.width, min(image.height, int(tags.get(_ROWS_PER_STRIP, image.height)))
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:
        width, height = int(tags[_TILE_WIDTH]), int(tags[_TILE_LENGTH])
    samples = max(len(bits), int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)))
    strip: int = width * height * samples * max(bits) // 8
    turned = 2 if tags.get(_ORIENTATION_TAG, 1) in _UPRIGHT else 1
    pixels: int = image.width * image.height
    return turned * _pixel_bytes(image) * pixels + strip


def _pixel_bytes(image: Any) -> int:
    mode = image.mode
    return 2 if mode.startswith("I;16") else 1 if mode in ("1", "L", "P") else 4


def _orientation(image: Any) -> int:
    if image.format in ("TIFF", "HEIF"):  # which are turned as they are loaded
        return 1
    try:
        orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _stored_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) before it is turned, of an image that is to be (height, width) upright."""
    return size if orientation >= 5 else size[::-1]  # 5 to 8 swap the sides


def _why_not(data: bytes, image_format: str | None) -> str:
    """Why bytes that `decode` has no opener for are not an image it reads."""
    if not data:
        return "the file is empty"
    if image_format is not None:
        return f"{image_format} files are not read; convert it to JPEG or PNG"
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<svg")):
        return "holds HTML or XML, not an image; download the image itself"
    return "is no JPEG, PNG, GIF, BMP, WebP, TIFF or HEIC image"
