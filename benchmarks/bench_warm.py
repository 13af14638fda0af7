"""How long does a run take to recognise 100,000 and a million files whose vectors are cached?

Builds in fresh processes, with the start of the interpreter and the libraries left out, but for the
first, which checks every byte of a cache that was just made. Takes 17 GB of disk, and an hour with
most disks to make the million.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from made_up import make
from measure import Finding, Inputs, main, of

SIZES = {100_000: 5.0, 1_000_000: 40.0}  # files, and at most so many seconds
MOST_GIGABYTES, RUNS = 2.0, 5
WARM = """
import json, sys, time
from made_up import MadeUp
from measure import peak_gigabytes
from bottlenecks.builder import build
from bottlenecks.config import Config
started = time.perf_counter()
report = build(Config(image_dir=sys.argv[1], bottleneck_dir=sys.argv[2]), extractor=MadeUp())
assert (report.computed, report.cached) == (0, int(sys.argv[3])), report
print(json.dumps([time.perf_counter() - started, peak_gigabytes()]))
"""


def measure(_: Inputs) -> list[Finding]:
    return [finding for files in SIZES for finding in _warm(files)]


def _warm(files: int) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        flags = make(Path(folder), files, 100)
        line = [sys.executable, "-c", WARM, *(flag.split("=")[1] for flag in flags), str(files)]
        first, *runs = (
            json.loads(
                subprocess.run(
                    line, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent
                ).stdout
            )
            for _ in range(RUNS + 1)
        )
    what = f"{files:,} cached files recognised"
    yield of(what, [seconds for seconds, _ in runs], "s", at_most=SIZES[files])
    yield of(f"{what}: peak memory", [most for _, most in runs], "GB", at_most=MOST_GIGABYTES)
    yield of("  the first time, with every byte checked", [first[0]], "s")


if __name__ == "__main__":
    main(measure, __doc__)
