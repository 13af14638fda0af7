"""bottlenecks.photos.fonts: text of any script has a font, which draws boxes if it must."""

import pytest

from bottlenecks.photos.fonts import font_for


@pytest.mark.parametrize("text", ["", "daisy", "żółta róża", "роза", "τριαντάφυλλο", "12.5 %"])
def test_scripts_that_matplotlib_s_own_font_has(text: str) -> None:
    assert font_for(text, 12).getname()[0] == "DejaVu Sans"


@pytest.mark.parametrize("text", ["日本", "\U0001f33c", "\U0010ffff", "\x00"])
def test_other_letters_have_a_width_too(text: str) -> None:
    assert font_for(text, 12).getlength(text) >= 0


def test_the_size_is_the_one_that_was_asked_for() -> None:
    assert (font_for("a", 12).size, font_for("a", 30).size) == (12, 30)
