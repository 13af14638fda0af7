"""What a row is decides how rows are kept, whatever their shape and type."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.network.inception import InceptionV3
from bottlenecks.photos.decode import decode
from bottlenecks.row_spec import BOTTLENECK, RowSpec, image_of
from bottlenecks.store import cache as cache_module
from bottlenecks.store import shard, vectors
from bottlenecks.store.cache import Cache
from bottlenecks.store.housekeeping import find_caches, inspect, plan_pruning, prune
from bottlenecks.store.layout import MAX_SHARD_BYTES
from bottlenecks.store.vectors import InMemory, OnDisk, blocks
from bottlenecks.takeout import export_npz
from tests.conftest import make_dataset
from tests.crashing import shard_paths
from tests.standin import StandIn

MIXED7 = RowSpec("mixed7", (17, 17, 768), "float16", (299, 299))
PIXELS = RowSpec("input", (75, 75, 3), "uint8", (75, 75))
SMALL = RowSpec("small", (5,), "float32", (299, 299))
SPECS = [MIXED7, PIXELS, SMALL, BOTTLENECK]
FINGERPRINT = "ab" * 32


def rows_of(spec: RowSpec, count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, *spec.shape)).astype(spec.dtype)


def keys_of(count: int, length: int = 32) -> list[bytes]:
    return [i.to_bytes(32, "big") + bytes(length - 32) for i in range(count)]


def cache_with(folder: Path, spec: RowSpec, *parts: tuple[list[bytes], np.ndarray]) -> Cache:
    cache = Cache(folder, FINGERPRINT, spec)
    with cache.writing({"weights": "none"}):
        for keys, rows in parts:
            cache.append(keys, rows)
    return cache


def test_a_row_has_the_bytes_of_its_shape_and_type() -> None:
    assert BOTTLENECK.nbytes == 8192
    assert MIXED7.nbytes == 17 * 17 * 768 * 2
    assert PIXELS.nbytes == 75 * 75 * 3
    assert [spec.rows_in(2**20) for spec in (BOTTLENECK, MIXED7)] == [128, 2]
    assert MIXED7.rows_in(1) == 1
    assert RowSpec.of(rows_of(MIXED7, 2)).shape == MIXED7.shape


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_rows_of_any_kind_come_back_as_they_were(tmp_path: Path, spec: RowSpec) -> None:
    keys, rows = keys_of(21), rows_of(spec, 21)
    cache = cache_with(tmp_path, spec, (keys[:8], rows[:8]), (keys[8:], rows[8:]))
    again = Cache(tmp_path, FINGERPRINT, spec)
    again.load()
    order = list(reversed(range(21)))
    for found in (
        again.read([keys[i] for i in order]),
        np.concatenate(list(blocks(OnDisk(again, [keys[i] for i in order])))),
    ):
        assert found.dtype == spec.dtype
        np.testing.assert_array_equal(found, rows[order])
    with cache.writing(None):
        cache.merge()
    assert len(shard_paths(cache)) == 1
    np.testing.assert_array_equal(cache.read(keys), rows)


def test_rows_of_another_kind_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_with(tmp_path, SMALL, (keys_of(3), rows_of(SMALL, 3)))
    with cache.writing(None), pytest.raises(ValueError, match=r"rows are \(2048,\) float32"):
        cache.append(keys_of(1), rows_of(BOTTLENECK, 1))
    other = Cache(tmp_path, FINGERPRINT, MIXED7)
    other.load()
    assert len(other) == 0
    (message,) = [record.getMessage() for record in caplog.records]
    assert "its rows are (5,) float32, expected (17, 17, 768) float16" in message


def test_a_sound_shard_of_other_rows_is_left_alone(tmp_path: Path) -> None:
    """Also where housekeeping took the wrong one, somebody else's, for what the rows are."""
    cache = cache_with(tmp_path, SMALL, (keys_of(3), rows_of(SMALL, 3)))
    name, image = shard.pack(FINGERPRINT, MIXED7, np.ones((1, 32), np.uint8), rows_of(MIXED7, 1))
    (cache.folder / name).write_bytes(image)  # the larger one
    files = {path.name: path.read_bytes() for path in shard_paths(cache)}
    pruning = plan_pruning(tmp_path, [], make_dataset(tmp_path / "Dataset", per_label=1))
    prune(pruning)
    assert {spec.shape for spec in (found.spec for found, _ in pruning.rows)} == {MIXED7.shape}
    del files[name]  # of which no image is there
    assert {path.name: path.read_bytes() for path in shard_paths(cache)} == files
    with cache.writing(None):
        cache.merge()
    (cache.folder / name).write_bytes(image)
    with cache.writing(None):
        cache.append(keys_of(4)[3:], rows_of(SMALL, 1))
        cache.merge()
    assert (cache.folder / name).read_bytes() == image
    assert not list(cache.folder.glob("*.damaged")) and not cache.damaged
    assert list(cache.foreign) == [name]
    assert len(cache) == 4
    np.testing.assert_array_equal(cache.read(keys_of(3)), rows_of(SMALL, 3))


