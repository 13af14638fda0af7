"""What all formats are made from, and what the module of a format has.

A new format is such a module, and a line in `retrain.export.formats`.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrain.export.about import About
from retrain.export.graph import graph_bytes, template_in
from retrain.export.settings import ExportSettings
from retrain.training.head import Head


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier, about to be exported.

    ``network`` is a serialized GraphDef as `bottlenecks.network.inception.NetworkExtractor` has it,
    and ``head`` gives the scores of the C ``labels``. ``training_photos()`` gives the pixels (299,
    299, 3) uint8 of photos that it was trained on, in an order drawn by the seed, for formats whose
    numbers are rounded. ``model_dir`` is where what all graphs have in common is kept.
    """

    network: bytes
    head: Head
    labels: tuple[str, ...]
    about: About
    final_tensor_name: str
    training_photos: Callable[[], Iterator[np.ndarray]] = lambda: iter(())
    model_dir: str | None = None

    @functools.cached_property
    def graph(self) -> bytes:
        """The whole as a serialized GraphDef, see `retrain.export.graph`.

        Raises `UsageError` for a ``final_tensor_name`` that is taken.
        """
        template = None if self.model_dir is None else template_in(self.model_dir)
        own = (self.head, self.labels, self.final_tensor_name, self.about.json)
        return graph_bytes(self.network, *own, template)


class Exporter(Protocol):
    """A format that a classifier is written in: what a module of it has."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What the format is called."""

    def path_of(self, settings: ExportSettings) -> str | None:
        """Where the flags want it; None for nowhere."""

    def check(self, settings: ExportSettings) -> None:
        """Raise `UsageError` where it could not be made, before anything is.

        A package that it needs and that is missing, for example.
        """

    def write(self, classifier: TrainedClassifier, settings: ExportSettings) -> None:
        """Write it, whole or not at all.

        Raises ``OSError``, `UsageError`, `ImageFolderError`.
        """
