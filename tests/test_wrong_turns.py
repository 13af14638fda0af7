"""Wrong turns that people took: each is one error line, and nothing is lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import retrain.cli
from bottlenecks.cli import main
from retrain.report import summaries
from tests.conftest import ROOT
from tests.standin import StandIn


def arguments(dataset: Path, folder: Path, **flags: object) -> list[str]:
    values = {"image_dir": dataset, "bottleneck_dir": folder / "cache", **flags}
    return [f"--{name}={value}" for name, value in values.items()]


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    return line


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_an_output_that_is_no_file_stays_as_it_is(
    make: Callable[[Path], object],
    small_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "out"
    make(place)
    assert main(arguments(small_dataset, tmp_path, export_npz=place), extractor=StandIn()) == 2
    assert "pipe or a device" in one_error(capsys)
    assert not place.is_file()
    assert Path("/dev/null").is_char_device()


def test_what_a_link_leads_to_is_replaced(small_dataset: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.npz", tmp_path / "latest.npz"
    target.write_text("old")
    link.symlink_to(target)
    assert main(arguments(small_dataset, tmp_path, export_npz=link), extractor=StandIn()) == 0
    assert link.is_symlink()
    assert target.read_bytes()[:2] == b"PK"


def test_summaries_that_cannot_be_written(
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summaries, "EventFile", full)
    flags = arguments(small_dataset, tmp_path, summaries_dir=tmp_path / "s", output_graph="g.pb")
    monkeypatch.chdir(tmp_path)
    assert retrain.cli.main(flags, extractor=StandIn()) == 2
    assert "--summaries_dir" in one_error(capsys)
    assert not (tmp_path / "g.pb").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed: str, small_dataset: Path, tmp_path: Path) -> None:
    flags = arguments(small_dataset, tmp_path, export_npz=tmp_path / "out.npz")
    command = [sys.executable, "-m", "tests.standin", "bottlenecks", *flags]
    result = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out.npz").exists()


def test_a_network_that_fails_leaves_no_cache_folder(small_dataset: Path, tmp_path: Path) -> None:
    class Failing(StandIn):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            raise OSError(5, "no such luck")

    assert main(arguments(small_dataset, tmp_path), extractor=Failing()) == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_labels_that_the_terminal_cannot_show(
    encoding: str, small_dataset: Path, tmp_path: Path
) -> None:
    (small_dataset / "cyan").rename(small_dataset / "日本")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.standin", "bottlenecks"),
            *arguments(small_dataset, tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\u65e5\\u672c" in result.stdout


def test_nobody_there_to_answer(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments(small_dataset, tmp_path), extractor=StandIn()) == 0

    def end_of_input(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end_of_input)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    prune = ["--prune", StandIn().fingerprint[:12], f"--bottleneck_dir={tmp_path / 'cache'}"]
    assert main(prune) == 0
    assert len(list((tmp_path / "cache").rglob("*.h5"))) == 1
