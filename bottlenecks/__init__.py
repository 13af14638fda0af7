"""Stage one: image folder -> cached bottleneck vectors.

A *bottleneck* is the 2048 numbers that InceptionV3 gives for an image just before its
classification layer. This package computes each once and keeps it in HDF5::

    report = bottlenecks.build(bottlenecks.Config(image_dir="Dataset"))
    vectors = report.cache.read(image.key for image in report.images)  # (n, 2048) float32

The rooms (with a ``/``, each with a map of its own) and modules, in the order in which data flows;
each imports only from those before it:

===========  =====================================================================
errors       every exception of the project
settings     frozen dataclasses that the flags are made from
atomic       write-then-rename, for every file that is written
command      what the commands share: flags, error lines, exit codes
forks        what a forked child makes anew
machine      cores, GPU, bfloat16, int8, and what follows from them
parallel     large work in blocks, on all cores
pools        work for several threads, in order
row_spec     what a row of the store is
progress     how a long job shows while it runs
photos/      where the photos are, which are images, and what their pixels are
network/     weights -> the frozen network, and what runs it
store/       rows on disk
speeds       how fast this machine was
config       the settings of stage one
outputs      what a command writes: never over an input, or what is another's
rows         pixels through the network into the store
computing    who computes rows: its protocol, and this process as one
cluster/     the machines of a cluster as another
who          which of them computes the rows of a run
calibration  photos of a folder -> the network's numbers in 8 bits
extractors   which precision and engine computes the rows of a folder
builder      build(): all of it together
variants     more rows of the same images: at a cut, and of distorted variants
takeout      the vectors as one HDF5 or NPZ file
cli          the command line
===========  =====================================================================
"""

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
