"""build(): nothing is computed twice, nothing is stale, nothing vanishes."""

import csv
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks import builder, machine, rows
from bottlenecks.builder import BuildReport, Progress, build
from bottlenecks.cli import main
from bottlenecks.config import Config
from bottlenecks.errors import (
    BadImageError,
    ImageFolderError,
    ImageFolderNotFoundError,
    OutputError,
    RetrainError,
)
from bottlenecks.photos.decode import decode
from bottlenecks.photos.images import Signature
from bottlenecks.photos.reading import file_bytes
from bottlenecks.store import lock
from bottlenecks.store.cache import Cache
from bottlenecks.store.housekeeping import inspect
from retrain.cli import main as retrain_main
from tests.conftest import COLOURS, Call, photo
from tests.standin import StandIn

Build = Callable[..., BuildReport]


@pytest.fixture
def run_build(small_dataset: Path, tmp_path: Path) -> Build:
    """Builds the cache of ``small_dataset`` (3 labels, 4 images each) with a stand-in."""

    def run(extractor: StandIn | None = None, **settings: Any) -> BuildReport:
        config = Config(
            **{
                "image_dir": str(small_dataset),
                "bottleneck_dir": str(tmp_path / "cache"),
                "model_dir": str(tmp_path / "models"),
                **settings,
            }
        )
        return build(config, extractor=extractor or StandIn())

    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the image files that a build opens."""
    names: list[str] = []

    def counted(path: str, listed: Signature) -> object:
        names.append(os.path.basename(path))
        return file_bytes(path, listed)

    monkeypatch.setattr(builder, "file_bytes", counted)
    return names


def age(folder: Path) -> None:
    """Wait until no file of ``folder`` is as young as a reading of it (the racy rule)."""
    newest = max(max(p.stat().st_mtime, p.stat().st_ctime) for p in folder.rglob("*"))
    time.sleep(max(0.0, newest + 0.03 - time.time()))


def figures(report: BuildReport) -> tuple[int, int, int, int]:
    """(computed, cached, copies, failed) of a build."""
    return report.computed, report.cached, report.copies, len(report.failed)


def assert_vectors_are_those_of_the_files(report: BuildReport) -> None:
    """Each image's vector in the cache is what the stand-in gives for its file of now."""
    pixels = np.stack([decode(Path(image.path).read_bytes()) for image in report.images])
    vectors = report.cache.read(image.key for image in report.images)
    np.testing.assert_array_equal(vectors, StandIn()(pixels))


def bad_images(report: BuildReport) -> list[list[str]]:
    with open(report.cache.folder / "bad_images.csv", newline="") as file:
        return list(csv.reader(file))


def test_the_first_run_computes_all(run_build: Build, small_dataset: Path) -> None:
    report = run_build()
    assert figures(report) == (12, 0, 0, 0)
    assert report.counts == dict.fromkeys(sorted(COLOURS), 4)
    relpaths = [image.relpath for image in report.images]
    assert relpaths == sorted(str(p.relative_to(small_dataset)) for p in small_dataset.glob("*/*"))
    assert all(image.path == str(small_dataset / image.relpath) for image in report.images)
    assert_vectors_are_those_of_the_files(report)


def test_the_cache_is_one_file_and_nothing_else_is_left(run_build: Build, tmp_path: Path) -> None:
    report = run_build(batch_size=1)
    names = sorted(path.name for path in report.cache.folder.iterdir())
    assert names[:1] + names[2:] == [".lock", "model.json", "stat_index.json"]
    assert names[1].endswith(".h5")
    assert sorted(os.listdir(tmp_path)) == ["Dataset", "cache"]


def test_the_second_run_opens_no_image_and_calls_no_network(
    run_build: Build, small_dataset: Path, opened: list[str]
) -> None:
    age(small_dataset)
    run_build()
    assert len(opened) == 12
    opened.clear()
    extractor = StandIn()
    report = run_build(extractor)
    assert figures(report) == (0, 12, 0, 0)
    assert (extractor.batches, opened) == ([], [])
    assert report.images_per_second == 0
    assert_vectors_are_those_of_the_files(report)


