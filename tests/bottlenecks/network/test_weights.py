"""Weights are downloaded once and checked, and every failure says what to do by hand."""

import hashlib
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bottlenecks.errors import WeightsError, WeightsUnavailableError
from bottlenecks.network import weights
from bottlenecks.network.names import IMAGENET, RANDOM
from bottlenecks.network.weights import (
    KERAS_IMAGENET,
    PublishedFile,
    check_weights_argument,
    fetch,
    find_weights,
)
from tests.serving import Server, at_a_dead_port, serving

CONTENT = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 5000  # more than one block


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving(CONTENT) as server:
        yield server


def assert_unavailable(
    published: PublishedFile, model_dir: Path, reason: str | None = None
) -> None:
    """The error has all that is needed to do it by hand, and nothing is left behind."""
    before = sorted(model_dir.parent.rglob("*"))
    with pytest.raises(WeightsUnavailableError, match=reason) as caught:
        find_weights(IMAGENET, model_dir, published)
    message = str(caught.value)
    for mention in (published.url, published.md5, str(model_dir / published.name), "random"):
        assert mention in message
    assert "\n" not in message
    assert sorted(model_dir.parent.rglob("*")) == before


def test_a_download_is_kept(server: Server, tmp_path: Path) -> None:
    model_dir = tmp_path / "new" / "models"
    first = find_weights(IMAGENET, model_dir, server.published())
    assert first.path == model_dir / "weights.h5"
    assert first.path.read_bytes() == CONTENT
    assert os.listdir(model_dir) == ["weights.h5"]
    assert (first.name, first.sha256) == ("imagenet", hashlib.sha256(CONTENT).hexdigest())
    assert find_weights(IMAGENET, model_dir, server.published()) == first
    assert server.requests == 1


def test_a_file_that_was_put_there_by_hand_needs_no_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(CONTENT)
    assert fetch(server.published(), tmp_path) == tmp_path / "weights.h5"
    assert server.requests == 0


def test_a_damaged_kept_file_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(CONTENT[:-1])
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT
    assert server.requests == 1


def test_progress_counts_up_to_the_whole(server: Server, tmp_path: Path) -> None:
    seen = []
    fetch(server.published(), tmp_path, lambda done, total: seen.append((done, total)))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {len(CONTENT)}
    assert seen[-1][0] == len(CONTENT)


def test_other_bytes_are_refused(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    came = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    assert_unavailable(server.published(), tmp_path / "models", came)


def test_a_connection_that_is_cut(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:1000]
    assert_unavailable(server.published(), tmp_path / "models", "1000 of")


def test_a_missing_page(server: Server, tmp_path: Path) -> None:
    server.status, server.content, server.declared = 404, b"", 0
    assert_unavailable(server.published(), tmp_path / "models", "Not Found")


def test_a_nonsense_content_length_is_no_traceback(server: Server, tmp_path: Path) -> None:
    server.declared = "many"  # type: ignore[assignment]
    server.content = b"<html>Please log in</html>"
    assert_unavailable(server.published(), tmp_path / "models")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    monkeypatch.setenv("no_proxy", "*")
    return at_a_dead_port()


def test_no_network(unreachable: PublishedFile, tmp_path: Path) -> None:
    assert_unavailable(unreachable, tmp_path / "models", "refused")


def test_no_network_and_a_damaged_kept_file(unreachable: PublishedFile, tmp_path: Path) -> None:
    kept = tmp_path / "models" / "weights.h5"
    kept.parent.mkdir()
    kept.write_bytes(b"damaged")
    assert_unavailable(unreachable, kept.parent)
    assert kept.read_bytes() == b"damaged"


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(weights, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.h5"
        assert_unavailable(PublishedFile(url, "0" * 32), tmp_path / "models", "timed out")


def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.published(), tmp_path, interrupt)
    assert os.listdir(tmp_path) == []


def test_the_published_file_is_keras_own() -> None:
    keras = importlib.util.find_spec("keras")  # found, not imported: that takes seconds
    assert keras is not None and keras.submodule_search_locations
    (folder,) = keras.submodule_search_locations
    source = Path(folder, "src", "applications", "inception_v3.py").read_text()
    base, name = KERAS_IMAGENET.url.rsplit("inception_v3/", 1)
    for mention in (base, name, KERAS_IMAGENET.md5):
        assert mention in source
    assert KERAS_IMAGENET.name == name


def test_random_is_the_same_each_time_and_needs_nothing(tmp_path: Path) -> None:
    first = find_weights(RANDOM, tmp_path)
    assert first == find_weights(RANDOM, tmp_path / "elsewhere")
    assert (first.name, first.path) == ("random", None)
    assert os.listdir(tmp_path) == []


def test_a_weights_file_is_known_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_bytes(CONTENT)
    a, b = (find_weights(str(tmp_path / name), tmp_path) for name in ("a.h5", "b.h5"))
    assert a.sha256 == b.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (a.path, b.path) == (tmp_path / "a.h5", tmp_path / "b.h5")
    (tmp_path / "b.h5").write_bytes(CONTENT + b"more")
    assert find_weights(str(tmp_path / "b.h5"), tmp_path).sha256 != a.sha256


def test_arguments_that_pass(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(CONTENT)
    for argument in (RANDOM, IMAGENET, str(tmp_path / "a.h5")):
        check_weights_argument(argument)


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("missing.h5", WeightsUnavailableError, "no weights file"),
        ("Imagenet", WeightsUnavailableError, "imagenet, random"),
        ("folder", WeightsError, "no file"),
        ("text.h5", WeightsError, "not HDF5"),
        ("empty.h5", WeightsError, "not HDF5"),
    ],
)
@pytest.mark.parametrize("check", [check_weights_argument, lambda w: find_weights(w, "nowhere")])
def test_arguments_that_do_not(
    tmp_path: Path,
    name: str,
    error: type[WeightsError],
    reason: str,
    check: Callable[[str], object],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.h5").write_text("not weights")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(error, match=reason) as caught:
        check(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
