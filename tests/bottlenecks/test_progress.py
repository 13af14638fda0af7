"""A bar in a terminal, and a plain line now and then elsewhere."""

import sys

import pytest

from bottlenecks import progress
from bottlenecks.progress import ProgressBar


class Clock:
    """Stands in for ``time`` in the module; ``now`` is set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_short_run_prints_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("bottlenecks", "images") as bar:
        for i in range(11):
            clock.now += 0.5
            bar(i, 10)
    assert capsys.readouterr() == ("", "")


def test_a_long_run_prints_a_line_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar("bottlenecks", "images") as bar:
        for i in range(10, 61, 10):
            bar(i, 100)
            clock.now += progress.LINE_SECONDS / 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "bottlenecks: 30/100 images",
        "bottlenecks: 50/100 images",
    ]
    assert "2.0 images/s" in lines[0]  # 20 images in 10 seconds; the first 10 tell nothing
    assert "00:35 left" in lines[0]
    assert "00:25 left" in lines[1]


def test_bytes_are_scaled_and_an_unknown_total_has_no_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = ProgressBar("weights", "B", unit_scale=True)
    for megabytes in (1, 21):
        bar(megabytes * 10**6, 0)
        clock.now += progress.LINE_SECONDS
    line = capsys.readouterr().err
    assert "21.0M" in line
    assert "2.00M" in line
    assert "left" not in line


def pretend_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_a_terminal_shows_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_a_terminal(monkeypatch)
    with ProgressBar("bottlenecks", "images") as bar:
        bar(0, 12)
        bar(12, 12)
    out, err = capsys.readouterr()
    assert out == ""
    assert "bottlenecks" in err
    assert "0/12" in err
    assert err.endswith("\r")  # the bar is wiped away: the summary follows


def test_a_bar_is_wiped_away_when_the_work_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_a_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), ProgressBar("bottlenecks", "images") as bar:
        bar(1, 12)
        raise KeyboardInterrupt
    err = capsys.readouterr().err
    assert "1/12" in err
    assert err.endswith("\r")


def test_a_bar_that_is_never_called_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_a_terminal(monkeypatch)
    with ProgressBar("bottlenecks", "images"):
        pass
    assert capsys.readouterr() == ("", "")