def test_a_young_file_is_read_again_and_not_computed(
    run_build: Build, small_dataset: Path, opened: list[str]
) -> None:
    age(small_dataset)
    future = time.time() + 3600
    os.utime(small_dataset / "cyan" / "cyan_000.jpg", (future, future))
    run_build()
    opened.clear()
    extractor = StandIn()
    assert figures(run_build(extractor)) == (0, 12, 0, 0)
    assert (opened, extractor.batches) == (["cyan_000.jpg"], [])


def test_one_new_image_costs_one_image(
    run_build: Build, small_dataset: Path, opened: list[str]
) -> None:
    age(small_dataset)
    run_build()
    opened.clear()
    photo(COLOURS["cyan"], 99).save(small_dataset / "cyan" / "new.jpg")
    extractor = StandIn()
    report = run_build(extractor)
    assert figures(report) == (1, 12, 0, 0)
    assert (extractor.batches, opened) == ([1], ["new.jpg"])
    assert_vectors_are_those_of_the_files(report)


def test_an_edited_image_is_computed_again(run_build: Build, small_dataset: Path) -> None:
    age(small_dataset)
    before = run_build()
    photo(COLOURS["yellow"], 99).save(small_dataset / "cyan" / "cyan_000.jpg")
    report = run_build()
    assert figures(report) == (1, 11, 0, 0)
    assert report.images[0].key != before.images[0].key
    assert_vectors_are_those_of_the_files(report)


def test_an_edit_that_keeps_size_and_mtime_is_seen(run_build: Build, small_dataset: Path) -> None:
    path = small_dataset / "cyan" / "cyan_000.bmp"
    Image.new("RGB", (8, 8), "red").save(path)
    age(small_dataset)
    run_build()
    before = path.stat()
    time.sleep(0.03)  # more than a tick of the kernel's clock
    Image.new("RGB", (8, 8), "blue").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    report = run_build()
    assert figures(report) == (1, 12, 0, 0)
    assert_vectors_are_those_of_the_files(report)


def rename_an_image(dataset: Path) -> None:
    os.rename(dataset / "cyan" / "cyan_000.jpg", dataset / "cyan" / "z.jpg")


def rename_a_label(dataset: Path) -> None:
    os.rename(dataset / "cyan", dataset / "Turquoise")


def move_to_another_label(dataset: Path) -> None:
    os.rename(dataset / "cyan" / "cyan_000.jpg", dataset / "yellow" / "a.jpg")


def swap_two_names(dataset: Path) -> None:
    one, other = dataset / "cyan" / "cyan_000.jpg", dataset / "cyan" / "cyan_001.jpg"
    os.rename(one, dataset / "kept")
    os.rename(other, one)
    os.rename(dataset / "kept", other)


def touch_all(dataset: Path) -> None:
    for path in dataset.glob("*/*"):
        path.touch()


def copy_an_image(dataset: Path) -> None:
    shutil.copy(dataset / "cyan" / "cyan_000.jpg", dataset / "cyan" / "copy.jpg")


def delete_an_image(dataset: Path) -> None:
    (dataset / "cyan" / "cyan_000.jpg").unlink()


@pytest.mark.parametrize(
    "change",
    [
        rename_an_image,
        rename_a_label,
        move_to_another_label,
        swap_two_names,
        touch_all,
        copy_an_image,
        delete_an_image,
    ],
)
def test_what_keeps_the_content_costs_nothing(
    run_build: Build, small_dataset: Path, change: Callable[[Path], None]
) -> None:
    run_build()
    change(small_dataset)
    extractor = StandIn()
    report = run_build(extractor)
    assert figures(report) == (0, len(list(small_dataset.glob("*/*"))), 0, 0)
    assert extractor.batches == []
    assert_vectors_are_those_of_the_files(report)


def test_a_moved_data_set_costs_nothing(
    run_build: Build, small_dataset: Path, tmp_path: Path
) -> None:
    run_build()
    moved = tmp_path / "moved" / "elsewhere"
    shutil.copytree(small_dataset, moved)
    extractor = StandIn()
    assert figures(run_build(extractor, image_dir=str(moved))) == (0, 12, 0, 0)
    assert extractor.batches == []


