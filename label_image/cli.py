"""python -m label_image: photos -> printed labels -> exit code."""

import csv
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bottlenecks.command import DONE, ERROR, Parser, as_process, run
from bottlenecks.errors import ImageFolderNotFoundError, UsageError, shown
from label_image.config import PICTURE, Config

if TYPE_CHECKING:
    from label_image.classifier import Result
    from label_image.sheet import Sheet

PHOTOS = (
    "photos, or folders of photos; also in a .zip or .tar, or addresses (s3://..., https://...)"
)
BAR_SECONDS = 1.0  # before the bar shows

DESCRIPTION = """\
Label photos with a classifier that python -m retrain made, or with InceptionV3 itself
(--imagenet). Takes photos and folders of photos. Exits with 2 if one of them cannot be
read, after labelling the others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: _main(argv))


def command() -> NoReturn:
    """`main`, as a process of its own."""
    as_process(main)


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="python -m label_image", description=DESCRIPTION)
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help=PHOTOS)
    parser.add_argument("--image", action="append", metavar="FILE", help="the same as PHOTO")
    parser.add_flags(Config)
    group = parser.add_argument_group("instead of labelling")
    group.add_argument(
        "--about",
        action="store_true",
        help="print what made the classifier in --graph, or in a file named after it",
    )
    values = parser.parse(argv)
    arguments = values.pop("photos") + (values.pop("image") or [])
    about = values.pop("about")
    config = Config(**values)
    if about:
        return _about(config, arguments)
    photos = _photos(arguments)
    _check_show(config, arguments)
    if not any(map(_may_be, photos)):  # not worth the start of TensorFlow
        raise ImageFolderNotFoundError(f"there is no photo or folder {shown(photos[0])}")

    from bottlenecks.progress import ProgressBar
    from label_image.classifier import Classifier

    files = _imagenet(config) if config.imagenet else {}
    classifier = Classifier(**config.of_the_graph | files)
    show = _SHOW[config.format](config.num_top_predictions, len(photos) > 1)
    sheet = _sheet(config)
    failed = 0
    to_a_file = len(photos) > 1 and not sys.stdout.isatty()
    with ProgressBar("photos", "photos", delay=BAR_SECONDS) as bar:
        for done, result in enumerate(classifier.classify(photos), start=1):
            if to_a_file:
                bar(done, len(photos))
            failed += _shown(result, show)
            if sheet is not None:
                sheet.add(result)
    show.end()
    if sheet is not None:
        sheet.write()
    return ERROR if failed else DONE


def _imagenet(config: Config) -> dict[str, str]:
    """The graph and the labels of InceptionV3 as it is published, which are made if need be."""
    from bottlenecks.progress import ProgressBar
    from retrain.checks.reading import read_labels
    from retrain.imagenet import classifier

    given = {name: getattr(config, name) for name in ("weights", "model_dir")}
    given = {name: value for name, value in given.items() if value is not None}
    if config.labels is not None:
        given["labels"] = read_labels(config.labels)
    with ProgressBar("weights", "B", True) as bar:
        graph, labels = classifier(**given, on_download=bar)
    return {"graph": str(graph), "labels": str(labels)}


def _check_show(config: Config, named: Sequence[str]) -> None:
    """Raise `UsageError` or `OutputError` where --show cannot be written, or lies among photos."""
    config.check_outputs()
    if config.show is None or config.show_suffix != PICTURE:
        return
    parents = Path(os.path.realpath(config.show)).parents
    for folder in named:
        if os.path.isdir(folder) and Path(os.path.realpath(folder)) in parents:
            raise UsageError(
                f"--show {shown(config.show)} is inside {shown(folder)}, where the next run would "
                "take it for a photo; choose another place"
            )


def _sheet(config: Config) -> "Sheet | None":
    """What --show draws."""
    if config.show is None:
        return None
    from label_image.sheet import Sheet

    used = "InceptionV3" if config.imagenet else config.graph
    return Sheet(config.show, used, config.num_top_predictions)


def _about(config: Config, named: Sequence[str]) -> int:
    """Print what made the one classifier that is named, by itself or with --graph."""
    from label_image.about import read_made

    graphs = [*named, *([config.graph] if config.graph != Config.graph else [])]
    if len(graphs) > 1:
        raise UsageError(f"--about is of one file. Received: {', '.join(map(shown, graphs))}")
    if config.format == "csv":
        raise UsageError("--about is printed as --format text or json. Received: csv")
    if config.show is not None:
        raise UsageError("--show draws photos, and --about looks at none; leave one of them out")
    made = read_made(graphs[0] if graphs else config.graph)
    if config.format == "json":
        print(_printable_json(dataclasses.asdict(made)))
    else:
        print(made.text)
    return DONE


def _shown(result: "Result", show: "_Text") -> bool:
    """Show a result; returns whether it is a photo that could not be read."""
    if result.problem:
        print(f"error: {shown(result.path)}: {result.problem}", file=sys.stderr)
    show.result(result)
    return bool(result.problem)


def _photos(arguments: Iterable[str]) -> list[str]:
    """The photos that ``arguments`` name, with those in the folders among them."""
    from bottlenecks.photos.places.place import find_photos

    photos = []
    for argument in arguments:
        found = find_photos(argument)
        if found == []:
            raise UsageError(f"found no images in the folder {shown(argument)}")
        photos += [argument] if found is None else found  # where there is none, its result says so
    if not photos:
        raise UsageError("name a photo or a folder of photos: python -m label_image photo.jpg")
    return photos


def _may_be(photo: str) -> bool:
    """Whether it can be there; nobody is asked but the disk."""
    from bottlenecks.photos.places.place import source_of

    return os.path.lexists(photo) or source_of(photo) is not None


class _Text:
    """``daisy (score = 0.98765)``, under the photo's name where there are several."""

    def __init__(self, top: int, several: bool) -> None:
        self.top, self.several = top, several
        self._shown = False

    def result(self, result: "Result") -> None:
        if result.problem:
            return
        if self.several:
            print(("\n" if self._shown else "") + shown(result.path))
        self._shown = True
        for guess in result.ranking[: self.top]:
            print(f"{shown(guess.label)} (score = {guess.score:.5f})")
        sys.stdout.flush()

    def end(self) -> None:
        pass


class _Csv(_Text):
    """A header, then a row for each photo and label: image, rank, label, score."""

    def __init__(self, top: int, several: bool) -> None:
        super().__init__(top, several)
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(("image", "rank", "label", "score"))

    def result(self, result: "Result") -> None:
        for rank, guess in enumerate(result.ranking[: self.top], start=1):
            self._writer.writerow((shown(result.path), rank, shown(guess.label), guess.score))


class _Json(_Text):
    """One list with an object for each photo: its image, and its labels or its error."""

    def __init__(self, top: int, several: bool) -> None:
        super().__init__(top, several)
        self._photos: list[dict[str, object]] = []

    def result(self, result: "Result") -> None:
        photo: dict[str, object] = {"image": shown(result.path)}
        if result.problem:
            photo["error"] = result.problem
        else:
            photo["labels"] = [dataclasses.asdict(guess) for guess in result.ranking[: self.top]]
        self._photos.append(photo)

    def end(self) -> None:
        print(_printable_json(self._photos))


def _printable_json(value: object) -> str:
    """It as JSON, with letters as they are but what a terminal might obey escaped."""
    return re.sub(
        r"[^\n -~]",
        lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1],
        json.dumps(value, indent=2, ensure_ascii=False),
    )


_SHOW = {"text": _Text, "json": _Json, "csv": _Csv}
