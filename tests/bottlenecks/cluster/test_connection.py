"""An address that does not answer, or is none, is one line within a bounded time."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import bottlenecks.config
from bottlenecks.cli import main
from bottlenecks.cluster import connection
from bottlenecks.cluster.connection import connected
from bottlenecks.config import Config
from bottlenecks.errors import ClusterError, UsageError
from tests.conftest import Call, Run, assert_one_error_line
from tests.standin import StandIn

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs ray")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@needs_ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_does_not_answer(
    scheme: str, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"does not answer; look at"), connected(scheme + silent):
        pass


@needs_ray
def test_no_server(monkeypatch: pytest.MonkeyPatch, small_dataset: Path, call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    flags = [f"--image_dir={small_dataset}", f"--cluster={address}"]
    result = call(main, *flags, extractor=StandIn())
    assert_one_error_line(result, f"the cluster {address} does not answer")
    assert not (small_dataset.parent / "bottleneck_cache").exists()


@needs_ray
def test_a_server_that_is_not_ray() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ClusterError, match="no cluster of Ray"), connected(f"127.0.0.1:{port}"):
            pass
    finally:
        server.stop(None)


@needs_ray
def test_the_cluster_that_was_here_is_gone(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's note of it is still there."""
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(silent)
    with pytest.raises(ClusterError, match="does not answer"), connected("auto"):
        pass


@pytest.mark.parametrize(
    "address", ["", "here", "host", "host:", ":6379", "host:0", "http://host:1/", "host:70000"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match=r"--cluster must be local .*Received"):
        Config(image_dir=".", cluster=address)


def test_ray_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bottlenecks.config, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"--cluster needs Ray: pip install ray"):
        Config(image_dir=".", cluster="local")


def test_without_the_flag_ray_is_not_imported(small_dataset: Path, run: Run) -> None:
    script = (
        "import sys; from bottlenecks.cli import main; from tests.standin import StandIn; "
        f"main(['--image_dir={small_dataset}'], extractor=StandIn()); "
        "sys.exit('ray' in sys.modules or 'grpc' in sys.modules)"
    )
    (small_dataset.parent / "script.py").write_text(script)
    root = Path(__file__).parents[3]
    result = run("script", cwd=small_dataset.parent, PYTHONPATH=str(root))
    assert result.returncode == 0, result.stderr


@needs_ray
def test_the_handlers_of_signals_stay_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def take(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))

    monkeypatch.setattr(ray, "init", take)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    assert threading.current_thread() is threading.main_thread()
    with connected("local"):
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before
