"""Image files -> pixels, within a TensorFlow graph.

By the rules of `bottlenecks.photos.decode`, as far as TensorFlow's operations can:

- JPEG (grey, colour, CMYK), PNG (of 1 to 16 bits; transparency becomes white), GIF (its first
  frame) and BMP are read. WebP, TIFF and HEIC are not, and a BMP with a palette is taken for grey.
- A JPEG is turned upright by its Exif: by the first orientation among the first 1000 entries, if
  it is a SHORT or LONG. Exif behind 100 segments and stray bytes or more, what a second segment
  adds to it, and an orientation in XMP or in a PNG are not looked at.
- What is transparent in a GIF is black.
- Other images than JPEG of more than 4 megapixels are shrunk in one go, where Pillow takes two.
- A file is not looked at before it is decoded: only TensorFlow's own limits hold.
"""

from collections.abc import Callable
from typing import Any

from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import INPUT_SIZE

_AT_ONCE = 2  # photos that are decoded side by side; a PNG of 12 megapixels takes 0.5 GB
_JPEG, _PNG, _GIF, _BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"
_PNG_BITS = 24  # which byte of a PNG has the bits of a sample
_SEGMENT, _APP1, _SCAN = 0xFFC0, 0xFFE1, 0xFFDA  # markers: the least that has a length, ...
_FILL = 0xFFFF  # no marker: of a byte that may stand before one any number of times
_MOST_STEPS = 99  # over segments and stray bytes, to the Exif
_EXIF, _LITTLE_ENDIAN = b"Exif\0\0", b"II"
_ENTRY_BYTES, _MOST_ENTRIES = 12, 1000
_ORIENTATION_TAG, _SHORT, _LONG = 0x0112, 3, 4


def pixels_of(files: Any) -> Any:
    """(n,) strings, the bytes of image files -> (n, 299, 299, 3) float32, whole numbers to 255.

    Running it fails where one of them cannot be decoded.
    """
    tf = import_tensorflow()
    return tf.map_fn(
        _decoded,
        files,
        parallel_iterations=_AT_ONCE,
        fn_output_signature=tf.TensorSpec((*INPUT_SIZE, 3), tf.float32),
    )


def resized(images: Any) -> Any:
    """(n, height, width, c) of 0 to 255 -> (n, 299, 299, c) float32, whole numbers from 0 to 255.

    As Pillow does it: one side and then the other, to whole numbers each time. The width comes
    first, unless the height loses more than twice as much (so Pillow 13 was found to do).
    """
    tf = import_tensorflow()
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    new_height, new_width = INPUT_SIZE
    lost = tf.maximum(width - new_width, 0)
    is_tall = tf.cast(tf.greater(height - new_height, 2 * lost), tf.int32)
    size = (height + is_tall * (new_height - height), new_width + is_tall * (width - new_width))
    half_way = tf.round(tf.image.resize(images, size, antialias=True))
    return tf.round(tf.image.resize(half_way, INPUT_SIZE, antialias=True))


def _decoded(data: Any) -> Any:
    """One of `pixels_of`."""
    tf = import_tensorflow()
    is_jpeg, is_png = _starts(data, _JPEG), _starts(data, _PNG)
    readers = [(is_jpeg, lambda: _jpeg(data)), (is_png, lambda: _png(data))]
    return tf.case(readers, default=lambda: _gif_or_bmp(data))


def _starts(data: Any, magic: bytes) -> Any:
    tf = import_tensorflow()
    return tf.equal(tf.strings.substr(data, 0, len(magic)), magic)


