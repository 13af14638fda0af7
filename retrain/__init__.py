"""Stage two: cached vectors -> a trained, measured, exported classifier.

::

    result = retrain.train(retrain.Config(image_dir="Dataset", how_many_training_steps=1000))
    print(result.test.accuracy)

The rooms (with a ``/``, each with a map of its own) and modules, in the order in which data flows;
each imports only from those before it:

==========  =====================================================================
evaluate    predictions -> figures
data/       cached rows -> the images of each set
training/   the images of each set -> a trained softmax layer
report/     what a run has found, and how it is shown
export/     the trained classifier -> files that other programs load
checks/     files that may be anything -> refused, or harmless
engines/    such a file -> scores of pixels
imagenet    InceptionV3 with the labels that it was trained on, as an exported classifier
config      the settings of both stages, and of an evaluation
plan        what a run would do
preview     what the distortions make of some photos
listener    what a run tells
learning    learn(): a data set -> the model that is exported
exporting   export(): that model in all formats that are asked for
quantised   compare(): what a format whose numbers are rounded has lost
trainer     train(): all of it together
measuring   measure(): an exported classifier on a folder of labelled photos
texts       what was found, in lines for the terminal
console     how a run and an evaluation show there
cli         the command line
==========  =====================================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

from bottlenecks import __version__ as __version__

if TYPE_CHECKING:
    from retrain.config import Config, MeasureConfig
    from retrain.listener import Listener
    from retrain.measuring import MeasureListener, measure
    from retrain.report.results import Measurement, TrainingResult
    from retrain.trainer import train

__all__ = [
    "Config",
    "Listener",
    "MeasureConfig",
    "MeasureListener",
    "Measurement",
    "TrainingResult",
    "measure",
    "train",
]

_HOME = {
    "Config": "config",
    "Listener": "listener",
    "MeasureConfig": "config",
    "MeasureListener": "measuring",
    "Measurement": "report.results",
    "TrainingResult": "report.results",
    "measure": "measuring",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
