"""--export_hdf5 and --export_npz."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottlenecks.cli import main
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store import vectors
from bottlenecks.store.cache import Cache
from bottlenecks.store.vectors import OnDisk
from tests.crashing import expected_rows
from tests.standin import StandIn


@pytest.fixture
def awkward_dataset(small_dataset: Path) -> Path:
    """With a bad image, a copy, and names that are hard to write down."""
    cyan = small_dataset / "cyan"
    (cyan / "bad.jpg").write_text("not an image")
    (cyan / "copy.jpg").write_bytes((cyan / "cyan_000.jpg").read_bytes())
    (cyan / "cyan_001.jpg").rename(cyan / "żółw\n.jpg")
    (cyan / "cyan_002.jpg").rename(cyan / os.fsdecode(b"\xff.jpg"))
    return small_dataset


@pytest.fixture
def exported(awkward_dataset: Path, tmp_path: Path) -> tuple[Path, Path]:
    hdf5, npz = tmp_path / "new" / "out.h5", tmp_path / "out.npz"
    arguments = [f"--image_dir={awkward_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
    arguments += [f"--export_hdf5={hdf5}", f"--export_npz={npz}"]
    assert main(arguments, extractor=StandIn()) == 0
    return hdf5, npz


def test_hdf5_and_npz_hold_the_same(exported: tuple[Path, Path], awkward_dataset: Path) -> None:
    hdf5, npz = exported
    with h5py.File(hdf5) as file, np.load(npz, allow_pickle=False) as arrays:
        assert set(file) == set(arrays) == {"vectors", "paths", "labels", "label_names"}
        assert file["vectors"].dtype == arrays["vectors"].dtype == np.float32
        assert file["labels"].dtype == arrays["labels"].dtype == np.int64
        assert h5py.check_string_dtype(file["paths"].dtype).encoding == "utf-8"
        assert h5py.check_string_dtype(file["paths"].dtype).length is None
        np.testing.assert_array_equal(file["vectors"][:], arrays["vectors"])
        np.testing.assert_array_equal(file["labels"][:], arrays["labels"])
        paths = [path.decode() for path in file["paths"][:]]
        assert paths == arrays["paths"].tolist()
        names = [name.decode() for name in file["label_names"][:]]
        assert names == arrays["label_names"].tolist() == ["cyan", "magenta", "yellow"]
        assert [names[i] for i in file["labels"][:]] == [path.split("/")[0] for path in paths]
        assert len(paths) == 13  # 12, and the copy, without the bad one
        assert {"cyan/copy.jpg", "cyan/żółw\n.jpg", "cyan/\\xff.jpg"} < set(paths)

        (awkward_dataset / "cyan" / "bad.jpg").unlink()
        rows = expected_rows(awkward_dataset)
        wanted = sorted(vector.tobytes() for vector in rows.values())
        found = sorted({vector.tobytes() for vector in file["vectors"][:]})
        assert found == wanted
        same = paths.index("cyan/cyan_000.jpg"), paths.index("cyan/copy.jpg")
        np.testing.assert_array_equal(file["vectors"][same[0]], file["vectors"][same[1]])


@pytest.mark.parametrize("suffix", ["hdf5", "npz"])
def test_a_failed_export_leaves_the_old_file(
    suffix: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "os.replace",
        lambda source, target: (
            full() if os.fspath(target) == os.fspath(path) else os.rename(source, target)
        ),
    )
    arguments = [f"--image_dir={small_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
    assert main([*arguments, f"--export_{suffix}={path}"], extractor=StandIn()) == 2
    assert path.read_text() == "old"
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_in_its_place_is_found_first(small_dataset: Path, tmp_path: Path) -> None:
    arguments = [f"--image_dir={small_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
    assert main([*arguments, f"--export_npz={tmp_path}"], extractor=StandIn()) == 2
    assert not (tmp_path / "cache").exists()


def test_no_room_for_the_file_is_one_error_and_the_old_one_stays(
    exported: tuple[Path, Path],
    awkward_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """HDF5 tells of a full disk when it is too late: when the file is closed."""
    before = exported[0].read_bytes()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    arguments = [f"--image_dir={awkward_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
    assert main([*arguments, f"--export_hdf5={exported[0]}"], extractor=StandIn()) == 2
    assert "out.h5: No space left" in capsys.readouterr().err
    assert exported[0].read_bytes() == before
    assert not list(exported[0].parent.glob(".*.partial"))


def test_vectors_that_do_not_fit_into_memory_are_written_block_by_block(
    exported: tuple[Path, Path],
    awkward_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vectors, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 3 * BOTTLENECK.nbytes)
    read = Cache.read

    def never(*_: object) -> None:
        raise AssertionError("all in memory")

    monkeypatch.setattr(Cache, "read", never)
    again = tmp_path / "again.h5", tmp_path / "again.npz"
    arguments = [f"--image_dir={awkward_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
    arguments += [f"--export_hdf5={again[0]}", f"--export_npz={again[1]}"]
    assert main(arguments, extractor=StandIn()) == 0
    monkeypatch.setattr(Cache, "read", read)
    with h5py.File(exported[0]) as first, h5py.File(again[0]) as second:
        for name in first:
            np.testing.assert_array_equal(first[name][:], second[name][:])
    with np.load(exported[1]) as first, np.load(again[1]) as second:
        assert first.files == second.files
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
            assert first[name].dtype == second[name].dtype


def test_no_more_than_a_block_of_vectors_is_in_memory_at_once(
    exported: tuple[Path, Path],
    awkward_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vectors, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 3 * BOTTLENECK.nbytes)
    take, taken = OnDisk.take, []

    def noted(self: OnDisk, rows: np.ndarray) -> np.ndarray:
        taken.append(len(rows))
        return take(self, rows)

    monkeypatch.setattr(OnDisk, "take", noted)
    for suffix in ("hdf5", "npz"):
        taken.clear()
        arguments = [f"--image_dir={awkward_dataset}", f"--bottleneck_dir={tmp_path / 'cache'}"]
        arguments += [f"--export_{suffix}={tmp_path / 'again'}"]
        assert main(arguments, extractor=StandIn()) == 0
        assert sorted(taken) == [1, 3, 3, 3, 3]
