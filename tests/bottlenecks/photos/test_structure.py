"""Floods of scans, segments, chunks and blocks are refused before Pillow sees them."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bottlenecks.errors import BadImageError
from bottlenecks.photos import decode as decode_module
from bottlenecks.photos import structure
from bottlenecks.photos.decode import decode


def encoded(image_format: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, image_format, **options)
    return file.getvalue()


def segments(jpeg: bytes) -> list[bytes]:
    """The segments of a progressive JPEG, each scan with its data; without SOI and EOI."""
    found, at = [], 2
    while jpeg[at + 1] != 0xD9:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at + 1] == 0xDA:
            while jpeg[end] != 0xFF or jpeg[end + 1] == 0 or 0xD0 <= jpeg[end + 1] <= 0xD7:
                end += 1
        found.append(jpeg[at:end])
        at = end
    return found


PROGRESSIVE = segments(encoded("JPEG", progressive=True))
LAST_SCAN = PROGRESSIVE[-1]
HEADER = struct.pack(">HH", 0xFFD8, 0xFFE0) + struct.pack(">H", 16) + b"JFIF\0" + bytes(9)


def jpeg(parts: list[bytes]) -> bytes:
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def sequential(scans: int) -> bytes:
    """A JPEG that is not progressive, with a scan for each of its three components, and more."""
    (frame,) = [part for part in segments(encoded("JPEG", subsampling=0)) if part[1] == 0xC0]
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00\x00\x3f\x00" + b"\x00"
    return jpeg([frame, *[scan] * scans])


def png(*chunks: tuple[bytes, bytes], many: int = 1) -> bytes:
    """The PNG of one pixel with ``many`` times ``chunks`` before its data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    extra = b"".join(chunk(*c) for c in chunks) * many
    return b"\x89PNG\r\n\x1a\n" + header + extra + rest


def gif(block: bytes) -> bytes:
    whole = encoded("GIF")
    start = 13 + 3 * 2 ** (1 + (whole[10] & 7))
    return whole[:start] + block + whole[start:]


def tiff(tag: int, kind: int, count: int, tags: int = 1, big: bool = False) -> bytes:
    if big:
        entry = struct.pack("<HHQQ", tag, kind, count, 0)
        return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, tags) + entry * min(tags, 2000)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, tags) + struct.pack("<HHII", tag, kind, count, 0) * tags
    )


def bmp(size: tuple[int, int], data: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(data), 0, 0, 0, 0)
    return (
        b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54 + 1024) + header + bytes(1024) + data
    )


COMMENT = b"\xff\xfe\x00\x04ab"
FLOODS = {
    "scans of a progressive JPEG": jpeg(PROGRESSIVE + [LAST_SCAN] * structure.MAX_SCANS),
    "scans of another JPEG": sequential(structure.MAX_SCANS + 1),
    "comments in a JPEG": jpeg([COMMENT] * (structure.MAX_SEGMENTS + 1)),
    "comments between its scans": jpeg(PROGRESSIVE + [COMMENT] * structure.MAX_SEGMENTS),
    "markers alone": jpeg([b"\xff\xd8"] * (structure.MAX_SEGMENTS + 1)),
    "junk before a marker": b"\xff\xd8\xff\xe0\0\2" + bytes(structure.MAX_JUNK + 1) + b"\xff\xd9",
    "filling before a marker": b"\xff\xd8" + b"\xff" * (structure.MAX_JUNK + 9) + b"\xd9",
    "chunks of a PNG": png((b"tEXt", b""), many=structure.MAX_CHUNKS),
    "private chunks": png((b"prVt", b"x"), many=structure.MAX_CHUNKS),
    "data chunks": png((b"IDAT", b""), many=structure.MAX_CHUNKS),
    "metadata of a PNG": png((b"prVt", bytes(2**20)), many=65),
    "chunks of a WebP": b"RIFF\0\0\0\0WEBP" + (b"EXIF" + bytes(4)) * (structure.MAX_CHUNKS + 1),
    "blocks of a GIF": gif(b"!\xfe" + b"\1a" * structure.MAX_GIF_BLOCKS + b"\0"),
    "extensions of a GIF": gif(b"!\xfe\0" * (structure.MAX_GIF_BLOCKS + 1)),
    "junk in a GIF": gif(bytes(structure.MAX_JUNK + 1)),
    "strips of a TIFF": tiff(273, 4, structure.MAX_TIFF_VALUES + 1),
    "strips of a BigTIFF": tiff(273, 16, structure.MAX_TIFF_VALUES + 1, big=True),
    "tags of a TIFF": tiff(273, 4, 1, tags=structure.MAX_TIFF_TAGS + 1),
    "tags of a BigTIFF": tiff(273, 4, 1, tags=2**60, big=True),
    "pixels of a run-length coded BMP": bmp((4_000, 4_000)),
    "bytes of a run-length coded BMP": bmp((100, 100), bytes(structure.MAX_RLE_BYTES)),
}


