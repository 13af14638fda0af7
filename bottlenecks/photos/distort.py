"""A photo -> distorted variants of it, each told by its key alone.

Distances are those of the network's input, which has the photo's content but not its proportions.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from bottlenecks.photos.decode import INPUT_SIZE, decode
from bottlenecks.photos.settings import DistortionSettings

# Part of every variant's key: change it with anything here that changes a pixel.
DISTORT_VERSION = "affine-bicubic-1"

_KERNEL = 2  # pixels around a point that bicubic interpolation looks at


def variant_key(image_key: bytes, settings: DistortionSettings, seed: int, number: int) -> bytes:
    """The key of the variant ``number`` (from 0) of an image: `VARIANT_KEY_BYTES`.

    The 32 of ``image_key``, then the sha256 of what makes the variant: the distortions that are on,
    the ``seed``, the ``number`` and the version of this module. How many variants there are is no
    part of it, so that more of them leave the first ones as they are.
    """
    made_by = {
        "distortions": settings.distortions,
        "number": int(number),
        "seed": int(seed),
        "version": DISTORT_VERSION,
    }
    text = json.dumps(made_by, sort_keys=True, separators=(",", ":"))
    return image_key + hashlib.sha256(text.encode()).digest()


def variant_keys(image_key: bytes, settings: DistortionSettings, seed: int) -> list[bytes]:
    """The keys of all variants of an image; none where nothing distorts.

    As many as are asked for, but no two that are the same, and none that is the photo itself: of
    flips alone there are one or three.
    """
    flips_alone = all(name.startswith("flip_") for name in settings.distortions)
    found: dict[tuple[int, int] | int, bytes] = {}  # what else is drawn is never drawn again
    for number in itertools.count():
        if len(found) == settings.variants:
            break
        key = variant_key(image_key, settings, seed, number)
        drawn = _draw(settings, key)
        flips = drawn.flip_x, drawn.flip_y
        if not flips_alone:
            found[number] = key
        elif flips != (1, 1):
            found.setdefault(flips, key)
    return list(found.values())


def distorted(
    data: bytes,
    settings: DistortionSettings,
    keys: Sequence[bytes],
    size: tuple[int, int] = INPUT_SIZE,
) -> np.ndarray:
    """Variants of an image, which is decoded once; one for each of ``keys`` (see `variant_key`).

    What a key draws is the same on every machine. A variant is a crop that is enlarged, then
    flipped, sheared, rotated about its centre and shifted, all in one step (bicubic), and made
    darker or brighter. The photo's reflection fills the corners. With every distortion off it is
    what `decode` gives.

    ``data`` are the bytes of an image file. Returns (keys, height, width, 3) uint8, at the usual
    size 268 KB a key: a few keys at a time take little memory. Raises `BadImageError` as `decode`
    does.
    """
    height, width = size
    pixels = decode(data, _decoded_size(settings, size))
    variants = np.empty((len(keys), height, width, 3), np.uint8)
    for variant, key in zip(variants, keys, strict=True):
        drawn = _draw(settings, key)
        moved = _transformed(pixels, _affine(drawn, pixels.shape[:2], size), size)
        levels = np.rint(np.arange(256) * drawn.brightness).clip(0, 255).astype(np.uint8)
        variant[:] = np.asarray(moved.point(3 * levels.tolist()))
    return variants


class _Drawn(NamedTuple):
    """What chance gave a variant.

    ``left``, ``top`` in [0, 1): where the crop is in the room that it has; ``scale``: pixels
    of the decoded photo that a pixel of the variant stands for; ``flip_x``, ``flip_y``: -1 or 1;
    ``rotation``, ``shear`` in radians; ``right``, ``down``: the shift as a share of the sides.
    """

    left: float
    top: float
    scale: float
    flip_x: int
    flip_y: int
    rotation: float
    shear: float
    right: float
    down: float
    brightness: float


def _draw(settings: DistortionSettings, key: bytes) -> _Drawn:
    """The same for the same key; NumPy promises that the raw numbers of PCG64 never change.

    By the whole key: its second half is the same for every image. What may be drawn later has its
    place behind these.
    """
    raw = np.random.PCG64(int.from_bytes(key, "big")).random_raw(10)
    units = ((raw >> np.uint64(11)) * 2.0**-53).tolist()  # in [0, 1)
    left, top, scale, flip_x, flip_y, rotation, shear, right, down, brightness = units
    most_scale = 1 + settings.random_scale / 100
    return _Drawn(
        left=left,
        top=top,
        scale=math.sqrt(most_scale) / (1 + scale * (most_scale - 1)),
        flip_x=-1 if settings.flip_left_right and flip_x < 0.5 else 1,
        flip_y=-1 if settings.flip_up_down and flip_y < 0.5 else 1,
        rotation=math.radians(settings.random_rotation) * (2 * rotation - 1),
        shear=math.radians(settings.random_shear) * (2 * shear - 1),
        right=settings.random_shift / 100 * (2 * right - 1),
        down=settings.random_shift / 100 * (2 * down - 1),
        brightness=1 + settings.random_brightness / 100 * (2 * brightness - 1),
    )


def _decoded_size(settings: DistortionSettings, size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that a photo is decoded at for all of its variants.

    Such that a pixel of a crop is one of the photo, or where its scale is chance one in the middle:
    the variants are enlarged and reduced by as much at the most.
    """
    times = (1 + settings.random_crop / 100) * math.sqrt(1 + settings.random_scale / 100)
    return math.ceil(size[0] * times), math.ceil(size[1] * times)


