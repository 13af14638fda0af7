"""retrain.plan: what is refused once the folder is known."""

from pathlib import Path
from typing import Any

import pytest

from bottlenecks.errors import UsageError
from retrain.config import Config
from retrain.plan import checked_folder
from tests.conftest import make_dataset

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
