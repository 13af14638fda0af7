"""How a build and a download show on stderr while they run."""

import sys
import time

from tqdm import tqdm

from bottlenecks.errors import shown

LINE_SECONDS = 10.0


class ProgressBar:
    """A tqdm bar in a terminal, else a plain line now and then.

    Callable with ``(done, total)``; use as a context manager.
    """

    def __init__(self, what: str, unit: str, unit_scale: bool = False) -> None:
        self._what, self._unit, self._unit_scale = what, unit, unit_scale
        self._bar: tqdm | None = None
        self._started = self._last_line = 0.0
        self._initial = 0

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            self._show_bar(done, total)
        else:
            self._show_line(done, total)

    def _show_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = tqdm(
                desc=self._what,
                total=total or None,
                initial=done,
                unit=f" {self._unit}" if not self._unit_scale else self._unit,
                unit_scale=self._unit_scale,
                dynamic_ncols=True,
                leave=False,
            )
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()

    def _show_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._initial:  # the start of the network says nothing about its speed
            self._started = self._last_line = now
            self._initial = done
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            rate = (done - self._initial) / (now - self._started)
            left = f", {tqdm.format_interval((total - done) / rate)} left" if rate and total else ""
            done_, total_, rate_ = (
                tqdm.format_sizeof(x) if self._unit_scale else f"{x:.4g}" if x is rate else f"{x}"
                for x in (done, total, rate)
            )
            print(
                f"{shown(self._what)}: {done_}/{total_} {self._unit}, {rate_} {self._unit}/s{left}",
                file=sys.stderr,
                flush=True,
            )
