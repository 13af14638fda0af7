"""All formats that a classifier is written in.

A new format is a module as `retrain.export.classifier.Exporter` describes, and a line here.
"""

from collections.abc import Sequence

from retrain.export import frozen_graph, lite, onnx, saved_model
from retrain.export.about import date_of_today
from retrain.export.classifier import Exporter
from retrain.export.settings import ExportSettings

# In the order in which they are written: the graph and the labels first, so that they are there
# whatever becomes of the others.
EXPORTERS: Sequence[Exporter] = (frozen_graph, saved_model, lite, onnx)


def wanted(settings: ExportSettings) -> list[Exporter]:
    """Those that the flags ask for, the frozen graph first."""
    return [exporter for exporter in EXPORTERS if exporter.path_of(settings) is not None]


def check(settings: ExportSettings) -> None:
    """Raise `UsageError` where a format that is asked for could not be made."""
    date_of_today()
    for exporter in wanted(settings):
        exporter.check(settings)
