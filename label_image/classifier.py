"""Classifier(graph, labels).classify(photos) -> ranked labels."""

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks.errors import BadImageError
from bottlenecks.photos.reading import threads_for
from bottlenecks.pools import in_order, pool_of
from label_image.photos import Photo, Pixels, photos_in
from retrain.engines.engine import Engine
from retrain.engines.settings import GraphSettings


@dataclass(frozen=True)
class Guess:
    """A label and its score; the scores of all labels add up to 1."""

    label: str
    score: float


@dataclass(frozen=True)
class Result:
    """All labels for one photo, the likeliest first; or ``problem``, why it cannot be read.

    ``path`` is empty for a photo that was given as bytes or pixels.
    """

    path: str
    ranking: tuple[Guess, ...]
    problem: str = ""

    @property
    def label(self) -> str:
        """The likeliest label; empty for a photo that cannot be read."""
        return self.ranking[0].label if self.ranking else ""

    @property
    def score(self) -> float:
        """The score of `label`; 0 for a photo that cannot be read."""
        return self.ranking[0].score if self.ranking else 0.0


class Classifier:
    """An exported classifier and its labels, ready to classify photos.

    ``graph`` is a file or folder of any of the formats of `retrain.engines`. Photos are read by the
    decoder that training used, in ``input_height`` x ``input_width``, and fed as ``(pixel -
    input_mean) / input_std`` to ``input_layer``: ``options`` are those of `GraphSettings`, and what
    is left out is read from the graph. Works for the graphs of retrain.py too.

    What `retrain` wrote carries its labels: a labels file that is named, or lies beside it under
    the usual name, must hold the same. A graph of retrain.py needs the file.

    Raises `GraphError` for files that are missing, are something else, or do not fit together.
    """

    def __init__(
        self,
        graph: str | os.PathLike[str] = GraphSettings.graph,
        labels: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        settings = GraphSettings(
            graph=os.fspath(graph), labels=None if labels is None else os.fspath(labels), **options
        )
        self._engine = Engine(settings)
        self.labels = self._engine.labels

    def classify(self, photos: Any) -> Iterator[Result]:
        """A `Result` for each photo, in order, as soon as its batch is done.

        ``photos`` is one of these, or an iterable of them:

        - a path or an address, or one of a folder, which stands for the images in it and below
        - ``bytes`` of an image file
        - a PIL image, which is turned upright by its EXIF; transparency becomes white
        - pixels: (height, width, 3) uint8 RGB, or with 1 or 4 channels or none, and several of
          one size as (n, height, width, channels)

        A photo that cannot be read has a ``problem`` and no ranking. Several threads may call
        this at once; a forked child needs a `Classifier` of its own. Raises `UsageError` for
        anything else.
        """
        return self._results(photos_in(photos, self._engine.input_size))

    def _results(self, photos: Iterator[Photo]) -> Iterator[Result]:
        batch: list[tuple[Photo, Pixels]] = []
        first = list(itertools.islice(photos, 1))
        photos = itertools.chain(first, photos)
        with pool_of(threads_for(None, (photo.path for photo in first)), "photos") as pool:
            read = in_order(pool, self._read, photos, 2 * self._engine.batch_size)
            with closing(read) as pairs:
                for pair in pairs:
                    batch.append(pair)
                    if len(batch) == self._engine.batch_size:
                        yield from self._classify(batch)
                        batch = []
        yield from self._classify(batch)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8 pixels -> (n, C) float32 scores.

        Raises `GraphError` where the graph cannot give them, `UsageError` in a forked child.
        """
        return self._engine.scores(pixels)

    def _read(self, photo: Photo) -> Pixels:
        return photo.pixels(self._engine.input_size)

    def _classify(self, batch: list[tuple[Photo, Pixels]]) -> Iterator[Result]:
        readable = [pixels for _, pixels in batch if not isinstance(pixels, BadImageError)]
        rows = iter(self.scores(np.stack(readable)) if readable else ())
        for photo, pixels in batch:
            if isinstance(pixels, BadImageError):
                yield Result(photo.path, (), str(pixels))
            else:
                row = next(rows)
                order = np.argsort(-row, kind="stable")
                ranking = tuple(Guess(self.labels[i], float(row[i])) for i in order)
                yield Result(photo.path, ranking)
