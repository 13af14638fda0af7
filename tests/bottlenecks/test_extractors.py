"""Which precision and engine computes the rows: what was asked for, was there before, or pays."""

import dataclasses
import hashlib
import importlib.util
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks import calibration, extractors, machine
from bottlenecks.builder import BuildReport, build, scan_of
from bottlenecks.config import Config
from bottlenecks.errors import UsageError
from bottlenecks.extractors import choose, extractor_for
from bottlenecks.network import inception
from bottlenecks.network.engines import with_openvino
from bottlenecks.network.inception import InceptionV3
from bottlenecks.store import layout
from bottlenecks.store.housekeeping import inspect
from tests.conftest import make_dataset
from tests.crashing import shard_paths
from tests.small_network import small as small  # a fixture

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch, small: Callable[[], InceptionV3]) -> None:
    """One that has instructions for 8 bits, and no others; and the small network."""
    monkeypatch.setattr(machine, "most_of_int8", lambda: 64)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    for place in (machine, inception):
        monkeypatch.setattr(place, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(calibration, "FEWEST", 4)
    monkeypatch.setattr(calibration, "PHOTOS", 8)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """A configuration for the 12 photos of a folder ``Dataset``."""
    make_dataset(tmp_path / "Dataset", per_label=4)

    def make(**flags: Any) -> Config:
        usual = {
            "image_dir": str(tmp_path / "Dataset"),
            "bottleneck_dir": str(tmp_path / "cache"),
            "model_dir": str(tmp_path / "models"),
            "weights": "random",
        }
        return Config(**(usual | flags))

    return make


def chosen(config: Config) -> InceptionV3:
    return extractor_for(config, scan_of(config))


def run(config: Config) -> BuildReport:
    return build(config, extractor=chosen(config))


def numbers_in(config: Config) -> list[Path]:
    return sorted(Path(config.bottleneck_dir).glob(f"*/*{layout.NUMBERS_SUFFIX}"))


def test_few_photos_are_not_worth_a_calibration(config: Callable[..., Config]) -> None:
    found = chosen(config())
    assert (found.row_precision, found.engine) == ("float32", "openvino")
    assert not Path(config().bottleneck_dir).exists()


def test_many_photos_are(config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "PAYS_FROM", 12)
    assert chosen(config()).row_precision == "int8"
    monkeypatch.setattr(machine, "most_of_int8", lambda: 0)
    shutil.rmtree(config().bottleneck_dir)
    assert chosen(config()).row_precision == "float32"


def test_beside_a_gpu_8_bits_are_not_worth_it(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractors, "PAYS_FROM", 12)
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert chosen(config()).row_precision == "float32"


def test_bfloat16_is_taken_where_the_processor_has_it(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (machine, inception):
        monkeypatch.setattr(place, "cpu_has_bfloat16", lambda: True)
    assert chosen(config()).row_precision == "bfloat16"
    assert chosen(config(precision="float32")).row_precision == "float32"
    assert chosen(config(engine="tensorflow")).description["bfloat16"]


def test_what_the_cache_was_made_with_is_gone_on_with(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(config())
    assert (first.network, first.computed) == ("float32, by OpenVINO", 12)
    monkeypatch.setattr(extractors, "PAYS_FROM", 1)
    again = run(config())
    assert (again.network, again.computed) == ("float32", 0)


def test_it_is_found_after_the_folder_was_moved(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(config())
    monkeypatch.setattr(extractors, "PAYS_FROM", 1)
    (tmp_path / "Dataset").rename(tmp_path / "Moved")
    again = run(config(image_dir=str(tmp_path / "Moved")))
    assert (again.network, again.computed) == ("float32", 0)


def test_a_network_is_calibrated_once(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(config(precision="int8"))
    assert first.network == "int8, by OpenVINO"
    assert len(numbers_in(config())) == 1
    monkeypatch.setattr(calibration, "calibrate", None)  # must not be called
    for precision in ("int8", "auto"):
        again = run(config(precision=precision))
        assert (again.network, again.computed) == ("int8", 0)
        assert again.cache.fingerprint == first.cache.fingerprint


def test_the_same_photos_give_the_same_network_whatever_they_are_called(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    one = chosen(config(precision="int8"))
    shutil.copytree(tmp_path / "Dataset", tmp_path / "Copy")
    for i, path in enumerate(sorted((tmp_path / "Copy" / "cyan").iterdir())):
        path.rename(path.with_name(f"{9 - i}.jpg"))
    flags = {"image_dir": str(tmp_path / "Copy"), "bottleneck_dir": str(tmp_path / "other")}
    assert chosen(config(precision="int8", **flags)).fingerprint == one.fingerprint


def test_photos_that_are_added_later_go_through_the_very_same_network(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    first = run(config(precision="int8"))
    make_dataset(tmp_path / "Dataset", per_label=20)
    again = run(config(precision="int8"))
    assert again.cache.fingerprint == first.cache.fingerprint
    assert again.computed == 48


def test_a_run_that_was_killed_before_its_first_row_goes_on_with_its_network(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chosen(config(precision="int8"))  # and no row
    monkeypatch.setattr(calibration, "calibrate", None)
    assert chosen(config(precision="int8")).fingerprint == first.fingerprint


def test_another_folder_has_a_network_of_its_own(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    first = run(config(precision="int8"))
    for path in sorted(make_dataset(tmp_path / "Other", per_label=9).rglob("*.jpg")):
        if int(path.stem[-3:]) < 4:  # as in the first folder, but for one
            path.unlink() if "cyan_000" not in path.name else None
    other = run(config(precision="int8", image_dir=str(tmp_path / "Other")))
    assert other.cache.fingerprint != first.cache.fingerprint
    assert len(numbers_in(config())) == 2


def test_numbers_that_are_damaged_are_not_used_and_are_made_again(
    config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    first = run(config(precision="int8"))
    (path,) = numbers_in(config())
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\1")
    again = run(config(precision="int8"))
    assert (again.computed, again.cache.fingerprint) == (0, first.cache.fingerprint)
    assert path.read_bytes() == data
    assert [r.message for r in caplog.records if "is damaged" in r.message] == [
        f"{path} is damaged; it is not used, a calibration comes anew"
    ]


def test_numbers_behind_a_link_are_not_read(config: Callable[..., Config], tmp_path: Path) -> None:
    run(config(precision="int8"))
    (path,) = numbers_in(config())
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    again = run(config(precision="int8"))
    assert again.computed == 0
    assert not path.is_symlink()


def test_numbers_in_the_folder_of_another_cache_are_not_found(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    run(config(precision="int8"))
    (path,) = numbers_in(config())
    path.parent.rename(path.parent.with_name("inception_v3-" + "0" * 12))
    base = InceptionV3("random", config().model_dir)
    assert calibration.find(config().bottleneck_dir, base) == []


def test_numbers_in_a_cache_folder_that_is_a_link_are_not_found(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    run(config(precision="int8"))
    (path,) = numbers_in(config())
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")
    base = InceptionV3("random", config().model_dir)
    assert calibration.find(config().bottleneck_dir, base) == []


@pytest.mark.parametrize("was_there", [False, True])
def test_an_interrupted_calibration_leaves_no_folder_that_it_made(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    place = Path(config().bottleneck_dir)
    if was_there:
        place.mkdir()
    monkeypatch.setattr(calibration, "_calibrated", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(config(precision="int8"))
    assert place.exists() == was_there


def test_numbers_of_other_weights_are_left_alone(config: Callable[..., Config]) -> None:
    chosen(config(precision="int8"))
    base = InceptionV3("random", config().model_dir)
    assert len(calibration.find(config().bottleneck_dir, base)) == 1
    base.__dict__["weights"] = dataclasses.replace(base.weights, sha256="0" * 64)
    assert calibration.find(config().bottleneck_dir, base) == []


def test_rows_in_8_bits_are_passed_over_where_openvino_is_not_used(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(precision="int8"))
    for flags in ({"engine": "tensorflow"}, {"engine": "tensorflow", "precision": "int8"}):
        found = chosen(config(**flags))
        assert (found.row_precision, found.engine) == ("float32", "tensorflow")
    monkeypatch.setattr(with_openvino, "is_installed", lambda: False)
    assert chosen(config()).row_precision == "float32"


def test_rows_count_and_not_what_is_remembered_of_files(config: Callable[..., Config]) -> None:
    of_int8 = run(config(precision="int8"))
    run(config(precision="float32"))
    for path in shard_paths(of_int8.cache):
        path.unlink()
    assert chosen(config()).row_precision == "float32"


def test_two_runs_at_once_calibrate_once(config: Callable[..., Config]) -> None:
    asked = config(precision="int8")
    folder = scan_of(asked)
    choices = [choose(asked, folder) for _ in range(2)]
    assert all(choice.is_new for choice in choices)
    one, other = (extractors.made(choice, asked, folder) for choice in choices)
    assert one.fingerprint == other.fingerprint
    assert len(numbers_in(asked)) == 1


@pytest.mark.parametrize("spoil", [{"photos": []}, {"most": True}, {"most": 10**9}, {"most": "x"}])
def test_numbers_that_lie_about_themselves_are_not_used(
    config: Callable[..., Config], spoil: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    run(config(precision="int8"))
    (path,) = numbers_in(config())
    head, _, body = path.read_bytes().partition(b"\n")
    data = json.dumps(json.loads(head) | spoil).encode() + b"\n" + body
    (path.parent / f"{hashlib.sha256(data).hexdigest()}.int8").write_bytes(data)
    base = InceptionV3("random", config().model_dir)
    assert len(calibration.find(config().bottleneck_dir, base)) == 1
    assert "of this version" in caplog.text


def test_verifying_looks_at_the_numbers(config: Callable[..., Config]) -> None:
    run(config(precision="int8"))
    assert not inspect(config().bottleneck_dir, every_row=True)[0].damaged
    (path,) = numbers_in(config())
    path.write_bytes(path.read_bytes()[:-1])
    (problem,) = inspect(config().bottleneck_dir)[0].damaged
    assert path.name in problem


def test_another_machine_computes_with_the_same_numbers(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = run(config(precision="int8"))
    rows = first.cache.read(image.key for image in first.images)
    make_dataset(tmp_path / "Dataset", per_label=6)
    monkeypatch.setattr(machine, "most_of_int8", lambda: 0)
    again = run(config())
    assert (again.network, again.computed) == (first.network, 6)
    np.testing.assert_array_equal(again.cache.read(i.key for i in first.images), rows)


@pytest.mark.parametrize(
    ("flags", "most", "photos", "said"),
    [
        ({"engine": "tensorflow"}, 64, 4, "needs OpenVINO"),
        ({}, 0, 4, "this processor has no instructions"),
        ({}, 64, 1, "is calibrated on 4 photos or more"),
    ],
)
def test_where_8_bits_cannot_be_had_one_line_says_so(
    config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    flags: dict[str, str],
    most: int,
    photos: int,
    said: str,
) -> None:
    monkeypatch.setattr(machine, "most_of_int8", lambda: most)
    make_dataset(tmp_path / "Few", per_label=photos)
    found = chosen(config(precision="int8", image_dir=str(tmp_path / "Few"), **flags))
    assert found.row_precision == "float32"
    (line,) = [r.getMessage() for r in caplog.records if "going on with float32" in r.message]
    assert said in line


def test_photos_that_cannot_be_read_are_none_to_calibrate_on(
    config: Callable[..., Config], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for path in sorted((tmp_path / "Dataset").rglob("*.jpg"))[2:]:
        path.write_bytes(b"no photo")
    assert chosen(config(precision="int8")).row_precision == "float32"
    assert "too few photos" in caplog.text


def test_without_openvino_tensorflow_runs_it(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_openvino, "is_installed", lambda: False)
    assert chosen(config()).engine == "tensorflow"
    with pytest.raises(UsageError, match="pip install openvino"):
        chosen(config(engine="openvino"))


def test_a_gpu_is_tensorflow_s(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    found = chosen(config())
    assert found.engine == "tensorflow"
    assert found.description["gpu"] == "TF32"  # which changes rows
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert "gpu" not in chosen(config()).description


def test_a_choice_computes_and_makes_nothing(config: Callable[..., Config]) -> None:
    asked = config(precision="int8")
    choice = choose(asked, scan_of(asked))
    assert (choice.precision, choice.is_new) == ("int8", True)
    assert not Path(asked.bottleneck_dir).exists()


def test_the_calibration_shows_how_far_it_is(config: Callable[..., Config]) -> None:
    told: list[tuple[int, int]] = []
    asked = config(precision="int8")
    extractor_for(asked, scan_of(asked), on_step=lambda *step: told.append(step))
    assert told[-1] == (13, 13)  # 8 photos and 5 convolutions
    assert told == sorted(told)


def test_untrained_weights_are_warned_of(
    config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        chosen(config())
    assert "UNTRAINED" in caplog.text
