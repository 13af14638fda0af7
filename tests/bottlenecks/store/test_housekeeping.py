"""--list, --verify and --prune."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.cli import main
from tests.conftest import make_dataset
from tests.crashing import build, expected_rows, loaded
from tests.standin import StandIn


@pytest.fixture
def cache_dir(small_dataset: Path, tmp_path: Path) -> Path:
    """Two fingerprints of 12 rows each."""
    for extractor in (StandIn(), StandIn(tag="other")):
        arguments = [f"--image_dir={small_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
        assert main(arguments, extractor=extractor) == 0
    return tmp_path / "cache"


def run(cache_dir: Path, *arguments: str) -> int:
    return main([f"--bottleneck_dir={cache_dir}", *arguments])


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def the_shard(folder: Path) -> Path:
    (path,) = folder.glob("*.h5")
    return path


def test_list(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = files_below(cache_dir)
    assert run(cache_dir, "--list") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == [
        *("fingerprint", "precision", "rows", "images", "megabytes", "weights")
    ]
    found = {row.split()[0]: row.split() for row in rows}
    assert set(found) == {StandIn().fingerprint[:12], StandIn(tag="other").fingerprint[:12]}
    other = found[StandIn(tag="other").fingerprint[:12]]
    assert other[2] == other[3] == "12"
    assert other[-1] == "noneother"
    assert files_below(cache_dir) == before


def test_list_without_a_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--list") == 2
    assert "--bottleneck_dir" in capsys.readouterr().err


def test_verify_changes_nothing_and_tells(
    cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cache_dir, "--verify") == 0
    shard = the_shard(loaded(cache_dir).folder)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    before = files_below(cache_dir)
    capsys.readouterr()
    assert run(cache_dir, "--verify") == 1
    output = capsys.readouterr()
    assert f"damaged: {shard}" in output.out
    assert "verified" not in output.out
    assert files_below(cache_dir) == before


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"fingerprint": "0"}'])
def test_verify_tells_of_a_damaged_model_json(
    cache_dir: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = loaded(cache_dir).folder / "model.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    capsys.readouterr()
    assert run(cache_dir, "--verify") == 1
    output = capsys.readouterr().out
    assert "model.json" in output
    assert output.count("damaged:") == 1  # the shards are whole, and found to be so


def test_prune_rows_whose_images_are_gone(
    cache_dir: Path, small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = small_dataset / "cyan" / "cyan_000.jpg"
    gone.unlink()
    (small_dataset / "cyan" / "cyan_001.jpg").rename(small_dataset / "cyan" / "renamed.jpg")
    assert run(cache_dir, "--prune", "--image_dir", str(small_dataset), "--yes") == 0
    assert "1 of 12 rows" in capsys.readouterr().out
    expected = expected_rows(small_dataset)
    assert set(loaded(cache_dir)) == set(expected)
    assert build(small_dataset, cache_dir).computed == 0
    assert run(cache_dir, "--verify") == 0
    assert run(cache_dir, "--prune", "--image_dir", str(small_dataset), "--yes") == 0
    assert "Nothing to remove" in capsys.readouterr().out


def test_prune_a_fingerprint(cache_dir: Path, small_dataset: Path) -> None:
    other = StandIn(tag="other").fingerprint
    kept = files_below(loaded(cache_dir).folder)
    assert run(cache_dir, "--prune", other[:12], "--yes") == 0
    assert [path.name for path in cache_dir.iterdir()] == [
        f"inception_v3-{StandIn().fingerprint[:12]}"
    ]
    assert files_below(loaded(cache_dir).folder) == kept


def test_prune_leaves_what_is_not_the_caches_own(cache_dir: Path) -> None:
    note = loaded(cache_dir).folder / "notes.txt"
    note.write_text("mine")
    assert run(cache_dir, "--prune", StandIn().fingerprint[:12], "--yes") == 0
    assert [path.name for path in note.parent.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("arguments", [["--prune"], ["--prune", "0000000"], ["--prune", "a"]])
def test_prune_needs_something_to_remove(cache_dir: Path, arguments: list[str]) -> None:
    before = files_below(cache_dir)
    assert run(cache_dir, *arguments, "--yes") == 2
    assert files_below(cache_dir) == before


def test_prune_asks(
    cache_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_below(cache_dir)
    arguments = ("--prune", StandIn().fingerprint[:12])
    assert run(cache_dir, *arguments) == 2  # nobody is there to ask
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, removed in (("", False), ("n", False), ("no", False), ("y", True)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert run(cache_dir, *arguments) == 0
        assert "all of" in capsys.readouterr().out
        assert (files_below(cache_dir) != before) == removed


def test_prune_stops_at_an_image_that_it_cannot_read(
    cache_dir: Path, small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row might be one of those to remove."""
    shutil.rmtree(small_dataset / "yellow")
    path = small_dataset / "cyan" / "cyan_000.jpg"
    path.write_bytes(path.read_bytes() + b"edited")
    monkeypatch.setattr("bottlenecks.photos.reading.MAX_FILE_BYTES", 10)
    before = files_below(cache_dir)
    assert run(cache_dir, "--prune", "--image_dir", str(small_dataset), "--yes") == 2
    assert files_below(cache_dir) == before


def test_one_action_at_a_time(cache_dir: Path) -> None:
    assert run(cache_dir, "--list", "--verify") == 2


def test_images_added_after_pruning_are_found(cache_dir: Path, small_dataset: Path) -> None:
    shutil.rmtree(small_dataset / "yellow")
    assert run(cache_dir, "--prune", "--image_dir", str(small_dataset), "--yes") == 0
    make_dataset(small_dataset, per_label=4)
    report = build(small_dataset, cache_dir)
    assert (report.computed, report.cached) == (4, 8)


def test_the_sets_that_lie_elsewhere_are_computed_exported_and_not_pruned(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cyan", "magenta", "yellow"):
        (tmp_path / "V" / label).mkdir(parents=True)
        moved = dataset / label / f"{label}_000.jpg"
        moved.rename(tmp_path / "V" / label / moved.name)
    flags = [f"--image_dir={dataset}", f"--bottleneck_dir={tmp_path / 'c'}"]
    sets = [f"--validation_dir={tmp_path / 'V'}"]
    export = [f"--export_npz={tmp_path / 'all.npz'}"]
    assert main([*flags, *sets, *export], extractor=StandIn()) == 0
    with np.load(tmp_path / "all.npz") as arrays:
        assert len(arrays["vectors"]) == 90
        assert sum(path.startswith("../V/") for path in arrays["paths"]) == 3
    capsys.readouterr()
    assert main([*flags, *sets, "--prune", "--yes"]) == 0
    assert "Nothing to remove" in capsys.readouterr().out
    assert main([*flags, "--prune", "--yes"]) == 0
    assert "3 of 90 rows" in capsys.readouterr().out