def _affine(drawn: _Drawn, decoded: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Where in the decoded photo a place (x, y) of a variant is: (2, 3) float64, of (x, y, 1).

    Both count pixels from their upper left corners.
    """
    sides = np.array([size[1], size[0]])
    room = np.array([decoded[1], decoded[0]]) - drawn.scale * sides
    corner = np.floor(np.array([drawn.left, drawn.top]) * (np.floor(room) + 1))
    shift = np.rint(np.array([drawn.right, drawn.down]) * sides)
    cos, sin = math.cos(drawn.rotation), math.sin(drawn.rotation)
    rotation = np.array([[cos, -sin], [sin, cos]])
    shear = np.array([[1, math.tan(drawn.shear)], [0, 1]])
    flips = np.diag([drawn.flip_x, drawn.flip_y])
    matrix = drawn.scale * flips @ shear @ rotation
    # The centre of the variant, shifted, is that of the crop.
    offset = corner + drawn.scale * sides / 2 - matrix @ (sides / 2 + shift)
    return np.column_stack([matrix, offset])


def _transformed(pixels: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """``pixels`` (h, w, 3) through ``affine``, as a picture of ``size`` (height, width).

    Around them are their reflections; only what shows of both is copied.
    """
    height, width = size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    reached = affine @ corners  # (2, 4)
    left, top = (np.floor(reached.min(axis=1)).astype(int) - _KERNEL).tolist()
    right, bottom = (np.ceil(reached.max(axis=1)).astype(int) + _KERNEL).tolist()
    rows = _reflected(top, bottom, pixels.shape[0])
    columns = _reflected(left, right, pixels.shape[1])
    shown = Image.fromarray(pixels[rows][:, columns])
    within = affine - [[0, 0, left], [0, 0, top]]
    is_exact = abs(np.diag(affine)).tolist() == [1, 1] and (affine == np.rint(affine)).all()
    return shown.transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(within.ravel().tolist()),
        Image.Resampling.NEAREST if is_exact else Image.Resampling.BICUBIC,
    )


def _reflected(start: int, end: int, count: int) -> np.ndarray:
    """The indices ``start`` to ``end`` of a row of ``count`` pixels that goes on as its mirror.

    >>> _reflected(-2, 6, 4).tolist()
    [1, 0, 0, 1, 2, 3, 3, 2]
    """
    places = np.arange(start, end) % (2 * count)
    return np.minimum(places, 2 * count - 1 - places)
