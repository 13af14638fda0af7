"""What this machine has is asked of the system, and the defaults follow from it."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bottlenecks import machine


def set_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


def set_devices(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """/dev has these files only."""

    def glob(folder: Path, pattern: str) -> Iterator[Path]:
        assert folder == Path("/dev")
        return (folder / name for name in names if fnmatch(name, pattern))

    monkeypatch.setattr(Path, "glob", glob)


def set_visible(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    """Set CUDA_VISIBLE_DEVICES, or unset it."""
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_cores_that_this_process_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def affinity(process: int) -> set[int]:
        asked.append(process)
        return {1, 3, 5}

    monkeypatch.setattr(os, "sched_getaffinity", affinity, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.usable_cores() == 3
    assert asked == [0]  # this process


@pytest.mark.parametrize(("count", "expected"), [(7, 7), (None, 1)])
def test_cores_where_the_system_does_not_tell_those_of_a_process(
    monkeypatch: pytest.MonkeyPatch, count: int | None, expected: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert machine.usable_cores() == expected


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, True), ("0", True), ("1,0", True), ("", False), ("-1", False)]
)
def test_a_gpu_counts_unless_it_is_hidden(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: bool
) -> None:
    set_visible(monkeypatch, visible)
    set_devices(monkeypatch, "null", "nvidia0", "nvidiactl")
    assert machine.has_gpu() is expected


@pytest.mark.parametrize("visible", [None, "0", "", "-1"])
@pytest.mark.parametrize("names", [(), ("null", "nvidiactl", "nvidia-uvm", "dri")])
def test_no_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: tuple[str, ...]
) -> None:
    """The driver's own files may be there without one."""
    set_visible(monkeypatch, visible)
    set_devices(monkeypatch, *names)
    assert machine.has_gpu() is False


def test_the_tenth_gpu_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    set_visible(monkeypatch, None)
    set_devices(monkeypatch, "nvidia10")
    assert machine.has_gpu() is True


@pytest.mark.parametrize(
    ("gpu", "cores", "threads", "batch_size"),
    [(False, 2, 2, 16), (False, 64, 8, 16), (True, 2, 2, 64), (True, 64, 32, 64)],
)
def test_the_documented_defaults(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, cores: int, threads: int, batch_size: int
) -> None:
    set_visible(monkeypatch, None)
    set_devices(monkeypatch, *["nvidia0"] * gpu)
    set_cores(monkeypatch, cores)
    assert (machine.threads(), machine.batch_size()) == (threads, batch_size)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags: avx512_bf16", True),
        ("flags: amx_bf16", True),
        ("flags: avx2", False),
        (None, False),
    ],
)
def test_cpu_has_bfloat16(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, expected: bool
) -> None:
    def read_text(_: Path) -> str:
        if cpuinfo is None:
            raise FileNotFoundError
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    assert machine.cpu_has_bfloat16() is expected
