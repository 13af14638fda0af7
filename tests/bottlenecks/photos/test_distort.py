"""Each distortion moves pixels as it says, and a key alone tells a variant."""

import dataclasses
import hashlib
import math
import subprocess
import sys
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks.errors import BadImageError
from bottlenecks.photos import distort as distort_module
from bottlenecks.photos.decode import decode
from bottlenecks.photos.distort import (
    DISTORT_VERSION,
    distorted,
    variant_key,
    variant_keys,
)
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.row_spec import VARIANT_KEY_BYTES, image_of
from tests.conftest import ROOT, photo

SIZE = (60, 80)  # (height, width) that most tests ask for: its sides are told apart
STRONGEST: dict[str, Any] = {
    **dict.fromkeys(("random_crop", "random_scale", "random_brightness", "random_shift"), 100),
    **{"flip_left_right": True, "flip_up_down": True, "random_rotation": 180, "random_shear": 60},
}
MANY = 40  # variants, of which some go either way


# Levels at some places of three variants of a made picture.
PINNED = [
    [[48, 38, 45, 51], [59, 65, 71, 77], [86, 93, 71, 72]],
    [[55, 67, 79, 93], [79, 91, 71, 83], [70, 83, 95, 107]],
    [[43, 37, 51, 64], [56, 66, 80, 93], [82, 81, 78, 91]],
]


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(size: tuple[int, int] = SIZE) -> bytes:
    """A PNG of (height, width) whose pixels are all chance."""
    return png(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))


def ramps(size: tuple[int, int] = SIZE) -> bytes:
    """A PNG whose red says how far to the right a pixel is, in 1/200, and green how far down."""
    y, x = np.indices(size)
    red, green = 200 * (x + 0.5) / size[1], 200 * (y + 0.5) / size[0]
    return png(np.stack([red, green, 0 * red], axis=-1).round().astype(np.uint8))


def spot(x: int, y: int, size: tuple[int, int] = SIZE) -> bytes:
    """A PNG that is black but for a white spot of 5 by 5 pixels around (x, y)."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    return png(pixels)


def centre_of(pixels: np.ndarray) -> tuple[float, float]:
    """(x, y) around which what is white lies."""
    light = pixels[..., 0].astype(float)
    y, x = np.indices(light.shape)
    return float((x * light).sum() / light.sum()), float((y * light).sum() / light.sum())


def keys(settings: DistortionSettings, count: int = MANY, image: bytes = b"") -> list[bytes]:
    key = hashlib.sha256(image).digest()
    return [variant_key(key, settings, 0, number) for number in range(count)]


def variants(
    data: bytes, size: tuple[int, int] = SIZE, count: int = MANY, **settings: Any
) -> np.ndarray:
    chosen = DistortionSettings(**settings)
    return distorted(data, chosen, keys(chosen, count), size)


def in_both_halves(values: list[float], low: float, high: float) -> bool:
    """Whether all are from ``low`` to ``high`` and reach well into both halves of that."""
    quarter = (high - low) / 4
    return low <= min(values) < low + quarter and high - quarter < max(values) <= high


# What each does.


@pytest.mark.parametrize("size", [SIZE, (299, 299), (1, 1), (7, 301)])
def test_with_every_distortion_off_it_is_what_decode_gives(size: tuple[int, int]) -> None:
    file = BytesIO()
    photo((200, 120, 40), 0, (500, 300)).save(file, "JPEG")
    for variant in variants(file.getvalue(), size, count=3):
        assert (variant == decode(file.getvalue(), size)).all()


def test_flips_are_exact_mirrors_of_half_the_variants() -> None:
    plain = decode(noise(), SIZE)
    mirrors: tuple[tuple[dict[str, Any], np.ndarray], ...] = (
        ({"flip_left_right": True}, plain[:, ::-1]),
        ({"flip_up_down": True}, plain[::-1]),
    )
    for settings, mirror in mirrors:
        found = variants(noise(), **settings)
        mirrored = sum((variant == mirror).all() for variant in found)
        assert mirrored + sum((variant == plain).all() for variant in found) == MANY
        assert MANY / 4 < mirrored < 3 * MANY / 4


def test_two_flips_are_independent() -> None:
    found = variants(noise(), flip_left_right=True, flip_up_down=True)
    assert len({variant.tobytes() for variant in found}) == 4


@pytest.mark.parametrize("percent", [20, 100])
def test_brightness_multiplies_by_a_factor_in_its_range(percent: int) -> None:
    found = variants(png(np.full((*SIZE, 3), 100, np.uint8)), random_brightness=percent)
    assert all(np.ptp(variant) == 0 for variant in found)
    levels = [float(variant[0, 0, 0]) for variant in found]
    assert in_both_halves(levels, 100 - percent, 100 + percent)


def test_what_would_be_brighter_than_white_is_white() -> None:
    found = variants(png(np.full((*SIZE, 3), 250, np.uint8)), random_brightness=50)
    assert found.max() == 255
    assert found.min() >= 125


def test_a_shift_moves_a_spot_by_whole_pixels_in_its_range() -> None:
    found = [centre_of(variant) for variant in variants(spot(40, 30), random_shift=25)]
    across, down = ([place[axis] for place in found] for axis in (0, 1))
    assert in_both_halves(across, 40 - 20, 40 + 20)
    assert in_both_halves(down, 30 - 15, 30 + 15)
    assert all(value == int(value) for value in across + down)
    assert any((x - 40) * (y - 30) < 0 for x, y in found)  # each way by itself
    assert any((x - 40) * (y - 30) > 0 for x, y in found)


@pytest.mark.parametrize("settings", [{"random_shift": 100}, {"random_rotation": 180}])
def test_outside_of_the_photo_is_its_reflection_so_that_no_border_is_seen(settings: Any) -> None:
    for variant in variants(ramps(), **settings):
        for axis in (0, 1):
            assert abs(np.diff(variant.astype(int), axis=axis)).max() <= 2 * 200 / min(SIZE)


def spans(found: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Left, right, top and bottom of what variants of `ramps` show, as shares of the photo."""
    return [
        (
            float(variant[:, 0, 0].mean() / 200),
            float(variant[:, -1, 0].mean() / 200),
            float(variant[0, :, 1].mean() / 200),
            float(variant[-1, :, 1].mean() / 200),
        )
        for variant in found
    ]


