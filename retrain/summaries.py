"""TensorBoard event files: ``<summaries_dir>/train`` and ``/validation``, as retrain.py's."""

import uuid
from pathlib import Path
from types import TracebackType

from bottlenecks.quiet_tensorflow import import_tensorflow
from retrain.config import SUMMARIES
from retrain.evaluate import Score


class Summaries:
    """Writes scalars; a context manager. Nothing that is there already is touched.

    ``tf.summary`` needs the tensorboard package, which TensorFlow no longer brings along;
    the writer of TF 1 does not.
    """

    def __init__(self, summaries_dir: str | Path) -> None:
        self._tf = import_tensorflow()
        run = uuid.uuid4().hex  # else two runs within a second would share a file
        with self._tf.Graph().as_default():  # the writer of TF 1 refuses eager mode
            self._writers = {
                name: self._tf.compat.v1.summary.FileWriter(
                    str(Path(summaries_dir) / name), filename_suffix=f".{run}"
                )
                for name in SUMMARIES
            }

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, name: str, step: int, score: Score) -> None:
        """Write the accuracy and cross-entropy of ``name`` ("train", "validation") at ``step``."""
        summary = self._tf.compat.v1.Summary()
        summary.value.add(tag="accuracy", simple_value=score.accuracy)
        summary.value.add(tag="cross_entropy", simple_value=score.cross_entropy)
        self._writers[name].add_summary(summary, step)
