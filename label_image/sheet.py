"""Results -> one page or picture of the photos, with their labels as bars."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bottlenecks import atomic, machine
from bottlenecks.errors import BadImageError, public
from bottlenecks.photos.decode import thumbnail
from bottlenecks.photos.page import jpeg_url, render
from bottlenecks.photos.reading import file_bytes
from bottlenecks.photos.sheet import Bar, Card, cards
from bottlenecks.pools import in_order, pool_of
from label_image.classifier import Result
from label_image.config import GENERATOR, PAGE, PICTURE

_TEMPLATE = "sheet.html.jinja"
_MOST = {PAGE: 2000, PICTURE: 500}  # photos: some 30 MB as text, 30 million pixels
_MOST_BARS = 10
_SIDES = ((1, 640), (6, 320), (60, 200))  # up to so many photos, that side of each in pixels
_SIDE = 160  # of more


class Sheet:
    """The results of one run, shown in ``path``: a page (.html) or a picture (.png).

    ``source`` is what the labels are from, and ``top`` how many of them a photo has.
    """

    def __init__(self, path: str, source: str, top: int) -> None:
        self._path, self._source, self._top = path, source, min(top, _MOST_BARS)
        self._kind = Path(path).suffix.lower()
        self._results: list[Result] = []
        self._count = 0

    def add(self, result: Result) -> None:
        """Keep a result, of which the file is to be there until `write`."""
        self._count += 1
        if len(self._results) < _MOST[self._kind]:
            few = dataclasses.replace(result, ranking=result.ranking[: self._top])
            self._results.append(few)

    def write(self) -> None:
        """Write what was added, whole or not at all. Raises ``OSError``."""
        side = next((side for most, side in _SIDES if self._count <= most), _SIDE)
        drawn = self._html(side) if self._kind == PAGE else self._png(side)
        atomic.make_parents(self._path)
        atomic.write_bytes(self._path, drawn)

    @property
    def _title(self) -> str:
        photos = "1 photo" if self._count == 1 else f"{self._count} photos"
        left_out = self._count - len(self._results)
        note = f"; shown are the first {len(self._results)}" if left_out else ""
        return f"{photos}, labelled by {os.path.basename(self._source)}{note}"

    @functools.cached_property
    def _folder(self) -> str:
        """The folder that all photos are in, or below; empty where there is none."""
        try:
            return os.path.commonpath([os.path.dirname(path) for path in self._paths])
        except ValueError:  # some are relative and some are not
            return ""

    @property
    def _paths(self) -> list[str]:
        return [public(result.path) for result in self._results]

    def _caption(self, path: str) -> str:
        path = public(path)
        return os.path.relpath(path, self._folder) if self._folder else path

    def _html(self, side: int) -> bytes:
        pictures = (
            (jpeg_url(card.picture) if card.picture is not None else "", card)
            for card in self._cards(side)
        )
        text = render(
            __package__,
            _TEMPLATE,
            {},
            generator=GENERATOR,
            title=self._title,
            folder=self._folder,
            side=side,
            cards=pictures,
        )
        return text.encode("utf-8", "backslashreplace")

    def _png(self, side: int) -> bytes:
        folder = f" in {self._folder}" if self._folder else ""
        return cards(self._title + folder, list(self._cards(side)), side)

    def _cards(self, side: int) -> Iterator[Card]:
        """A card for each photo, in order; its picture is read again."""
        with pool_of(machine.threads(), "thumbnails") as pool:
            ahead = 4 * machine.threads()
            found = in_order(pool, lambda result: _picture(result, side), self._results, ahead)
            for result, picture in found:
                yield Card(
                    picture if isinstance(picture, np.ndarray) else None,
                    [Bar(g.label, _figure(g.score), g.score) for g in result.ranking],
                    self._caption(result.path),
                    picture if isinstance(picture, str) else "",
                )


def _picture(result: Result, side: int) -> np.ndarray | str:
    """The photo of a result, or why there is none."""
    if result.problem:
        return result.problem
    try:
        with file_bytes(result.path) as (data, _):
            return thumbnail(data, side)
    except BadImageError as error:  # it was readable a moment ago
        return str(error)


def _figure(score: float) -> str:
    """A score, in per cent where it is a share."""
    return f"{score:.1%}" if 0 <= score <= 1.0001 else f"{score:.3g}"
