"""Stage two: cached vectors -> a trained, measured, exported classifier.

::

    result = retrain.train(retrain.Config(image_dir="Dataset", how_many_training_steps=1000))
    print(result.test.accuracy)

The modules, in the order in which data flows (each imports only from those before it):

==============  =============================================================
graph_spec      the exported graph's tensor names; all that label_image needs
config          the settings of both stages
groups          which photos belong together
split           groups -> training, validation or testing
dataset         cache + split -> X, y of each set
folds           images -> parts for a cross-validation
optimizers      how gradients move parameters: averaged Adam, gradient descent
head            the softmax layer: a step, predict
evaluate        predictions -> figures
regularisation  how strong the penalty is to be
fitting         the steps of a fit: which is kept, early stopping, calibration
near            photos that are almost the same
health          what is wrong with the photos themselves
results         what the test images say, and all that a run found
summaries       TensorBoard event files
plots           figures -> PNG pictures
report          results -> report.html, metrics.json
export          head + InceptionV3 -> frozen graph, labels
trainer         train(): all of it together
console         how a run shows in the terminal
cli             the command line
==============  =============================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrain.config import Config
    from retrain.results import TrainingResult
    from retrain.trainer import Listener, train

__all__ = ["Config", "Listener", "TrainingResult", "train"]

_HOME = {"Config": "config", "Listener": "trainer", "TrainingResult": "results", "train": "trainer"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
