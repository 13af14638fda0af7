"""How long does a run take to recognise 100,000 files whose vectors are cached?

Builds in fresh processes, with the start of the interpreter and the libraries left out.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from made_up import make
from measure import Finding, Inputs, main, of

FILES, RUNS = 100_000, 5
WARM = """
import sys, time
from made_up import MadeUp
from bottlenecks.builder import build
from bottlenecks.config import Config
started = time.perf_counter()
report = build(Config(image_dir=sys.argv[1], bottleneck_dir=sys.argv[2]), extractor=MadeUp())
assert (report.computed, report.cached) == (0, int(sys.argv[3])), report
print(time.perf_counter() - started)
"""


def measure(_: Inputs) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        flags = make(Path(folder), FILES, 100)
        line = [sys.executable, "-c", WARM, *(flag.split("=")[1] for flag in flags), str(FILES)]
        seconds = [
            float(
                subprocess.run(
                    line, check=True, capture_output=True, cwd=Path(__file__).parent
                ).stdout
            )
            for _ in range(RUNS)
        ]
    return [of(f"{FILES:,} cached files recognised", seconds, "s", at_most=5.0)]


if __name__ == "__main__":
    main(measure, __doc__)
