"""What a format gives: what is inside of a file, and a program that runs it.

A format is a module with the three names of `Format`; `retrain.engines.formats` lists them all.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bottlenecks.errors import GraphError, UsageError, shown
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.engines.settings import AUTO, MAX_SIDE, GraphSettings
from retrain.export import graph_spec

# Of graphs of `retrain` and retrain.py, in the order in which they are looked for.
USUAL_INPUTS = (graph_spec.MUL_NODE, graph_spec.PLACEHOLDER_NODE, "input")
# And the output that TensorFlow's label_image.py takes when none is named.
USUAL_OUTPUTS = (graph_spec.FINAL_NODE, "InceptionV3/Predictions/Reshape_1")
MAX_FIXED_BATCH = 256
START_BYTES = 64  # of a file, by which its format is told


@dataclass(frozen=True)
class Feeding:
    """How photos are fed: ``(pixel - mean) / std`` of RGB in ``size`` (height, width).

    ``batch`` is how many of them are fed at once, where the file says so. ``classes`` is the number
    of scores that come out, where that is known before.
    """

    size: tuple[int, int] = INPUT_SIZE
    mean: float = 0.0
    std: float = 255.0
    batch: int | None = None
    classes: int | None = None


class Program(Protocol):
    """A classifier that runs. Several threads may call it at once."""

    @property
    def feeding(self) -> Feeding:
        """How photos are fed to it."""

    def __call__(self, fed: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) float32 -> (n, C) float32 scores, not looked at further.

        n is at least 1. Raises `GraphError` where that fails.
        """


class Contents(Protocol):
    """What a file holds, of which nothing has been run; `start` runs only what can do no harm."""

    @property
    def labels(self) -> Sequence[str]:
        """The labels that retrain put in; none in a file of another program."""

    @property
    def about(self) -> str:
        """What retrain put in of how it was made, JSON; empty in a file of another program."""

    def start(self, settings: GraphSettings) -> Program:
        """Make it ready to run, once.

        Raises `GraphError` where it does not go with ``settings``, `UnsafeGraphError` as `read`.
        """


class Format(Protocol):
    """A format of files that hold classifiers: what a module of it has."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What the format is called."""

    def fits(self, path: str | os.PathLike[str], start: bytes | None) -> bool:
        """Whether a file is in this format.

        ``start`` are its first `START_BYTES`; None where ``path`` is a folder.
        """

    def read(self, path: str | os.PathLike[str], any_graph: bool = False) -> Contents:
        """What is in the file, checked here or when started unless ``any_graph``.

        Raises `GraphError`, `UnsafeGraphError`.
        """


def classes_of(shape: Sequence[Any]) -> int | None:
    """How many scores of a photo an output of ``shape`` (n, ...) has; None if that is unknown."""
    sizes = list(shape)[1:] or list(shape)
    return math.prod(sizes) if all(isinstance(size, int) and size > 0 for size in sizes) else None


def feeding_of(
    settings: GraphSettings,
    shape: Sequence[int | None] | None,
    classes: int | None = None,
    usual: Feeding | None = None,
) -> Feeding:
    """How photos are fed to an input of ``shape`` (n, height, width, channels), None where unknown.

    As ``settings`` ask, else as the input has it, else as ``usual``. 0 means what it does in
    TensorFlow's label_image.py: of a side that nothing is asked, of the deviation 255. Raises
    `GraphError` where that cannot be.
    """
    usual = usual or Feeding()
    batch, height, width, channels = shape if shape is not None else (None,) * 4
    asked = (settings.input_height, settings.input_width)
    sides = []
    for side, static, default in zip(asked, (height, width), usual.size, strict=True):
        if side and static is not None and side != static:
            raise GraphError(
                f"the graph takes photos of {height} x {width}; leave out --input_height and "
                f"--input_width. Received: {side}"
            )
        sides.append(side or static or default)
    for found, most in ((batch, MAX_FIXED_BATCH), (height, MAX_SIDE), (width, MAX_SIDE)):
        if found is not None and not 1 <= found <= most:
            raise wrong_input(f"float32 {tuple(shape or ())}")
    if channels not in (None, 3):
        raise wrong_input(f"float32 {tuple(shape or ())}")
    mean, std = settings.input_mean, settings.input_std
    return Feeding(
        size=(sides[0], sides[1]),
        mean=usual.mean if mean is None else mean,
        std=usual.std if std is None else std or Feeding.std,
        batch=batch,
        classes=classes,
    )


def check_engine(settings: GraphSettings, name: str) -> None:
    """Raise `UsageError` where an engine is asked for, and the format ``name`` has its own."""
    if settings.engine != AUTO:
        raise UsageError(
            f"--engine says what runs a graph of TensorFlow's, and {shown(settings.graph)} is in "
            f"the format {name}, which has its own; leave it out. Received: {settings.engine}"
        )


def wrong_input(received: str, name: str = "") -> GraphError:
    """The error for an input that photos cannot be fed to."""
    return GraphError(
        f"the input {name}{' ' if name else ''}is {received}, expected float32 (n, height, width, "
        f"3), n up to {MAX_FIXED_BATCH} and sides up to {MAX_SIDE}; name another with --input_layer"
    )
