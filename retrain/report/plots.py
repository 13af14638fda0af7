"""Figures -> PNG pictures, by matplotlib."""

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from bottlenecks.photos.fonts import FONTS
from retrain.evaluate import most_mistaken
from retrain.training.fitting import Evaluation

_DPI = 150
_BLUE, _ORANGE, _GREY, _LIGHT = "#1f5fa8", "#d9730d", "#888888", "#e8e8e8"
_LEGIBLE = 20  # labels up to which the confusion matrix has numbers in its cells
LABELS_LEGIBLE = 200  # labels up to which it has all of them
MOST_LABELS = 100  # that it has of more
_LONG = 24  # letters of a label that are shown

P = ParamSpec("P")


def _in_the_house_style(plot: Callable[P, bytes]) -> Callable[P, bytes]:
    """Draw with matplotlib's defaults, not with the user's, which may want LaTeX or other fonts."""

    @functools.wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return plot(*args, **kwargs)

    return draw


@_in_the_house_style
def curve(evaluations: Sequence[Evaluation], kept: int, name: str) -> bytes:
    """A figure over the steps: ``name`` is "accuracy" or "cross_entropy", ``kept`` a step."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    steps = [evaluation.step for evaluation in evaluations]
    marker = "o" if len(steps) == 1 else None  # a line of one point cannot be seen
    for color, width, of in ((_ORANGE, 0.8, "training batch"), (_BLUE, 1.6, "validation")):
        scores = [e.train if of == "training batch" else e.validation for e in evaluations]
        values = [getattr(score, name) for score in scores if score is not None]
        if values:
            axis.plot(steps, values, color=color, linewidth=width, label=of, marker=marker)
    if kept < steps[-1]:
        axis.axvline(kept, color=_GREY, linestyle=":", label=f"kept: step {kept}")
    axis.set_title(name.replace("_", "-"))
    axis.set_xlabel("step")
    axis.set_ylim(bottom=0)
    if name == "accuracy":
        axis.set_ylim(top=1.02)
    _plain(axis)
    axis.legend(frameon=False)
    return _png(figure)


@_in_the_house_style
def confusion(matrix: np.ndarray, labels: Sequence[str]) -> bytes:
    """The confusion matrix (C, C), coloured by the share of a row; readable for 2 to 200 labels.

    Of more labels, at most `MOST_LABELS` that are mistaken for each other most.
    """
    images = matrix.sum(axis=1, keepdims=True)
    if len(labels) > LABELS_LEGIBLE:
        chosen = most_mistaken(matrix, MOST_LABELS) or list(range(MOST_LABELS))
        matrix, images = matrix[np.ix_(chosen, chosen)], images[chosen]
        labels = [labels[i] for i in chosen]
    share = matrix / np.maximum(images, 1)
    count = len(labels)
    few = count <= _LEGIBLE
    side = min(max(2.2, 0.6 * count), 8.0) if few else min(0.13 * count + 1, 24.0)
    font = 9.0 if few else min(max(4.0, 72 * 0.8 * side / count), 9.0)
    large = 10.0 if few else max(10.0, 1.2 * side)
    figure = Figure(figsize=(side + 2.0, side + 2.0))
    axis = figure.subplots()
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    shown = [label if len(label) <= _LONG else label[: _LONG - 1] + "…" for label in labels]
    fonts = ["DejaVu Sans", *(name for name in FONTS if name in get_font_names())]
    text: dict[str, Any] = {"fontsize": font, "family": fonts, "parse_math": False}
    slope = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if few else {"rotation": 90}
    axis.set_xticks(range(count), shown, **text, **slope)
    axis.set_yticks(range(count), shown, **text)
    axis.set_xlabel("given label", fontsize=large)
    axis.set_ylabel("true label", fontsize=large)
    axis.tick_params(length=0)
    axis.spines[:].set_color(_LIGHT)
    axis.set_xticks(np.arange(count) - 0.5, minor=True)
    axis.set_yticks(np.arange(count) - 0.5, minor=True)
    axis.grid(which="minor", color="white" if few else _LIGHT, linewidth=1.5 if few else 0.4)
    axis.tick_params(which="minor", length=0)
    if few:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if share[row, column] > 0.5 else "black"
                axis.text(column, row, number, ha="center", va="center", color=colour, fontsize=9)
    else:
        beside = axis.inset_axes((1.015, 0.7, 0.015, 0.3))
        bar = figure.colorbar(picture, cax=beside)
        bar.set_label("share of the label's test images", fontsize=0.7 * large)
        bar.ax.tick_params(labelsize=0.7 * large)
    return _png(figure)


@_in_the_house_style
def calibration(reliability: Sequence[tuple[float, float, int]]) -> bytes:
    """Accuracy over confidence; the area of a point is the number of its images."""
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axis = figure.subplots()
    confidence, accuracy, images = zip(*reliability, strict=True)
    axis.plot([0, 1], [0, 1], color=_GREY, linestyle=":")
    area = 400 * np.array(images) / max(images) + 10
    axis.scatter(confidence, accuracy, s=area, color=_BLUE, clip_on=False, zorder=3)
    axis.set_xlabel("score of the given label")
    axis.set_ylabel("share that is right")
    axis.set_xlim(0, 1.03)
    axis.set_ylim(0, 1.06)
    _plain(axis)
    return _png(figure)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color=_LIGHT)
    axis.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it is drawn as a box
        # Not the version of matplotlib: the same figures give the same bytes.
        metadata = {"Software": "retrain"}  # by which the next run knows that it may replace it
        figure.savefig(png, format="png", dpi=_DPI, metadata=metadata, bbox_inches="tight")
    return png.getvalue()
