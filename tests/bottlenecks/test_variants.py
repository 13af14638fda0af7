"""bottlenecks.variants: rows at a cut and of distorted variants are as safe as bottlenecks are."""

import hashlib
import logging
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bottlenecks import rows, variants
from bottlenecks.builder import Progress
from bottlenecks.config import Config
from bottlenecks.errors import CacheError
from bottlenecks.network.cuts import TRAINED
from bottlenecks.photos.decode import decode
from bottlenecks.photos.distort import distorted, variant_keys
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.row_spec import RowSpec
from bottlenecks.store import lock
from bottlenecks.store.cache import Cache
from bottlenecks.variants import Wanted, complete
from tests.conftest import photo
from tests.crashing import cached_images, shard_paths
from tests.standin import AtCut, StandIn

SEED = 7
PIXELS_BYTES = 299 * 299 * 3
PLAIN = DistortionSettings()


def settings(variants: int = 2, **changes: Any) -> DistortionSettings:
    usual: dict[str, Any] = {"flip_left_right": True, "random_crop": 20, "random_brightness": 30}
    return DistortionSettings(**{**usual, "distortions_per_image": variants, **changes})


class Pixels(StandIn):
    """The rows at the input: pixels themselves."""

    spec = RowSpec("input", (299, 299, 3), "uint8", (299, 299))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        super().__call__(pixels)
        return pixels


class Filled(NamedTuple):
    cache: Cache
    computed: int
    missing: list[tuple[int, int]]  # what on_missing was told
    progress: list[Progress]


class Photos:
    """Images of a folder, and a cache that rows of theirs go into."""

    def __init__(self, dataset: Path, cache_dir: Path) -> None:
        self.dataset, self.cache_dir = dataset, cache_dir
        self.images = cached_images(dataset)

    @property
    def config(self) -> Config:
        return Config(
            image_dir=str(self.dataset),
            bottleneck_dir=str(self.cache_dir),
            batch_size=4,
            decode_threads=2,
        )

    def wanted(self, distortions: DistortionSettings, seed: int = SEED) -> list[Wanted]:
        return [Wanted(i, (i.key, *variant_keys(i.key, distortions, seed))) for i in self.images]

    def fill(
        self,
        distortions: DistortionSettings = PLAIN,
        seed: int = SEED,
        extractor: StandIn | None = None,
    ) -> Filled:
        extractor = extractor or AtCut()
        missing: list[tuple[int, int]] = []
        progress: list[Progress] = []
        cache = complete(
            self.config,
            extractor,
            self.wanted(distortions, seed),
            distortions,
            lambda count, nbytes: missing.append((count, nbytes)),
            progress.append,
        )
        return Filled(cache, sum(extractor.batches), missing, progress)

    def keys(self, distortions: DistortionSettings = PLAIN, seed: int = SEED) -> set[bytes]:
        return {key for one in self.wanted(distortions, seed) for key in one.keys}

    def on_disk(self) -> Cache:
        """The rows of the cut as they are on the disk."""
        cache = Cache(self.cache_dir, AtCut().fingerprint, AtCut.spec)
        cache.load()
        return cache


@pytest.fixture
def photos(small_dataset: Path, tmp_path: Path) -> Photos:
    return Photos(small_dataset, tmp_path / "cache")


@pytest.mark.parametrize("kind", [StandIn, AtCut, Pixels])
def test_rows_are_those_of_the_decoded_photo_and_of_its_variants(
    photos: Photos, kind: type[StandIn]
) -> None:
    own = settings(3)
    cache = photos.fill(own, extractor=kind()).cache
    assert set(cache) == photos.keys(own)
    for wanted in photos.wanted(own):
        data = Path(wanted.image.path).read_bytes()
        pixels = np.concatenate([[decode(data)], distorted(data, own, wanted.keys[1:])])
        expected = np.concatenate([kind()(one[np.newaxis]) for one in pixels])
        np.testing.assert_array_equal(cache.read(wanted.keys), expected)


def test_rows_at_the_input_are_pixels(photos: Photos) -> None:
    cache = photos.fill(extractor=Pixels()).cache
    image = photos.images[0]
    (row,) = cache.read([image.key])
    assert row.dtype == np.uint8
    np.testing.assert_array_equal(row, decode(Path(image.path).read_bytes()))


def test_more_variants_leave_those_that_are_there_as_they_are(photos: Photos) -> None:
    first = photos.fill(settings(2))
    assert first.computed == 12 * 3
    keys = sorted(first.cache)
    before = first.cache.read(keys)
    more = photos.fill(settings(3))
    assert more.computed == 12
    assert more.missing == [(12, 12 * AtCut.spec.nbytes)]
    np.testing.assert_array_equal(more.cache.read(keys), before)
    fewer = photos.fill(settings(1))
    assert (fewer.computed, fewer.missing) == (0, [])


