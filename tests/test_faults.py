"""Disk full, read-only, I/O error: one clear error, the old cache whole, nothing half-written."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottlenecks import atomic
from bottlenecks.cli import main
from tests.conftest import make_dataset
from tests.crashing import (
    AT_CUT,
    KINDS,
    Kind,
    Steps,
    assert_finished,
    assert_only_right_rows,
    build,
    expected_at_cut,
    expected_rows,
    fill_cut,
    loaded,
)
from tests.standin import StandIn


def run(dataset: Path, cache_dir: Path) -> int:
    return main(
        [f"--image_dir={dataset}", f"--bottleneck_dir={cache_dir}", "--batch_size=4"],
        extractor=StandIn(),
    )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_fault_at_every_step(
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=2)
    old_rows = expected_rows(dataset)
    new_rows = None

    def fail(_: str) -> None:
        raise OSError(code, os.strerror(code), "a file")

    step, failed = 0, set()
    while True:
        cache_dir = tmp_path / f"cache{step}"
        make_dataset(dataset, per_label=2)
        for path in sorted(dataset.rglob("*_00[2-9].jpg")):
            path.unlink()
        build(dataset, cache_dir)
        make_dataset(dataset, per_label=4)
        new_rows = new_rows or expected_rows(dataset)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            steps = Steps(patch, step, fail)
            exit_code = run(dataset, cache_dir)
        if steps.count <= step:
            break  # the build has no more steps than this
        output = capsys.readouterr()
        failed.add(steps.done[step])
        errors = [line for line in output.err.splitlines() if line.startswith("error:")]
        assert (exit_code, len(errors)) == (2, 1), (steps.done[step], output.err)
        assert os.strerror(code) in errors[0]
        assert "Traceback" not in output.err
        assert not list(cache_dir.rglob(f"*{atomic.PARTIAL_SUFFIX}"))
        cache = loaded(cache_dir)
        assert not cache.damaged
        assert set(old_rows) <= set(cache)
        assert_only_right_rows(cache, new_rows)
        assert run(dataset, cache_dir) == 0
        assert_finished(cache_dir, new_rows)
        step += 1
    assert {"open", "write", "fsync", "replace"} <= failed


def test_a_fault_at_every_step_of_rows_of_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=2)
    old_rows = expected_at_cut(dataset)
    fill_cut(dataset, tmp_path / "old")
    make_dataset(dataset, per_label=3)
    new_rows = expected_at_cut(dataset)

    def fail(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")

    step, failed = 0, set()
    while True:
        cache_dir = tmp_path / f"cache{step}"
        shutil.copytree(tmp_path / "old", cache_dir)
        with monkeypatch.context() as patch:
            steps = Steps(patch, step, fail)
            try:
                fill_cut(dataset, cache_dir)
            except OSError as error:
                assert error.errno == errno.ENOSPC
        if steps.count <= step:
            break  # it has no more steps than this
        failed.add(steps.done[step])
        assert not list(cache_dir.rglob(f"*{atomic.PARTIAL_SUFFIX}"))
        cache = loaded(cache_dir, AT_CUT)
        assert not cache.damaged
        assert set(old_rows) <= set(cache)
        assert_only_right_rows(cache, new_rows)
        fill_cut(dataset, cache_dir)
        assert_finished(cache_dir, new_rows, AT_CUT)
        step += 1
    assert {"open", "write", "fsync", "replace"} <= failed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB, which 30 vectors do not fit into."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root, and a system that allows it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=2)
    build(dataset, small_disk / "cache")
    old_rows = expected_rows(dataset)
    make_dataset(dataset, per_label=20)
    assert run(dataset, small_disk / "cache") == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error:")]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert set(old_rows) <= set(loaded(small_disk / "cache"))
    assert not list(small_disk.rglob(f"*{atomic.PARTIAL_SUFFIX}"))


@KINDS
def test_a_read_only_cache_still_serves(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=2)
    kind.fill(dataset, tmp_path / "cache")
    expected = kind.expected(dataset)

    def refuse(step: str) -> None:
        raise OSError(errno.EROFS, f"a warm run must not {step}")

    for step in range(3):
        with monkeypatch.context() as patch:
            Steps(patch, step, refuse)
            kind.fill(dataset, tmp_path / "cache")
        assert_finished(tmp_path / "cache", expected, kind)
