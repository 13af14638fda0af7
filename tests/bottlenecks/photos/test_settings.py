"""bottlenecks.photos.settings: which distortions are refused, and which of them are on."""

import subprocess
import sys
from typing import Any

import pytest

from bottlenecks.errors import UsageError
from bottlenecks.photos.settings import MOST_VARIANTS, DistortionSettings

PERCENTS = ("random_crop", "random_scale", "random_brightness", "random_shift")
MOST = {**dict.fromkeys(PERCENTS, 100), "random_rotation": 180, "random_shear": 60}
NUMBERS = ("nan", "inf", "-inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name, most in MOST.items() for value in (-1, most + 1)),
        *((name, float(value)) for name in MOST for value in NUMBERS),
        *(("distortions_per_image", value) for value in (-1, 0, MOST_VARIANTS + 1)),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"--{name} must be from .* Received: {value}"):
        DistortionSettings(**{"flip_left_right": True, name: value})


@pytest.mark.parametrize("name", MOST)
def test_the_greatest_value_is_taken_and_is_a_distortion(name: str) -> None:
    settings = DistortionSettings(**{name: MOST[name]})  # type: ignore[arg-type]
    assert settings.distorts
    assert settings.distortions == {name: MOST[name]}


def test_nothing_is_on_unless_it_is_asked_for() -> None:
    assert not DistortionSettings().distorts
    assert DistortionSettings().distortions == {}
    assert DistortionSettings().distortions_per_image == 4


def test_those_that_are_on_are_told_and_how_many_variants_is_none_of_them() -> None:
    settings = DistortionSettings(flip_up_down=True, random_shear=2.5, distortions_per_image=8)
    assert settings.distortions == {"flip_up_down": 1.0, "random_shear": 2.5}


def test_variants_without_a_distortion_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"--distortions_per_image does nothing.*--flip_left_right"
    ):
        DistortionSettings(distortions_per_image=8)
    assert DistortionSettings(distortions_per_image=4).distortions_per_image == 4
    assert DistortionSettings(distortions_per_image=8, random_crop=1).distortions_per_image == 8


def test_the_settings_are_read_without_what_decodes_photos() -> None:
    code = (
        "import sys, bottlenecks.photos.settings\n"
        "print(sorted({'numpy', 'PIL', 'tensorflow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
