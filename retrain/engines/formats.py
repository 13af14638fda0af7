"""All formats that classifiers come in, and which one a file is in: by its content, not its name.

A new format is a module as `retrain.engines.program.Format` describes, and a line here.
"""

import os
from collections.abc import Sequence

from bottlenecks.photos.reading import open_file
from retrain.engines import frozen_graph, lite, onnx, saved_model
from retrain.engines.program import START_BYTES, Contents, Format

# The first that fits is taken; a frozen graph has no mark of its own and comes last.
FORMATS: Sequence[Format] = (saved_model, lite, onnx, frozen_graph)


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format of the file or folder at ``path``; where there is none, reading it says so."""
    start: bytes | None = b""
    if os.path.isdir(path):
        start = None
    else:
        try:
            with open_file(path) as file:
                start = file.read(START_BYTES)
        except OSError:  # `read` names it
            pass
    return next(format_ for format_ in FORMATS if format_.fits(path, start))


def read(path: str | os.PathLike[str], any_graph: bool = False) -> Contents:
    """What the file or folder at ``path`` holds, checked unless ``any_graph``.

    Raises `GraphError`, `UnsafeGraphError`.
    """
    contents: Contents = format_of(path).read(path, any_graph)
    return contents