def test_no_commit_makes_a_shard_that_a_load_would_refuse(tmp_path: Path) -> None:
    """33,000 bottlenecks in one go are 270 MB, and a file of more than 256 MiB is not read."""
    count = MAX_SHARD_BYTES // BOTTLENECK.nbytes + 300
    rows = np.broadcast_to(rows_of(BOTTLENECK, 1), (count, 2048))
    cache = cache_with(tmp_path, BOTTLENECK, (keys_of(count), rows))
    sizes = [path.stat().st_size for path in shard_paths(cache)]
    assert max(sizes) < 1.05 * cache_module.LARGE_SHARD_BYTES
    again = Cache(tmp_path, FINGERPRINT)
    again.load()
    assert len(again) == count and not again.damaged


def test_one_image_may_have_several_rows(tmp_path: Path) -> None:
    """The plain image's has its key; a variant's begins with that."""
    plain, rows = keys_of(4), rows_of(SMALL, 12)
    variants = [key + bytes([number]) * 32 for key in plain for number in (1, 2)]
    cache = cache_with(tmp_path, SMALL, (plain, rows[:4]), (variants, rows[4:]))
    cache.load()
    assert (len(cache), cache.count_images()) == (12, 4)
    assert all(image_of(key) in plain for key in cache)
    np.testing.assert_array_equal(cache.read([*variants, *plain]), np.r_[rows[4:], rows[:4]])
    with cache.writing(None):
        cache.append([plain[0] + bytes([3]) * 32], rows[:1])
        cache.merge()  # keys of both lengths, each with their own
    assert len(shard_paths(cache)) == 2
    assert (len(cache), cache.count_images()) == (13, 4)
    (info,) = inspect(tmp_path, every_row=True)
    assert (info.rows, info.images, info.damaged) == (13, 4, ())


def test_housekeeping_finds_out_what_the_rows_are(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, MIXED7, (keys_of(3), rows_of(MIXED7, 3)))
    (found,) = find_caches(tmp_path)
    assert (found.spec.shape, found.spec.dtype) == (MIXED7.shape, MIXED7.dtype)
    assert found.fingerprint == FINGERPRINT
    (info,) = inspect(tmp_path, every_row=True)
    assert (info.rows, info.damaged) == (3, ())
    assert cache.folder.exists()


def test_pruning_is_by_the_image_s_content_variants_and_all(tmp_path: Path) -> None:
    import hashlib

    dataset = make_dataset(tmp_path / "Dataset", per_label=1)
    kept = [hashlib.sha256(path.read_bytes()).digest() for path in dataset.rglob("*.jpg")]
    gone = keys_of(2)
    plain = [*kept, *gone]
    variants = [key + b"v" * 32 for key in plain]
    rows = rows_of(SMALL, 5)
    cache_with(tmp_path / "cache", SMALL, (plain, rows), (variants, rows))
    pruning = plan_pruning(tmp_path / "cache", [], dataset)
    ((_, keys),) = pruning.rows
    assert keys == {*gone, *(key + b"v" * 32 for key in gone)}
    prune(pruning)
    after = Cache(tmp_path / "cache", FINGERPRINT, SMALL)
    after.load()
    assert set(after) == {*kept, *(key + b"v" * 32 for key in kept)}
    np.testing.assert_array_equal(after.read(kept), rows[:3])


@pytest.mark.parametrize("length", [31, 33, 63, 65])
def test_keys_of_another_length_are_not_written(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match="are no keys"):
        cache_with(tmp_path, SMALL, ([bytes(length)], rows_of(SMALL, 1)))


