"""retrain.data.pixels: the pixels of images, as long as they are what the vectors are of."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from bottlenecks.photos.decode import decode
from retrain.data.pixels import pixels_of
from tests.conftest import Trained, photo


def test_images_come_in_order_with_their_rows(trained: Trained) -> None:
    images = trained.dataset.testing.images
    found = list(pixels_of(images))
    assert [row for row, _ in found] == list(range(len(images)))
    for row, pixels in found:
        np.testing.assert_array_equal(pixels, decode(Path(images[row].path).read_bytes()))


def test_what_is_gone_or_edited_is_passed_over(trained: Trained, tmp_path: Path) -> None:
    copies = []
    for i, image in enumerate(trained.dataset.testing.images[:4]):
        shutil.copy(image.path, tmp_path / f"{i}.jpg")
        copies.append(dataclasses.replace(image, path=str(tmp_path / f"{i}.jpg")))
    (tmp_path / "0.jpg").unlink()
    photo((1, 2, 3), 4).save(tmp_path / "2.jpg")
    assert [row for row, _ in pixels_of(copies)] == [1, 3]
    assert list(pixels_of([])) == []