@pytest.mark.parametrize(
    ("changes", "seed"),
    [
        ({}, SEED + 1),
        ({"random_crop": 21}, SEED),
        ({"flip_left_right": False}, SEED),
        ({"random_rotation": 5.0}, SEED),
        ({"random_brightness": 0}, SEED),
    ],
)
def test_other_settings_and_seeds_have_rows_of_their_own(
    photos: Photos, changes: dict[str, Any], seed: int
) -> None:
    photos.fill(settings())
    changed = settings(**changes)
    assert photos.fill(changed, seed).computed == 12 * 2  # the plain ones are there
    plain = photos.keys()
    assert photos.keys(settings()) & photos.keys(changed, seed) == plain
    assert photos.fill(settings()).computed == 0  # both stay


def test_without_a_distortion_there_are_no_variants(photos: Photos) -> None:
    assert variant_keys(photos.images[0].key, PLAIN, SEED) == []
    assert photos.fill().computed == 12


def test_a_copy_is_computed_once(photos: Photos) -> None:
    original = Path(photos.images[0].path)
    shutil.copy(original, original.with_name("copy.jpg"))
    photos = Photos(photos.dataset, photos.cache_dir)
    assert len(photos.images) == 13
    filled = photos.fill(settings())
    assert (filled.computed, filled.missing[0][0]) == (12 * 3, 12 * 3)


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"edited")


def removed(path: Path) -> None:
    path.unlink()


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [edited, removed, made_a_folder, made_a_pipe])
def test_an_image_that_changes_meanwhile_is_one_error_and_loses_nothing(
    photos: Photos, change: Callable[[Path], None]
) -> None:
    last = Path(photos.images[-1].path)
    good = last.read_bytes()
    change(last)
    with pytest.raises(CacheError) as error:
        photos.fill(settings())
    assert str(last) in str(error.value)
    assert "run the same command again" in str(error.value)
    assert "\n" not in str(error.value)
    kept = len(photos.on_disk())
    assert kept >= 4
    last.rmdir() if last.is_dir() else last.unlink(missing_ok=True)
    last.write_bytes(good)
    assert photos.fill(settings()).computed == 12 * 3 - kept


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_no_room_is_an_error_before_anything_is_computed_or_made(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 10_000)
    extractor = AtCut()
    with pytest.raises(
        CacheError, match=r"36 rows of mixed7 and .* take 512\.5 MB, .* has 0\.0 MB free: "
    ):
        photos.fill(settings(), extractor=extractor)
    assert extractor.batches == []
    assert not photos.cache_dir.exists()


