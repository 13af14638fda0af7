"""Figures -> PNG pictures, by matplotlib."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrain.fitting import Evaluation

_DPI = 150
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d9730d", "#888888"
_LEGIBLE = 20  # labels up to which the confusion matrix has numbers in its cells


def curves(evaluations: Sequence[Evaluation], kept: int) -> bytes:
    """Accuracy and cross-entropy over the steps; ``kept`` is the step that was kept."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    steps = [evaluation.step for evaluation in evaluations]
    for axis, name in zip(axes, ("accuracy", "cross_entropy"), strict=True):
        train = [getattr(evaluation.train, name) for evaluation in evaluations]
        axis.plot(steps, train, color=_ORANGE, linewidth=0.8, label="training batch")
        validation = [getattr(e.validation, name) for e in evaluations if e.validation is not None]
        if validation:
            axis.plot(steps, validation, color=_BLUE, linewidth=1.6, label="validation")
        if kept < steps[-1]:
            axis.axvline(kept, color=_GREY, linestyle=":", label=f"kept: step {kept}")
        axis.set_title(name.replace("_", "-"))
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0)
        _plain(axis)
    axes[0].set_ylim(0, 1.02)
    axes[1].legend(frameon=False)
    return _png(figure)


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> bytes:
    """The confusion matrix (C, C), coloured by the share of a row; readable for 2 to 200 labels."""
    count = len(labels)
    side = min(max(3.0, 0.55 * count), 8.0) if count <= _LEGIBLE else min(0.12 * count + 2, 24.0)
    font = 9.0 if count <= _LEGIBLE else max(4.0, 72 * 0.8 * side / count / 1.2)
    font = min(font, 9.0)
    figure = Figure(figsize=(side + 2.0, side + 1.5), layout="constrained")
    axis = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    shown = [label if len(label) <= 24 else label[:23] + "…" for label in labels]
    axis.set_xticks(range(count), shown, rotation=90, fontsize=font)
    axis.set_yticks(range(count), shown, fontsize=font)
    axis.set_xlabel("given label")
    axis.set_ylabel("true label")
    if count <= _LEGIBLE:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if share[row, column] > 0.5 else "black"
                axis.text(column, row, number, ha="center", va="center", color=colour, fontsize=9)
    else:
        figure.colorbar(picture, shrink=0.5, label="share of the label's test images")
        axis.set_xticks(np.arange(count) - 0.5, minor=True)
        axis.set_yticks(np.arange(count) - 0.5, minor=True)
        axis.grid(which="minor", color="#eeeeee", linewidth=0.4)
        axis.tick_params(which="minor", length=0)
    return _png(figure)


def calibration(reliability: Sequence[tuple[float, float, int]]) -> bytes:
    """Accuracy over confidence; the area of a point is the number of its images."""
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axis = figure.subplots()
    confidence, accuracy, images = zip(*reliability, strict=True)
    axis.plot([0, 1], [0, 1], color=_GREY, linestyle=":")
    axis.scatter(confidence, accuracy, s=400 * np.array(images) / max(images) + 10, color=_BLUE)
    axis.set_xlabel("score of the given label")
    axis.set_ylabel("share that is right")
    axis.set_xlim(0, 1.03)
    axis.set_ylim(0, 1.06)
    _plain(axis)
    return _png(figure)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#eeeeee")
    axis.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    # Without the version of matplotlib in it, the same figures give the same bytes.
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return png.getvalue()
