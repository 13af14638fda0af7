"""What a caller calls a photo: paths, folders, encoded bytes, pixels, pictures of Pillow."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from bottlenecks.errors import BadImageError, ImageFolderError, UsageError
from bottlenecks.photos.decode import MAX_PIXELS, decode, decode_picture
from bottlenecks.photos.places.place import find_photos
from bottlenecks.photos.reading import file_bytes

ACCEPTED = (
    "a path, a folder, the bytes of an image file, a PIL image, a uint8 array (height, width, 3), "
    "or several of these"
)
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA

Pixels = np.ndarray | BadImageError  # (height, width, 3) uint8, or why there are none


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo: the name to show it by, and where its pixels are to be had.

    ``source`` is a path, the bytes of an image file, or what is decoded already.
    """

    path: str
    source: str | bytes | np.ndarray | BadImageError

    def pixels(self, size: tuple[int, int]) -> Pixels:
        """Read and decode it to ``size`` (height, width), or say why not."""
        try:
            if isinstance(self.source, str):
                with file_bytes(self.source) as (data, _):
                    return decode(data, size)
            if isinstance(self.source, bytes):
                return decode(self.source, size)
            return self.source
        except BadImageError as error:
            return error


def photos_in(given: Any, size: tuple[int, int]) -> Iterator[Photo]:
    """The photos that a caller has ``given``, in order, as they are asked for.

    Pixels and pictures are brought to ``size`` (height, width) here and now, so that they are
    not kept, and may change afterwards. Raises `UsageError` for anything but `ACCEPTED`: at once,
    or for one among several when it is reached.
    """
    photos = _photos(given, size)
    if photos is not None:
        return photos
    is_one = isinstance(given, Mapping) or (isinstance(given, np.ndarray) and given.ndim == 0)
    if is_one or not isinstance(given, Iterable) or hasattr(given, "read"):
        raise _unknown(given)
    return _of_each(given, size)


def _of_each(several: Iterable[Any], size: tuple[int, int]) -> Iterator[Photo]:
    for given in several:
        photos = _photos(given, size)
        if photos is None:
            raise _unknown(given)
        yield from photos


def _photos(given: Any, size: tuple[int, int]) -> Iterator[Photo] | None:
    """The photos of anything but an iterable; None for that and for what is no photo."""
    if isinstance(given, str | os.PathLike):
        return _at(os.fsdecode(given))
    if isinstance(given, bytes | bytearray | memoryview):
        return iter([Photo("", bytes(given))])
    if isinstance(given, Image.Image):
        return iter([_picture(given, size)])
    if isinstance(given, np.ndarray) and given.ndim == 0:
        return _photos(given.item(), size)
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OU":  # those are of paths
        return (_picture(picture, size) for picture in _pictures(given))
    return None


def _at(path: str) -> Iterator[Photo]:
    """The photo at ``path``, or those in the folder there; one that says so where none are."""
    if "\0" in path:
        yield Photo(path, BadImageError("has a null byte in its name"))
        return
    try:
        found = find_photos(path)
    except (ImageFolderError, UsageError) as error:
        yield Photo(path, BadImageError(str(error)))
        return
    if found is None:
        yield Photo(path, path)
        return
    if not found:
        yield Photo(path, BadImageError("is a folder without images"))
    for name in found:
        yield Photo(name, name)


def _pictures(pixels: np.ndarray) -> Iterable[Image.Image]:
    """(height, width[, channels]) or (n, height, width, channels) uint8 -> pictures."""
    several = pixels if pixels.ndim == 4 else pixels[np.newaxis]
    channels = several.shape[3] if several.ndim == 4 else 1
    if several.ndim not in (3, 4) or channels not in _CHANNELS or pixels.dtype != np.uint8:
        raise UsageError(
            "pixels must be a uint8 array (height, width, 3) in RGB, also with 1 or 4 channels, or "
            f"several as (n, height, width, 3). Received: {pixels.dtype} {pixels.shape}"
        )
    height, width = several.shape[1:3]
    if not height or not width:
        raise UsageError(f"pixels must not be empty. Received: an array {pixels.shape}")
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"pixels must be at most {MAX_PIXELS:,}; make them fewer. Received: an array "
            f"{pixels.shape}"
        )
    if channels == 1:
        several = several.reshape(several.shape[:3])
    return (Image.fromarray(one) for one in several)


def _picture(picture: Image.Image, size: tuple[int, int]) -> Photo:
    name = getattr(picture, "filename", "")
    path = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    try:
        return Photo(path, decode_picture(picture, size))
    except BadImageError as error:
        return Photo(path, error)


def _unknown(given: Any) -> UsageError:
    hint = "; give what its read() returns" if hasattr(given, "read") else ""
    return UsageError(f"classify takes {ACCEPTED}. Received: {type(given).__name__}{hint}")
