"""retrain.export.about: what made a classifier, and when."""

import json
import re

import pytest

from bottlenecks.errors import UsageError
from retrain.config import Config
from retrain.export.about import About, date_of_today, flags_of


def test_the_date_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", date_of_today())


def test_the_date_is_what_source_date_epoch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1609459199")
    assert date_of_today() == "2020-12-31T23:59:59Z"


@pytest.mark.parametrize("given", ["yesterday", "-1", "1.5", "٣", "9" * 400])
def test_a_source_date_epoch_that_is_no_number_of_seconds(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH must be seconds since 1970"):
        date_of_today()


def test_flags_are_those_that_were_set_but_for_paths() -> None:
    config = Config(
        image_dir="/home/somebody/photos", output_graph="/tmp/g.pb", seed=3, learning_rate=0.001
    )
    assert flags_of(config) == {"seed": 3, "learning_rate": 0.001}


def test_equal_ones_have_equal_json_of_all_that_they_are() -> None:
    def about(images: dict[str, int]) -> About:
        return About("2020-12-31T23:59:59Z", {"weights": "ö"}, "ab", images, None, "mixed7", {})

    one, other = about({"testing": 1, "training": 2}), about({"training": 2, "testing": 1})
    assert one.json == other.json
    found = json.loads(one.json)
    assert found["network"] == {"weights": "ö"}
    assert (found["images"], found["test"]) == ({"testing": 1, "training": 2}, None)
    assert found["program"].startswith("retrain ")


def test_an_endless_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1" * 5000)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH must be"):
        date_of_today()
