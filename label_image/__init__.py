"""Use a classifier: photos -> ranked labels.

::

    classifier = label_image.Classifier("retrained_graph.pb", "retrained_labels.txt")
    for result in classifier.classify(["a.jpg", "b.jpg"]):
        print(result.path, result.ranking[0].label, result.ranking[0].score)

The modules, in the order in which data flows (each imports only from those before it):

==========  =================================================================
config      the settings
safe        refuse a graph that could do harm
graph       read a frozen graph and its labels; find its input and output
classifier  Classifier(graph, labels).classify(paths)
cli         the command line
==========  =================================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from label_image.classifier import Classifier, Guess, Result

__all__ = ["Classifier", "Guess", "Result"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.classifier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