def test_the_index_holds_however_the_folder_is_written(
    run_build: Build, small_dataset: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    age(small_dataset)
    run_build()
    opened.clear()
    monkeypatch.chdir(small_dataset.parent)
    for name in ("Dataset", "Dataset/", "./Dataset", f"{small_dataset}/"):
        assert figures(run_build(image_dir=name)) == (0, 12, 0, 0)
    assert opened == []


def test_copies_are_computed_and_counted_once(run_build: Build, small_dataset: Path) -> None:
    for name in ("cyan/copy_1.jpg", "cyan/copy_2.jpg", "yellow/wrong.jpg"):
        shutil.copy(small_dataset / "cyan" / "cyan_000.jpg", small_dataset / name)
    for batch_size in (1, 4, 100):
        extractor = StandIn(tag=str(batch_size))
        report = run_build(extractor, batch_size=batch_size)
        assert figures(report) == (12, 0, 3, 0)
        assert sum(extractor.batches) == 12
        assert len(report.images) == 15
        assert len(report.cache) == 12
        assert_vectors_are_those_of_the_files(report)


@pytest.mark.parametrize(
    ("batch_size", "batches"), [(1, [1] * 12), (5, [5, 5, 2]), (12, [12]), (99, [12])]
)
def test_batch_sizes(run_build: Build, batch_size: int, batches: list[int]) -> None:
    extractor = StandIn()
    report = run_build(extractor, batch_size=batch_size)
    assert extractor.batches == batches
    assert_vectors_are_those_of_the_files(report)


def test_the_batch_size_of_the_machine_unless_another_is_set(
    run_build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "batch_size", lambda: 7)
    extractors = StandIn("a"), StandIn("b")
    run_build(extractors[0])
    run_build(extractors[1], batch_size=9)
    assert [extractor.batches for extractor in extractors] == [[7, 5], [9, 3]]


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], set[str]]:
    """Lets so many threads decode at once, and none go on before; gives the names of all."""

    def watch(count: int) -> set[str]:
        together = threading.Barrier(count, timeout=10)
        names: set[str] = set()

        def decode_together(data: bytes, *size: object) -> np.ndarray:
            names.add(threading.current_thread().name)
            together.wait()
            return decode(data)

        monkeypatch.setattr(builder, "decode", decode_together)
        return names

    return watch


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_so_many_threads_decode(
    run_build: Build, decoding: Callable[[int], set[str]], threads: int
) -> None:
    names = decoding(threads)
    report = run_build(decode_threads=threads)
    assert len(names) == threads
    assert threading.current_thread().name not in names
    assert_vectors_are_those_of_the_files(report)


