"""retrain.plan: what is refused once the folder is known, and how long a run would take."""

from pathlib import Path
from typing import Any

import pytest

from bottlenecks import machine, speeds
from bottlenecks.errors import UsageError
from retrain.config import Config
from retrain.console import plan_text
from retrain.plan import checked_folder, plan
from tests.conftest import make_dataset
from tests.standin import StandIn

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
