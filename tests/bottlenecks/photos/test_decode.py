"""Every format and mode gives the right pixels, and every bad file a reason."""

import importlib.util
import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import GifImagePlugin, Image, ImageFile, ImageOps, WebPImagePlugin

from bottlenecks.errors import BadImageError
from bottlenecks.photos import decode as decode_module
from bottlenecks.photos import shrink as shrink_module
from bottlenecks.photos import structure
from bottlenecks.photos.decode import MAX_JPEG_PIXELS, MAX_PIXELS, decode, decode_picture, thumbnail
from bottlenecks.photos.shrink import shrink

COLOUR = (200, 120, 40)
SIZE = (8, 8)  # of most test pictures; `decode` is asked for the same


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def tiff16(levels: np.ndarray) -> bytes:
    """A TIFF of 16-bit grey in the byte order of ``levels`` (h, w)."""
    order = "<" if levels.dtype.newbyteorder("=") == levels.dtype else ">"
    tags = {256: levels.shape[1], 257: levels.shape[0], 258: 16, 259: 1, 262: 1, 273: 4096}
    tags |= {277: 1, 278: levels.shape[0], 279: levels.nbytes}
    return tiff(tags, order).ljust(4096, b"\0") + levels.tobytes()


def tiff(tags: dict[int, int | tuple[int, ...]], order: str = "<") -> bytes:
    """The header and first directory of a TIFF, each value a LONG."""
    data = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    for tag, value in sorted(tags.items()):
        (number,) = value if isinstance(value, tuple) else (value,)
        data += struct.pack(f"{order}HHII", tag, 4, 1, number)
    return data + bytes(4)


def one_colour(pixels: np.ndarray) -> list[float]:
    """The mean colour of pixels that all have about the same one."""
    assert np.ptp(pixels.astype(int), axis=(0, 1)).max() <= 2
    colour: list[float] = pixels.mean(axis=(0, 1)).tolist()
    return colour


def halves(size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Red | green above blue | yellow: no two of its eight orientations are alike."""
    picture = Image.new("RGB", size)
    width, height = size[0] // 2, size[1] // 2
    for i, colour in enumerate(("red", "green", "blue", "yellow")):
        picture.paste(colour, (i % 2 * width, i // 2 * height, size[0], size[1]))
    return picture


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def grey_of(colour: tuple[int, int, int]) -> int:
    level = Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
    assert isinstance(level, int)
    return level


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG made by hand; ``more`` are chunks (type and content) before the data."""

    def chunk(content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        )

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = b"IDAT" + zlib.compress(rows)
    chunks = b"".join(map(chunk, (header, *more, data, b"IEND")))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_each_format(image_format: str, options: dict[str, object]) -> None:
    data = encode(Image.new("RGB", SIZE, COLOUR), image_format, **options)
    pixels = decode(data, SIZE)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert one_colour(pixels) == pytest.approx(COLOUR, abs=3)


def test_mpo_gives_its_first_picture() -> None:
    second = Image.new("RGB", SIZE, "blue")
    data = encode(
        Image.new("RGB", SIZE, COLOUR), "MPO", save_all=True, append_images=[second], quality=95
    )
    assert Image.open(BytesIO(data)).format == "MPO"
    assert one_colour(decode(data, SIZE)) == pytest.approx(COLOUR, abs=3)


@pytest.mark.parametrize(
    ("image_format", "mode", "read_as"),
    [
        *(("JPEG", mode, mode) for mode in ("L", "RGB", "CMYK")),
        *(("PNG", mode, mode) for mode in ("L", "LA", "P", "RGB", "RGBA")),
        *(("GIF", mode, "P") for mode in ("L", "P")),
        *(("BMP", mode, mode) for mode in ("L", "P", "RGB")),
        ("BMP", "RGBA", "RGB"),
        *(("WEBP", mode, "RGB") for mode in ("RGB", "RGBA")),  # it drops an alpha of 255
    ],
)
def test_each_mode(image_format: str, mode: str, read_as: str) -> None:
    picture = Image.new("RGB", SIZE, COLOUR)
    if mode == "P":
        picture = picture.quantize(4)
    elif mode == "LA":
        picture = picture.convert("L")
    options = {"lossless": True} if image_format == "WEBP" else {}
    expected = (grey_of(COLOUR),) * 3 if mode[0] == "L" else COLOUR
    data = encode(picture.convert(mode), image_format, **options)
    assert Image.open(BytesIO(data)).mode == read_as
    assert one_colour(decode(data, SIZE)) == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP"])
def test_black_and_white(image_format: str) -> None:
    picture = Image.new("1", SIZE, 1)
    picture.paste(0, (0, 0, 4, 8))
    pixels = decode(encode(picture, image_format), SIZE)
    assert one_colour(pixels[:, :4]) == [0, 0, 0]
    assert one_colour(pixels[:, 4:]) == [255, 255, 255]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(40, 40), (40, 20)])
