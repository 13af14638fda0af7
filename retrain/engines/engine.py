"""A classifier of any format -> scores of pixels."""

import os
from collections.abc import Sequence

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import GraphError, UnsafeGraphError, shown
from bottlenecks.forks import OwnProcess
from retrain.checks.reading import read_labels
from retrain.engines.formats import read
from retrain.engines.settings import USUAL_LABELS, GraphSettings


class Engine:
    """A classifier that runs: of `retrain`, of retrain.py, or of another program.

    It takes photos of ``input_size`` (height, width), best ``batch_size`` of them at once, and no
    more than ``fixed_batch`` where the graph has one, and gives the scores of its ``labels``.

    What `retrain` wrote carries its labels: a labels file that is named, or lies beside it under
    the usual name, must hold the same. A graph of retrain.py needs the file.

    Raises `GraphError` for files that are missing, are something else, or do not fit together.
    """

    def __init__(self, settings: GraphSettings) -> None:
        self._settings = settings
        # First, because it takes next to no time.
        given = None if settings.labels is None else read_labels(settings.labels)
        try:
            contents = read(settings.graph, settings.allow_any_graph)
            self.about = contents.about
            self.labels = _labels_of(settings, given, contents.labels)
            self._program = contents.start(settings)
        except UnsafeGraphError as error:
            if settings.allow_any_graph:
                raise
            raise UnsafeGraphError(f"{error}; if you trust it, add --allow_any_graph") from error
        self._feeding = self._program.feeding
        if self._feeding.classes is not None:
            self._check_classes(self._feeding.classes)
        self.input_size = self._feeding.size
        self.fixed_batch = self._feeding.batch
        self.batch_size = self.fixed_batch or machine.batch_size()
        self._process = OwnProcess()

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8 pixels -> (n, C) float32 scores.

        Raises `GraphError` where the graph cannot give them, `UsageError` in a forked child.
        """
        self._process.check("this classifier")
        if not len(pixels):
            return np.empty((0, len(self.labels)), np.float32)
        size = self.fixed_batch or len(pixels)
        starts = range(0, len(pixels), size)
        scores = np.concatenate([self._scores(pixels[i : i + size]) for i in starts])
        if not np.isfinite(scores).all():
            raise GraphError(
                "the graph gives scores that are not finite; it is broken, or --input_mean and "
                "--input_std are not those it was trained with"
            )
        self._check_classes(scores.shape[1])
        return scores

    def _scores(self, pixels: np.ndarray) -> np.ndarray:
        """Those of a batch, as the program gives them."""
        mean, std = np.float32(self._feeding.mean), np.float32(self._feeding.std)
        fed = (pixels.astype(np.float32) - mean) / std
        if self.fixed_batch is not None:  # fill the last batch up
            fed = np.resize(fed, (self.fixed_batch, *fed.shape[1:]))
        return self._program(fed)[: len(pixels)]

    def _check_classes(self, classes: int) -> None:
        if classes != len(self.labels):
            raise GraphError(
                f"the graph {shown(self._settings.graph)} gives {classes} scores for "
                f"{len(self.labels)} labels; use the labels file that was written with it, or "
                f"name its scores with --output_layer. Received: {_received(self._settings)}"
            )


def _received(settings: GraphSettings) -> str:
    return "no --labels" if settings.labels is None else f"--labels {shown(settings.labels)}"


def _file_beside(graph: str) -> str | None:
    """The labels file of the usual name that lies beside a graph, if one does."""
    path = os.path.join(os.path.dirname(os.path.normpath(graph)), USUAL_LABELS)
    return path if os.path.lexists(path) else None


def _labels_of(
    settings: GraphSettings, given: list[str] | None, carried: Sequence[str]
) -> list[str]:
    """The labels that the graph has ``carried``, or those of a file: ``given`` if it was named.

    A file that is named, or lies beside the graph under the usual name, must have those that are
    carried. Raises `GraphError` where it has others, and where there are none.
    """
    file = settings.labels or _file_beside(settings.graph) or (None if carried else USUAL_LABELS)
    if file is None:
        return list(carried)
    if given is None:
        given = read_labels(file)
    if carried and given != list(carried):
        raise GraphError(
            f"the labels file {shown(file)} was not written with the graph "
            f"{shown(settings.graph)}: {_difference(given, carried)}; name the right one with "
            "--labels, remove the wrong one, or run python -m retrain again (if it runs now, wait "
            "until it is done)"
        )
    return given


def _difference(given: Sequence[str], carried: Sequence[str]) -> str:
    """Where the labels of the file and those of the graph first differ."""
    if len(given) != len(carried):
        return f"it has {len(given)} labels, the graph {len(carried)}"
    both = enumerate(zip(given, carried, strict=True), start=1)
    line, (ours, theirs) = next(pair for pair in both if pair[1][0] != pair[1][1])
    return f"its line {line} is '{shown(ours)}', in the graph it is '{shown(theirs)}'"
