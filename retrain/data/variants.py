"""A data set at a cut: the rows of its images there, and of variants of the training images."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bottlenecks.builder import CachedImage, OnProgress
from bottlenecks.config import Config
from bottlenecks.network.inception import Extractor
from bottlenecks.photos.distort import variant_keys
from bottlenecks.photos.labels import TRAINING
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.store.cache import Cache, again_if_lost
from bottlenecks.store.vectors import Vectors, vectors_of
from bottlenecks.variants import Wanted, complete
from retrain.data.dataset import Dataset, Variants


def variants_of(
    images: Sequence[CachedImage],
    set_of: np.ndarray,
    distortions: DistortionSettings,
    seed: int,
) -> list[list[bytes]]:
    """The keys of the distorted variants of each image; only training images have any."""
    return [
        variant_keys(image.key, distortions, seed) if name == TRAINING else []
        for image, name in zip(images, set_of, strict=True)
    ]


def rows_at(
    dataset: Dataset,
    extractor: Extractor,
    config: Config,
    distortions: DistortionSettings,
    seed: int,
    most_in_memory: int | None = None,
    on_missing: Callable[[int, int], None] = lambda *_: None,
    on_progress: OnProgress = lambda _: None,
) -> tuple[Dataset, Cache]:
    """``dataset`` with rows of ``extractor``, and the cache that they are in.

    What is missing there is computed. Validation and test images are plain; each training image has
    the variants that ``distortions`` and ``seed`` give. More than ``most_in_memory`` bytes of rows
    are read when they are wanted. Raises what `bottlenecks.variants.complete` raises.
    """
    images = dataset.everything.images
    variants = variants_of(images, dataset.set_of, distortions, seed)
    wanted = [Wanted(image, (image.key, *own)) for image, own in zip(images, variants, strict=True)]

    def completed() -> tuple[Dataset, Cache]:
        cache = complete(config, extractor, wanted, distortions, on_missing, on_progress)

        def rows(keys: Sequence[bytes]) -> Vectors:
            return vectors_of(cache, keys, most_in_memory)

        everything = replace(dataset.everything, vectors=rows([image.key for image in images]))
        drawn = None
        if distortions.distorts:
            trained_on = np.flatnonzero(dataset.set_of == TRAINING).tolist()
            each = [(images[i].key, *variants[i]) for i in trained_on]
            keys = [key for of_one in zip(*each, strict=True) for key in of_one]
            drawn = Variants(rows(keys), keys)
        return Dataset(dataset.labels, everything, dataset.set_of, dataset.groups, drawn), cache

    return again_if_lost(completed)
