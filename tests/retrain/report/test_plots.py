"""retrain.report.plots: PNG pictures for few and many labels, in any script."""

import io
import subprocess
import sys
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
from PIL import Image

from retrain.evaluate import Score
from retrain.report import plots
from retrain.training.fitting import Evaluation

NAMES = ("accuracy", "cross_entropy")


@pytest.fixture(autouse=True)
def no_warnings() -> object:
    """A user would see matplotlib's warnings in the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    image.load()
    pixels = np.asarray(image.convert("L"))
    assert pixels.min() < 128 < pixels.max()  # something is drawn
    return image


def evaluations(steps: Sequence[int], validation: bool = True) -> list[Evaluation]:
    return [
        Evaluation(
            step,
            Score(1 - 1 / (step + 1), 1 / step, 100),
            Score(0.8, 0.5, 50) if validation else None,
        )
        for step in steps
    ]


def matrix(labels: int) -> np.ndarray:
    random = np.random.default_rng(labels)
    return np.diag(random.integers(1, 30, labels)) + (random.random((labels, labels)) < 0.02)


def names(labels: int) -> list[str]:
    return [f"label {i}" for i in range(labels)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("validation", [True, False])
def test_curves(name: str, validation: bool) -> None:
    shown = evaluations(range(10, 310, 10), validation)
    picture(plots.curve(shown, 300, name))
    assert plots.curve(shown, 300, name) != plots.curve(shown, 20, name)


@pytest.mark.parametrize("name", NAMES)
def test_one_evaluation_is_a_point_that_can_be_seen(name: str) -> None:
    image = picture(plots.curve(evaluations([1]), 1, name)).convert("RGB")
    colours = {colour for _, colour in image.getcolors(2**24) or ()}
    assert {(0x1F, 0x5F, 0xA8), (0xD9, 0x73, 0x0D)} <= colours


@pytest.mark.parametrize("name", NAMES)
def test_curves_of_a_perfect_run(name: str) -> None:
    perfect = [Evaluation(step, Score(1.0, 0.0, 9), Score(1.0, 0.0, 9)) for step in (1, 2)]
    picture(plots.curve(perfect, 1, name))


@pytest.mark.parametrize("labels", [2, 5, 20, 21, 150])
def test_confusion(labels: int) -> None:
    image = picture(plots.confusion(matrix(labels), names(labels)))
    assert image.width >= 2 * 8 * labels  # 8 pixels a cell are told apart, and each is drawn twice
    assert max(image.size) < 4000


def test_of_many_labels_those_that_are_mistaken_most_are_drawn() -> None:
    images = np.diag(np.full(1000, 5))
    mistaken = range(3, 1000, 10)
    for label in mistaken:
        images[label, mistaken[0] if label != mistaken[0] else 13] += 2
    images[0, 1] += 1  # less often
    own = np.ix_(mistaken, mistaken)
    found = plots.confusion(images, names(1000))
    assert found == plots.confusion(images[own], [f"label {i}" for i in mistaken])
    assert max(picture(found).size) < 4000
    picture(plots.confusion(np.diag(np.full(1000, 5)), names(1000)))  # no mistake at all


def test_labels_without_test_images_have_an_empty_row() -> None:
    picture(plots.confusion(np.array([[3, 0], [0, 0]]), ["daisy", "roses"]))


ODD_NAMES = (
    *("a very long label " * 10, "蒲公英", "وردة", "गुलाब", "ромашка", "🌹", "\ue000"),
    *("$x^$ _{", "%s"),
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_labels_of_any_script_and_length(name: str) -> None:
    image = picture(plots.confusion(matrix(2), [name, "daisy"]))
    assert max(image.size) < 1500


def test_many_labels_of_any_script_and_length() -> None:
    image = picture(plots.confusion(matrix(100), [*ODD_NAMES, *names(100)[len(ODD_NAMES) :]]))
    assert max(image.size) < 4000


@pytest.mark.parametrize(
    "points", [[(1.0, 1.0, 34)], [(0.1, 0.0, 1), (0.5, 0.4, 7), (1.0, 1.0, 9)]]
)
def test_calibration(points: list[tuple[float, float, int]]) -> None:
    picture(plots.calibration(points))


def test_the_same_figures_give_the_same_bytes() -> None:
    def drawn() -> list[bytes]:
        return [
            plots.curve(evaluations([1, 2]), 1, "accuracy"),
            plots.confusion(matrix(5), names(5)),
            plots.calibration([(0.5, 0.4, 7), (0.9, 1.0, 9)]),
        ]

    assert drawn() == drawn()


def test_no_screen_and_no_state_is_needed() -> None:
    """pyplot, which looks for a screen and keeps every figure, is not even imported."""
    script = (
        "import sys, numpy\n"
        "from retrain.report import plots\n"
        "plots.confusion(numpy.eye(2, dtype=int), ['a', 'b'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {"PATH": "", "MPLBACKEND": "tkagg"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_the_user_s_settings_of_matplotlib_neither_stop_nor_change_a_plot() -> None:
    """A matplotlibrc that wants LaTeX, which is not installed, or a font of its own."""
    plain = plots.curve(evaluations([10, 20]), 20, "accuracy")
    with matplotlib.rc_context(
        {"text.usetex": True, "font.size": 30, "axes.facecolor": "red", "savefig.format": "pdf"}
    ):
        assert plots.curve(evaluations([10, 20]), 20, "accuracy") == plain
        assert matplotlib.rcParams["font.size"] == 30
