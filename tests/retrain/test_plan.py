"""retrain.plan: what is refused once the folder is known, and what a run would compute."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from bottlenecks import machine, speeds
from bottlenecks.errors import CacheError, UsageError
from bottlenecks.network import layers
from bottlenecks.network.cuts import TRAINED
from bottlenecks.row_spec import BOTTLENECK
from retrain.config import Config
from retrain.listener import Listener
from retrain.plan import More, checked_folder, plan
from retrain.texts import plan_text
from retrain.trainer import train
from tests.conftest import make_dataset
from tests.standin import StandIn
from tests.tiny import Tiny

LOOKING = [("patience", 10), ("calibrate", True)]


@pytest.mark.parametrize(("name", "value"), LOOKING)
def test_what_looks_at_the_validation_set_needs_one(
    small_dataset: Path, name: str, value: object
) -> None:
    settings: dict[str, Any] = {"image_dir": str(small_dataset), name: value}
    with pytest.raises(UsageError, match=f"--{name} needs a validation set.*--validation_dir"):
        checked_folder(Config(**settings, validation_percentage=0))
    assert checked_folder(Config(**settings, validation_percentage=1)).images


@pytest.mark.parametrize(("name", "value"), LOOKING)
@pytest.mark.parametrize("is_named", [False, True], ids=["recognised", "named"])
def test_a_given_validation_set_is_one_to_look_at(
    tmp_path: Path, name: str, value: object, is_named: bool
) -> None:
    for set_ in ("train", "validation"):
        make_dataset(tmp_path / set_, per_label=3)
    settings: dict[str, Any] = {"image_dir": str(tmp_path), "validation_percentage": 0, name: value}
    if is_named:
        settings |= {"image_dir": str(tmp_path / "train")}
        settings |= {"validation_dir": str(tmp_path / "validation")}
    assert len(checked_folder(Config(**settings)).images) == 18


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_how_long_it_takes_is_by_the_speed_of_the_last_run(
    small_dataset: Path, tmp_path: Path, precision: str
) -> None:
    config = Config(
        image_dir=str(small_dataset),
        bottleneck_dir=str(tmp_path / "cache"),
        model_dir=str(tmp_path / "models"),
        precision=precision,
    )
    other = {"float32": "bfloat16", "bfloat16": "float32"}[precision]
    speeds.remember(config.model_dir, other, 1000.0)
    unknown = plan(config, StandIn())
    assert (unknown.missing, unknown.speed) == (12, None)
    assert unknown.seconds == 12 / (speeds.USUAL_PER_CORE * machine.usable_cores())
    assert "by what is usual" in plan_text(config, unknown)
    speeds.remember(config.model_dir, precision, 0.1)
    known = plan(config, StandIn())
    assert known.speed == 0.1
    assert known.seconds == pytest.approx(120)
    assert "take about 2 min 0 s (by this machine's last run)" in plan_text(config, known)


MIXED7 = Tiny("mixed7").spec


def config_for(folder: Path, **settings: Any) -> Config:
    """All output to ``folder``, with flips and fine-tuning, unless said otherwise."""
    usual: dict[str, Any] = {
        "image_dir": str(folder / "Dataset"),
        "bottleneck_dir": str(folder / "cache"),
        "model_dir": str(folder / "models"),
        "output_graph": str(folder / "graph.pb"),
        "output_labels": str(folder / "labels.txt"),
        "random_brightness": 20,
        "distortions_per_image": 2,
        "how_many_training_steps": 5,
        "fine_tune_from": "mixed7",
        "fine_tune_epochs": 1,
    }
    return Config(**{**usual, **settings})


class Told(Listener):
    """Keeps what a run says it computes beside the plain bottlenecks."""

    def __init__(self) -> None:
        self.more: list[tuple[str, int, int]] = []

    def more_rows(self, name: str, rows: int, nbytes: int) -> None:
        self.more.append((name, rows, nbytes))


def told(more: tuple[More, ...]) -> list[tuple[str, int, int]]:
    return [(one.name, one.rows, one.nbytes) for one in more if one.rows]


def test_the_rows_of_variants_and_of_a_cut_are_those_that_the_run_computes(
    small_dataset: Path, tmp_path: Path
) -> None:
    """With a copy, an image left out for one, and an image that cannot be read."""
    shutil.copy(small_dataset / "cyan" / "cyan_000.jpg", small_dataset / "cyan" / "copy.jpg")
    shutil.copy(small_dataset / "cyan" / "cyan_001.jpg", small_dataset / "yellow" / "other.jpg")
    (small_dataset / "yellow" / "broken.jpg").symlink_to("nothing")
    rows = []
    for variants in (2, 3, 1):
        config = config_for(tmp_path, distortions_per_image=variants)
        planned, run = told(plan(config, Tiny()).more), Told()
        train(config, extractor=Tiny(), listener=run)
        assert planned == run.more
        assert told(plan(config, Tiny()).more) == []
        rows.append([(name, count) for name, count, _ in planned])
    trained_on = rows[1][0][1]
    assert rows == [
        [("bottleneck", 2 * trained_on), ("mixed7", 12 + 2 * trained_on)],
        [("bottleneck", trained_on), ("mixed7", trained_on)],
        [],
    ]


@pytest.mark.parametrize("asked", ["distortions", "fine-tuning", "neither"])
def test_only_what_is_asked_for_is_counted(small_dataset: Path, tmp_path: Path, asked: str) -> None:
    own: dict[str, Any] = {}
    if asked != "distortions":
        own |= {"random_brightness": 0, "distortions_per_image": 4}
    if asked != "fine-tuning":
        own |= {"fine_tune_from": None, "fine_tune_epochs": 8}
    config = config_for(tmp_path, **own)
    found = plan(config, Tiny())
    expected = {
        "distortions": [(BOTTLENECK.name, 2 * found.sets["training"])],
        "fine-tuning": [("mixed7", 12)],
        "neither": [],
    }
    assert [(one.name, one.rows) for one in found.more] == expected[asked]
    text = plan_text(config, found)
    assert ("bottlenecks of variants" in text) == (asked == "distortions")
    assert ("rows of mixed7" in text) == (asked == "fine-tuning")
    assert ("8 epochs" in text or "1 epochs of fine-tuning behind mixed7" in text) == (
        asked == "fine-tuning"
    )


def test_how_large_they_are_and_how_long_they_take_is_said(
    small_dataset: Path, tmp_path: Path
) -> None:
    config = config_for(tmp_path, distortions_per_image=1000)
    speeds.remember(config.model_dir, "float32", 100.0)
    found = plan(config, Tiny())
    variants, at_cut = found.more
    assert variants.nbytes == variants.rows * BOTTLENECK.nbytes
    assert at_cut.nbytes == at_cut.rows * MIXED7.nbytes
    assert variants.seconds == variants.rows / 100
    text = plan_text(config, found)
    count = 1000 * found.sets["training"]
    assert f"{count} bottlenecks of variants, {count * 8192 / 1e6:.0f} MB, are missing" in text
    assert text.count("(by this machine's last run)") == 3


def test_little_is_not_said_to_be_nothing(small_dataset: Path, tmp_path: Path) -> None:
    config = config_for(tmp_path)
    found = plan(config, Tiny())
    count = 2 * found.sets["training"]
    text = plan_text(config, found)
    assert f"{count} bottlenecks of variants, {count * 8192 / 1e6:.1f} MB, are missing" in text


def test_pixels_take_no_time_of_the_network(small_dataset: Path, tmp_path: Path) -> None:
    config = config_for(tmp_path, fine_tune_from="input")
    found = plan(config, Tiny())
    assert [one.seconds == 0 for one in found.more] == [False, True]
    assert "MB, are missing;" in plan_text(config, found)


def test_before_the_weights_are_there_nothing_is_taken_for_cached(
    small_dataset: Path, tmp_path: Path
) -> None:
    train(config_for(tmp_path), extractor=Tiny())
    found = plan(config_for(tmp_path))
    assert found.weights_missing
    variants = 2 * found.sets["training"]
    assert told(found.more) == [
        ("bottleneck", variants, variants * BOTTLENECK.nbytes),
        ("mixed7", 12 + variants, (12 + variants) * layers.spec_at("mixed7").nbytes),
    ]


def test_the_steps_of_fine_tuning_take_as_long_as_in_the_last_such_run(
    small_dataset: Path, tmp_path: Path
) -> None:
    config = config_for(tmp_path, fine_tune_epochs=40)
    unknown = plan(config, Tiny())
    assert unknown.tuning_seconds is None
    assert "(how long they take is not known yet)" in plan_text(config, unknown)
    train(config, extractor=Tiny())
    known = plan(config, Tiny())
    what = speeds.fine_tuning("mixed7", "float32")
    speed = speeds.remembered(config.model_dir, what)
    assert speed is not None
    assert known.tuning_seconds == pytest.approx(40 * known.sets["training"] / speed)
    for other in ({"fine_tune_from": "input"}, {"precision": "bfloat16"}):
        assert plan(config_for(tmp_path, **other), Tiny()).tuning_seconds is None
    speeds.remember(config.model_dir, what, known.sets["training"] / 3)
    said = plan_text(config, plan(config, Tiny()))
    assert "behind mixed7 (about 2 min 0 s, by this machine's last such run)" in said
    train(config_for(tmp_path, fine_tune_epochs=1), extractor=Tiny())  # too short to tell
    assert plan(config, Tiny()).tuning_seconds == pytest.approx(120, rel=1e-3)


@pytest.mark.parametrize("has_weights", [True, False])
def test_no_room_is_the_error_of_a_run(
    small_dataset: Path, tmp_path: Path, has_weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        CacheError, match=r"rows of bottleneck and .* take .* has 0\.1 MB free: make room"
    ):
        plan(config_for(tmp_path), Tiny() if has_weights else None)
    assert sorted(tmp_path.rglob("*")) == before


def test_room_is_needed_for_all_of_it_together(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tmp_path, fine_tune_from="input")
    variants, at_cut = plan(config, Tiny()).more
    usage = shutil.disk_usage("/")

    def with_free(free: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(free)))

    checkpoints = 2 * 5 * 4 * TRAINED["input"]
    with_free(2.1 * at_cut.nbytes + variants.nbytes + 12 * BOTTLENECK.nbytes + checkpoints)
    assert plan(config, Tiny()).more == (variants, at_cut)
    for lacking in (
        2.02 * at_cut.nbytes + checkpoints,
        2.1 * at_cut.nbytes + variants.nbytes + 12 * BOTTLENECK.nbytes + 0.9 * checkpoints,
    ):
        with_free(lacking)
        with pytest.raises(
            CacheError,
            match="rows of input and the checkpoints of their training and what is missing before",
        ):
            plan(config, Tiny())