def test_exif_orientation(image_format: str, orientation: int, size: tuple[int, int]) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(halves(size), image_format, exif=exif(orientation), **options)
    stored = Image.open(BytesIO(data))
    stored.load()  # which turns a TIFF
    upright = ImageOps.exif_transpose(stored).convert("RGB")
    expected = np.asarray(upright.resize((32, 24), Image.Resampling.BILINEAR), int)
    pixels = decode(data, (24, 32)).astype(int)
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 4000])
def test_an_unknown_orientation_turns_nothing(orientation: int) -> None:
    data = encode(halves(), "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(decode(data, (40, 40)), np.asarray(halves()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_no_harm() -> None:
    data = encode(halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(
        decode(data, (40, 40)), decode(encode(halves(), "JPEG"), (40, 40))
    )


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    ],
)
def test_transparency_shows_white(image_format: str, mode: str, options: dict[str, bool]) -> None:
    black = Image.new("L", SIZE, 0).convert(mode)
    for alpha, expected in ((0, 255), (255, 0), (128, 127)):
        black.putalpha(alpha)
        pixels = decode(encode(black, image_format, **options), SIZE)
        assert one_colour(pixels) == pytest.approx([expected] * 3, abs=1)


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_white(image_format: str) -> None:
    picture = Image.new("P", SIZE, 0)
    picture.putpalette([10, 10, 10, *COLOUR])
    picture.paste(1, (0, 0, 4, 8))
    pixels = decode(encode(picture, image_format, transparency=0), SIZE)
    assert one_colour(pixels[:, :4]) == list(COLOUR)
    assert one_colour(pixels[:, 4:]) == [255, 255, 255]


def test_a_palette_with_half_transparent_entries() -> None:
    picture = Image.new("P", SIZE, 0)
    picture.putpalette([0, 0, 0])
    pixels = decode(encode(picture, "PNG", transparency=bytes([128])), SIZE)
    assert one_colour(pixels) == pytest.approx([127] * 3, abs=1)


@pytest.mark.parametrize(("mode", "colour"), [("L", 50), ("RGB", COLOUR), ("1", 0)])
def test_a_transparent_colour_shows_white(mode: str, colour: int | tuple[int, ...]) -> None:
    data = encode(Image.new(mode, SIZE, colour), "PNG", transparency=colour)
    assert one_colour(decode(data, SIZE)) == [255, 255, 255]


def test_no_fringe_where_transparency_ends() -> None:
    """What is fully transparent must not shine through, whatever colour it hides."""
    hidden = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    hidden.paste((255, 255, 255, 255), (0, 0, 41, 80))
    assert decode(encode(hidden, "PNG"), (16, 16)).min() >= 254


@pytest.mark.parametrize("level", [0, 1, 128, 200, 255])
def test_16_bit_grey_is_scaled(level: int) -> None:
    picture = Image.fromarray(np.full(SIZE, level << 8 | level, np.uint16))
    data = encode(picture, "PNG")
    assert Image.open(BytesIO(data)).mode.startswith("I")
    assert one_colour(decode(data, SIZE)) == [level] * 3


