"""compare(): a file of rounded numbers -> what it has lost, on images that were held out."""

import logging
from collections.abc import Callable

import numpy as np

from bottlenecks.photos.labels import TESTING, VALIDATION
from retrain.config import Config
from retrain.data.dataset import Dataset, sample_rows
from retrain.data.pixels import pixels_of
from retrain.engines.settings import GraphSettings
from retrain.learning import Learned
from retrain.report.results import Loss

MOST = 500  # images; a point of accuracy of fewer hardly shows
TOO_MUCH = 0.5  # points of accuracy lost, above which there is a warning

log = logging.getLogger(__name__)


def compare(
    config: Config,
    dataset: Dataset,
    learned: Learned,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Loss | None:
    """Run the file of ``config.output_tflite`` on test images; where there are none, validation's.

    What it gets right is compared with what the model gets right of the cached rows. Some `MOST`
    images are drawn; those that are gone or edited meanwhile are passed over. None where none is
    left. Warns where more than `TOO_MUCH` is lost. Raises `GraphError`.
    """
    from retrain.engines.engine import Engine  # which few runs have a use for

    assert config.output_tflite is not None
    tuned = learned.fine_tuned
    if tuned is not None and tuned.is_taken and learned.at_cut is not None:
        dataset = learned.at_cut  # its rows are those that the model takes
    name = TESTING if len(dataset.testing) else VALIDATION
    held_out = dataset.testing if len(dataset.testing) else dataset.validation
    random = np.random.default_rng((config.seed, 11))
    sample = held_out.select(sample_rows(len(held_out), MOST, random))
    engine = Engine(GraphSettings(graph=config.output_tflite, labels=config.output_labels))
    rows, after = [], []
    for row, pixels in pixels_of(sample.images):
        rows.append(row)
        after.append(int(engine.scores(pixels[np.newaxis]).argmax()))
        on_progress(len(rows), len(sample))
    if not rows:
        return None
    left = sample.select(np.array(rows))
    before = learned.model.predict_all(left.vectors).argmax(axis=1)
    loss = Loss(name, len(rows), *(float((y == left.y).mean()) for y in (before, np.array(after))))
    if loss.points > TOO_MUCH:
        log.warning(
            "--quantize %s loses %.1f points of accuracy (%.1f%% to %.1f%% of %d %s images%s): see "
            "whether that is good enough, or choose another",
            config.quantize,
            loss.points,
            100 * loss.before,
            100 * loss.after,
            loss.n,
            loss.set,
            f", of which one is {100 / loss.n:.1f} points" if 100 / loss.n > TOO_MUCH else "",
        )
    return loss