def test_a_crop_cuts_off_its_margin_at_a_place_within_the_photo() -> None:
    found = spans(variants(ramps((240, 320)), random_crop=25))
    for left, right, top, bottom in found:
        assert left >= 0 and right <= 1 and top >= 0 and bottom <= 1
        assert right - left == pytest.approx(1 / 1.25, abs=0.03)
        assert bottom - top == pytest.approx(1 / 1.25, abs=0.03)
    for side in (0, 2):
        assert in_both_halves([span[side] for span in found], 0, 0.22)
    assert any(abs(left - top) > 0.1 for left, _, top, _ in found)


def test_a_scale_enlarges_both_sides_alike_by_up_to_its_percentage() -> None:
    found = spans(variants(ramps((240, 320)), random_scale=60))
    widths = [right - left for left, right, _, _ in found]
    assert in_both_halves(widths, 0.6, 1.0)
    for (_, _, top, bottom), width in zip(found, widths, strict=True):
        assert bottom - top == pytest.approx(width, abs=0.03)


def test_a_crop_may_be_at_every_place_that_the_photo_has_for_it() -> None:
    """Of 11 by 22 pixels a crop of 10 by 20 leaves one and two: 2 by 3 places."""
    y, x = np.indices((11, 22))
    where = png(np.stack([10 * x, 10 * y, 0 * x], axis=-1).astype(np.uint8))
    corners = [tuple(found[0, 0] // 10) for found in variants(where, (10, 20), random_crop=10)]
    assert {corner[:2] for corner in corners} == {(x, y) for x in range(3) for y in range(2)}


def test_the_border_of_a_variant_is_made_of_what_is_around_it_too() -> None:
    """So a variant that is shifted by whole pixels has those that it had before."""
    still = DistortionSettings(random_crop=20, random_scale=100)
    moving = dataclasses.replace(still, random_shift=5)  # by 3 pixels down and 4 across at the most
    before, after = (distorted(noise(), own, keys(still, 20), SIZE) for own in (still, moving))
    for one, other in zip(before.astype(int), after.astype(int), strict=True):
        differences = [
            abs(_overlap(one, -down, -right) - _overlap(other, down, right)).max()
            for down in range(-3, 4)
            for right in range(-4, 5)
        ]
        assert min(differences) <= 1


def _overlap(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """What a picture shares with itself when it has come from so much further up and left."""
    height, width = pixels.shape[:2]
    rows = slice(max(0, down), height + min(0, down))
    part: np.ndarray = pixels[rows, max(0, right) : width + min(0, right)]
    return part


def test_a_crop_is_as_sharp_as_the_photo() -> None:
    data = noise((120, 160))
    whole = decode(data, (120, 160))
    windows = {whole[y : y + 60, x : x + 80].tobytes() for y in range(61) for x in range(81)}
    for variant in variants(data, random_crop=100, count=10):
        assert variant.tobytes() in windows


def test_a_rotation_turns_a_spot_about_the_centre_by_an_angle_in_its_range() -> None:
    angles = []
    for variant in variants(spot(60, 40, (81, 81)), (81, 81), random_rotation=30):
        x, y = centre_of(variant)
        assert math.hypot(x - 40, y - 40) == pytest.approx(20, abs=0.1)
        angles.append(math.degrees(math.atan2(y - 40, x - 40)))
    assert in_both_halves(angles, -30.5, 30.5)


def test_a_shear_leans_an_upright_line_by_an_angle_in_its_range() -> None:
    line = np.zeros((81, 81, 3), np.uint8)
    line[:, 39:42] = 255
    angles = []
    for variant in variants(png(line), (81, 81), random_shear=30):
        top, bottom = (centre_of(variant[rows])[0] for rows in (slice(20, 21), slice(60, 61)))
        assert (top + bottom) / 2 == pytest.approx(40, abs=0.1)
        angles.append(math.degrees(math.atan2(bottom - top, 40)))
    assert in_both_halves(angles, -30.5, 30.5)


def test_the_corners_are_filled_with_the_photo() -> None:
    colours = np.full((*SIZE, 3), (200, 120, 40), np.uint8)
    strongest = {name: value for name, value in STRONGEST.items() if name != "random_brightness"}
    found = variants(png(colours), **strongest)
    assert (found == colours).all()


def test_any_number_of_distortions_at_once_differ_between_variants() -> None:
    found = variants(noise(), **STRONGEST)
    assert found.shape == (MANY, *SIZE, 3) and found.dtype == np.uint8
    assert len({variant.tobytes() for variant in found}) == MANY


# Keys.

CROP = DistortionSettings(random_crop=10)
IMAGE = hashlib.sha256(b"image").digest()


def test_a_key_begins_with_that_of_its_image() -> None:
    key = variant_key(IMAGE, CROP, 0, 0)
    assert len(key) == VARIANT_KEY_BYTES
    assert image_of(key) == IMAGE


def test_whatever_makes_another_variant_makes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        variant_key(IMAGE, CROP, 0, 0),
        variant_key(IMAGE, CROP, 0, 1),
        variant_key(IMAGE, CROP, 1, 0),
        variant_key(hashlib.sha256(b"other").digest(), CROP, 0, 0),
        variant_key(IMAGE, DistortionSettings(random_crop=11), 0, 0),
        variant_key(IMAGE, DistortionSettings(random_scale=10), 0, 0),
        variant_key(IMAGE, DistortionSettings(random_crop=10, flip_up_down=True), 0, 0),
    ]
    monkeypatch.setattr(distort_module, "DISTORT_VERSION", "another")
    found.append(variant_key(IMAGE, CROP, 0, 0))
    assert len(set(found)) == len(found)


def test_more_variants_leave_the_first_ones_as_they_are() -> None:
    few = DistortionSettings(random_crop=10, distortions_per_image=4)
    more = DistortionSettings(random_crop=10, distortions_per_image=8)
    assert keys(more, 8)[:4] == keys(few, 4)
    assert len(set(keys(more, 8))) == 8


def test_only_what_is_on_is_in_a_key_so_that_a_new_flag_changes_none() -> None:
    assert DISTORT_VERSION == "affine-bicubic-1"
    text = (
        '{"distortions":{"flip_left_right":1.0,"random_crop":10.0},"number":2,"seed":7,'
        '"version":"affine-bicubic-1"}'
    )
    settings = DistortionSettings(flip_left_right=True, random_crop=10)
    expected = IMAGE + hashlib.sha256(text.encode()).digest()
    assert variant_key(IMAGE, settings, 7, 2) == expected


def test_numbers_of_any_type_make_the_same_key() -> None:
    ten: Any = np.float64(10)
    zero: Any = np.int64(0)
    key = variant_key(IMAGE, DistortionSettings(random_crop=ten), zero, zero)
    assert key == variant_key(IMAGE, CROP, 0, 0)


# One key, one variant.


def test_a_variant_hangs_on_its_key_alone() -> None:
    settings = DistortionSettings(**STRONGEST)
    chosen = keys(settings, 5)
    together = distorted(noise(), settings, chosen, SIZE)
    for key, variant in reversed(list(zip(chosen, together, strict=True))):
        assert (distorted(noise(), settings, [key], SIZE) == variant).all()


def test_each_image_has_variants_of_its_own() -> None:
    settings = DistortionSettings(random_shift=50)
    places = [
        centre_of(distorted(spot(40, 30), settings, keys(settings, 1, image), SIZE)[0])
        for image in (b"one", b"another")
    ]
    assert places[0] != places[1]


def test_another_process_makes_the_same_variants() -> None:
    code = (
        "import hashlib\n"
        "from tests.bottlenecks.photos.test_distort import STRONGEST, noise, variants\n"
        "print(hashlib.sha256(variants(noise(), count=5, **STRONGEST).tobytes()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    here = hashlib.sha256(variants(noise(), count=5, **STRONGEST).tobytes()).hexdigest()
    assert result.stdout.strip() == here, result.stderr


def test_a_photo_is_decoded_once_for_all_its_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counting(data: bytes, size: tuple[int, int]) -> np.ndarray:
        sizes.append(size)
        return decode(data, size)

    monkeypatch.setattr(distort_module, "decode", counting)
    variants(noise(), count=8, random_crop=50)
    assert sizes == [(90, 120)]


def test_no_keys_no_variants() -> None:
    assert variants(noise(), count=0, flip_up_down=True).shape == (0, *SIZE, 3)


# Odd photos.


@pytest.mark.parametrize("data", [b"", b"text", noise()[:200], b"\xff\xd8\xff" + bytes(500)])
def test_what_decode_refuses_is_refused_with_its_reason(data: bytes) -> None:
    with pytest.raises(BadImageError) as plain:
        decode(data)
    with pytest.raises(BadImageError) as refused:
        variants(data, random_crop=10)
    assert str(refused.value) == str(plain.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_tiny_and_elongated_photos(size: tuple[int, int]) -> None:
    colour = (200, 120, 40)
    strongest = {**STRONGEST, "random_brightness": 0}
    found = variants(png(np.full((*size, 3), colour, np.uint8)), (299, 299), 5, **strongest)
    assert found.shape == (5, 299, 299, 3)
    assert (found == colour).all()


def test_a_photo_is_upright_before_it_is_distorted() -> None:
    file = BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(decode(ramps(), SIZE)).save(file, "PNG", exif=turned)
    plain = decode(file.getvalue(), SIZE)
    (variant,) = variants(file.getvalue(), count=1)
    assert (variant == plain).all()
    assert (plain != decode(ramps(), SIZE)).any()


def test_the_strongest_distortions_take_little_memory() -> None:
    code = (
        "import resource\n"
        "from tests.bottlenecks.photos.test_distort import STRONGEST, noise, variants\n"
        "data = noise((3000, 4000))\n"
        "variants(data, (299, 299), count=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "variants(data, (299, 299), count=40, **STRONGEST)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    pytest.importorskip("resource")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    kilobytes = int(result.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 100_000


@pytest.mark.parametrize(
    ("on", "count"), [(("flip_left_right",), 1), (("flip_left_right", "flip_up_down"), 3)]
)
def test_flips_alone_give_each_other_picture_once(on: tuple[str, ...], count: int) -> None:
    """There are no more, and the photo itself is none of them."""
    data = png(np.random.default_rng(0).integers(0, 256, (299, 299, 3)).astype(np.uint8))
    settings = DistortionSettings(**dict.fromkeys(on, True), distortions_per_image=4)
    assert settings.variants == count
    for image in range(20):
        keys = variant_keys(bytes([image]) * 32, settings, seed=0)
        pictures = [decode(data), *distorted(data, settings, keys)]
        assert len({picture.tobytes() for picture in pictures}) == count + 1


def test_the_keys_of_more_variants_begin_with_those_of_fewer() -> None:
    few = DistortionSettings(flip_left_right=True, random_crop=10, distortions_per_image=4)
    many = dataclasses.replace(few, distortions_per_image=8)
    keys = [variant_keys(b"k" * 32, settings, seed=1) for settings in (few, many)]
    assert keys[0] == keys[1][:4]
    assert [len(set(own)) for own in keys] == [4, 8]
    assert keys[0][2] == variant_key(b"k" * 32, few, 1, 2)
    assert variant_keys(b"k" * 32, DistortionSettings(), seed=1) == []


def test_what_a_key_gives_is_pinned() -> None:
    """Of another picture under the same key a cache would be stale: see `DISTORT_VERSION`."""
    rows, columns = np.mgrid[0:90, 0:120]
    picture = np.stack([rows * 2, columns * 2, (rows + columns) % 97], axis=-1).astype(np.uint8)
    settings = DistortionSettings(
        random_crop=30, random_scale=20, random_rotation=40, random_shear=25, random_shift=10
    )
    keys = [variant_key(b"p" * 32, settings, 5, number) for number in range(3)]
    found = distorted(png(picture), settings, keys, (24, 32))[:, ::8, ::8].mean(axis=-1)
    np.testing.assert_allclose(found.round(), PINNED, atol=1.5)
