"""Photos to label."""

from pathlib import Path

import pytest

from tests.conftest import COLOURS, photo


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """photos/cyan.jpg, magenta.jpg and yellow.jpg."""
    (tmp_path / "photos").mkdir()
    paths = [tmp_path / "photos" / f"{label}.jpg" for label in COLOURS]
    for path, colour in zip(paths, COLOURS.values(), strict=True):
        photo(colour, 500).save(path)
    return paths
