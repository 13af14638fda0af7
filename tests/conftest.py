"""Data sets that the tests make, and how they run the commands."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"cyan": (0, 200, 200), "magenta": (200, 0, 200), "yellow": (200, 200, 0)}


def photo(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A noisy image of ``colour``; another one for each ``seed``."""
    noise = np.random.default_rng((*colour, seed)).normal(0, 30, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def make_dataset(root: Path, per_label: int = 30) -> Path:
    """``root``/cyan, /magenta, /yellow with ``per_label`` JPEGs each, told apart by colour."""
    for label, colour in COLOURS.items():
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_label):
            photo(colour, i).save(folder / f"{label}_{i:03}.jpg", quality=90)
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """30 images in each of 3 labels."""
    return make_dataset(tmp_path / "Dataset")


@pytest.fixture
def small_dataset(tmp_path: Path) -> Path:
    """4 images in each of 3 labels."""
    return make_dataset(tmp_path / "Dataset", per_label=4)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the frozen network of ``--weights random`` for all tests of a run."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def real_weights() -> str:
    """A real InceptionV3 weights file, named by RETRAIN_TEST_WEIGHTS; else the test is skipped."""
    path = os.environ.get("RETRAIN_TEST_WEIGHTS", "")
    if not path:
        pytest.skip("RETRAIN_TEST_WEIGHTS names no InceptionV3 weights file")
    assert Path(path).is_file(), f"RETRAIN_TEST_WEIGHTS={path} is no file"
    return path


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``python -m ARGS...`` in ``tmp_path``, as a user would.

    ``run("retrain", ...)`` is the real command; ``run("tests.standin", "retrain", ...)`` has the
    stand-in for the network.
    """

    def run_module(
        *arguments: str | Path, cwd: Path = tmp_path, timeout: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment}
        if str(arguments[0]).startswith("tests."):
            env["PYTHONPATH"] = str(ROOT)
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run_module


def assert_one_error_line(result: subprocess.CompletedProcess[str], *mentions: str) -> None:
    """Exit code 2, one ``error:`` line on stderr with ``mentions``, no traceback."""
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for mention in mentions:
        assert mention in errors[0], errors[0]
