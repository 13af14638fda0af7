"""python -m retrain: flags -> config -> train -> printed figures -> exit code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from bottlenecks.cli import make_extractor
from bottlenecks.command import DONE, Parser, as_process, run
from retrain.config import Config

if TYPE_CHECKING:
    from bottlenecks.network.inception import NetworkExtractor

DESCRIPTION = """\
Make an image classifier from a folder of photos, with one sub-folder per label: compute the
bottlenecks that are not in the cache yet, train a softmax layer on them, test it, and write
the graph and the labels for label_image."""


def main(argv: Sequence[str] | None = None, *, extractor: "NetworkExtractor | None" = None) -> int:
    """Run the command; returns its exit code. ``extractor`` stands in for InceptionV3."""
    return run(lambda: _main(argv, extractor), finishes=True)


def command() -> NoReturn:
    """`main`, as a process of its own."""
    as_process(main)


def _main(argv: Sequence[str] | None, extractor: "NetworkExtractor | None") -> int:
    parser = Parser(prog="python -m retrain", description=DESCRIPTION)
    parser.add_flags(Config)
    config = Config(**parser.parse(argv))

    from bottlenecks.progress import ProgressBar
    from retrain.console import Console
    from retrain.trainer import train

    with ProgressBar("bottlenecks", "images") as bar, ProgressBar("weights", "B", True) as download:
        extractor = extractor or make_extractor(config, download)
        train(config, extractor=extractor, listener=Console(config, bar))
    return DONE
