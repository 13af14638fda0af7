"""Links, pipes, folders and strangers' files in a cache: none is touched or waited for."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bottlenecks.builder import BuildReport, build
from bottlenecks.config import Config
from bottlenecks.errors import CacheError
from bottlenecks.store.cache import Cache
from bottlenecks.store.housekeeping import find_caches, inspect, plan_pruning, prune
from tests.conftest import make_dataset
from tests.crashing import shard_paths
from tests.standin import StandIn

BOOKKEEPING = ("stat_index.json", "model.json", "bad_images.csv")


def run(folder: Path) -> BuildReport:
    config = Config(image_dir=str(folder / "Dataset"), bottleneck_dir=str(folder / "cache"))
    return build(config, extractor=StandIn())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Of a few photos, one of them broken, so that there is all the bookkeeping."""
    make_dataset(tmp_path / "Dataset", per_label=3)
    time.sleep(0.05)  # the stat index trusts no file as young as its reading
    (tmp_path / "Dataset" / "cyan" / "broken.jpg").write_bytes(b"no photo")
    return run(tmp_path).cache


def work(folder: Path) -> None:
    """All that looks into a cache or changes it, with something to compute."""
    (folder / "Dataset" / "cyan" / "new.jpg").write_bytes(
        (folder / "Dataset" / "cyan" / "cyan_000.jpg").read_bytes() + b"new"
    )
    report = run(folder)
    assert len(report.images) == 10
    inspect(folder / "cache", every_row=True)


def as_link(path: Path, yours: Path) -> None:
    path.symlink_to(yours)


def as_fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def as_sparse_file(path: Path, _: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(50 * 2**30)


def as_loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", BOOKKEEPING)
@pytest.mark.parametrize("what", [as_link, as_fifo, as_device, as_sparse_file, as_loop])
def test_bookkeeping_is_read_through_no_link_and_no_pipe_and_replaced(
    cache: Cache, tmp_path: Path, name: str, what: Callable[[Path, Path], None]
) -> None:
    yours = tmp_path / "yours.txt"
    yours.write_text("yours")
    (cache.folder / name).unlink(missing_ok=True)
    what(cache.folder / name, yours)
    work(tmp_path)
    assert yours.read_text() == "yours"
    path = cache.folder / name
    assert path.is_file() and not path.is_symlink()
    assert 0 < path.stat().st_size < 10_000


@pytest.mark.parametrize("name", BOOKKEEPING)
def test_a_folder_in_the_place_of_bookkeeping_stays_and_no_row_is_lost(
    cache: Cache, tmp_path: Path, name: str
) -> None:
    (cache.folder / name).unlink(missing_ok=True)
    (cache.folder / name / "yours").mkdir(parents=True)
    with pytest.raises(OSError) as caught:
        work(tmp_path)
    assert name in str(caught.value)
    assert (cache.folder / name / "yours").is_dir()
    found = Cache(tmp_path / "cache", cache.fingerprint)
    found.load()
    assert len(found) >= 9
    assert not found.damaged


@pytest.mark.parametrize("what", [as_link, as_fifo, as_loop])
def test_a_lock_that_is_no_file_is_refused(
    cache: Cache, tmp_path: Path, what: Callable[[Path, Path], None]
) -> None:
    yours = tmp_path / "yours.txt"
    yours.write_text("yours")
    (cache.folder / ".lock").unlink(missing_ok=True)
    what(cache.folder / ".lock", yours)
    with pytest.raises(CacheError, match=r"\.lock is a link, a folder or a pipe.*remove it"):
        work(tmp_path)
    assert yours.read_text() == "yours"


@pytest.fixture
def linked(cache: Cache, tmp_path: Path) -> Path:
    """A folder of yours that a fingerprint's folder leads to."""
    yours = tmp_path / "yours"
    yours.mkdir()
    (yours / "weights.h5").write_bytes(b"yours")
    (yours / f"{'0' * 64}.h5").write_bytes(b"yours too")
    (yours / "model.json").write_text("{}")
    cache.folder.rename(tmp_path / "cache" / "elsewhere")
    cache.folder.symlink_to(yours)
    return yours


def test_a_linked_cache_folder_is_refused_and_untouched(linked: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in linked.iterdir()}

    def remove_all() -> None:
        for one in find_caches(tmp_path / "cache"):
            one.remove()

    for use in (
        lambda: work(tmp_path),
        lambda: inspect(tmp_path / "cache"),
        lambda: prune(plan_pruning(tmp_path / "cache", [], tmp_path / "Dataset")),
        remove_all,
    ):
        with pytest.raises(CacheError, match="is a link, which is not followed"):
            use()
        assert {path.name: path.read_bytes() for path in linked.iterdir()} == before


def test_the_folder_of_all_caches_may_be_a_link(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "cache").rename(tmp_path / "disk")
    (tmp_path / "cache").symlink_to("disk")
    assert run(tmp_path).computed == 0


def test_what_is_not_named_as_here_is_left_alone(cache: Cache, tmp_path: Path) -> None:
    yours = [cache.folder / name for name in ("notes.h5", "a.h5.damaged", ".x.partial", "b.json")]
    for path in yours:
        path.write_bytes(b"yours")
    (cache.folder / f".y.{'0' * 32}.partial").mkdir()
    (cache.folder / ".z.partial").mkdir()
    work(tmp_path)
    infos = inspect(tmp_path / "cache", every_row=True)
    assert [(info.damaged, info.set_aside) for info in infos] == [((), 0)]
    prune(plan_pruning(tmp_path / "cache", [cache.fingerprint[:12]], None))
    assert all(path.read_bytes() == b"yours" for path in yours)
    assert {path.name for path in cache.folder.iterdir()} == {
        *(path.name for path in yours),
        ".z.partial",
        f".y.{'0' * 32}.partial",
    }


def test_a_link_to_a_shard_is_no_shard(cache: Cache, tmp_path: Path) -> None:
    (path,) = shard_paths(cache)
    moved = tmp_path / path.name
    path.rename(moved)
    path.symlink_to(moved)
    before = moved.read_bytes()
    report = run(tmp_path)
    assert report.computed == 9
    assert moved.read_bytes() == before
    assert not path.is_symlink()


def test_terminal_escapes_in_model_json_are_shown_escaped(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bottlenecks.cli import main

    text = (cache.folder / "model.json").read_text()
    (cache.folder / "model.json").write_text(
        text.replace('"weights": "none"', '"weights": "\\u001b]0;x", "precision": "\\u001b[31m"')
    )
    assert main([f"--bottleneck_dir={tmp_path / 'cache'}", "--list"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b]0;x" in out and "\\x1b[31m" in out