def test_the_threads_of_the_machine_unless_a_number_is_set(
    run_build: Build, decoding: Callable[[int], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "threads", lambda: 3)
    names = decoding(3)
    run_build()
    assert len(names) == 3


@pytest.mark.parametrize("command", [main, retrain_main])
@pytest.mark.usefixtures("small_dataset")
def test_the_flags_set_threads_and_batches(
    call: Call, decoding: Callable[[int], set[str]], command: Callable[..., int]
) -> None:
    names, extractor = decoding(4), StandIn()
    flags = ("--decode_threads", "4", "--batch_size", "5")
    steps = ("--how_many_training_steps", "2") if command is retrain_main else ()
    result = call(command, "--image_dir", "Dataset", *flags, *steps, extractor=extractor)
    assert result.returncode == 0, result.stderr
    assert len(names) == 4
    assert extractor.batches == [5, 5, 2]


def put_bad_images(dataset: Path) -> None:
    (dataset / "cyan" / "empty.jpg").touch()
    (dataset / "magenta" / "page.jpg").write_text("<html>not found</html>")
    (dataset / "yellow" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(dataset / "yellow" / "pipe.jpg")


def test_bad_images_are_listed_with_their_reason(run_build: Build, small_dataset: Path) -> None:
    put_bad_images(small_dataset)
    report = run_build()
    assert figures(report) == (12, 0, 0, 4)
    header, *rows = bad_images(report)
    assert header == ["path", "label", "reason"]
    assert [(row[0], row[1]) for row in rows] == [
        (str(small_dataset / label / name), label)
        for label, name in (
            ("cyan", "empty.jpg"),
            ("magenta", "page.jpg"),
            ("yellow", "gone.jpg"),
            ("yellow", "pipe.jpg"),
        )
    ]
    for row, mention in zip(rows, ("empty", "HTML", "link", "pipe"), strict=True):
        assert mention in row[2]
    assert [[bad.path, bad.label, bad.reason] for bad in report.failed] == rows
    assert_vectors_are_those_of_the_files(report)


def test_bad_images_are_tried_again_and_the_list_goes_when_all_are_well(
    run_build: Build, small_dataset: Path
) -> None:
    bad = small_dataset / "cyan" / "bad.jpg"
    bad.write_bytes(b"half an image")
    gone = small_dataset / "cyan" / "gone.jpg"
    gone.write_bytes(b"half an image")
    run_build()
    extractor = StandIn()
    report = run_build(extractor)
    assert (figures(report), extractor.batches) == ((0, 12, 0, 2), [])
    assert len(bad_images(report)) == 3
    photo(COLOURS["cyan"], 99).save(bad)
    report = run_build()
    assert figures(report) == (1, 12, 0, 1)
    assert len(bad_images(report)) == 2
    gone.unlink()
    report = run_build()
    assert figures(report) == (0, 13, 0, 0)
    assert not (report.cache.folder / "bad_images.csv").exists()


def test_a_bad_image_with_a_strange_name_is_one_printable_line(
    run_build: Build, small_dataset: Path
) -> None:
    (small_dataset / "cyan" / os.fsdecode(b"\xff,\n.jpg")).touch()
    report = run_build()
    text = (report.cache.folder / "bad_images.csv").read_bytes().decode("ascii")
    assert len(text.splitlines()) == 2
    assert "\\xff,\\n.jpg" in bad_images(report)[1][0]


def test_strict_stops_at_the_first_bad_image(run_build: Build, small_dataset: Path) -> None:
    put_bad_images(small_dataset)
    with pytest.raises(BadImageError, match=r"empty\.jpg.*--strict"):
        run_build(strict=True)
    for path in small_dataset.glob("*/*"):
        if "_" not in path.name:
            path.unlink()
    assert figures(run_build(strict=True))[3] == 0


def test_a_label_without_a_readable_image_is_an_error(
    run_build: Build, small_dataset: Path
) -> None:
    for path in (small_dataset / "magenta").iterdir():
        path.write_text("no image")
    extractor = StandIn()
    with pytest.raises(ImageFolderError, match=r"'magenta'.*magenta_000\.jpg"):
        run_build(extractor)
    assert sum(extractor.batches) == 8
    shutil.rmtree(small_dataset / "magenta")
    assert figures(run_build()) == (0, 8, 0, 0)  # what was computed was kept


def test_an_interrupted_run_keeps_what_it_computed(run_build: Build) -> None:
    class Interrupted(StandIn):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().__call__(pixels)

    with pytest.raises(KeyboardInterrupt):
        run_build(Interrupted(), batch_size=2)
    extractor = StandIn()
    report = run_build(extractor, batch_size=2)
    assert figures(report) == (6, 6, 0, 0)
    assert extractor.batches == [2, 2, 2]
    assert len(list(report.cache.folder.glob("*.h5"))) == 1
    assert_vectors_are_those_of_the_files(report)


def test_work_is_committed_as_it_goes(
    run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the disk at each batch, with the time between commits set to none."""
    monkeypatch.setattr(rows, "COMMIT_SECONDS", 0.0)
    on_disk = []

    class Watching(StandIn):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            on_disk.append(len(list(tmp_path.glob("cache/*/*.h5"))))
            return super().__call__(pixels)

    run_build(Watching(), batch_size=4)
    assert on_disk == [0, 1, 2]


def give_nan(vectors: np.ndarray) -> np.ndarray:
    vectors[-1, 7] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("spoil", "mention"),
    [
        (give_nan, "finite"),
        (lambda vectors: vectors[:, :2047], "2047"),
        (lambda vectors: vectors[:-1], "2048"),
        (lambda vectors: vectors.astype(np.float64), "float64"),
    ],
)
def test_wrong_vectors_are_an_error_and_not_kept(
    run_build: Build, spoil: Callable[[np.ndarray], np.ndarray], mention: str
) -> None:
    class Spoilt(StandIn):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            vectors = super().__call__(pixels)
            return spoil(vectors) if len(self.batches) == 2 else vectors

    with pytest.raises(RetrainError, match=mention):
        run_build(Spoilt(), batch_size=4)
    assert figures(run_build()) == (8, 4, 0, 0)


def test_another_fingerprint_has_its_own_folder(run_build: Build) -> None:
    old = run_build(StandIn("old"))
    before = {p: p.read_bytes() for p in old.cache.folder.iterdir()}
    new = run_build(StandIn("new"))
    assert figures(new) == (12, 0, 0, 0)
    assert new.cache.folder != old.cache.folder
    assert {p: p.read_bytes() for p in old.cache.folder.iterdir()} == before
    assert figures(run_build(StandIn("old"))) == (0, 12, 0, 0)


def corrupt_one_shard(report: BuildReport) -> None:
    path = next(report.cache.folder.glob("*.h5"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)


def test_a_damaged_shard_is_healed_with_one_warning(
    run_build: Build, small_dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    age(small_dataset)
    corrupt_one_shard(run_build())
    report = run_build()
    assert figures(report) == (12, 0, 0, 0)
    assert ["damaged" in record.getMessage() for record in caplog.records] == [True]
    assert_vectors_are_those_of_the_files(report)
    assert figures(run_build()) == (0, 12, 0, 0)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["stat_index.json", "model.json"])
def test_a_lost_or_damaged_file_beside_the_shards_costs_no_network(
    run_build: Build, small_dataset: Path, name: str
) -> None:
    age(small_dataset)
    path = run_build().cache.folder / name
    for spoil in (path.unlink, lambda: path.write_bytes(b"{")):
        spoil()
        extractor = StandIn()
        assert figures(run_build(extractor)) == (0, 12, 0, 0)
        assert extractor.batches == []


class Forbidden(StandIn):
    """Must not be asked for anything, because the error comes before."""

    fingerprint = property(lambda _: pytest.fail("asked for its fingerprint"))

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("flag", ["bottleneck_dir", "model_dir"])
@pytest.mark.parametrize("below", ["", "below/deeper"])
def test_a_file_for_an_output_folder_is_an_error_before_anything(
    run_build: Build, tmp_path: Path, flag: str, below: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=rf"--{flag}.*file"):
        run_build(Forbidden(), **{flag: str(tmp_path / "file" / below)})
    assert sorted(os.listdir(tmp_path)) == ["Dataset", "file"]


def test_a_missing_image_folder_is_an_error_before_anything(
    run_build: Build, tmp_path: Path
) -> None:
    with pytest.raises(ImageFolderNotFoundError):
        run_build(Forbidden(), image_dir=str(tmp_path / "nowhere"))
    assert os.listdir(tmp_path) == ["Dataset"]


def test_a_tilde_is_the_home_folder(
    run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell leaves the ``~`` of ``--bottleneck_dir=~/cache`` to the program."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run_build(bottleneck_dir="~/cache")
    assert os.listdir(tmp_path / "work") == []
    assert os.listdir(tmp_path / "home") == ["cache"]


def test_progress_counts_up_to_all(small_dataset: Path, tmp_path: Path) -> None:
    (small_dataset / "cyan" / "bad.jpg").touch()
    config = Config(
        image_dir=str(small_dataset), bottleneck_dir=str(tmp_path / "cache"), batch_size=5
    )
    seen: list[Progress] = []
    build(config, extractor=StandIn(), on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert seen[-1] == Progress(done=13, total=13, computed=12)
    assert {progress.computed for progress in seen} == {0, 5, 10, 12}


def test_what_was_passed_over_is_told(run_build: Build, small_dataset: Path) -> None:
    (small_dataset / "LICENSE.txt").touch()
    (small_dataset / "empty").mkdir()
    report = run_build()
    assert (report.passed_over, report.empty_folders) == (1, ("empty",))


def test_an_image_that_goes_while_its_row_is_pruned_ends_as_bad(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process prunes a row, and the image goes, while this one waits for the lock."""
    config = Config(image_dir=str(small_dataset), bottleneck_dir=str(tmp_path / "cache"))
    time.sleep(0.05)  # so that the stat index remembers the files
    report = builder.build(config, extractor=StandIn())
    gone = small_dataset / "cyan" / "cyan_000.jpg"
    photo((0, 0, 0), 1).save(small_dataset / "cyan" / "new.jpg")
    writing = Cache.writing

    def after_pruning(self: Cache, description: dict[str, Any]) -> object:
        monkeypatch.setattr(Cache, "writing", writing)
        key = hashlib.sha256(gone.read_bytes()).digest()
        with report.cache.writing(None):
            report.cache.discard(frozenset([key]))
        gone.unlink()
        return writing(self, description)

    monkeypatch.setattr(Cache, "writing", after_pruning)
    second = builder.build(config, extractor=StandIn())
    assert [Path(bad.path).name for bad in second.failed] == ["cyan_000.jpg"]
    assert (second.computed, len(second.images)) == (1, 12)


def test_a_warm_run_with_a_bad_image_neither_waits_nor_needs_to_write(
    small_dataset: Path, tmp_path: Path
) -> None:
    (small_dataset / "cyan" / "bad.jpg").write_text("no image")
    config = Config(image_dir=str(small_dataset), bottleneck_dir=str(tmp_path / "cache"))
    folder = builder.build(config, extractor=StandIn()).cache.folder
    (small_dataset / "cyan" / "bad2.jpg").write_text("no image either")
    with lock.exclusive(folder):  # as another run would; waiting for it would never end
        report = builder.build(config, extractor=StandIn())
    assert (report.computed, len(report.failed)) == (0, 2)
    assert (folder / "bad_images.csv").read_text().count("no JPEG") == 1
    builder.build(config, extractor=StandIn())
    assert (folder / "bad_images.csv").read_text().count("no JPEG") == 2


def test_the_stat_index_forgets_what_is_gone_and_keeps_other_folders(
    small_dataset: Path, tmp_path: Path
) -> None:
    other = tmp_path / "Other"
    shutil.copytree(small_dataset, other)
    time.sleep(0.05)
    for root in (small_dataset, other):
        config = Config(image_dir=str(root), bottleneck_dir=str(tmp_path / "cache"))
        cache = builder.build(config, extractor=StandIn()).cache
    (other / "cyan" / "cyan_000.jpg").unlink()
    photo((0, 0, 0), 1).save(other / "cyan" / "new.jpg")
    builder.build(config, extractor=StandIn())
    text = (cache.folder / "stat_index.json").read_text()
    assert f"{small_dataset}/cyan/cyan_000.jpg" in text
    assert f"{other}/cyan/cyan_001.jpg" in text
    assert f"{other}/cyan/cyan_000.jpg" not in text


@pytest.mark.parametrize("model", ["[" * 100_000, "5", '{"fingerprint": 5}'])
@pytest.mark.parametrize("index", ["[" * 100_000, "5", '{"PATH": 5}', '{"PATH": [1, 2, 3, 4]}'])
def test_crafted_json_is_harmless(
    model: str, index: str, small_dataset: Path, tmp_path: Path
) -> None:
    config = Config(image_dir=str(small_dataset), bottleneck_dir=str(tmp_path / "cache"))
    folder = builder.build(config, extractor=StandIn()).cache.folder
    (folder / "model.json").write_text(model)
    body = index.replace("PATH", str(small_dataset / "cyan" / "cyan_000.jpg")).encode()
    checksum = hashlib.sha256(body).hexdigest().encode()
    (folder / "stat_index.json").write_bytes(checksum + b"\n" + body)
    assert inspect(tmp_path / "cache", every_row=True)[0].rows == 12
    report = builder.build(config, extractor=StandIn())
    assert (report.computed, report.cached) == (0, 12)
