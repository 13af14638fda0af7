"""relpath -> training | validation | testing; pure, stable."""

import hashlib
import os
from collections.abc import Iterable
from typing import Literal

SetName = Literal["validation", "testing", "training"]
SETS: tuple[SetName, ...] = ("validation", "testing", "training")
MIN_IMAGES = 3  # one for each set

_BUCKETS = 2**27  # retrain.py: MAX_NUM_IMAGES_PER_CLASS + 1


def percentage(relpath: str) -> float:
    """Where in [0, 100] an image falls, by the name of its file.

    sha1 of ``relpath`` (``label/filename``) modulo 2**27 as a percentage, as retrain.py did
    over the path as typed. What follows ``_nohash_`` in the file name is cut off, so that
    variants of one photo (``a_nohash_1.jpg``, ``a_nohash_2.jpg``) stay together.
    """
    folder, slash, name = relpath.rpartition("/")
    hashed = os.fsencode(folder + slash + name.split("_nohash_")[0])
    bucket = int(hashlib.sha1(hashed, usedforsecurity=False).hexdigest(), 16) % _BUCKETS
    return bucket * (100.0 / (_BUCKETS - 1))


def split_label(
    relpaths: Iterable[str], validation_percentage: int, testing_percentage: int
) -> dict[str, SetName]:
    """Give each image of *one* label its set, by its name alone.

    With `MIN_IMAGES` images or more, no set whose share is above 0 stays empty: it borrows the
    image with the lowest percentage. Adding images moves no others than borrowed ones,
    because the borrowed are always the first in that order.
    """
    places = {relpath: percentage(relpath) for relpath in relpaths}
    result: dict[str, SetName] = {}
    for relpath, place in places.items():
        if place < validation_percentage:
            result[relpath] = "validation"
        elif place < validation_percentage + testing_percentage:
            result[relpath] = "testing"
        else:
            result[relpath] = "training"
    if len(places) < MIN_IMAGES:
        return result
    shares = dict(
        zip(SETS, (validation_percentage, testing_percentage, 100), strict=True)
    )  # training's own share is above 0 as the others' sum is below 100
    lowest_first = iter(sorted(places, key=lambda relpath: (places[relpath], os.fsencode(relpath))))
    while empty := [s for s in SETS if shares[s] > 0 and s not in result.values()]:
        result[next(lowest_first)] = empty[0]
    return result
