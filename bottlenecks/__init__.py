"""Stage one: image folder -> cached bottleneck vectors.

A *bottleneck* is the 2048 numbers that InceptionV3 gives for an image just before its
classification layer. This package computes each once and keeps it in HDF5::

    report = bottlenecks.build(bottlenecks.Config(image_dir="Dataset"))
    vectors = report.cache.read(image.key for image in report.images)  # (n, 2048) float32

The rooms (with a ``/``, each with a map of its own) and modules, in the order in which data flows;
each imports only from those before it:

===========  =============================================================="""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottlenecks.builder import BuildReport, build
    from bottlenecks.config import Config
    from bottlenecks.errors import RetrainError
    from bottlenecks.network.inception import InceptionV3

__version__ = "0.2.0"

__all__ = ["BuildReport", "Config", "InceptionV3", "RetrainError", "build"]

_HOME = {
    "BuildReport": "builder",
    "Config": "config",
    "InceptionV3": "network.inception",
    "RetrainError": "errors",
    "build": "builder",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
