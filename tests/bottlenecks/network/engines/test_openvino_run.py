"""A model in OpenVINO: from threads, in forked children, and at the end of a process."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.network.engines import openvino_run
from bottlenecks.network.engines.openvino_graph import model_of
from bottlenecks.network.engines.openvino_run import Runner
from tests.bottlenecks.network.engines.test_openvino_graph import CONV, graph_of, normal

# `pytest.importorskip` would import it whole, which sends telemetry.
pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="needs openvino")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BEFORE = """
import os, signal, sys, threading
import numpy as np
from bottlenecks.network.engines.openvino_run import Runner
from tests.bottlenecks.network.engines.test_openvino_run import runner
run = runner()
pixels = np.zeros((4, 64, 64, 3), np.float32)
run(pixels)
"""


def runner(side: int = 64, batch: int | None = None) -> Runner:
    return Runner(model_of(graph_of(CONV), "in", ["out"], (batch, side, side, 3)))


def run_after(source: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", BEFORE + source], capture_output=True, text=True, timeout=120
    )


def test_batches_of_any_size_from_several_threads() -> None:
    run, pixels = runner(8), normal(30, 8, 8, 3)
    (expected,) = run(pixels)
    sizes = [1, 2, 5, 1, 7, 3, 4, 7]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda size: run(pixels[:size])[0], sizes * 5))
    for size, rows in zip(sizes * 5, found, strict=True):
        np.testing.assert_allclose(rows, expected[:size], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("photos", "batch", "streams"), [(1, None, 1), (2, None, 3), (9, None, 3), (9, 9, 1)]
)
def test_several_photos_are_dealt_out_to_the_cores(
    photos: int, batch: int | None, streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = normal(9, 8, 8, 3)
    (expected,) = runner(8)(pixels)
    monkeypatch.setattr(openvino_run, "usable_cores", lambda: 3)
    run = runner(8, batch)
    for _ in range(2):
        (found,) = run(pixels[:photos])
        np.testing.assert_allclose(found, expected[:photos], rtol=0, atol=1e-5)
    (compiled,) = run._compiled
    assert compiled.streams == streams
    assert len(compiled._requests) == min(photos, streams)
    if batch is None:
        run(pixels)
        np.testing.assert_allclose(run(pixels[:1])[0], expected[:1], rtol=0, atol=1e-5)
        assert [one.streams for one in run._compiled][-1] == 3


def test_what_cannot_be_run_does_no_harm_to_what_comes_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_run, "usable_cores", lambda: 2)
    run = runner(8)
    (expected,) = run(normal(4, 8, 8, 3))
    with pytest.raises(RuntimeError):
        run(normal(4, 8, 8, 5))
    np.testing.assert_array_equal(run(normal(4, 8, 8, 3))[0], expected)


def test_what_it_gives_stays_when_it_runs_again() -> None:
    run = runner(8)
    (first,) = run(normal(2, 8, 8, 3))
    copy = first.copy()
    run(normal(2, 8, 8, 3, seed=1))
    np.testing.assert_array_equal(first, copy)


@forks
@pytest.mark.parametrize("child", ["sys.exit(3)", "runner()(pixels); sys.exit(3)"])
def test_a_forked_child_ends(child: str) -> None:
    source = f"""
child = os.fork()
if child == 0:
    signal.alarm(60)  # rather than for ever
    {child}
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_after(source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@pytest.mark.parametrize("code", [0, 5])
def test_a_process_ends_while_its_threads_run_batches(code: int) -> None:
    source = f"""
def work():
    while True:
        run(pixels)
        started.set()
for _ in range(3):
    started = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    started.wait()
sys.exit({code})
"""
    done = run_after(source)
    assert (done.returncode, done.stderr) == (code, "")


def test_nothing_is_kept_on_disk(tmp_path: Path) -> None:
    code = BEFORE + "print(os.listdir())"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert not list(tmp_path.iterdir())