def test_what_a_load_would_refuse_is_not_written(tmp_path: Path) -> None:
    cache = Cache(tmp_path, FINGERPRINT, SMALL)
    with cache.writing(None):
        cache.append([], rows_of(SMALL, 0))  # nothing to do
        with pytest.raises(ValueError, match="1 keys are not those of 2 rows"):
            cache.append([bytes(32)], rows_of(SMALL, 2))
    assert not shard_paths(cache)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5,), "float64"), ((5,), "bool"), ((1, 1, 1, 1), "float32"), ((), "uint8"), ((0,), "uint8")],
)
def test_rows_of_no_kind_that_is_kept_are_not_written(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    spec = RowSpec("odd", shape, dtype, (299, 299))
    with pytest.raises(ValueError, match="rows of this kind are not kept"):
        shard.pack(FINGERPRINT, spec, np.zeros((1, 32), np.uint8), np.zeros((1, *shape), dtype))


def test_a_small_foreign_shard_does_not_say_what_the_rows_are(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, BOTTLENECK, (keys_of(30), rows_of(BOTTLENECK, 30)))
    for i in range(8):  # some of which come first by their names
        keys = np.full((1, 32), i, np.uint8)
        name, image = shard.pack(FINGERPRINT, SMALL, keys, rows_of(SMALL, 1))
        (cache.folder / name).write_bytes(image)
    (info,) = inspect(tmp_path)
    assert info.rows == 30 and len(info.damaged) == 8


def test_a_shard_of_bottlenecks_is_what_it_was_before_rows_had_a_kind(tmp_path: Path) -> None:
    """Chunks of 128 rows, as the caches of the first version have."""
    cache = cache_with(tmp_path, BOTTLENECK, (keys_of(300), rows_of(BOTTLENECK, 300)))
    (path,) = shard_paths(cache)
    with h5py.File(path) as file:
        assert file["vectors"].chunks == (128, 2048)
        assert file["sha256"].chunks == (128, 32)
        assert bytes(file.attrs["format"]) == b"retrain-bottlenecks-1"


def test_images_and_variants_may_be_committed_together(tmp_path: Path) -> None:
    plain, rows = keys_of(3), rows_of(SMALL, 6)
    variants = [key + b"v" * 32 for key in plain]
    mixed = [key for pair in zip(plain, variants, strict=True) for key in pair]
    cache_with(tmp_path, SMALL, (mixed, rows))
    again = Cache(tmp_path, FINGERPRINT, SMALL)
    again.load()
    assert (len(again), again.count_images()) == (6, 3)
    np.testing.assert_array_equal(again.read(mixed), rows)


def test_small_rows_with_long_keys_make_no_shard_that_a_load_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LARGE_SHARD_BYTES", 2**16)
    cache = cache_with(tmp_path, SMALL, (keys_of(3000, 64), rows_of(SMALL, 3000)))
    assert max(path.stat().st_size for path in shard_paths(cache)) < 1.2 * 2**16


class Halves(StandIn):
    """Gives the upper half of small pixels, as they are."""

    spec = RowSpec("upper half", (10, 30, 3), "uint8", (20, 30))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape[1:] == (20, 30, 3)
        return pixels[:, :10]


def test_rows_of_another_kind_go_through_stage_one(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=3)
    config = Config(image_dir=str(dataset), bottleneck_dir=str(tmp_path / "cache"))
    report = build(config, extractor=Halves(tag="halves"))
    for image in report.images:
        expected = decode(Path(image.path).read_bytes(), (20, 30))[:10]
        np.testing.assert_array_equal(report.cache.read([image.key])[0], expected)
    assert build(config, extractor=Halves(tag="halves")).computed == 0
    export_npz(report, tmp_path / "rows.npz")
    with np.load(tmp_path / "rows.npz") as arrays:
        assert (arrays["vectors"].shape, arrays["vectors"].dtype) == ((9, 10, 30, 3), np.uint8)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_is_in_memory_is_decided_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: RowSpec
) -> None:
    keys = keys_of(4)
    cache = cache_with(tmp_path, spec, (keys, rows_of(spec, 4)))
    for most, kind in ((4 * spec.nbytes, InMemory), (4 * spec.nbytes - 1, OnDisk)):
        monkeypatch.setattr(vectors, "MAX_IN_MEMORY", most)
        assert type(vectors.vectors_of(cache, keys)) is kind


def test_another_cut_has_another_fingerprint(model_dir: Path) -> None:
    whole = InceptionV3("random", model_dir)
    cut = whole.at("mixed7")
    assert cut.spec == MIXED7
    assert whole.fingerprint != cut.fingerprint
