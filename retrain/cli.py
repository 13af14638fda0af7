"""python -m retrain: flags -> config -> train or measure -> printed figures -> exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from bottlenecks.command import DONE, Parser, as_process, run
from bottlenecks.errors import UsageError
from bottlenecks.settings import Settings
from retrain.config import Config, MeasureConfig

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
    _add_instead(parser)
    parser.add_flags(MeasureConfig)  # those that it has beside the others
    values = parser.parse(argv)
    dry_run, evaluate = values.pop("dry_run"), values.pop("evaluate")
    show_distortions = values.pop("show_distortions")
    if evaluate:
        where = "with --evaluate, which trains nothing and keeps no cache"
        return _evaluate(MeasureConfig(**_of(MeasureConfig, values, where)))
    config = Config(**_of(Config, values, "without --evaluate"))
    if show_distortions is not None:
        from retrain.preview import preview
        from retrain.texts import preview_text

        print(preview_text(preview(config, show_distortions)))
        return DONE
    if dry_run:
        from retrain.plan import plan
        from retrain.texts import plan_text

        print(plan_text(config, plan(config, extractor)))
        return DONE

    from bottlenecks.progress import ProgressBar
    from retrain.console import BAR_SECONDS, Console
    from retrain.trainer import train

    with (
        ProgressBar("bottlenecks", "images") as bar,
        ProgressBar("weights", "B", True) as download,
        ProgressBar("calibrating 8 bits", "steps") as calibrating,
        ProgressBar("training", "steps", delay=BAR_SECONDS, only_in_terminal=True) as steps,
        ProgressBar("fine-tuning", "steps") as tuning,
    ):
        console = Console(config, bar, steps, tuning, download, calibrating)
        train(config, extractor=extractor, listener=console)
    return DONE


def _evaluate(config: MeasureConfig) -> int:
    from bottlenecks.progress import ProgressBar
    from retrain.console import MeasureConsole
    from retrain.measuring import measure

    with ProgressBar("photos", "images") as bar:
        console = MeasureConsole(config, bar)
        measure(config, listener=console)
    console.finished()
    return DONE


def _of(wanted: type[Settings], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The flags of ``wanted``. Raises `UsageError` for others that are set, of no use ``where``."""
    names = {field.name for field in fields(wanted)}
    others = {
        field.name: field.default
        for settings in (Config, MeasureConfig)
        for field in fields(settings)
        if field.name not in names
    }
    if given := [f"--{name}" for name, default in others.items() if values[name] != default]:
        does, them = ("does", "it") if len(given) == 1 else ("do", "them")
        raise UsageError(f"{', '.join(given)} {does} nothing {where}; leave {them} out")
    return {name: value for name, value in values.items() if name in names}


def _add_instead(parser: Parser) -> None:
    """Add the flags of what is done instead of a run."""
    group = parser.add_argument_group("instead of a run").add_mutually_exclusive_group()
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="say what would be done: labels, sets, how many vectors and other rows are missing, "
        "about how long they and fine-tuning take, and how large they are; nothing is computed or "
        "written",
    )
    group.add_argument(
        "--show_distortions",
        metavar="FILE",
        help="write a PNG of what the distortions make of some training photos; nothing is trained",
    )
    group.add_argument(
        "--evaluate",
        action="store_true",
        help="measure the classifier in --graph on the photos of --image_dir: all figures of a "
        "test, and the report; nothing is trained or cached",
    )