def test_16_bit_grey_keeps_its_gradient() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    pixels = decode(encode(Image.fromarray(ramp), "PNG"), (4, 256))
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(256))


@pytest.mark.parametrize("transparent", [0, 40_000])
def test_a_transparent_16_bit_grey_shows_white(transparent: int) -> None:
    levels = np.array([[0, 0, 40_000, 40_001]] * 4, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    data = png(4, 4, 16, 0, rows, b"tRNS" + struct.pack(">H", transparent))
    expected = np.where(levels[0] == transparent, 255, levels[0] >> 8)
    np.testing.assert_array_equal(decode(data, (4, 4))[0, :, 0], expected)


@pytest.mark.parametrize(("bits", "brightest"), [(8, 250), (10, 1000), (12, 4000), (16, 65_000)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_tiff_is_scaled_from_the_bits_of_its_camera(
    bits: int, brightest: int, order: str
) -> None:
    levels = np.linspace(0, brightest, 64).astype(f"{order}u2").reshape(8, 8)
    data = tiff16(levels)
    np.testing.assert_array_equal(decode(data, SIZE)[:, :, 0], levels >> (bits - 8))


@pytest.mark.parametrize(
    ("low", "high", "black", "white"), [(0.0, 1.0, 0, 255), (0.0, 0.5, 0, 127), (-3.0, 9.0, 0, 255)]
)
def test_floating_point_tiff_is_scaled(low: float, high: float, black: int, white: int) -> None:
    levels = np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8)
    pixels = decode(encode(Image.fromarray(levels), "TIFF"), SIZE)
    assert (pixels.min(), pixels.max()) == (black, white)
    levels[0, 0] = np.nan
    assert decode(encode(Image.fromarray(levels), "TIFF"), SIZE)[0, 0].tolist() == [0, 0, 0]


def test_a_tiff_of_several_pages_gives_its_first() -> None:
    pages = [Image.new("RGB", SIZE, colour) for colour in (COLOUR, (0, 0, 0))]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert one_colour(decode(data, SIZE)) == pytest.approx(COLOUR, abs=1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA"])
def test_each_mode_of_tiff(mode: str) -> None:
    picture = halves().convert(mode)
    expected = picture.convert("RGB") if mode != "RGBA" else halves()
    pixels = decode(encode(picture, "TIFF", compression="tiff_lzw"), (40, 40))
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_a_tile_that_takes_much_memory_is_not_decoded() -> None:
    tags: dict[int, int | tuple[int, ...]] = {322: 65_536, 323: 65_536, 324: (8,), 325: (8,)}
    tags |= {256: 8, 257: 8, 258: 8, 259: 5, 262: 1, 277: 1}
    with pytest.raises(BadImageError, match="MB of memory"):
        decode(tiff(tags))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_and_alpha_are_scaled(colour_type: int, channels: int) -> None:
    values = {2: (200, 120, 40), 4: (90, 255), 6: (200, 120, 40, 255)}[colour_type]
    row = b"\0" + b"".join(bytes([v, v]) for v in values) * 8
    expected = values[:3] if channels > 2 else values[:1] * 3
    pixels = decode(png(8, 8, 16, colour_type, row * 8), SIZE)
    assert one_colour(pixels) == pytest.approx(expected, abs=1)


def test_adobe_cmyk_is_not_inverted() -> None:
    data = encode(Image.new("CMYK", SIZE, (0, 255, 255, 0)), "JPEG", quality=95)  # red
    red, green, blue = one_colour(decode(data, SIZE))
    assert red > 230
    assert max(green, blue) < 25


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(image_format: str) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in (COLOUR, "blue", "white")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50)
    animation: Any = Image.open(BytesIO(data))
    assert animation.n_frames == 3
    assert one_colour(decode(data, SIZE)) == pytest.approx(COLOUR, abs=8)


def test_the_size_is_height_and_width() -> None:
    assert decode(encode(halves(), "PNG")).shape == (299, 299, 3)
    assert decode(encode(halves(), "PNG"), (20, 30)).shape == (20, 30, 3)
    assert decode(encode(halves(), "JPEG", exif=exif(6)), (20, 30)).shape == (20, 30, 3)


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((300, 300), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encode(Image.fromarray(stripes), "PNG"), (30, 30))
    assert np.abs(pixels - 127.5).max() <= 5


def test_a_big_jpeg_is_scaled_by_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[0:1600, 0:2400]
    waves = np.stack([np.sin(x / 90), np.cos(y / 70), np.sin((x + y) / 110)], -1)
    data = encode(Image.fromarray((waves * 100 + 128).astype(np.uint8)), "JPEG", quality=95)
    loaded: list[tuple[int, int]] = []

    def record(image: Image.Image, size: tuple[int, int]) -> Any:
        loaded.append(image.size)
        return shrink(image, size)

    monkeypatch.setattr(decode_module, "shrink", record)
    pixels = decode(data).astype(int)
    assert loaded == [(1200, 800)]  # by 1/2: 1/4 would be less than twice 299
    whole = Image.open(BytesIO(data)).resize((299, 299), Image.Resampling.BILINEAR)
    difference = np.abs(pixels - np.asarray(whole, int))
    assert difference.max() <= 6
    assert difference.mean() < 1


def test_a_small_image_is_enlarged() -> None:
    assert one_colour(decode(encode(Image.new("RGB", (1, 1), COLOUR), "PNG"))) == list(COLOUR)


def declare(jpeg: bytes, width: int, height: int) -> bytes:
    """``jpeg`` with another size in its frame header (SOF0)."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def lossless_webp(width: int, height: int) -> bytes:
    """A WebP file that declares its size and holds no picture."""
    picture = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(13)
    body = b"WEBPVP8L" + struct.pack("<I", len(picture)) + picture
    return b"RIFF" + struct.pack("<I", len(body)) + body


def fail_to_load(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(_: object) -> None:
        raise error

    for plugin in (ImageFile.ImageFile, GifImagePlugin.GifImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(plugin, "load", load)


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_load(monkeypatch, AssertionError("decoded although too large"))


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize(
    "data",
    [
        png(100_000, 100_000, 8, 2, b""),
        png(9_487, 9_487, 8, 0, b""),
        declare(encode(Image.new("RGB", SIZE), "JPEG"), 20_000, 10_001),
        declare(encode(Image.new("RGB", SIZE), "JPEG"), 65_500, 65_500),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6),
        lossless_webp(16_384, 16_384),
        b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
        + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\0;",
    ],
    ids=["png", "png just above", "jpeg just above", "jpeg", "bmp", "webp", "gif"],
)  # fmt: skip
def test_too_many_declared_pixels_are_not_decoded(data: bytes) -> None:
    with pytest.raises(BadImageError, match="million"):
        decode(data)


def test_limits() -> None:
    assert (MAX_PIXELS, MAX_JPEG_PIXELS) == (90_000_000, 200_000_000)


def test_a_jpeg_above_the_limit_of_the_other_formats_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 63)
    picture = Image.new("RGB", SIZE, COLOUR)
    assert decode(encode(picture, "JPEG")).shape == (299, 299, 3)
    with pytest.raises(BadImageError, match="8 x 8"):
        decode(encode(picture, "PNG"))


def test_pillows_own_limit_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    for image_format in ("JPEG", "PNG", "BMP", "GIF"):
        assert decode(encode(Image.new("RGB", SIZE), image_format)).max() == 0


def test_a_big_image_is_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def record(image: Image.Image, size: tuple[int, int]) -> Any:
        threads.append(threading.current_thread())
        return shrink(image, size)

    monkeypatch.setattr(decode_module, "shrink", record)
    data = encode(Image.new("RGB", (8, 8)), "PNG")
    small = decode(data)
    monkeypatch.setattr(decode_module, "LARGE_MEMORY", 64)
    np.testing.assert_array_equal(decode(data), small)
    np.testing.assert_array_equal(decode(data), small)
    assert threads[0] is threading.current_thread()
    assert threads[1] is threads[2] is not threads[0]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("shape", [(603, 907), (1000, 130), (130, 1000)])
def test_shrinking_in_strips_changes_little(
    monkeypatch: pytest.MonkeyPatch, mode: str, shape: tuple[int, int]
) -> None:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    waves = np.stack([np.sin(x / 90), np.cos(y / 70), np.sin((x + y) / 110)], -1)
    picture = Image.fromarray((waves * 100 + 128).astype(np.uint8))
    picture = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray((np.sin(x / 50) * 100 + 128).astype(np.uint8)))
    data = encode(picture, "PNG")
    whole = decode(data, (40, 50)).astype(int)
    monkeypatch.setattr(shrink_module, "STRIP_PIXELS", 20_000)
    difference = np.abs(decode(data, (40, 50)) - whole)
    assert difference.max() <= 4  # sides that no factor divides are not stretched, either
    assert difference.mean() < 0.5


@pytest.mark.usefixtures("never_loaded")
def test_a_progressive_jpeg_that_takes_much_memory_is_not_decoded() -> None:
    """It cannot be decoded scaled: all its coefficients are kept."""
    data = encode(Image.new("RGB", (16, 16)), "JPEG", progressive=True, subsampling=0)
    at = data.index(b"\xff\xc2") + 5
    huge = data[:at] + struct.pack(">HH", 10_000, 12_000) + data[at + 4 :]
    with pytest.raises(BadImageError, match="memory"):
        decode(huge)


WHOLE = {
    image_format: encode(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)),
        image_format,
    )
    for image_format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
}


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("image_format", WHOLE)
def test_a_truncated_file_is_broken(image_format: str, part: float) -> None:
    data = WHOLE[image_format]
    with pytest.raises(BadImageError, match=r"\w+"):
        decode(data[: max(32, int(len(data) * part))])


@pytest.mark.parametrize("image_format", WHOLE)
def test_garbage_after_the_header_is_broken_or_read_but_never_another_error(
    image_format: str,
) -> None:
    random = np.random.default_rng(1)
    data = np.frombuffer(WHOLE[image_format], np.uint8)
    for _ in range(40):
        broken = data.copy()
        broken[random.integers(20, len(data), 8)] = random.integers(0, 256, 8)
        try:
            assert decode(broken.tobytes(), SIZE).shape == (8, 8, 3)
        except BadImageError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        (b"\n  <html lang=en>", "HTML"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML"),
        (b"\0\0\0\x18ftypavif" + bytes(40), r"AVIF.*convert"),
        (encode(Image.new("RGB", SIZE), "PPM"), "JPEG, PNG"),
        (b"a text", "JPEG, PNG"),
        (bytes(1000), "JPEG, PNG"),
    ],
)
def test_the_reason_says_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("image_format", WHOLE)
def test_out_of_memory_is_a_bad_image(monkeypatch: pytest.MonkeyPatch, image_format: str) -> None:
    fail_to_load(monkeypatch, MemoryError())
    with pytest.raises(BadImageError, match="memory"):
        decode(WHOLE[image_format])


def test_the_memory_of_large_images_does_not_add_up_over_threads() -> None:
    """Eight threads, each with a PNG of 60 megapixels that takes 240 MB."""
    script = (
        "import io, pathlib, re\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from PIL import Image\n"
        "from bottlenecks.photos.decode import decode\n"
        "import sys\n"
        "data = sys.stdin.buffer.read()\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    shapes = [a.shape for a in pool.map(decode, [data] * 8)]\n"
        "assert shapes == [(299, 299, 3)] * 8\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
    )
    file = io.BytesIO()
    Image.new("RGB", (7_700, 7_700), "red").save(file, "PNG", compress_level=1)
    result = subprocess.run(
        [sys.executable, "-c", script], input=file.getvalue(), capture_output=True, check=True
    )
    assert int(result.stdout) * 1024 < 500e6


@pytest.mark.parametrize("image_format", WHOLE)
@pytest.mark.parametrize(
    ("size", "shape"),
    [((400, 200), (50, 100, 3)), ((30, 90), (100, 33, 3)), ((7, 7), (100, 100, 3))],
)
def test_a_thumbnail_has_the_image_s_proportions(
    image_format: str, size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    pixels = thumbnail(encode(Image.new("RGB", size, COLOUR), image_format, **options), 100)
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8
    assert one_colour(pixels) == pytest.approx(COLOUR, abs=4)


@pytest.mark.parametrize(("size", "shape"), [((900, 1), (1, 90, 3)), ((1, 900), (90, 1, 3))])
def test_a_thumbnail_of_a_line_is_a_line(size: tuple[int, int], shape: tuple[int, ...]) -> None:
    assert thumbnail(encode(Image.new("RGB", size, COLOUR), "PNG"), 90).shape == shape


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_upright(image_format: str, orientation: int) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {"quality": 95}
    data = encode(halves((80, 40)), image_format, exif=exif(orientation), **options)
    stored = Image.open(BytesIO(data))
    stored.load()  # which turns a TIFF
    upright = ImageOps.exif_transpose(stored).convert("RGB")
    expected = np.asarray(upright.resize((upright.width // 2, upright.height // 2)), int)
    pixels = thumbnail(data, 40).astype(int)
    assert pixels.shape == expected.shape
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert np.abs(pixels[y, x] - expected[y, x]).max() <= 12


def test_a_thumbnail_is_on_white_and_of_the_first_frame() -> None:
    clear = Image.new("RGBA", SIZE, (255, 0, 0, 0))
    assert one_colour(thumbnail(encode(clear, "PNG"), 8)) == [255, 255, 255]
    frames = encode(
        Image.new("RGB", SIZE, "red"), "GIF", save_all=True, append_images=[Image.new("RGB", SIZE)]
    )
    assert one_colour(thumbnail(frames, 8)) == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [b"", b"a text", b"<html>", *(WHOLE[name][:-300] for name in ("JPEG", "PNG"))],
)
def test_a_thumbnail_of_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(BadImageError):
        thumbnail(data, 90)


needs_heif = pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is None,
    reason="pillow-heif (the extra heic) is missing",
)


def heic(image: Image.Image, **options: object) -> bytes:
    from pillow_heif import from_pillow

    file = BytesIO()
    from_pillow(image).save(file, quality=95, **options)
    return file.getvalue()


@needs_heif
def test_heic() -> None:
    data = heic(Image.new("RGB", (64, 48), COLOUR))
    pixels = decode(data)
    assert pixels.shape == (299, 299, 3)
    assert pixels.dtype == np.uint8
    assert one_colour(pixels) == pytest.approx(COLOUR, abs=4)
    assert thumbnail(data, 32).shape == (24, 32, 3)


@needs_heif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright(orientation: int) -> None:
    picture = halves((80, 40))
    data = heic(picture, exif=exif(orientation).tobytes())
    turned = Image.open(BytesIO(encode(picture, "PNG", exif=exif(orientation))))
    upright = ImageOps.exif_transpose(turned).convert("RGB")
    expected = np.asarray(upright.resize((60, 60)), int)
    pixels = decode(data, (60, 60)).astype(int)
    for y, x in ((5, 5), (5, -5), (-5, 5), (-5, -5)):
        assert np.abs(pixels[y, x] - expected[y, x]).max() <= 20
    shape = (20, 40, 3) if orientation < 5 else (40, 20, 3)
    assert thumbnail(data, 40).shape == shape


@needs_heif
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_heic_is_broken(part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = heic(Image.fromarray(noise))
    with pytest.raises(BadImageError):
        decode(data[: int(len(data) * part)])


@needs_heif
@pytest.mark.usefixtures("never_loaded")
def test_the_limits_hold_for_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(Image.new("RGB", (64, 64)))
    monkeypatch.setattr(decode_module, "MAX_MEMORY", 40_000_000)
    with pytest.raises(BadImageError, match="MB of memory"):
        decode(data)
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(BadImageError, match="64 x 64"):
        decode(data)


def test_heic_without_its_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImageError, match=r"pip install pillow-heif.*JPEG"):
        decode(b"\0\0\0\x18ftypheic" + bytes(40))


def several_scans(side: int) -> bytes:
    """A baseline JPEG, ``side`` x ``side``, whose three components come in three scans."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    code = bytes([1, *[0] * 15, 0])  # one symbol, of one bit
    frame = struct.pack(">BHHB", 8, side, side, 3) + b"".join(
        bytes((i, 0x11, 0)) for i in (1, 2, 3)
    )
    data = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC0, frame)
    data += segment(0xC4, b"\x00" + code) + segment(0xC4, b"\x10" + code)
    bits = 2 * ((side + 7) // 8) ** 2
    for component in (1, 2, 3):
        data += segment(0xDA, bytes((1, component, 0, 0, 63, 0))) + bytes((bits + 7) // 8)
    return data + b"\xff\xd9"


def test_a_jpeg_of_several_scans_takes_memory_for_all_coefficients() -> None:
    assert decode(several_scans(64), SIZE).shape == (*SIZE, 3)
    with pytest.raises(BadImageError, match="takes 1178 MB of memory to decode"):
        decode(several_scans(14_000), SIZE)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_flood_of_exif_is_refused_before_it_is_parsed(image_format: str) -> None:
    values = 200_000
    exif = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x112, 5, values, 26) + bytes(4)
    exif += struct.pack("<II", 70001, 70003) * values
    picture = Image.new("RGB", (50, 50))
    if image_format == "JPEG":
        plain = encode(picture, "JPEG")
        body = b"Exif\0\0" + bytes(65_500)
        data = plain[:2] + (b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body) * 40 + plain[2:]
    elif image_format == "PNG":
        plain = encode(picture, "PNG")
        chunk = b"eXIf" + exif
        whole = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        data = plain[:33] + whole + plain[33:]
    else:
        data = encode(picture, "WEBP", exif=exif)
    started = time.process_time()
    with pytest.raises(BadImageError, match="bytes of Exif"):
        decode(data, SIZE)
    assert time.process_time() - started < 0.5


def test_a_webp_s_metadata_is_bounded() -> None:
    data = encode(Image.new("RGB", (50, 50)), "WEBP", xmp=bytes(structure.MAX_METADATA + 1))
    with pytest.raises(BadImageError, match="bytes of metadata"):
        decode(data, SIZE)


def test_ordinary_exif_turns_a_picture_in_every_format() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    for image_format in ("JPEG", "PNG", "WEBP"):
        pixels = decode(encode(picture, image_format, exif=exif), (20, 20)).astype(int)
        assert pixels[2, 10, 1] < 60 and pixels[17, 10, 1] > 200  # red is above


def test_a_picture_and_its_copy_have_the_same_pixels() -> None:
    """A copy no longer knows the file's format; 16-bit grey must not change for it."""
    dark = Image.fromarray((np.random.default_rng(0).random((64, 64)) * 900).astype(np.uint16))
    data = encode(dark, "PNG")
    opened = Image.open(io.BytesIO(data))
    expected = decode(data, SIZE)
    for picture in (opened, opened.copy(), dark):
        np.testing.assert_array_equal(decode_picture(picture, SIZE), expected)


@pytest.mark.parametrize(
    "picture",
    [Image.new("RGB", (0, 5)), Image.fromarray(np.full((9, 9), np.nan, np.float32))],
    ids=["empty", "no number"],
)
def test_a_picture_of_nothing_is_a_bad_image(picture: Image.Image) -> None:
    with pytest.raises(BadImageError):
        decode_picture(picture, SIZE)
