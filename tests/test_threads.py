"""Threads, forks and interruptions: nothing waits for what will not come."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from bottlenecks import machine
from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.network.engines import with_tensorflow
from bottlenecks.network.inception import InceptionV3
from bottlenecks.store import lock
from label_image.classifier import Classifier
from tests.conftest import ROOT, Trained, make_dataset
from tests.standin import StandIn

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def program(source: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source)]


def run_program(source: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        program(source), cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )


STUCK = """
    import runpy, sys, time
    import bottlenecks.builder, bottlenecks.photos.decode
    seen = []
    def decode(data, *size):
        seen.append(data)
        if len(seen) == {after}:
            print("stuck", flush=True)
            time.sleep(3600)
        return real(data, *size)
    real, bottlenecks.photos.decode.decode = bottlenecks.photos.decode.decode, decode
    bottlenecks.builder.decode = decode
    sys.argv = ["x", {command!r}, "--image_dir=Dataset", "--decode_threads=2", "--batch_size=2"]
    runpy.run_module("tests.standin", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("command", ["bottlenecks", "retrain"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_decoder_that_is_stuck_does_not_hold_up_an_interruption(
    small_dataset: Path, sent: signal.Signals, code: int, command: str
) -> None:
    with subprocess.Popen(
        program(STUCK.format(after=7, command=command)),
        cwd=small_dataset.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            while "stuck" not in (line := process.stdout.readline()):
                assert line
            for _ in range(3):  # impatient users
                process.send_signal(sent)
                time.sleep(0.05)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert "interrupted; what was computed is kept" in err
    assert "Traceback" not in err
    # The cache is whole, and is not locked.
    report = build(
        Config(
            image_dir=str(small_dataset),
            bottleneck_dir=str(small_dataset.parent / "bottleneck_cache"),
        ),
        extractor=StandIn(),
    )
    assert len(report.images) == 12
    assert report.cached > 0


def test_a_pool_is_not_waited_for_when_its_reader_stops(trained: Trained, tmp_path: Path) -> None:
    """A generator that is left in the middle does not wait for the photos that were begun."""
    results = Classifier(trained.graph, trained.labels).classify(
        sorted(make_dataset(tmp_path / "D").rglob("*.jpg"))
    )
    assert next(results).ranking
    assert isinstance(results, Generator)
    results.close()


FORKS = """
    import os, sys, threading
    from io import BytesIO
    import numpy as np
    from PIL import Image
    from bottlenecks.photos import decode, reading
    decode.LARGE_MEMORY = 64  # so that every photo goes by the thread of the large ones
    reading.LARGE_FILE_BYTES = 64
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    open("photo.png", "wb").write(file.getvalue())
    def read():
        with reading.file_bytes("photo.png") as (data, _):
            return decode.decode(data)
    expected, stop = read(), threading.Event()
    def forever():
        while not stop.is_set():
            read()
    threads = [threading.Thread(target=forever) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range({times}):
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(read(), expected) else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, i
    with reading.file_bytes("photo.png"):  # held while the child is made
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(read(), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    print("done")
"""


@forks
def test_forked_children_decode_while_threads_do(tmp_path: Path) -> None:
    times = 200 if os.environ.get("RETRAIN_SOAK") else 20
    result = run_program(FORKS.format(times=times), tmp_path)
    assert (result.stdout, result.stderr) == ("done\n", "")


def test_threads_that_import_tensorflow_at_once_all_get_the_whole_of_it(tmp_path: Path) -> None:
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os, time\n"
        "os.write(2, b'E0000 00:00:1732 1 cuda_dnn.cc:8310] Unable to register\\n')\n"
        "os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called\\n')\n"
        "os.write(2, b'2026-11-24 12:00:00.1: I tensorflow/core/util/port.cc:113] oneDNN\\n')\n"
        "os.write(2, b'what another thread says\\n')\n"
        "time.sleep(0.3)\nwhole = True\n"
    )
    source = """
        import os, sys, threading
        sys.path.insert(0, os.getcwd())
        from bottlenecks.network.tensorflow import import_tensorflow
        got = []
        def use():
            got.append(import_tensorflow().whole)
        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os.write(2, b"still here")
        print(got.count(True))
    """
    result = run_program(source, tmp_path)
    assert (result.stdout, result.stderr) == ("8\n", "what another thread says\nstill here")


def test_a_failed_import_shows_what_was_held_back(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'no such library\\n')\nraise ImportError('broken')\n"
    )
    source = """
        import os, sys
        sys.path.insert(0, os.getcwd())
        from bottlenecks.errors import TensorFlowError
        from bottlenecks.network.tensorflow import import_tensorflow
        for _ in range(2):
            try:
                import_tensorflow()
            except TensorFlowError as error:
                print(error)
    """
    result = run_program(source, tmp_path)
    assert result.stderr == "no such library\n" * 2
    assert result.stdout.count("cannot import TensorFlow (ImportError: broken)") == 2


def test_classifiers_are_made_in_several_threads(trained: Trained) -> None:
    pixels = np.zeros((1, 299, 299, 3), np.uint8)
    expected = Classifier(trained.graph, trained.labels).scores(pixels)
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(
            lambda _: Classifier(trained.graph, trained.labels).scores(pixels), range(8)
        )
        for scores in made:
            np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_builds_in_several_threads(dataset: Path, tmp_path: Path) -> None:
    config = Config(image_dir=str(dataset), bottleneck_dir=str(tmp_path / "cache"))
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: build(config, extractor=StandIn()), range(4)))
    vectors = [r.cache.read(image.key for image in r.images) for r in reports]
    assert all(np.array_equal(v, vectors[0]) for v in vectors)


