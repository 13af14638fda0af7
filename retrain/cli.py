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
    parser = Parser(
        prog="python -m retrain",
        usage="python -m retrain --image_dir DIR [flags]",
        description=DESCRIPTION,
    )
    parser.add_flags(Config)
    parser.add_argument_group("instead of a run").add_argument(
        "--dry_run",
        action="store_true",
        help="say what would be done: labels, sets, how many vectors are missing and about how "
        "long they take; nothing is computed or written",
    )
    values = parser.parse(argv)
    dry_run = values.pop("dry_run")
    config = Config(**values)
    if dry_run:
        from retrain.console import plan_text
        from retrain.plan import plan

        print(plan_text(config, plan(config, extractor)))
        return DONE

    from bottlenecks.progress import ProgressBar
    from retrain.console import BAR_SECONDS, Console
    from retrain.trainer import train

    with (
        ProgressBar("bottlenecks", "images") as bar,
        ProgressBar("weights", "B", True) as download,
        ProgressBar("training", "steps", delay=BAR_SECONDS, only_in_terminal=True) as steps,
    ):
        extractor = extractor or make_extractor(config, download)
        train(config, extractor=extractor, listener=Console(config, bar, steps))
    return DONE
