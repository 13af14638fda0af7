"""TensorBoard event files: ``<summaries_dir>/train`` and ``/validation``, as retrain.py's."""

import contextlib
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bottlenecks.errors import OutputError, one_line, shown
from bottlenecks.network.messages import message
from retrain.evaluate import Score, most_mistaken
from retrain.report.events import EventFile
from retrain.report.settings import SUMMARIES
from retrain.training.fitting import Evaluation

_BUCKETS = 30  # of a histogram
_CONFUSION_PIXELS = 500  # about how wide the picture is
_MOST_CELLS = 2**21  # of the picture: up to 1448 labels; of more, as many as it is wide


class Summaries:
    """Writes event files; a context manager. Nothing that is there already is touched.

    Raises `OutputError` where they cannot be made. What cannot be written later stops no training:
    `close` raises it.
    """

    def __init__(self, summaries_dir: str | Path) -> None:
        self._folder = summaries_dir
        self._failure: OutputError | None = None
        self._is_made = False
        run = uuid.uuid4().hex  # else two runs within a second would share a file
        self._files: dict[str, EventFile] = {}
        with self._kept_failure():
            for name in SUMMARIES:
                self._files[name] = EventFile(Path(summaries_dir) / name, run)
        if self._failure is not None:
            self.close()
        self._is_made = True

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *_: object) -> None:
        with self._kept_failure():
            for file in self._files.values():
                file.close()

    def close(self) -> None:
        """Write what is left; raises `OutputError` where that or anything before it failed."""
        self.__exit__()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def add_evaluation(self, evaluation: Evaluation, weights: np.ndarray) -> None:
        """Write the scalars of an evaluation, and the histogram of the layer's ``weights``."""
        self.add("train", evaluation.step, evaluation.train)
        if evaluation.validation is not None:
            self.add("validation", evaluation.step, evaluation.validation)
        self._write("train", evaluation.step, tag="weights", histo=self._histogram(weights))

    def add(self, name: str, step: int, score: Score) -> None:
        """Write the accuracy and cross-entropy of ``name`` ("train", "validation") at ``step``."""
        self._write(name, step, tag="accuracy", simple_value=score.accuracy)
        self._write(name, step, tag="cross_entropy", simple_value=score.cross_entropy)

    def add_confusion(self, step: int, matrix: np.ndarray) -> None:
        """Write the confusion matrix (C, C) of the test as a picture: dark is many of a row.

        Of thousands of labels it has those that are mistaken for each other most.
        """
        images, tag = matrix.sum(axis=1, keepdims=True), "confusion_matrix_of_the_test"
        if matrix.size > _MOST_CELLS:
            chosen = most_mistaken(matrix, _CONFUSION_PIXELS) or list(range(_CONFUSION_PIXELS))
            tag += f"_{len(chosen)}_of_{len(matrix)}_labels"
            matrix, images = matrix[np.ix_(chosen, chosen)], images[chosen]
        share = matrix / np.maximum(images, 1)
        scale = max(1, _CONFUSION_PIXELS // len(matrix))
        pixels = np.kron(255 - np.round(share * 255), np.ones((scale, scale))).astype(np.uint8)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        image = message("Summary", "summary").Image(
            height=pixels.shape[0],
            width=pixels.shape[1],
            colorspace=1,
            encoded_image_string=png.getvalue(),
        )
        self._write("validation", step, tag=tag, image=image)

    def _histogram(self, values: np.ndarray) -> Any:
        counts, edges = np.histogram(values, bins=_BUCKETS)
        return message("HistogramProto", "histogram")(
            min=float(values.min()),
            max=float(values.max()),
            num=values.size,
            sum=float(values.sum(dtype=np.float64)),
            sum_squares=float(np.square(values, dtype=np.float64).sum()),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )

    def _write(self, name: str, step: int, **value: Any) -> None:
        if self._failure is not None:
            return
        summary = message("Summary", "summary")()
        summary.value.add(**value)
        with self._kept_failure():
            self._files[name].add(step, summary)

    @contextlib.contextmanager
    def _kept_failure(self) -> Iterator[None]:
        """Keep the first error as an `OutputError`."""
        try:
            yield
        except Exception as error:
            so_far = "the event files end there, all else is done: " if self._is_made else ""
            failure = OutputError(
                f"cannot write --summaries_dir {shown(self._folder)}: {one_line(error)}; {so_far}"
                "choose another folder, or leave it out"
            )
            failure.__cause__ = error
            self._failure = self._failure or failure
