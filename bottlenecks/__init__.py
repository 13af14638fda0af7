"""Stage one: image folder -> cached bottleneck vectors.

A *bottleneck* is the 2048 numbers that InceptionV3 gives for an image just before its
classification layer. This package computes each once and keeps it in HDF5::

    report = bottlenecks.build(bottlenecks.Config(image_dir="Dataset"))
    vectors = report.cache.read(image.key for image in report.images)  # (n, 2048) float32

The modules, in the order in which data flows (each imports only from those before it):

=================  ==========================================================
errors             every exception of the project
atomic             write-then-rename, for every file that is written
command            what the commands share: flags, error lines, exit codes
config             the settings of stage one
forks              what a forked child makes anew
machine            cores, GPU, bfloat16, and what follows from them
node_names         the frozen network's tensor names
images             image folder -> labelled image files
outputs            what a command writes: never over an input, or what is another's
reading            image files -> bytes, several at once
structure          image files of too many parts, refused before they are decoded
shrink             an image of any mode and size -> 8 bits at the size wanted
decode             file bytes -> pixels; the only decoder
quiet_tensorflow   the one place where TensorFlow is imported
frozen             run a frozen graph in little memory
bfloat16           the frozen network in half the bits
weights            imagenet, random or a file -> checked weights
inception          weights -> frozen InceptionV3: pixels -> vectors
shard              rows <-> the bytes of one HDF5 file
layout             what the files of a cache folder are called
lock               one writer at a time
cache              the shards of one fingerprint on disk
vectors            any rows of a cache, in memory or on disk
stat_index         which files need not be read again
rows               pixels through the network into the cache
builder            build(): all of it together
housekeeping       list, verify and prune a cache folder
takeout            the vectors as one HDF5 or NPZ file
progress           how a build shows while it runs
cli                the command line
=================  ==========================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottlenecks.builder import BuildReport, build
    from bottlenecks.config import Config
    from bottlenecks.errors import RetrainError
    from bottlenecks.inception import InceptionV3

__all__ = ["BuildReport", "Config", "InceptionV3", "RetrainError", "build"]

_HOME = {
    "BuildReport": "builder",
    "Config": "config",
    "InceptionV3": "inception",
    "RetrainError": "errors",
    "build": "builder",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
