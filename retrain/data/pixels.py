"""Images of a set -> their pixels, read once more."""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np

from bottlenecks import machine
from bottlenecks.builder import CachedImage
from bottlenecks.errors import BadImageError
from bottlenecks.photos.decode import decode
from bottlenecks.photos.reading import file_bytes, threads_for
from bottlenecks.pools import in_order, pool_of


def pixels_of(images: Sequence[CachedImage]) -> Generator[tuple[int, np.ndarray], None, None]:
    """The row of each image, and its pixels (299, 299, 3) uint8; in order, as they are asked for.

    Those whose file is gone, or has another content by now, are passed over: they are not what
    the vectors are of.
    """
    with pool_of(threads_for(None, (image.path for image in images)), "photos") as pool:
        found = in_order(pool, _pixels, images, 2 * machine.MOST_THREADS)
        with closing(found) as results:
            for row, (_, pixels) in enumerate(results):
                if pixels is not None:
                    yield row, pixels


def _pixels(image: CachedImage) -> np.ndarray | None:
    try:
        with file_bytes(image.path) as (data, _):
            return decode(data) if hashlib.sha256(data).digest() == image.key else None
    except BadImageError:
        return None
