"""A classifier -> TensorFlow's frozen graph, and its labels beside it."""

from collections.abc import Sequence
from pathlib import Path

from bottlenecks import atomic
from retrain.export.classifier import TrainedClassifier
from retrain.export.settings import ExportSettings

NAME = "graph"


def path_of(settings: ExportSettings) -> str:
    """Where it is written: always, as it is what the other formats are made from."""
    return settings.output_graph


def check(settings: ExportSettings) -> None:
    """Nothing is needed for it."""


def write(classifier: TrainedClassifier, settings: ExportSettings) -> None:
    """Write the graph and its labels. Raises ``OSError``."""
    write_pair(settings.output_graph, classifier.graph, settings.output_labels, classifier.labels)


def write_pair(
    graph_path: str | Path, graph: bytes, labels_path: str | Path, labels: Sequence[str]
) -> None:
    """Write the graph and its labels: one a line, UTF-8, in the order of the graph's output.

    Both are on the disk before either gets its name, so that a full disk leaves the old pair. A
    process killed between the two renames leaves a new graph beside old labels, which `label_image`
    refuses, because the graph carries its own.
    """
    for path in (graph_path, labels_path):
        atomic.make_parents(path)
    with atomic.replacing(labels_path) as new_labels, atomic.replacing(graph_path) as new_graph:
        new_labels.write_bytes("".join(f"{label}\n" for label in labels).encode())
        new_graph.write_bytes(graph)