@pytest.fixture
def never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: object) -> None:
        raise AssertionError("it was handed to Pillow")

    for image_format in list(decode_module.OPENERS):
        monkeypatch.setitem(decode_module.OPENERS, image_format, opened)


@pytest.mark.usefixtures("never_opened")
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_refused_before_it_is_opened(flood: str) -> None:
    with pytest.raises(BadImageError, match=r"has more than [0-9,]+ .*; open it in an editor"):
        decode(FLOODS[flood])


@pytest.mark.usefixtures("never_opened")
def test_scans_of_many_pixels_may_be_fewer() -> None:
    parts = list(PROGRESSIVE)
    frame = next(i for i, part in enumerate(parts) if part[1] == 0xC2)
    parts[frame] = parts[frame][:5] + struct.pack(">HH", 12_000, 12_000) + parts[frame][9:]
    with pytest.raises(BadImageError, match="scans for its size"):
        decode(jpeg(parts + [LAST_SCAN] * 5))


def icc(count: int) -> list[bytes]:
    """A colour profile in as many segments as there can be, of the greatest length."""
    body = bytes(65_519)
    head = b"\xff\xe2\xff\xffICC_PROFILE\0"
    return [head + bytes((i + 1, count)) + body for i in range(count)]


ORDINARY = {
    "progressive": jpeg(PROGRESSIVE),
    "some more scans": jpeg(PROGRESSIVE + [LAST_SCAN] * 50),
    "restart markers": encoded("JPEG", restart_marker_blocks=1),
    "16 MB of profile": jpeg(icc(255) + segments(encoded("JPEG", progressive=True))[1:]),
    "XMP of 10 MB": jpeg(
        [b"\xff\xe1\xff\xff" + b"http://ns.adobe.com/xmp/extension/\0".ljust(65_533, b"x")] * 160
        + PROGRESSIVE
    ),
    "filling": b"\xff\xd8" + b"\xff" * 50 + jpeg(PROGRESSIVE)[2:],
    "a PNG of some text": png((b"tEXt", b"a\0b"), many=200),
    "a PNG of many data chunks": png((b"IDAT", b""), many=40_000),
    "comments in a GIF": gif(b"!\xfe\3abc\0" * 100),
    "a video's preview": encoded("JPEG") + bytes(3_000_000),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_cameras_and_editors_write_is_read(name: str) -> None:
    assert decode(ORDINARY[name]).shape == (299, 299, 3)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_an_animation_of_thousands_of_frames_is_read(image_format: str) -> None:
    frames = [Image.new("L", (2, 2), i % 256) for i in range(2000)]
    file = BytesIO()
    frames[0].save(file, image_format, save_all=True, append_images=frames[1:])
    assert decode(file.getvalue()).shape == (299, 299, 3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_nothing_of_it_raises_another_error(image_format: str) -> None:
    random = np.random.default_rng(0)
    whole = np.frombuffer(encoded(image_format), np.uint8)
    for _ in range(300):
        data = whole[: random.integers(33, len(whole))].copy()
        data[random.integers(12, len(data), 12)] = random.integers(0, 256, 12)
        try:
            structure.check_structure(data.tobytes(), image_format)
        except BadImageError as error:
            assert str(error)
