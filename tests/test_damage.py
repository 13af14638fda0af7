"""Damage is noticed, never served, and healed with one warning and exit code 0."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.cli import main
from tests.conftest import make_dataset
from tests.crashing import (
    AT_CUT,
    assert_finished,
    assert_only_right_rows,
    build,
    expected_at_cut,
    expected_rows,
    fill_cut,
    loaded,
    trials,
)
from tests.standin import StandIn

PAGE = 4096


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("damage") / "Dataset", per_label=4)


@pytest.fixture(scope="module")
def pristine(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache_dir = tmp_path_factory.mktemp("pristine") / "cache"
    build(dataset, cache_dir)
    return cache_dir


@pytest.fixture(scope="module")
def expected(dataset: Path) -> dict[bytes, np.ndarray]:
    return expected_rows(dataset)


def the_shard(cache_dir: Path) -> Path:
    (path,) = cache_dir.rglob("*.h5")
    return path


def flip_a_bit(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_a_bit_of_the_structure(data: bytearray, chance: random.Random) -> None:
    """HDF5 puts its superblock, object headers and B-trees mostly at the beginning."""
    data[chance.randrange(min(len(data), 4000))] ^= 1 << chance.randrange(8)


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def zero_a_page(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = bytes(PAGE)


@pytest.mark.parametrize(
    ("damage", "sample", "full"),
    [
        (flip_a_bit, 20, 100),
        (flip_a_bit_of_the_structure, 20, 100),
        (truncate, 20, 100),
        (zero_a_page, 10, 50),
    ],
)
def test_damage_is_harmless_or_healed(
    damage: Callable[[bytearray, random.Random], None],
    sample: int,
    full: int,
    dataset: Path,
    pristine: Path,
    expected: dict[bytes, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for trial in trials(sample, full):
        cache_dir = tmp_path / f"cache{trial}"
        shutil.copytree(pristine, cache_dir)
        shard = the_shard(cache_dir)
        good = shard.read_bytes()
        bad = bytearray(good)
        damage(bad, random.Random(trial))
        shard.write_bytes(bad)
        assert main(["--verify", f"--bottleneck_dir={cache_dir}"]) == (bytes(bad) != good)
        capsys.readouterr()

        arguments = [f"--image_dir={dataset}", f"--bottleneck_dir={cache_dir}"]
        assert main(arguments, extractor=StandIn()) == 0
        warnings = capsys.readouterr().err.count("warning:")
        cache = loaded(cache_dir)
        assert set(cache) == set(expected)
        assert_only_right_rows(cache, expected)
        if bytes(bad) != good:
            assert warnings == 1
            assert (shard.parent / f"{shard.name}.damaged").read_bytes() == bad
        assert main(["--verify", f"--bottleneck_dir={cache_dir}"]) == 0
        capsys.readouterr()


def test_damage_to_rows_of_a_cut_and_of_variants_is_healed(dataset: Path, tmp_path: Path) -> None:
    expected = expected_at_cut(dataset)
    fill_cut(dataset, tmp_path / "pristine")
    for trial in trials(10, 100):
        chance = random.Random(trial)
        cache_dir = tmp_path / f"cache{trial}"
        shutil.copytree(tmp_path / "pristine", cache_dir)
        shard = chance.choice(sorted(cache_dir.rglob("*.h5")))  # of images, or of variants
        good = shard.read_bytes()
        bad = bytearray(good)
        chance.choice((flip_a_bit, flip_a_bit_of_the_structure, truncate))(bad, chance)
        shard.write_bytes(bad)
        assert main(["--verify", f"--bottleneck_dir={cache_dir}"]) == 1
        assert set(fill_cut(dataset, cache_dir).damaged) == {shard.name}
        assert shard.with_name(f"{shard.name}.damaged").read_bytes() == bad
        assert_finished(cache_dir, expected, AT_CUT)
        assert main(["--verify", f"--bottleneck_dir={cache_dir}"]) == 0


def test_foreign_files_are_not_served(
    dataset: Path,
    pristine: Path,
    expected: dict[bytes, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A text file called .h5, and a sound shard of another fingerprint."""
    other = tmp_path / "other"
    main([f"--image_dir={dataset}", f"--bottleneck_dir={other}"], extractor=StandIn(tag="other"))
    cache_dir = tmp_path / "cache"
    shutil.copytree(pristine, cache_dir)
    folder = the_shard(cache_dir).parent
    (folder / f"{'0' * 64}.h5").write_text("not HDF5")
    shutil.copy(the_shard(other), folder)
    capsys.readouterr()
    report = build(dataset, cache_dir)
    assert (report.computed, report.cached) == (0, 12)
    assert len(report.cache.damaged) == 2
    cache = loaded(cache_dir)
    assert_only_right_rows(cache, expected)
    assert len(list(folder.glob("*.damaged"))) == 2


def test_damage_to_the_other_files_is_harmless(
    dataset: Path,
    pristine: Path,
    expected: dict[bytes, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """model.json, the stat index: no row is lost, and all is well after the next computing."""
    names = sorted(p.name for p in the_shard(pristine).parent.iterdir() if p.suffix == ".json")
    assert "model.json" in names
    for trial in trials(20, 200):
        chance = random.Random(trial)
        cache_dir = tmp_path / f"cache{trial}"
        shutil.copytree(pristine, cache_dir)
        path = the_shard(cache_dir).parent / chance.choice(names)
        data = bytearray(path.read_bytes())
        chance.choice((flip_a_bit, truncate))(data, chance)
        path.write_bytes(data)
        arguments = [f"--image_dir={dataset}", f"--bottleneck_dir={cache_dir}"]
        assert main(arguments, extractor=StandIn()) == 0
        output = capsys.readouterr()
        assert "already cached       12" in output.out
        assert output.err == ""
        assert_only_right_rows(loaded(cache_dir), expected)
