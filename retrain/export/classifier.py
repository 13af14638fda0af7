"""What all formats are made from, and what the module of a format has.

A new format is such a module, and a line in `retrain.export.formats`.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retrain.export.about import About
from retrain.export.graph import graph_bytes
from retrain.training.head import Head


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier, about to be exported.

    ``network`` is a serialized GraphDef as `bottlenecks.network.inception.NetworkExtractor` has it,
    and ``head`` gives the scores of the C ``labels``. ``training_photos()`` gives the pixels (299,
    299, 3) uint8 of photos that it was trained on, in an order drawn by the seed, for formats whose
    numbers are rounded.
    """

    network: bytes
    head: Head
    labels: tuple[str, ...]
    about: About
    final_tensor_name: str
    training_photos: Callable[[], Iterator[np.ndarray]] = lambda: iter(())

    @functools.cached_property
    def graph(self) -> bytes:
        """The whole as a serialized GraphDef, see `retrain.export.graph`.

        Raises `UsageError` for a ``final_tensor_name`` that is taken.
        """
        return graph_bytes(
            self.network, self.head, self.labels, self.final_tensor_name, self.about.json
        )


class Exporter(Protocol):
    """A format that a classifier is written in: what a module of it has."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What the format is called."""

    @property
    def path_of(self) -> Any:
        """``path_of(settings)``: where the flags, `ExportSettings`, want it; None for nowhere."""

    @property
    def check(self) -> Any:
        """``check(settings)``: raise `UsageError` where it could not be made, before anything is.

        A package that it needs and that is missing, for example.
        """

    @property
    def write(self) -> Any:
        """``write(classifier, settings)``: write a `TrainedClassifier`, whole or not at all.

        Raises ``OSError``, `UsageError`.
        """