def test_what_the_machine_has_is_looked_up_when_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    for cores in (1, 3, 8, 64):
        monkeypatch.setattr(machine, "usable_cores", lambda cores=cores: cores)
        assert machine.threads() == min(8, cores)


@forks
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path) as held:
        assert held
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with lock.exclusive(tmp_path, wait=False) as held:
            assert held
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_networks_are_built_in_several_threads(model_dir: Path, tmp_path: Path) -> None:
    expected = InceptionV3("random", model_dir).frozen
    with ThreadPoolExecutor(3) as pool:
        frozen = list(pool.map(lambda i: InceptionV3("random", tmp_path / str(i)).frozen, range(3)))
    assert frozen == [expected] * 3


@forks
def test_a_lock_that_a_child_leaves_by_the_stack_stays_its_parent_s(tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys
        from pathlib import Path
        from bottlenecks.store import lock
        other = "from pathlib import Path\\nfrom bottlenecks.store import lock\\n"
        other += "with lock.exclusive(Path('cache'), wait=False) as held: print(held, flush=True)"
        with lock.exclusive(Path("cache")):
            child = os.fork()
            if child == 0:
                raise SystemExit  # through the with
            os.waitpid(child, 0)
            subprocess.run([sys.executable, "-c", other], check=True)
    """
    result = run_program(source, tmp_path)
    assert (result.stdout, result.stderr) == ("False\n", "")


@forks
@pytest.mark.parametrize("what", ["a classifier", "a network"])
def test_what_tensorflow_has_started_says_so_in_a_forked_child(
    trained: Trained, tmp_path: Path, model_dir: Path, what: str
) -> None:
    source = f"""
        import os, signal
        import numpy as np
        from bottlenecks.errors import UsageError
        pixels = np.zeros((1, 299, 299, 3), np.uint8)
        if {what == "a classifier"}:
            from label_image import Classifier
            run = Classifier({str(trained.graph)!r}, {str(trained.labels)!r}).scores
        else:
            from bottlenecks import InceptionV3
            run = InceptionV3("random", {str(model_dir)!r})
            run(pixels)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # rather than for ever
            try:
                run(pixels)
            except UsageError as error:
                print(error, flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
    """
    lines = run_program(source, tmp_path).stdout.splitlines()
    assert "make one in each process, after the fork" in lines[0]
    assert lines[1] == "0"


def test_overlapping_fits_leave_the_process_its_threads() -> None:
    before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    first, second = machine.one_blas_thread(), machine.one_blas_thread()
    with contextlib.ExitStack() as stack:
        stack.enter_context(first)
        second.__enter__()
        inside = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    still = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    second.__exit__(None, None, None)
    after = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert before and set(inside) == set(still) == {1}
    assert after == before


def test_an_interruption_while_the_network_starts_is_that_and_nothing_else(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not start the import of TensorFlow again, which may be what was interrupted."""
    network = InceptionV3("random", model_dir)

    def interrupted() -> ModuleType:
        if seen:
            raise AssertionError("imported again")
        seen.append(1)
        raise KeyboardInterrupt

    seen: list[int] = []
    monkeypatch.setattr(with_tensorflow, "import_tensorflow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        network(np.zeros((1, 299, 299, 3), np.uint8))
