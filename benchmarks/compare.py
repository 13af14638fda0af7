"""How the benchmarks measure: both sides in one run, alternating, as a ratio with its spread.

Absolute times drift on shared machines; the ratio of two neighbours in time drifts less.
"""

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], side: str, to: str) -> str:
    """How many times as long ``side`` takes as ``to``: the median of the rounds, and its range."""
    ratios = [a / b for a, b in zip(seconds[side], seconds[to], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def show(seconds: Mapping[str, list[float]], items: int = 0) -> None:
    """Print the median time of each side, and its speed where it works through ``items``."""
    for name, values in seconds.items():
        median = statistics.median(values)
        speed = f"  {items / median:8.1f} /s" if items else ""
        print(f"{name:44} {median:8.2f} s{speed}")