def _jpeg(data: Any) -> Any:
    """One, decoded at a fraction of its size where it is much larger than needed, as in Pillow."""
    tf = import_tensorflow()

    def at(ratio: int) -> Callable[[], Any]:
        method = "INTEGER_ACCURATE"
        return lambda: tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method=method)

    sides = tf.io.extract_jpeg_shape(data)[:2]
    fits = tf.reduce_min(sides // (2 * tf.constant(INPUT_SIZE)))
    image = tf.case([(fits >= ratio, at(ratio)) for ratio in (8, 4, 2)], default=at(1))
    return _upright(resized(image[tf.newaxis])[0], _orientation(tf.io.decode_raw(data, tf.uint8)))


def _png(data: Any) -> Any:
    """One on white: its colours are weighed by their opacity, which is resized with them."""
    tf = import_tensorflow()
    image = tf.cast(tf.io.decode_png(data, channels=4), tf.float32)
    # Where TensorFlow adds what is opaque to fewer than 8 bits, it is the most of these bits.
    bits = tf.io.decode_raw(tf.strings.substr(data, 0, _PNG_BITS + 1), tf.uint8)[-1]
    opaque = tf.minimum(2.0 ** tf.cast(bits, tf.float32) - 1.0, 255.0)
    alpha = image[..., 3:]
    alpha = tf.where(tf.reduce_all(tf.equal(alpha, opaque)), 255.0, alpha)
    weighed = tf.round(image[..., :3] * alpha / 255.0)
    image = resized(tf.concat((weighed, alpha), axis=-1)[tf.newaxis])[0]
    alpha = image[..., 3:]
    colour = tf.minimum(tf.floor(255.0 * image[..., :3] / tf.maximum(alpha, 1.0)), 255.0)
    return tf.round(255.0 + (colour - 255.0) * alpha / 255.0)


def _gif_or_bmp(data: Any) -> Any:
    tf = import_tensorflow()
    # Nothing else may come here: an animated WebP ends the process (TensorFlow 2.21).
    is_either = tf.logical_or(_starts(data, _GIF), _starts(data, _BMP))
    image = tf.io.decode_image(tf.where(is_either, data, ""), expand_animations=False)
    shape = tf.shape(image)
    colour = tf.broadcast_to(image[..., :3], (shape[0], shape[1], 3))  # grey has 1 channel
    return resized(colour[tf.newaxis])[0]


def _upright(image: Any, orientation: Any) -> Any:
    """Turn a square ``image`` (EXIF 2.3, 4.6.4 A): 5 to 8 swap its sides, others mirror it."""
    tf = import_tensorflow()

    def turned(image: Any, into: Any, *orientations: int) -> Any:
        return tf.where(tf.reduce_any(tf.equal(orientation, orientations)), into, image)

    image = turned(image, tf.transpose(image, (1, 0, 2)), 5, 6, 7, 8)
    image = turned(image, tf.reverse(image, (1,)), 2, 3, 6, 7)
    return turned(image, tf.reverse(image, (0,)), 3, 4, 7, 8)


def _orientation(file: Any) -> Any:
    """() int64: what the Exif in the bytes (n,) uint8 of a JPEG says; 0 where it says nothing."""
    tf = import_tensorflow()

    def is_exif(at: Any) -> Any:
        exif = int.from_bytes(_EXIF, "big")
        is_app1 = tf.equal(_number(file, at, 2), _APP1)
        return tf.logical_and(is_app1, tf.equal(_number(file, at + 4, len(_EXIF)), exif))

    def is_before(at: Any) -> Any:
        is_scan = tf.equal(_number(file, at, 2), _SCAN)
        return tf.logical_not(tf.logical_or(is_scan, is_exif(at)))

    def behind(at: Any) -> Any:
        """Stray bytes are passed over one by one, as Pillow and libjpeg do."""
        marker = _number(file, at, 2)
        is_segment = tf.logical_and(marker >= _SEGMENT, tf.not_equal(marker, _FILL))
        return at + tf.where(is_segment, 2 + _number(file, at + 2, 2), 1)

    start = tf.constant(2, tf.int64)
    at = tf.while_loop(is_before, behind, (start,), maximum_iterations=_MOST_STEPS)[0]
    in_tiff = _orientation_of_tiff(file[: behind(at)], at + 4 + len(_EXIF))
    return tf.where(is_exif(at), in_tiff, tf.zeros_like(in_tiff))


def _orientation_of_tiff(file: Any, start: Any) -> Any:
    """The first in the first directory of the TIFF from ``start`` on (TIFF 6.0, section 2)."""
    tf = import_tensorflow()
    little = tf.equal(_number(file, start, 2), int.from_bytes(_LITTLE_ENDIAN, "big"))
    directory = start + _number(file, start + 4, 4, little)
    count = tf.minimum(_number(file, directory, 2, little), _MOST_ENTRIES)
    entries = directory + 2 + _ENTRY_BYTES * tf.range(count)
    is_it = tf.equal(_number(file, entries, 2, little), _ORIENTATION_TAG)
    first = tf.boolean_mask(entries, is_it)[:1]
    kind, at = _number(file, first + 2, 2, little), first + 8
    short, long = _number(file, at, 2, little), _number(file, at, 4, little)
    value = tf.where(tf.equal(kind, _SHORT), short, tf.where(tf.equal(kind, _LONG), long, 0))
    return tf.reduce_sum(value)  # of one or none


def _number(file: Any, at: Any, count: int, little_endian: Any = False) -> Any:
    """int64, for each position ``at`` the number in ``count`` bytes; behind the end are zeros."""
    tf = import_tensorflow()
    places = tf.range(count, dtype=tf.int64)
    places = at[..., tf.newaxis] + tf.where(little_endian, count - 1 - places, places)
    last = tf.size(file, tf.int64) - 1
    found = tf.cast(tf.gather(file, tf.clip_by_value(places, 0, last)), tf.int64)
    weights = tf.constant([256 ** (count - 1 - i) for i in range(count)], tf.int64)
    return tf.reduce_sum(tf.where(places <= last, found, 0) * weights, axis=-1)
