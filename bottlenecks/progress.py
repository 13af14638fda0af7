"""How a long job shows on stderr while it runs."""

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10.0


class ProgressBar:
    """A tqdm bar in a terminal, else a plain line now and then, unless ``only_in_terminal``.

    Callable with ``(done, total)``, and a ``note`` that is shown behind them; use as a context
    manager. The bar shows after ``delay`` seconds. A call with less done than before begins another
    job.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        unit_scale: bool = False,
        *,
        delay: float = 0.0,
        only_in_terminal: bool = False,
    ) -> None:
        self._what, self._unit, self._unit_scale = what, unit, unit_scale
        self._delay, self._only_in_terminal = delay, only_in_terminal
        self._bar: tqdm | None = None
        self._started = self._last_line = 0.0
        self._initial = self._done = 0

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if done < self._done:
            self.close()
            self._bar, self._initial = None, 0
        self._done = done
        if sys.stderr.isatty():
            self._show_bar(done, total, note)
        elif not self._only_in_terminal:
            self._show_line(done, total, note)

    def begin(self, what: str) -> None:
        """Another job begins, of another name."""
        self.close()
        self._what, self._bar, self._initial, self._done = what, None, 0, 0

    def close(self) -> None:
        """Take the bar away, until another job begins."""
        if self._bar is not None:
            self._bar.close()

    def clear(self) -> None:
        """Make room for a line of output; the next call shows the bar again."""
        if self._bar is not None and self._bar.last_print_t > self._bar.start_t + self._delay:
            self._bar.clear()

    def _show_bar(self, done: int, total: int, note: str) -> None:
        if self._bar is None:
            self._bar = tqdm(
                desc=self._what,
                total=total or None,
                initial=done,
                unit=f" {self._unit}" if not self._unit_scale else self._unit,
                unit_scale=self._unit_scale,
                delay=self._delay,
                dynamic_ncols=True,
                leave=False,
            )
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()

    def _show_line(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if not self._initial:  # the start of the network says nothing about its speed
            self._started = self._last_line = now
            self._initial = done
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            rate = (done - self._initial) / (now - self._started)
            left = f", {tqdm.format_interval((total - done) / rate)} left" if rate and total else ""
            if self._unit_scale:
                amount = f"{tqdm.format_sizeof(done)}/{tqdm.format_sizeof(total)} {self._unit}"
                speed = f"{tqdm.format_sizeof(rate)} {self._unit}/s"
            else:
                amount, speed = f"{done}/{total} {self._unit}", f"{rate:.1f} {self._unit}/s"
            line = f"{self._what}: {amount}, {speed}{left}" + (f", {note}" if note else "")
            print(line, file=sys.stderr, flush=True)
