"""How the benchmarks measure: both sides in one run, alternating, as a ratio with its spread.

Absolute times drift on shared machines; the ratio of two neighbours in time drifts less.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PHOTOS = 128  # that a side works through in a round


@dataclass(frozen=True)
class Inputs:
    """What a benchmark measures with: photos in label folders, and a Keras weights file.

    ``also`` are other sets for the accuracy: photos in label folders, or an NPZ file of vectors.
    ``options`` are what a benchmark has of its own, by their names.
    """

    image_dir: str
    weights: str
    also: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in (self.image_dir, self.weights, *self.also):
            if not Path(path).exists():
                raise SystemExit(f"error: there is no {path!r}")


@dataclass(frozen=True)
class Finding:
    """One measured number with its range, and the ``goal`` it has, if any."""

    what: str
    median: float
    low: float
    high: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"

    @property
    def reached(self) -> str:
        if not self.goal:
            return ""
        enough = self.at_least is None or self.median >= self.at_least
        return "yes" if enough and (self.at_most is None or self.median <= self.at_most) else "NO"

    @property
    def value(self) -> str:
        if self.low == self.high:
            return f"{self.median:.3g} {self.unit}"
        return f"{self.median:.3g} {self.unit} ({self.low:.3g} to {self.high:.3g})"


def of(what: str, values: Sequence[float], unit: str, **goal: Any) -> Finding:
    """The finding that ``values`` of several rounds make."""
    return Finding(what, statistics.median(values), min(values), max(values), unit, **goal)


def mean_of(what: str, values: Sequence[float], unit: str, **goal: Any) -> Finding:
    """The same with the mean, for figures whose median says less: those of data splits."""
    return Finding(what, statistics.fmean(values), min(values), max(values), unit, **goal)


def alternate(
    sides: Mapping[str, Callable[[], object]], rounds: int = 5, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each side in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-warm_up, rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, list[float]], side: str, to: str) -> list[float]:
    """How many times as long ``side`` takes as ``to`` in each round."""
    return [a / b for a, b in zip(seconds[side], seconds[to], strict=True)]


def speeds(seconds: Mapping[str, list[float]], items: int) -> Iterator[Finding]:
    """Images a second of each side, to see what the ratios are made of."""
    for name, values in seconds.items():
        yield of(f"  {name}", [items / value for value in values], "images/s")


def command(*arguments: object, folder: str | Path) -> Callable[[], object]:
    """A Python process with ``arguments``, to be run in ``folder``."""
    line = [sys.executable, *map(str, arguments)]
    return lambda: subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True)


def peak_gigabytes() -> float:
    """The most memory that this process has had (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


@contextmanager
def photos(image_dir: str, count: int = PHOTOS) -> Iterator[Path]:
    """A folder with links to ``count`` photos of ``image_dir`` in their label folders."""
    from bottlenecks.photos.labels import scan

    every = scan(image_dir).images
    with tempfile.TemporaryDirectory() as folder:
        for image in every[:: max(1, len(every) // count)][:count]:
            link = Path(folder, "photos", image.relpath)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(image.path).resolve())
        yield Path(folder)


def show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        goal = f"  [{finding.goal}: {finding.reached}]" if finding.goal else ""
        note = f"  {finding.note}" if finding.note else ""
        print(f"{finding.what:<66} {finding.value}{goal}{note}", flush=True)


def main(
    measure: Callable[[Inputs], list[Finding]], question: str | None, **options: str | int
) -> None:
    """The command line of one benchmark.

    ``options`` are flags of its own with their defaults, which say what type each takes.
    """
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("image_dir", help="photos in label folders")
    parser.add_argument("weights", help="a Keras InceptionV3 weights file, without the top")
    parser.add_argument("--also", nargs="*", default=[], help="other photos or vectors (.npz)")
    parser.add_argument("--json", help="also write the findings to this file")
    for name, default in options.items():
        kind = type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help="default: %(default)s")
    arguments = parser.parse_args()
    image_dir, weights, *also = (
        str(Path(path).resolve())
        for path in (arguments.image_dir, arguments.weights, *arguments.also)
    )
    chosen = {name: getattr(arguments, name) for name in options}
    findings = measure(Inputs(image_dir, weights, tuple(also), chosen))
    show(findings)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([dataclasses.asdict(f) for f in findings]))
