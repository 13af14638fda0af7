"""--list, --verify and --prune."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.cli import main
from bottlenecks.network.inception import InceptionV3
from bottlenecks.photos.distort import variant_keys
from bottlenecks.store.cache import Cache
from bottlenecks.store.housekeeping import plan_pruning, prune
from bottlenecks.variants import Wanted, complete
from tests.conftest import make_dataset
from tests.crashing import (
    AT_CUT,
    MIRRORED,
    assert_finished,
    build,
    cached_images,
    config_for,
    expected_at_cut,
    expected_rows,
    fill_cut,
    loaded,
)
from tests.standin import AtCut, StandIn


@pytest.fixture
def cache_dir(small_dataset: Path, tmp_path: Path) -> Path:
    """Two fingerprints of 12 rows each."""
    for extractor in (StandIn(), StandIn(tag="other")):
        arguments = [f"--image_dir={small_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
        assert main(arguments, extractor=extractor) == 0
    return tmp_path / "cache"


def run(cache_dir: Path, *arguments: str, extractor: StandIn | None = None) -> int:
    return main([f"--bottleneck_dir={cache_dir}", *arguments], extractor=extractor)


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
        *("fingerprint", "cut", "precision", "rows", "images", "megabytes", "weights")
    ]
    found = {row.split()[0]: row.split() for row in rows}
    assert set(found) == {StandIn().fingerprint[:12], StandIn(tag="other").fingerprint[:12]}
    other = found[StandIn(tag="other").fingerprint[:12]]
    assert other[1:5] == ["bottleneck", "-", "12", "12"]
    assert other[-1] == "noneother"
    assert files_below(cache_dir) == before


def listed(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The columns of --list by the fingerprint."""
    capsys.readouterr()
    assert run(cache_dir, "--list") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_rows_of_a_cut_are_told_from_bottlenecks(
    cache_dir: Path, small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_cut(small_dataset, cache_dir)
    cut, *figures = listed(cache_dir, capsys)[AtCut().fingerprint[:12]]
    assert (cut, figures[:3]) == ("mixed7", ["-", "24", "12"])  # a variant of each image
    (loaded(cache_dir, AT_CUT).folder / "model.json").unlink()
    assert listed(cache_dir, capsys)[AtCut().fingerprint[:12]][:2] == ["unknown", "unknown"]
    (loaded(cache_dir).folder / "model.json").unlink()
    assert listed(cache_dir, capsys)[StandIn().fingerprint[:12]][:2] == ["bottleneck", "unknown"]


def test_pixels_have_neither_weights_nor_a_precision(
    cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_input = InceptionV3("random").at("input")
    cache = Cache(cache_dir, at_input.fingerprint, at_input.spec)
    with cache.writing(at_input.description):
        cache.append([bytes(32)], np.zeros((1, 299, 299, 3), np.uint8))
    columns = listed(cache_dir, capsys)[at_input.fingerprint[:12]]
    assert (columns[:2], columns[-1]) == (["input", "-"], "-")


@pytest.mark.parametrize("rows", ['"mixed7"', "[]", '{"name": 7}', '{"name": "a\\nb"}'])
def test_what_model_json_says_of_a_cut_is_not_believed_blindly(
    cache_dir: Path, rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = loaded(cache_dir)
    text = f'{{"fingerprint": "{cache.fingerprint}", "rows": {rows}}}'
    (cache.folder / "model.json").write_text(text)
    capsys.readouterr()
    assert run(cache_dir, "--list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_prune_rows_of_variants_and_of_cuts_whose_images_are_gone(
    cache_dir: Path, small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_cut(small_dataset, cache_dir)
    (small_dataset / "cyan" / "cyan_000.jpg").unlink()
    assert run(cache_dir, "--prune", "--image_dir", str(small_dataset), "--yes") == 0
    out = capsys.readouterr().out
    assert out.count("1 of 12 rows") == 2
    assert out.count("2 of 24 rows") == 1
    assert_finished(cache_dir, expected_at_cut(small_dataset), AT_CUT)
    assert_finished(cache_dir, expected_rows(small_dataset))


def test_checkpoints_go_with_a_whole_cache_alone(cache_dir: Path, small_dataset: Path) -> None:
    fill_cut(small_dataset, cache_dir)
    folder = loaded(cache_dir, AT_CUT).folder
    checkpoint, other = folder / f"{'0' * 64}.checkpoint", folder / "mine.checkpoint"
    checkpoint.write_bytes(b"how far it was")
    (small_dataset / "cyan" / "cyan_000.jpg").unlink()
    assert run(cache_dir, "--prune", "--image_dir", str(small_dataset), "--yes") == 0
    assert checkpoint.exists()
    other.write_bytes(b"of somebody else")
    assert run(cache_dir, "--prune", AtCut().fingerprint[:12], "--yes") == 0
    assert list(folder.iterdir()) == [other]
    other.unlink()
    fill_cut(small_dataset, cache_dir)
    checkpoint.write_bytes(b"how far it was")
    assert run(cache_dir, "--prune", AtCut().fingerprint[:12], "--yes") == 0
    assert not folder.exists()


def test_list_counts_checkpoints(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = loaded(cache_dir).folder
    for digit in "01":
        (folder / f"{digit * 64}.checkpoint").write_bytes(bytes(1_500_000))
    capsys.readouterr()
    assert run(cache_dir, "--list") == 0
    out = capsys.readouterr().out
    assert f"2 checkpoints of fine-tuning (3.0 MB) in {folder}\n" in out
    assert out.count("of fine-tuning") == 1


def test_checkpoints_of_long_ago_are_pruned_with_the_rows(
    cache_dir: Path, small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = loaded(cache_dir).folder
    old, new, link = (folder / f"{digit * 64}.checkpoint" for digit in "012")
    for path, days in ((old, 8), (new, 6)):
        path.write_bytes(b"how far it was")
        os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    link.symlink_to(small_dataset / "cyan" / "cyan_000.jpg")
    with_images = ("--prune", "--image_dir", str(small_dataset), "--yes")
    for removed in (True, False):
        capsys.readouterr()
        assert run(cache_dir, *with_images) == 0
        said = f"1 checkpoint of fine-tuning (0.0 MB) of {folder}: not used for a week"
        assert (said in capsys.readouterr().out) == removed
        assert not old.exists()
        assert new.exists()
    assert run(cache_dir, "--prune", folder.name, "--yes") == 0
    assert f"all of {folder}, 2 checkpoints of fine-tuning" in capsys.readouterr().out
    assert not folder.exists()
    assert (small_dataset / "cyan" / "cyan_000.jpg").exists()


def test_a_checkpoint_that_a_run_goes_on_with_meanwhile_stays(
    cache_dir: Path, small_dataset: Path
) -> None:
    checkpoint = loaded(cache_dir).folder / f"{'0' * 64}.checkpoint"
    checkpoint.write_bytes(b"how far it was")
    os.utime(checkpoint, (0, 0))
    planned = plan_pruning(cache_dir, [], small_dataset)
    assert not planned.is_empty
    os.utime(checkpoint)
    prune(planned)
    assert checkpoint.exists()


def test_exports_are_of_images_alone(
    small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of variants lie beside the bottlenecks of their images."""
    images = cached_images(small_dataset)
    wanted = [Wanted(image, tuple(variant_keys(image.key, MIRRORED, 0))) for image in images]
    complete(config_for(small_dataset, tmp_path / "cache"), StandIn(), wanted, MIRRORED)
    for name in ("before", "after"):
        flags = [f"--image_dir={small_dataset}", f"--export_npz={tmp_path / name}.npz"]
        assert run(tmp_path / "cache", *flags, extractor=StandIn()) == 0
        fill_cut(small_dataset, tmp_path / "cache")
    assert (tmp_path / "before.npz").read_bytes() == (tmp_path / "after.npz").read_bytes()
    with np.load(tmp_path / "after.npz") as arrays:
        assert len(arrays["vectors"]) == len(arrays["paths"]) == 12
        expected = expected_rows(small_dataset)
        np.testing.assert_allclose(
            arrays["vectors"], [expected[image.key] for image in images], atol=1e-6
        )


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