def test_room_is_asked_for_what_is_missing_alone(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos.fill(settings(2))
    with_free(monkeypatch, 12 * AtCut.spec.nbytes * 3 + 40 * TRAINED["mixed7"])
    assert photos.fill(settings(3)).computed == 12
    with_free(monkeypatch, 0)
    assert photos.fill(settings(3)).computed == 0
    with pytest.raises(CacheError, match="--distortions_per_image"):
        photos.fill(settings(4))


class Interrupted(AtCut):
    """Ctrl-C comes while it computes the batch ``at``."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at_batch = at

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if len(self.batches) == self.at_batch:
            raise KeyboardInterrupt
        return super().__call__(pixels)


def test_an_interrupted_run_keeps_what_was_computed_and_goes_on(photos: Photos) -> None:
    with pytest.raises(KeyboardInterrupt) as stop:
        photos.fill(settings(), extractor=Interrupted(at=5))
    assert stop.value.__notes__ == ["what was computed is kept, and the same command resumes"]
    assert len(photos.on_disk()) == 5 * 4
    assert photos.fill(settings()).computed == 12 * 3 - 5 * 4
    assert set(photos.on_disk()) == photos.keys(settings())


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_new_folder_without_rows_is_not_left_behind(photos: Photos, is_damaged: bool) -> None:
    """But for one that was there: damaged shards in it are somebody's evidence."""
    if is_damaged:
        photos.on_disk().folder.mkdir(parents=True)
        (photos.on_disk().folder / f"{'0' * 64}.h5").write_bytes(b"damaged")
    with pytest.raises(KeyboardInterrupt):
        photos.fill(extractor=Interrupted(at=0))
    assert photos.on_disk().folder.exists() == is_damaged


def test_many_variants_of_a_photo_are_not_in_memory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 are 107 MB as pixels."""
    monkeypatch.setattr("bottlenecks.photos.reading.MAX_FILE_BYTES", 10_000)  # a buffer of it
    folder = tmp_path / "Dataset" / "cyan"
    folder.mkdir(parents=True)
    photo((0, 200, 200), 0).save(folder / "one.jpg")
    photos = Photos(tmp_path / "Dataset", tmp_path / "cache")
    own = DistortionSettings(random_brightness=20, distortions_per_image=400)
    tracemalloc.start()
    try:
        assert photos.fill(own).computed == 401
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400 * PIXELS_BYTES / 4


def test_the_most_variants_are_a_thousand_rows_of_an_image(photos: Photos) -> None:
    own = DistortionSettings(random_brightness=20, distortions_per_image=1000)
    assert len(set(variant_keys(photos.images[0].key, own, SEED))) == 1000


def test_it_waits_for_another_writer_and_computes_what_that_left(
    photos: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    cache = photos.on_disk()
    found: list[Filled] = []
    waiting = threading.Event()

    def noticed(_: logging.LogRecord) -> bool:
        waiting.set()
        return True

    caplog.handler.addFilter(noticed)
    with lock.exclusive(cache.folder):
        other = threading.Thread(target=lambda: found.append(photos.fill(settings())))
        other.start()
        assert waiting.wait(30)  # it says so
        keys = sorted(photos.keys())
        pixels = {i.key: decode(Path(i.path).read_bytes()) for i in photos.images}
        cache.append(keys, AtCut()(np.stack([pixels[key] for key in keys])))
    other.join(60)
    assert "waiting for it to finish" in caplog.text
    assert found[0].computed == 12 * 2
    assert set(photos.on_disk()) == photos.keys(settings())


def test_a_full_cache_is_neither_locked_nor_changed(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos.fill(settings())
    time.sleep(0.05)  # no catalogue is written of a shard as young as its reading
    photos.fill(settings())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it is full")

    monkeypatch.setattr(lock, "exclusive", refuse)
    assert photos.fill(settings()).computed == 0


def test_a_full_cache_that_cannot_be_written_to_serves_although_it_is_untidy(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = photos.fill(settings()).cache.folder / f".x.{'0' * 32}.partial"
    partial.write_bytes(b"of a killed run")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(lock, "exclusive", refuse)
        assert photos.fill(settings()).computed == 0


def test_what_a_killed_run_left_unmerged_is_merged(photos: Photos) -> None:
    cache = photos.on_disk()
    with cache.writing(None):
        for image in photos.images:
            pixels = decode(Path(image.path).read_bytes())
            cache.append([image.key], AtCut()(pixels[np.newaxis]))
    assert len(shard_paths(cache)) == 12
    assert photos.fill().computed == 0
    assert len(shard_paths(cache)) == 1


def test_progress_is_of_the_rows_that_were_missing(photos: Photos) -> None:
    photos.fill()
    progress = photos.fill(settings()).progress
    assert {one.total for one in progress} == {24}
    done = [one.done for one in progress]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 24)


def test_damaged_rows_are_set_aside_and_computed_again(
    photos: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    photos.fill(settings())
    variants_shard = max(shard_paths(photos.on_disk()), key=lambda path: path.stat().st_size)
    data = bytearray(variants_shard.read_bytes())
    data[len(data) // 2] ^= 1
    variants_shard.write_bytes(data)
    filled = photos.fill(settings())
    assert filled.computed == 24  # the plain ones are in another shard
    assert caplog.text.count("is damaged") == 1
    assert variants_shard.with_name(variants_shard.name + ".damaged").read_bytes() == data
    assert set(photos.on_disk()) == photos.keys(settings())


def test_damage_beside_a_full_cache_is_set_aside_without_a_word_of_missing_rows(
    photos: Photos,
) -> None:
    folder = photos.fill().cache.folder
    (folder / f"{'0' * 64}.h5").write_bytes(b"no shard")
    filled = photos.fill()
    assert (filled.computed, filled.missing) == (0, [])
    assert (folder / f"{'0' * 64}.h5.damaged").exists()


def test_a_linked_folder_is_refused_and_nothing_behind_it_is_touched(
    photos: Photos, tmp_path: Path
) -> None:
    yours = tmp_path / "yours"
    yours.mkdir()
    folder = photos.on_disk().folder
    folder.parent.mkdir()
    folder.symlink_to(yours)
    extractor = AtCut()
    with pytest.raises(CacheError, match="is a link, which is not followed"):
        photos.fill(settings(), extractor=extractor)
    assert extractor.batches == []
    assert list(yours.iterdir()) == []


def test_rows_are_committed_as_they_come(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "COMMIT_SECONDS", 0.0)
    there: list[int] = []

    class Watching(AtCut):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            there.append(len(photos.on_disk()))
            return super().__call__(pixels)

    photos.fill(extractor=Watching())
    assert there == [0, 4, 8]


def test_the_images_of_a_folder_are_known_by_their_content(photos: Photos) -> None:
    for image in photos.images:
        assert image.key == hashlib.sha256(Path(image.path).read_bytes()).digest()
        assert all(key[:32] == image.key for key in variant_keys(image.key, settings(), SEED))
    assert variants.count_missing(photos.on_disk(), photos.wanted(settings())) == 36
