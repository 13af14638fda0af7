"""TensorBoard event files: ``<summaries_dir>/train`` and ``/validation``, as retrain.py's."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from bottlenecks.errors import OutputError, shown
from bottlenecks.quiet_tensorflow import import_tensorflow
from retrain.config import SUMMARIES
from retrain.evaluate import Score


class Summaries:
    """Writes scalars; a context manager. Nothing that is there already is touched.

    Everything raises `OutputError` where it cannot write.

    ``tf.summary`` needs the tensorboard package, which TensorFlow no longer brings along;
    the writer of TF 1 does not.
    """

    def __init__(self, summaries_dir: str | Path) -> None:
        self._folder = summaries_dir
        self._tf = import_tensorflow()
        run = uuid.uuid4().hex  # else two runs within a second would share a file
        # The writer of TF 1 refuses eager mode.
        with self._one_error(), self._tf.Graph().as_default():
            self._writers = {
                name: self._tf.compat.v1.summary.FileWriter(
                    str(Path(summaries_dir) / name), filename_suffix=f".{run}"
                )
                for name in SUMMARIES
            }

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *_: object) -> None:
        with self._one_error():
            for writer in self._writers.values():
                writer.close()

    def add(self, name: str, step: int, score: Score) -> None:
        """Write the accuracy and cross-entropy of ``name`` ("train", "validation") at ``step``."""
        summary = self._tf.compat.v1.Summary()
        summary.value.add(tag="accuracy", simple_value=score.accuracy)
        summary.value.add(tag="cross_entropy", simple_value=score.cross_entropy)
        with self._one_error():
            self._writers[name].add_summary(summary, step)

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        """Turn TensorFlow's errors, of many kinds, into `OutputError`."""
        try:
            yield
        except (RuntimeError, OSError, self._tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:300]
            raise OutputError(
                f"cannot write --summaries_dir {shown(self._folder)}: {reason}; choose another "
                "folder, or leave it out"
            ) from error
