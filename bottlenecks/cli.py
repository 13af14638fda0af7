"""python -m bottlenecks: flags -> config -> build or housekeeping -> printed summary."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from bottlenecks.command import DAMAGED, DONE, Parser, as_process, run
from bottlenecks.config import Config
from bottlenecks.errors import UsageError, shown
from bottlenecks.photos.places.place import check_folder
from bottlenecks.settings import Output, checked_path

if TYPE_CHECKING:
    from bottlenecks.builder import BadImage, BuildReport
    from bottlenecks.network.inception import Extractor

DESCRIPTION = """\
Run every photo of a folder once through InceptionV3 and keep the 2048 numbers of each
(its bottleneck) in HDF5. What is there already is not computed again."""

SHOWN_LABELS = 30
SHOWN_BAD_IMAGES = 10


def main(argv: Sequence[str] | None = None, *, extractor: "Extractor | None" = None) -> int:
    """Run the command; returns its exit code. ``extractor`` stands in for InceptionV3."""
    return run(lambda: _main(argv, extractor), finishes=True)


def command() -> NoReturn:
    """`main`, as a process of its own."""
    as_process(main)


def _main(argv: Sequence[str] | None, extractor: "Extractor | None") -> int:
    parser = Parser(prog="python -m bottlenecks", description=DESCRIPTION)
    parser.add_flags(Config, optional=["image_dir"])
    group = parser.add_argument_group("afterwards, take the vectors elsewhere")
    for suffix in ("hdf5", "npz"):
        group.add_argument(
            f"--export_{suffix}",
            metavar="FILE",
            help=f"write the vectors, paths and labels to one {suffix.upper()} file",
        )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="show InceptionV3's layers with their shapes, parameters and multiply-adds, where "
        "fine-tuning can start, and what the 1x1 convolutions save; nothing is computed",
    )
    actions = parser.add_argument_group("instead, look after --bottleneck_dir")
    for name, text in (
        ("--list", "show the fingerprints with where the network is cut, weights, rows and size"),
        ("--verify", "check the vectors byte by byte; exit code 1 if there is damage"),
    ):
        actions.add_argument(name, action="store_true", help=text)
    actions.add_argument(
        "--prune",
        nargs="*",
        metavar="FINGERPRINT",
        help="remove these fingerprints, and with --image_dir rows whose images are gone and "
        "checkpoints of fine-tuning that no run has used for a week",
    )
    actions.add_argument("--yes", action="store_true", help="prune without asking")
    values = parser.parse(argv)
    exports = {
        suffix: checked_path(path, f"export_{suffix}")
        for suffix in ("hdf5", "npz")
        if (path := values.pop(f"export_{suffix}")) is not None
    }
    summarised, listing, verify = (values.pop(name) for name in ("summary", "list", "verify"))
    fingerprints, yes = values.pop("prune"), values.pop("yes")
    instead = summarised + listing + verify + (fingerprints is not None)
    if instead > 1:
        raise UsageError("--summary, --list, --verify and --prune are for one at a time")
    if instead and exports:
        raise UsageError("--export_hdf5 and --export_npz go with a run, not with these")
    if summarised:
        from bottlenecks.network.summary import summary as summary_of_network

        print(summary_of_network())
        return DONE
    bottleneck_dir = checked_path(values["bottleneck_dir"], "bottleneck_dir")
    check_folder(bottleneck_dir, "bottleneck_dir")
    if listing or verify:
        return _inspect(bottleneck_dir, verify)
    if fingerprints is not None:
        sets = {name: values[name] for name in ("validation_dir", "test_dir")}
        return _prune(bottleneck_dir, fingerprints, values["image_dir"], sets, yes)
    if values["image_dir"] is None:
        raise UsageError("--image_dir is missing: name the folder that holds your photos")
    return _build(Config(**values), exports, extractor)


def _build(config: Config, exports: dict[str, str], extractor: "Extractor | None") -> int:
    from bottlenecks import takeout
    from bottlenecks.builder import build, check_folders, scan_of
    from bottlenecks.extractors import extractor_for
    from bottlenecks.outputs import check_ways, check_writable
    from bottlenecks.progress import ProgressBar
    from bottlenecks.store.cache import again_if_lost

    outputs = [Output(f"export_{suffix}", path) for suffix, path in exports.items()]
    check_ways([*outputs, *config.outputs], config.inputs)
    check_writable(outputs)

    def build_and_export() -> None:
        with (
            ProgressBar("bottlenecks", "images") as bar,
            ProgressBar("weights", "B", True) as download,
            ProgressBar("calibrating 8 bits", "steps") as calibrating,
        ):
            folder = scan_of(config)
            check_folders(config)
            report = build(
                config,
                extractor=extractor or extractor_for(config, folder, download, calibrating),
                folder=folder,
                on_progress=lambda p: bar(p.done, p.total, p.by),
            )
        print(summary(report), flush=True)
        for suffix, export in (("hdf5", takeout.export_hdf5), ("npz", takeout.export_npz)):
            if suffix in exports:
                export(report, exports[suffix])
                print(f"exported        {len(report.images):>7} rows to {shown(exports[suffix])}")

    again_if_lost(build_and_export)
    return DONE


def _inspect(bottleneck_dir: str, verify: bool) -> int:
    from bottlenecks.store.housekeeping import inspect

    infos = inspect(bottleneck_dir, every_row=verify)
    cuts = [shown(info.cut) for info in infos]
    width = max(map(len, [*cuts, "bottleneck"]))
    heading = "precision       rows     images  megabytes  weights"
    print(f"fingerprint   {'cut':<{width}}  {heading}")
    for info, cut in zip(infos, cuts, strict=True):
        columns = f"{info.rows:>9}  {info.images:>9}  {info.size / 1e6:>9.1f}"
        named = f"{info.cache.fingerprint[:12]}  {cut:<{width}}  {shown(info.precision):<9}"
        print(f"{named}  {columns}  {shown(info.weights)}")
    problems = [problem for info in infos for problem in info.damaged]
    for problem in problems:
        print(f"damaged: {problem}")
    for info in infos:
        if info.set_aside:
            print(f"{info.set_aside} *.h5.damaged set aside in {info.cache.store.place}")
        if info.checkpoints:
            print(f"{_of_checkpoints(info.checkpoints)} in {shown(info.cache.folder)}")
    if verify and not problems:
        print("verified: every file and row is whole")
    return DAMAGED if verify and problems else DONE


def _of_checkpoints(sizes: Sequence[int]) -> str:
    """How many checkpoints there are, and how large they are together."""
    plural = "" if len(sizes) == 1 else "s"
    return f"{len(sizes)} checkpoint{plural} of fine-tuning ({sum(sizes) / 1e6:.1f} MB)"


def _prune(
    bottleneck_dir: str,
    fingerprints: list[str],
    image_dir: str | None,
    sets: dict[str, str | None],
    yes: bool,
) -> int:
    from bottlenecks.store.housekeeping import plan_pruning, prune
    from bottlenecks.store.layout import checkpoints

    if not fingerprints and image_dir is None:
        raise UsageError(
            "--prune needs fingerprints to remove (--list shows them), or --image_dir to remove "
            "the rows whose images are not there"
        )
    pruning = plan_pruning(bottleneck_dir, fingerprints, image_dir, **sets)
    if pruning.is_empty:
        print("Nothing to remove.")
        return DONE
    for cache in pruning.caches:
        sizes = [path.lstat().st_size for path in checkpoints(cache.folder)]
        print(f"all of {cache.store.place}" + (f", {_of_checkpoints(sizes)}" if sizes else ""))
    for cache, keys in pruning.rows:
        print(
            f"{len(keys)} of {len(cache)} rows of {cache.store.place}: no such image in "
            f"{shown(str(image_dir))}"
        )
    for cache, paths in pruning.checkpoints:
        sizes = [path.lstat().st_size for path in paths]
        print(f"{_of_checkpoints(sizes)} of {shown(cache.folder)}: not used for a week")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was removed: --prune asks first; --yes answers for you")
        try:
            answer = input("Remove this? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return DONE
    prune(pruning)
    print("Removed.")
    return DONE


def label_lines(counts: Mapping[str, int]) -> list[str]:
    """How many images there are, and of which labels; of many those with the fewest images."""
    lines = [f"{sum(counts.values())} images of {len(counts)} labels:"]
    fewest_first = sorted(counts.items(), key=lambda item: item[1])
    left = [] if len(counts) <= SHOWN_LABELS else fewest_first[SHOWN_LABELS:]
    listed = fewest_first[:SHOWN_LABELS] if left else list(counts.items())
    width = max([12, *(len(label) for label, _ in listed)])
    lines += [f"  {label:<{width}}  {count:>7}" for label, count in listed]
    if left:
        least, most = left[0][1], left[-1][1]
        of_each = f"{least}" if least == most else f"{least} to {most}"
        lines.append(f"  ... and {len(left)} more labels, with {of_each} images each")
    return lines


def bad_lines(failed: "Sequence[BadImage]") -> list[str]:
    """How many images could not be read, and the first of them."""
    lines = [f"bad             {len(failed):>7}"]
    lines += [f"  {shown(bad.path)}: {bad.reason}" for bad in failed[:SHOWN_BAD_IMAGES]]
    if len(failed) > SHOWN_BAD_IMAGES:
        lines.append(f"  ... and {len(failed) - SHOWN_BAD_IMAGES} more")
    return lines


def summary(report: "BuildReport") -> str:
    """What a build found and did, a line for each."""
    from bottlenecks.store.layout import BAD_IMAGES_FILE

    lines = label_lines(report.counts)
    rate = f" ({report.images_per_second:.1f} images/s)" if report.computed else ""
    lines += [f"network         {report.network}"] if report.network else []
    lines += [
        f"computed        {report.computed:>7}{rate}",
        f"already cached  {report.cached:>7}",
    ]
    if report.copies:
        lines.append(f"copies          {report.copies:>7} (same content as another image)")
    lines += bad_lines(report.failed)
    if report.failed:
        lines.append(f"  listed in {report.cache.path_of(BAD_IMAGES_FILE)}, tried again next time")
    if report.passed_over:
        lines.append(f"passed over     {report.passed_over:>7} (hidden, or no images)")
    if report.empty_folders:
        names = ", ".join(map(shown, report.empty_folders))
        lines.append(f"no images in    {names}")
    lines.append(f"cache           {report.cache.store.place}")
    if not report.computed:
        lines.append("Nothing to compute: every image is in the cache.")
    return "\n".join(lines)
