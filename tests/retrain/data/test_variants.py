"""retrain.data.variants: rows of variants go with their images, and only into the training."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.photos.decode import decode
from bottlenecks.photos.distort import distorted, variant_keys
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.store.vectors import InMemory, OnDisk
from retrain.data.dataset import LEFT_OUT, Dataset, assemble
from retrain.data.variants import rows_at
from tests.bottlenecks.store.test_listed_cache import rot_all
from tests.conftest import make_dataset
from tests.standin import AtCut, StandIn

MIRRORED = DistortionSettings(
    flip_left_right=True, random_brightness=50, random_crop=10, distortions_per_image=2
)
PLAIN = DistortionSettings()
SEED = 3


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """6 images in each of 3 labels; one has a copy, which is left out where that is held out."""
    dataset = make_dataset(tmp_path / "Dataset", per_label=6)
    for number in range(6):
        copy = dataset / "cyan" / f"copy_{number}.jpg"
        copy.write_bytes((dataset / "cyan" / f"cyan_{number:03}.jpg").read_bytes())
    return Config(image_dir=str(dataset), bottleneck_dir=str(tmp_path / "cache"))


@pytest.fixture
def dataset(config: Config) -> Dataset:
    found = assemble(build(config, extractor=StandIn()), 20, 30)
    assert {"training", "validation", "testing", LEFT_OUT} == set(found.set_of)
    return found


def plain_row(extractor: StandIn, path: str) -> np.ndarray:
    (row,) = extractor(decode(Path(path).read_bytes())[np.newaxis])
    return np.asarray(row)


@pytest.mark.parametrize("kind", [StandIn, AtCut])
def test_row_v_times_n_plus_i_is_variant_v_of_image_i(
    dataset: Dataset, config: Config, kind: type[StandIn]
) -> None:
    found, _ = rows_at(dataset, kind(), config, MIRRORED, SEED)
    images, n = found.training.images, len(found.training)
    assert found.variants is not None
    assert found.drawn is found.variants.vectors
    assert len(found.drawn) == len(found.variants.keys) == 3 * n
    drawn = found.drawn.take(np.arange(3 * n))
    for i, image in enumerate(images):
        keys = variant_keys(image.key, MIRRORED, SEED)
        data = Path(image.path).read_bytes()
        expected = list(distorted(data, MIRRORED, keys))
        np.testing.assert_array_equal(drawn[i], plain_row(kind(), image.path))
        for v, (key, pixels) in enumerate(zip(keys, expected, strict=True), start=1):
            assert found.variants.keys[v * n + i] == key
            np.testing.assert_array_equal(drawn[v * n + i], kind()(pixels[np.newaxis])[0])
        assert found.variants.keys[i] == image.key


def test_only_images_that_are_trained_on_have_variants(dataset: Dataset, config: Config) -> None:
    found, cache = rows_at(dataset, AtCut(), config, MIRRORED, SEED)
    of_variants = {key[:32] for key in cache if len(key) > 32}
    assert of_variants == {image.key for image in found.training.images}
    for subset in (found.validation, found.testing):
        assert len(subset)
        assert not of_variants & {image.key for image in subset.images}
        for image, row in zip(subset.images, subset.x, strict=True):
            np.testing.assert_array_equal(row, plain_row(AtCut(), image.path))


def test_images_that_are_left_out_have_a_plain_row_and_no_variants(
    dataset: Dataset, config: Config
) -> None:
    found, _ = rows_at(dataset, AtCut(), config, MIRRORED, SEED)
    left_out = found.everything.select(np.flatnonzero(found.set_of == LEFT_OUT))
    assert len(left_out) == found.left_out > 0
    assert found.variants is not None
    assert not {image.key for image in left_out.images} & set(found.variants.keys)
    np.testing.assert_array_equal(
        left_out.x, [plain_row(AtCut(), image.path) for image in left_out.images]
    )


def test_all_else_is_as_it_was(dataset: Dataset, config: Config) -> None:
    found, cache = rows_at(dataset, AtCut(), config, MIRRORED, SEED)
    assert found.labels == dataset.labels
    assert found.groups == dataset.groups
    np.testing.assert_array_equal(found.set_of, dataset.set_of)
    np.testing.assert_array_equal(found.units, dataset.units)
    assert cache.fingerprint == AtCut().fingerprint
    for name in ("everything", "training", "validation", "testing"):
        before, after = getattr(dataset, name), getattr(found, name)
        assert after.images == before.images
        np.testing.assert_array_equal(after.y, before.y)
        assert after.vectors.spec == AtCut.spec
    assert dataset.everything.vectors.spec == StandIn.spec  # the one that was given is not changed
    assert dataset.variants is None


def test_without_distortions_the_plain_rows_are_drawn(dataset: Dataset, config: Config) -> None:
    extractor = StandIn()
    found, _ = rows_at(dataset, extractor, config, PLAIN, SEED)
    assert extractor.batches == []  # the bottlenecks are there
    assert found.variants is None
    np.testing.assert_array_equal(found.drawn.take(np.arange(len(found.drawn))), dataset.training.x)


@pytest.mark.parametrize("kind", [StandIn, AtCut])
def test_rows_on_disk_are_those_in_memory(
    dataset: Dataset, config: Config, kind: type[StandIn]
) -> None:
    in_memory, _ = rows_at(dataset, kind(), config, MIRRORED, SEED)
    again = kind()
    on_disk, _ = rows_at(dataset, again, config, MIRRORED, SEED, most_in_memory=0)
    assert again.batches == []
    assert isinstance(in_memory.drawn, InMemory)
    assert isinstance(on_disk.drawn, OnDisk)
    everything = on_disk.everything.vectors
    assert isinstance(everything, OnDisk)
    rows = np.random.default_rng(0).permutation(len(in_memory.drawn))
    np.testing.assert_array_equal(on_disk.drawn.take(rows), in_memory.drawn.take(rows))
    np.testing.assert_array_equal(on_disk.everything.x, in_memory.everything.x)


def test_the_limit_of_memory_is_of_plain_rows_and_of_drawn_ones_each(
    dataset: Dataset, config: Config
) -> None:
    most = len(dataset.everything) * AtCut.spec.nbytes
    found, _ = rows_at(dataset, AtCut(), config, MIRRORED, SEED, most)
    assert isinstance(found.everything.vectors, InMemory)
    assert isinstance(found.drawn, OnDisk) == (len(found.drawn) > len(dataset.everything))


def test_another_seed_draws_other_variants_of_the_same_images(
    dataset: Dataset, config: Config
) -> None:
    one, _ = rows_at(dataset, AtCut(), config, MIRRORED, SEED)
    extractor = AtCut()
    other, _ = rows_at(dataset, extractor, config, MIRRORED, SEED + 1)
    n = len(one.training)
    assert sum(extractor.batches) == 2 * len({image.key for image in one.training.images})
    assert one.variants is not None
    assert other.variants is not None
    assert one.variants.keys[:n] == other.variants.keys[:n]
    assert not set(one.variants.keys[n:]) & set(other.variants.keys[n:])


def test_what_is_missing_is_told_before_it_is_computed(dataset: Dataset, config: Config) -> None:
    told: list[tuple[int, int, int]] = []
    extractor = AtCut()
    different = len({image.key for image in dataset.everything.images})
    trained_on = len({image.key for image in dataset.training.images})
    rows_at(
        dataset,
        extractor,
        config,
        MIRRORED,
        SEED,
        on_missing=lambda rows, nbytes: told.append((rows, nbytes, len(extractor.batches))),
    )
    count = different + 2 * trained_on
    assert told == [(count, count * AtCut.spec.nbytes, 0)]
    assert sum(extractor.batches) == count


def test_images_that_change_sets_get_the_variants_that_they_lack(
    dataset: Dataset, config: Config
) -> None:
    rows_at(dataset, AtCut(), config, MIRRORED, SEED)
    moved = np.where(dataset.set_of == "validation", "training", dataset.set_of)
    extractor = AtCut()
    found, _ = rows_at(replace(dataset, set_of=moved), extractor, config, MIRRORED, SEED)
    assert sum(extractor.batches) == 2 * len({i.key for i in dataset.validation.images})
    assert len(found.drawn) == 3 * len(found.training)


@pytest.mark.parametrize("most_in_memory", [None, 0])
def test_rows_that_turn_out_to_be_damaged_are_computed_again(
    dataset: Dataset,
    config: Config,
    most_in_memory: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, cache = rows_at(dataset, AtCut(), config, PLAIN, SEED)
    time.sleep(0.05)  # no catalogue is written of a shard as young as its reading
    rows_at(dataset, AtCut(), config, PLAIN, SEED)
    rot_all(cache.folder, AtCut())
    found, _ = rows_at(dataset, AtCut(), config, PLAIN, SEED, most_in_memory)
    np.testing.assert_array_equal(found.everything.x, before.everything.x)
    assert [record.getMessage().count("is damaged") for record in caplog.records] == [1]
    assert len(list(cache.folder.glob("*.damaged"))) == 1
