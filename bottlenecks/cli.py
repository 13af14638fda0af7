"""python -m bottlenecks: flags -> config -> build -> printed summary -> exit code."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bottlenecks.command import DONE, Parser, run
from bottlenecks.config import Config
from bottlenecks.errors import shown

if TYPE_CHECKING:
    from bottlenecks.builder import BuildReport
    from bottlenecks.inception import Extractor, InceptionV3

log = logging.getLogger(__name__)

DESCRIPTION = """\
Run every photo of a folder once through InceptionV3 and keep the 2048 numbers of each
(its bottleneck) in HDF5. What is there already is not computed again."""

SHOWN_BAD_IMAGES = 10


def main(argv: Sequence[str] | None = None, *, extractor: "Extractor | None" = None) -> int:
    """Run the command; returns its exit code. ``extractor`` stands in for InceptionV3."""
    return run(lambda: _main(argv, extractor), resumable=True)


def _main(argv: Sequence[str] | None, extractor: "Extractor | None") -> int:
    parser = Parser(prog="python -m bottlenecks", description=DESCRIPTION)
    parser.add_flags(Config)
    config = Config(**parser.parse(argv))

    from bottlenecks.builder import build
    from bottlenecks.progress import ProgressBar

    with ProgressBar("bottlenecks", "images") as bar:
        extractor = extractor or make_extractor(config)
        report = build(config, extractor=extractor, on_progress=lambda p: bar(p.done, p.total))
    print(summary(report))
    return DONE


def make_extractor(config: Config) -> "InceptionV3":
    """InceptionV3 as ``config`` wants it, with its download shown on stderr."""
    from bottlenecks.inception import InceptionV3
    from bottlenecks.progress import ProgressBar

    if config.weights == "random":
        log.warning("--weights random is an UNTRAINED network: for trials, not for real photos")
    return InceptionV3(
        config.weights, config.model_dir, config.precision, ProgressBar("weights", "B", True)
    )


def summary(report: "BuildReport") -> str:
    """What a build found and did, a line for each."""
    width = max(len(label) for label in report.counts)
    lines = [f"{len(report.images)} images of {len(report.counts)} labels:"]
    lines += [f"  {label:<{width}}  {count:>7}" for label, count in report.counts.items()]
    rate = f" ({report.images_per_second:.1f} images/s)" if report.computed else ""
    lines += [
        f"computed        {report.computed:>7}{rate}",
        f"already cached  {report.cached:>7}",
    ]
    if report.copies:
        lines.append(f"copies          {report.copies:>7} (same content as another image)")
    lines.append(f"bad             {len(report.failed):>7}")
    lines += [f"  {shown(bad.path)}: {bad.reason}" for bad in report.failed[:SHOWN_BAD_IMAGES]]
    if len(report.failed) > SHOWN_BAD_IMAGES:
        lines.append(f"  ... and {len(report.failed) - SHOWN_BAD_IMAGES} more")
    if report.failed:
        lines.append(
            f"  listed in {shown(report.cache.folder / 'bad_images.csv')}, tried again next time"
        )
    if report.passed_over:
        lines.append(f"passed over     {report.passed_over:>7} (hidden, or no images)")
    if report.empty_folders:
        names = ", ".join(map(shown, report.empty_folders))
        lines.append(f"no images in    {names}")
    lines.append(f"cache           {shown(report.cache.folder)}")
    if not report.computed:
        lines.append("Nothing to compute: every image is in the cache.")
    return "\n".join(lines)
