"""Use a classifier: photos -> ranked labels.

::

    classifier = label_image.Classifier("retrained_graph.pb", "retrained_labels.txt")
    for result in classifier.classify("photos"):
        print(result.path, result.problem or result.label, result.score)

The modules, in the order in which data flows (each imports only from those before it):

==========  =================================================================
config      the settings
about       a classifier's file -> what made it
photos      paths, folders, bytes, pixels -> photos to read
classifier  Classifier(graph, labels).classify(photos)
sheet       results -> one page or picture, for the eye
cli         the command line
==========  =================================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

from bottlenecks import __version__ as __version__

if TYPE_CHECKING:
    from label_image.classifier import Classifier, Guess, Result

__all__ = ["Classifier", "Guess", "Result"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.classifier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
