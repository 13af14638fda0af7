"""What an image file is put together of, looked at before Pillow is: not too many parts.

Pillow and its codecs take time or memory for each marker, scan, chunk and block, however small. A
file that has more than any camera or editor writes is refused here; for an ordinary photo this
takes some microseconds.
"""

import re
import struct

from bottlenecks.errors import BadImageError

# A megabyte of Exif, ICC and extended XMP is 16 segments; a depth map in XMP some hundred.
MAX_SEGMENTS = 5_000
# libjpeg's own progression has 10 scans and is the usual one. libjpeg-turbo's fuzzers stop at 500
# (fuzz/decompress.cc); its examples at 100 (README: -maxscans). All of an image is gone through for
# each, so what counts is both together: 12 scans of the largest progressive image that is decoded.
MAX_SCANS, MAX_SCANNED_PIXELS = 100, 1_600_000_000
# libpng writes 8 KB of pixels to a chunk: 32,768 in a file of 256 MB.
MAX_CHUNKS, MAX_METADATA = 50_000, 64 * 2**20
# Pillow makes an object of each number in Exif, and copies the segments for each more of them. A
# camera's is one segment of 64 KB at most.
MAX_EXIF = 2**20
MAX_GIF_BLOCKS = 50_000  # before the first frame; 12 MB of comments
# Pillow builds a list of the strips or tiles: 90 million pixels in tiles of 32 x 32 have 88,000.
MAX_TIFF_VALUES, MAX_TIFF_TAGS = 100_000, 1_000
# Run-length coded BMP is decoded by Python, byte by byte.
MAX_RLE_BYTES, MAX_RLE_PIXELS = 8_000_000, 10_000_000
MAX_JUNK = 100_000  # bytes between the parts of a header, which Pillow skips one by one

_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # others are within it
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # but for DHT, JPG and DAC
_STANDALONE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1


def check_structure(data: bytes, image_format: str) -> bool:
    """Raise `BadImageError` for a file that has more parts than are read.

    ``image_format`` is what `images.sniff` gives. What is broken otherwise is left to the codecs.
    Returns whether it is a JPEG of several scans, for which its decoder keeps all coefficients.
    """
    check = _CHECKS.get(image_format)
    return check is not None and bool(check(data))


def _refuse(what: str, most: int) -> BadImageError:
    return BadImageError(f"has more than {most:,} {what}; open it in an editor and save it anew")


def _check_jpeg(data: bytes) -> bool:
    """The segments before the first scan, and all scans where there can be more than one."""
    at, junk, segments, scans, pixels, exif = 2, 0, 0, 0, 0, 0
    components, progressive = 0, False
    while found := (_MARKER_AFTER_SCAN if scans else _MARKER).search(data, at):
        junk += 0 if scans else found.start() - at
        segments += 1
        if segments > MAX_SEGMENTS:
            raise _refuse("segments", MAX_SEGMENTS)
        if junk > MAX_JUNK:
            raise _refuse("stray bytes between its segments", MAX_JUNK)
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI and scans:
            break
        if marker in _STANDALONE or len(data) < at + 8:
            continue
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            pixels = max(pixels, height * width)
            progressive |= marker in _PROGRESSIVE
        elif marker == _SOS:
            scans += 1
            if not progressive and data[at + 2] >= components:
                return scans > 1  # the only one: the decoder stops at its end
            if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
                raise _refuse("scans for its size", scans - 1)
        length = max(2, int.from_bytes(data[at : at + 2]))
        if marker == _APP1 and data.startswith(b"Exif", at + 2):
            exif += length
            if exif > MAX_EXIF:
                raise _refuse("bytes of Exif", MAX_EXIF)
        at += length
    return scans > 0


def _check_png(data: bytes) -> None:
    at, chunks, metadata = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            return
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise _refuse("chunks", MAX_CHUNKS)
        if kind not in (b"IDAT", b"fdAT"):
            metadata += length
            if metadata > MAX_METADATA:
                raise _refuse("bytes of metadata", MAX_METADATA)
            if kind == b"eXIf" and length > MAX_EXIF:
                raise _refuse("bytes of Exif", MAX_EXIF)
        at += 12 + length


def _check_webp(data: bytes) -> None:
    at, chunks, metadata = 12, 0, 0
    while at + 8 <= len(data):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise _refuse("chunks", MAX_CHUNKS)
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind not in _WEBP_PIXELS:
            metadata += length
            if metadata > MAX_METADATA:
                raise _refuse("bytes of metadata", MAX_METADATA)
            if kind == b"EXIF" and length > MAX_EXIF:
                raise _refuse("bytes of Exif", MAX_EXIF)
        at += 8 + length + length % 2


def _check_gif(data: bytes) -> None:
    """The blocks before the first frame."""
    if len(data) < 13:
        return
    at, blocks, junk = 13, 0, 0
    if data[10] & 0x80:
        at += 3 * 2 ** (1 + (data[10] & 7))  # the colours
    while at < len(data):
        if data[at] in b",;":  # a frame, or the end
            return
        if data[at] != ord("!"):
            at, junk = at + 1, junk + 1
            if junk > MAX_JUNK:
                raise _refuse("stray bytes between its blocks", MAX_JUNK)
            continue
        at += 2
        while at < len(data):
            blocks += 1
            if blocks > MAX_GIF_BLOCKS:
                raise _refuse("blocks before its first frame", MAX_GIF_BLOCKS)
            size = data[at]
            at += 1 + size
            if not size:
                break


def _check_bmp(data: bytes) -> None:
    if len(data) < 34 or int.from_bytes(data[14:18], "little") < 40:
        return
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (1, 2):  # RLE8, RLE4
        if len(data) > MAX_RLE_BYTES:
            raise _refuse("bytes of run-length coded pixels", MAX_RLE_BYTES)
        if abs(width * height) > MAX_RLE_PIXELS:
            raise _refuse("run-length coded pixels", MAX_RLE_PIXELS)


def _check_tiff(data: bytes) -> None:
    """The first page's tags (TIFF 6.0, section 2; BigTIFF has numbers of twice the size)."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count, entry = ("Q", "HHQ8x") if big else ("H", "HHI4x")
    try:
        (at,) = struct.unpack_from(order + ("8xQ" if big else "4xI"), data)
        (tags,) = struct.unpack_from(order + count, data, at)
        if tags > MAX_TIFF_TAGS:
            raise _refuse("tags", MAX_TIFF_TAGS)
        at += struct.calcsize(count)
        for i in range(tags):
            place = at + i * struct.calcsize("=" + entry)
            _, kind, values = struct.unpack_from(order + entry, data, place)
            # Kinds of one byte stay bytes; each number of another becomes an object.
            if kind not in (1, 2, 6, 7) and values > MAX_TIFF_VALUES:
                raise _refuse("strips, tiles or other values of a tag", MAX_TIFF_VALUES)
    except struct.error:
        return  # it is cut off, as Pillow will say


_CHECKS = {
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "GIF": _check_gif,
    "BMP": _check_bmp,
    "WEBP": _check_webp,
    "TIFF": _check_tiff,
}
