"""label_image.photos: pictures and pixels are seen as the decoder sees their files."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bottlenecks.errors import BadImageError, UsageError
from bottlenecks.photos.decode import decode, decode_picture
from label_image.photos import photos_in
from tests.conftest import COLOURS, photo


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(48, 64), (299, 299), (7, 5)])
def test_a_picture_is_seen_as_its_file(mode: str, size: tuple[int, int]) -> None:
    picture = photo(COLOURS["yellow"], 0)
    if mode == "I;16":
        grey = np.asarray(picture.convert("L"), np.uint16)
        picture = Image.fromarray(grey * 257)
    else:
        picture = picture.convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(90)
    before = picture.tobytes()
    file = BytesIO()
    picture.save(file, "PNG")
    expected = decode(file.getvalue(), size)
    assert expected.shape == (*size, 3)
    for one in (picture, Image.open(file)):
        np.testing.assert_array_equal(decode_picture(one, size), expected)
    assert picture.tobytes() == before


def test_a_picture_is_as_limited_as_a_file() -> None:
    with pytest.raises(BadImageError, match="at most 90 million"):
        decode_picture(Image.new("1", (10_000, 10_000)))


def test_a_closed_picture_is_a_problem() -> None:
    file = BytesIO()
    photo(COLOURS["cyan"], 0).save(file, "JPEG")
    picture = Image.open(file)
    picture.close()
    (found,) = photos_in(picture, (9, 9))
    assert isinstance(found.pixels((9, 9)), BadImageError)


def test_several_photos_are_taken_as_they_are_asked_for() -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for i in range(3):
            taken.append(i)
            yield np.full((4, 4, 3), i, np.uint8)

    photos = photos_in(camera(), (2, 2))
    assert taken == []
    pixels = next(photos).pixels((2, 2))
    assert taken == [0]
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (2, 2, 3)


@pytest.mark.parametrize("given", [np.array(3, np.uint8), np.array(3.0), {"x.jpg": 1}], ids=repr)
def test_what_is_no_photo_and_not_several_is_one_error(given: object) -> None:
    with pytest.raises(UsageError, match="classify takes"):
        photos_in(given, (8, 8))


@pytest.mark.parametrize("dtype", [object, str])
def test_an_array_of_paths_or_one_alone_is_of_photos(dtype: type) -> None:
    assert [p.path for p in photos_in(np.array("x.jpg", dtype), (8, 8))] == ["x.jpg"]
    assert [p.path for p in photos_in(np.array(["a.jpg", "b.jpg"], dtype), (8, 8))] == [
        "a.jpg",
        "b.jpg",
    ]


def test_a_huge_array_is_refused_before_it_is_copied() -> None:
    huge = np.broadcast_to(np.uint8(0), (40_000, 40_000, 3))
    with pytest.raises(UsageError, match="at most 90,000,000"):
        list(photos_in(huge, (8, 8)))
