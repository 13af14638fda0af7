"""A frozen graph and its labels -> scores of pixels."""

import os
from typing import Any

import numpy as np

from bottlenecks import machine
from bottlenecks.errors import GraphError, shown
from bottlenecks.forks import OwnProcess
from bottlenecks.network.frozen import import_frozen
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import INPUT_SIZE
from retrain.export.graph_spec import MUL_NODE
from retrain.export.reading import find_input, find_output, read_pair
from retrain.export.settings import GraphSettings


class Engine:
    """A frozen graph that runs: of `retrain`, of retrain.py, or of another program.

    It takes photos of ``input_size`` (height, width), best ``batch_size`` of them at once, and no
    more than ``fixed_batch`` where the graph has one, and gives the scores of its ``labels``.
    Photos are fed as ``(pixel - input_mean) / input_std`` to ``input_layer``; what is None is read
    from the graph.

    The graph of `retrain` carries its labels: the labels file must hold the same, and is not missed
    where ``labels`` is left at its default. A graph of retrain.py needs the file.

    Raises `GraphError` for files that are missing, are something else, or do not fit together.
    """

    def __init__(
        self,
        graph: str | os.PathLike[str] = GraphSettings.graph,
        labels: str | os.PathLike[str] = GraphSettings.labels,
        *,
        input_layer: str | None = None,
        output_layer: str | None = None,
        input_height: int | None = None,
        input_width: int | None = None,
        input_mean: float | None = None,
        input_std: float | None = None,
    ) -> None:
        graph_def, self.labels = read_pair(graph, labels)
        tf = import_tensorflow()
        with tf.Graph().as_default() as tf_graph:
            try:
                initialise = import_frozen(graph_def, {})
            except MemoryError:
                raise
            except Exception as error:  # TensorFlow raises nearly everything on broken graphs
                raise GraphError(f"cannot load the graph {shown(graph)}: {_why(error)}") from error
        source = find_input(tf_graph, input_layer)
        output = find_output(tf_graph, output_layer)
        classes = output.shape[-1] if output.shape.rank else None
        if classes is not None and classes != len(self.labels):
            raise GraphError(
                f"the graph {shown(graph)} gives {classes} scores and {shown(labels)} has "
                f"{len(self.labels)} labels; use the labels file that was written with the graph"
            )
        self.input_size = _size(source.shape, input_height, input_width)
        self.fixed_batch: int | None = source.shape[0] if source.shape.rank == 4 else None
        self.batch_size = self.fixed_batch or machine.batch_size()
        is_mul = source.name == f"{MUL_NODE}:0"
        self._mean = input_mean if input_mean is not None else 127.5 if is_mul else 0.0
        self._std = input_std if input_std is not None else 127.5 if is_mul else 255.0
        session = tf.compat.v1.Session(graph=tf_graph)
        self._process = OwnProcess()
        initialise(session)
        self._failures = (tf.errors.OpError, ValueError)
        self._run = session.make_callable(output, [source])

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8 pixels -> (n, C) float32 scores.

        Raises `GraphError` where the graph cannot give them, `UsageError` in a forked child.
        """
        self._process.check("this classifier")
        fed = (pixels.astype(np.float32) - np.float32(self._mean)) / np.float32(self._std)
        if self.fixed_batch is not None:  # fill the last batch up
            fed = np.resize(fed, (self.fixed_batch, *fed.shape[1:]))
        try:
            scores = np.asarray(self._run(fed)).reshape(len(fed), -1)[: len(pixels)]
        except self._failures as error:
            raise GraphError(
                f"the graph cannot be run from its input to its output: {_why(error)}; name others "
                "with --input_layer and --output_layer"
            ) from error
        if not np.isfinite(scores).all():
            raise GraphError(
                "the graph gives scores that are not finite; it is broken, or --input_mean and "
                "--input_std are not those it was trained with"
            )
        if scores.shape[1] != len(self.labels):
            raise GraphError(
                f"the graph gives {scores.shape[1]} scores for {len(self.labels)} labels; use the "
                "labels file that was written with the graph"
            )
        return scores


def _why(error: Exception) -> str:
    """What TensorFlow says, in a line that is safe to print."""
    return shown(" ".join(str(error).split())[:300])


def _size(shape: Any, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) to feed: as asked, else what the graph's input has, else InceptionV3's."""
    found = tuple(shape[1:3]) if shape.rank == 4 else (None, None)
    size = []
    for asked, static, default in zip((height, width), found, INPUT_SIZE, strict=True):
        if asked is not None and static is not None and asked != static:
            raise GraphError(
                f"the graph takes photos of {found[0]} x {found[1]}; leave out --input_height and "
                f"--input_width. Received: {asked}"
            )
        size.append(asked or static or default)
    return size[0], size[1]
