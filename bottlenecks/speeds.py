"""How fast this machine was, in images a second, from run to run.

Of stage one in each precision, and of fine-tuning from each cut in each precision.

It is for sentences that begin with "about", and only ever read as numbers.
"""

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottlenecks import atomic
from bottlenecks.network.cuts import CUTS
from bottlenecks.network.names import PRECISIONS
from bottlenecks.store.layout import read_json, write_json

LEAST_IMAGES = 200  # of a run that is remembered: fewer say little
SPEEDS_FILE = "speeds.json"
# On a machine of which nothing is known: 2 cores gave 16 images a second in float32.
USUAL_PER_CORE = 8.0
_SLOWEST, _FASTEST = 0.01, 1e6  # what is beyond was not measured


def fine_tuning(cut: str, precision: str) -> str:
    """What training all behind ``cut`` is called here; stage one has the precision's name."""
    return f"{precision}, fine-tuning from {cut}"


_NAMES = {*PRECISIONS, *(fine_tuning(cut, x) for cut in CUTS for x in PRECISIONS)}


def remember(model_dir: str | os.PathLike[str], what: str, images_per_second: float) -> None:
    """Keep the speed of ``what`` beside the networks; nothing is lost where that cannot be written.

    A file of that name that this program has not written is left as it is.
    """
    path = Path(model_dir) / SPEEDS_FILE
    speeds = read_json(path)
    if os.path.lexists(path) and not _is_ours(speeds):
        return
    own = speeds.get(_machine(), {})
    speeds[_machine()] = {**own, what: round(images_per_second, 2)}
    with contextlib.suppress(OSError):
        atomic.make_parents(path)
        write_json(path, speeds)


def remembered(model_dir: str | os.PathLike[str], what: str) -> float | None:
    """Images a second that the last run on this machine had in ``what``, or None."""
    machine = read_json(Path(model_dir) / SPEEDS_FILE).get(_machine())
    speed = machine.get(what) if isinstance(machine, dict) else None
    if isinstance(speed, bool) or not isinstance(speed, int | float):
        return None
    return float(speed) if _SLOWEST < speed < _FASTEST else None


def _is_ours(speeds: Mapping[str, Any]) -> bool:
    """Whether `remember` writes such: of each machine, something for each name."""
    machines = speeds.values()
    return bool(speeds) and all(isinstance(m, dict) and m.keys() <= _NAMES for m in machines)


def _machine() -> str:
    """Its name and its cores: a home folder may be that of several."""
    return f"{platform.node()} {os.cpu_count()}"
