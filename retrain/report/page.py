"""Results -> a folder with report.html, its plots as PNG, and metrics.json."""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bottlenecks import atomic
from bottlenecks.errors import BadImageError, public, shown, utf8
from bottlenecks.photos.decode import thumbnail
from bottlenecks.photos.page import data_url, jpeg_url, render
from bottlenecks.photos.reading import file_bytes
from retrain.evaluate import cells
from retrain.report import plots
from retrain.report.health import KINDS, Problem
from retrain.report.results import SAMPLES, Measurement, Test, TrainingResult
from retrain.report.settings import (
    CURVES,
    DATA_HEALTH_FILE,
    GENERATORS,
    METRICS_FILE,
    PLOTS,
    REPORT_FILE,
)
from retrain.training.tuned import FineTuned

_TEMPLATE = "report.html.jinja"
_THUMBNAIL_SIDE = 180  # pixels
_MOST_MISCLASSIFIED, _MOST_PROBLEMS, _MOST_BAD = 60, 12, 1000
_MOST_LABELS, _MOST_FEW = 500, 100  # in the table; of those with few images


def write_report(
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any],
    result: TrainingResult | Measurement,
) -> None:
    """Write the report of a run or an evaluation into ``folder``. Raises ``OSError``.

    ``settings`` are all flags of it by their names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    if isinstance(result, TrainingResult):
        fits = {"": result.fitted}
        if result.fine_tuned is not None:
            fits["fine_tuning_"] = result.fine_tuned.fitted
        for (prefix, fitted), name in itertools.product(fits.items(), CURVES):
            pictures[f"{prefix}{name}"] = plots.curve(fitted.evaluations, fitted.step, name)
    if result.test is not None:
        pictures["confusion"] = plots.confusion(result.test.confusion, result.labels)
        pictures["calibration"] = plots.calibration(result.test.reliability)
    for name, png in pictures.items():
        atomic.write_bytes(folder / f"{name}.png", png)
    for name in set(PLOTS) - set(pictures):  # of an earlier run
        (folder / f"{name}.png").unlink(missing_ok=True)
    metrics_ = metrics(settings, result)
    atomic.write_text(
        folder / METRICS_FILE, json.dumps(metrics_, indent=2, ensure_ascii=False) + "\n"
    )
    atomic.write_text(folder / REPORT_FILE, html(settings, result, pictures))


def metrics(settings: Mapping[str, Any], result: TrainingResult | Measurement) -> dict[str, Any]:
    """Every figure of a run or an evaluation, for ``json.dumps``; the keys are the same."""
    return {
        "settings": {name: _writable(x) for name, x in settings.items()},
        "labels": list(result.labels),
        "images": result.images,
        **(_of_training(result) if isinstance(result, TrainingResult) else _OF_NO_TRAINING),
        "test": None if result.test is None else _of_test(result.test),
        "data_health": _of_health(_problems(result)),
        "samples": {name: dataclasses.asdict(sample) for name, sample in result.samples.items()},
    }


_OF_NO_TRAINING: dict[str, Any] = {
    **dict.fromkeys(("precision", "kept_step", "steps", "l2")),
    "tuning": [],
    "temperature": None,
    "evaluations": [],
    "fine_tuning": None,
}


def _of_training(result: TrainingResult) -> dict[str, Any]:
    fitted = result.fitted
    return {
        "precision": result.precision or None,
        "kept_step": fitted.step,
        "steps": fitted.steps,
        "l2": fitted.l2,
        "tuning": [dataclasses.asdict(trial) for trial in result.search.trials]
        if result.search
        else [],
        "temperature": result.temperature,
        "evaluations": [dataclasses.asdict(evaluation) for evaluation in fitted.evaluations],
        "fine_tuning": None
        if result.fine_tuned is None
        else _of_fine_tuning(result, result.fine_tuned),
    }


def _of_fine_tuning(result: TrainingResult, fine_tuned: FineTuned) -> dict[str, Any]:
    fitted, tests = fine_tuned.fitted, (result.test_before, result.test_after)
    before, after = (test and dataclasses.asdict(test.figures) for test in tests)
    return {
        "is_exported": fine_tuned.is_taken,
        "kept_step": fitted.step,
        "steps": fitted.steps,
        "validation_loss_before": fine_tuned.loss_before,
        "validation_loss_after": fine_tuned.loss,
        "temperature": fine_tuned.temperature,
        "evaluations": [dataclasses.asdict(evaluation) for evaluation in fitted.evaluations],
        "test_before": before,
        "test_after": after,
    }


def _of_test(test: Test) -> dict[str, Any]:
    return {
        **dataclasses.asdict(test.figures),
        "labels": [dataclasses.asdict(score) for score in test.labels],
        "confusion": cells(test.confusion),
        "most_confused": [dataclasses.asdict(confusion) for confusion in test.most_confused],
        "reliability": [
            dict(zip(("confidence", "accuracy", "n"), point, strict=True))
            for point in test.reliability
        ],
        "wrong": test.wrong,
        "misclassified": [
            {
                "path": shown(m.image.path),
                "label": m.image.label,
                "guesses": [{"label": label, "score": s} for label, s in m.guesses],
            }
            for m in test.misclassified
        ],
    }


def _of_health(problems: Sequence[Problem] | None) -> dict[str, int] | None:
    if problems is None:
        return None
    return {kind: len(_of_kind(problems, kind)) for kind in KINDS}


def _problems(result: TrainingResult | Measurement) -> Sequence[Problem] | None:
    """What was found of the photos; None where nothing was looked for."""
    return result.problems if isinstance(result, TrainingResult) else None


def html(
    settings: Mapping[str, Any],
    result: TrainingResult | Measurement,
    pictures: Mapping[str, bytes],
) -> str:
    """One page that needs nothing else: pictures, style and script are in it."""
    in_folder = functools.partial(os.path.relpath, start=settings["image_dir"])
    problems = _problems(result)
    return render(
        __package__,
        _TEMPLATE,
        {"picture": _picture, "in_folder": in_folder},
        generator=GENERATORS["evaluation" if isinstance(result, Measurement) else "run"],
        settings=settings,
        result=result,
        test=result.test,
        measured=isinstance(result, Measurement),
        problems=problems,
        pictures={name: data_url(png, "png") for name, png in pictures.items()},
        most_misclassified=_MOST_MISCLASSIFIED,
        most_problems=_MOST_PROBLEMS,
        most_bad=_MOST_BAD,
        most_labels=_MOST_LABELS,
        most_few=_MOST_FEW,
        samples=[
            SAMPLES[name].format(sample.drawn, sample.available)
            for name, sample in result.samples.items()
        ],
        draws_some=len(result.labels) > plots.LABELS_LEGIBLE,
        metrics_file=METRICS_FILE,
        kinds={kind: (text, _of_kind(problems or (), kind)) for kind, text in KINDS.items()},
        data_health_file=DATA_HEALTH_FILE,
    )


def _of_kind(problems: Sequence[Problem], kind: str) -> list[Problem]:
    return [problem for problem in problems if problem.kind == kind]


def _writable(value: Any) -> Any:
    """A setting; a path with what is not UTF-8 in it escaped, of an address what is public."""
    return public(utf8(value)) if isinstance(value, str) else value


def _picture(path: str) -> str:
    """A data URL of the thumbnail of a photo; empty where it cannot be read any more."""
    try:
        with file_bytes(path) as (data, _):
            return jpeg_url(thumbnail(data, _THUMBNAIL_SIDE))
    except BadImageError:
        return ""
