"""retrain.report.summaries: TensorBoard reads back what the evaluations were."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks.network.tensorflow import import_tensorflow
from retrain.evaluate import Score
from retrain.report.summaries import Summaries
from retrain.training.fitting import Evaluation
from tests.conftest import train_colours

TAGS = ["accuracy", "cross_entropy"]


def read_back(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of every scalar in the event files of ``folder``, oldest file first."""
    iterate = import_tensorflow().compat.v1.train.summary_iterator
    return [
        (event.step, value.tag, value.simple_value)
        for path in sorted(folder.iterdir())
        if "tfevents" in path.name
        for event in iterate(str(path))
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def tensorboard(folder: Path) -> Any:
    """What TensorBoard itself reads from the event files of ``folder``."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    everything = dict.fromkeys(("scalars", "histograms", "images"), 0)
    return event_accumulator.EventAccumulator(str(folder), everything).Reload()


def scalars(events: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def rows(scores: dict[int, Score]) -> list[tuple[int, str, object]]:
    return [
        (step, tag, pytest.approx(getattr(score, tag), rel=1e-6))
        for step, score in scores.items()
        for tag in TAGS
    ]


def test_scalars_come_back(tmp_path: Path) -> None:
    train, validation = Score(0.75, 0.5, 8), Score(0.25, 1.5, 4)
    with Summaries(tmp_path / "new" / "summaries") as summaries:
        summaries.add("train", 10, train)
        summaries.add("validation", 10, validation)
        summaries.add("train", 20, validation)
    assert read_back(tmp_path / "new/summaries/train") == rows({10: train, 20: validation})
    assert read_back(tmp_path / "new/summaries/validation") == rows({10: validation})


def test_a_run_that_fails_keeps_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Summaries(tmp_path) as summaries:
        summaries.add("train", 1, Score(0.5, 1.0, 2))
        raise RuntimeError
    assert read_back(tmp_path / "train") == rows({1: Score(0.5, 1.0, 2)})


def test_a_training_run_writes_its_evaluations_and_keeps_what_was_there(tmp_path: Path) -> None:
    summaries = tmp_path / "training_summaries" / "basic"
    (summaries / "train").mkdir(parents=True)
    (summaries / "notes.txt").write_text("mine")
    (summaries / "train" / "events.out.tfevents.1.old").write_bytes(b"")
    trained = train_colours(
        tmp_path, summaries_dir=str(summaries), how_many_training_steps=25, eval_step_interval=10
    )
    assert [evaluation.step for evaluation in trained.evaluations] == [10, 20, 25]
    train = {evaluation.step: evaluation.train for evaluation in trained.evaluations}
    validation = {e.step: e.validation for e in trained.evaluations if e.validation}
    assert read_back(summaries / "train") == rows(train)
    assert read_back(summaries / "validation") == rows(validation)
    assert len(validation) == 3
    assert (summaries / "notes.txt").read_text() == "mine"
    assert (summaries / "train" / "events.out.tfevents.1.old").exists()


def test_a_run_that_starts_within_the_same_second_keeps_the_other_s_events(tmp_path: Path) -> None:
    scores = {step: Score(0.5, 1.0, step) for step in (1, 2, 3)}
    for step, score in scores.items():
        with Summaries(tmp_path) as summaries:
            summaries.add("train", step, score)
    assert sorted(read_back(tmp_path / "train")) == [
        (step, tag, getattr(score, tag)) for step, score in scores.items() for tag in TAGS
    ]


# As TensorBoard reads them.


def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    with Summaries(tmp_path) as summaries:
        summaries.add("train", 10, Score(0.75, 0.5, 8))
        summaries.add("train", 20, Score(1.0, 0.25, 8))
        summaries.add("validation", 20, Score(0.5, 1.5, 4))
    train, validation = (tensorboard(tmp_path / name) for name in ("train", "validation"))
    assert sorted(train.Tags()["scalars"]) == sorted(validation.Tags()["scalars"]) == TAGS
    assert scalars(train, "accuracy") == [(10, 0.75), (20, 1.0)]
    assert scalars(train, "cross_entropy") == [(10, 0.5), (20, 0.25)]
    assert scalars(validation, "cross_entropy") == [(20, 1.5)]


def test_tensorboard_reads_the_histogram_of_the_weights(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(0.5, 2, (2048, 3)).astype(np.float32)
    evaluation = Evaluation(30, Score(0.5, 1.0, 8), Score(0.25, 2.0, 4))
    with Summaries(tmp_path) as summaries:
        summaries.add_evaluation(evaluation, weights)
    events = tensorboard(tmp_path / "train")
    assert events.Tags()["histograms"] == ["weights"]
    assert tensorboard(tmp_path / "validation").Tags()["histograms"] == []
    (event,) = events.Histograms("weights")
    found = event.histogram_value
    assert event.step == 30
    assert (found.min, found.max) == (weights.min(), weights.max())
    assert found.num == sum(found.bucket) == weights.size
    exact = weights.astype(np.float64)
    assert found.sum == pytest.approx(exact.sum(), rel=1e-9)
    assert found.sum_squares == pytest.approx((exact**2).sum(), rel=1e-9)
    limits = np.array(found.bucket_limit)
    assert len(limits) == len(found.bucket) == 30
    assert (np.diff(limits) > 0).all()
    assert limits[-1] == pytest.approx(weights.max())
    below = [(weights <= limit).sum() for limit in limits[:-1]]
    np.testing.assert_array_equal(np.cumsum(found.bucket)[:-1], below)


def test_weights_that_are_all_the_same_have_a_histogram_too(tmp_path: Path) -> None:
    with Summaries(tmp_path) as summaries:
        summaries.add_evaluation(
            Evaluation(1, Score(0.5, 1.0, 8), None), np.zeros((2048, 2), np.float32)
        )
    (event,) = tensorboard(tmp_path / "train").Histograms("weights")
    assert sum(event.histogram_value.bucket) == 4096
    assert tensorboard(tmp_path / "validation").Tags()["scalars"] == []


def pixels_of(events: Any) -> np.ndarray:
    """The only picture of ``events``, (height, width) uint8."""
    (tag,) = events.Tags()["images"]
    (event,) = events.Images(tag)
    picture = Image.open(io.BytesIO(event.encoded_image_string))
    assert (picture.format, picture.mode) == ("PNG", "L")
    assert picture.size == (event.width, event.height)
    return np.asarray(picture)


def test_tensorboard_reads_the_confusion_matrix_as_a_picture(tmp_path: Path) -> None:
    """Dark is many of a row: of a label's images."""
    matrix = np.array([[8, 2, 0], [0, 0, 0], [0, 1, 99]])
    with Summaries(tmp_path) as summaries:
        summaries.add_confusion(200, matrix)
    events = tensorboard(tmp_path / "validation")
    assert events.Images(events.Tags()["images"][0])[0].step == 200
    pixels = pixels_of(events)
    assert pixels.shape == (498, 498)  # three cells of 166
    expected = np.array([[51, 204, 255], [255, 255, 255], [255, 252, 3]])
    np.testing.assert_array_equal(pixels, np.kron(expected, np.ones((166, 166))))


@pytest.mark.parametrize("classes", [2, 500, 1200])
def test_the_picture_of_any_number_of_labels_has_a_dark_diagonal(
    tmp_path: Path, classes: int
) -> None:
    with Summaries(tmp_path) as summaries:
        summaries.add_confusion(1, np.eye(classes, dtype=np.int64) * 3)
    pixels = pixels_of(tensorboard(tmp_path / "validation"))
    assert pixels.shape[0] == pixels.shape[1] >= min(500, classes)
    cell = len(pixels) // classes
    corners = pixels[::cell, ::cell]
    assert (np.diag(corners) == 0).all()
    assert (corners[~np.eye(classes, dtype=bool)] == 255).all()


def test_of_thousands_of_labels_the_picture_has_those_that_are_mistaken_most(
    tmp_path: Path,
) -> None:
    matrix = np.eye(1600, dtype=np.int64) * 3
    mistaken = np.arange(0, 1600, 2)[:500]
    matrix[mistaken, np.roll(mistaken, 1)] = 1
    with Summaries(tmp_path / "some") as summaries:
        summaries.add_confusion(1, matrix)
    events = tensorboard(tmp_path / "some" / "validation")
    assert events.Tags()["images"] == ["confusion_matrix_of_the_test_500_of_1600_labels"]
    pixels = pixels_of(events)
    assert pixels.shape == (500, 500)
    assert (np.diag(pixels) == 255 - round(255 * 3 / 4)).all()
    assert (np.diag(pixels, -1) == 255 - round(255 / 4)).all()
    with Summaries(tmp_path / "right") as summaries:
        summaries.add_confusion(1, np.eye(1600, dtype=np.int64))
    assert pixels_of(tensorboard(tmp_path / "right" / "validation")).shape == (500, 500)


def test_tensorboard_reads_a_training_run(tmp_path: Path) -> None:
    summaries = tmp_path / "summaries"
    (summaries / "validation").mkdir(parents=True)
    (summaries / "validation" / "mine.txt").write_text("mine")
    trained = train_colours(
        tmp_path, summaries_dir=str(summaries), how_many_training_steps=30, eval_step_interval=10
    )
    train, validation = (tensorboard(summaries / name) for name in ("train", "validation"))
    for tag in TAGS:
        expected: list[tuple[int, Any]] = [
            (e.step, pytest.approx(getattr(e.train, tag), rel=1e-6)) for e in trained.evaluations
        ]
        assert scalars(train, tag) == expected
        assert [step for step, _ in scalars(validation, tag)] == [10, 20, 30]
    histograms = train.Histograms("weights")
    assert [event.step for event in histograms] == [10, 20, 30]
    assert {event.histogram_value.num for event in histograms} == {2048 * 3}
    assert histograms[0].histogram_value.max < histograms[2].histogram_value.max  # they grow
    pixels = pixels_of(validation)
    assert (np.diag(pixels) == 0).all()  # all are right
    assert (summaries / "validation" / "mine.txt").read_text() == "mine"


def test_without_a_test_there_is_no_confusion_matrix(tmp_path: Path) -> None:
    summaries = tmp_path / "summaries"
    train_colours(
        tmp_path, summaries_dir=str(summaries), how_many_training_steps=5, testing_percentage=0
    )
    assert tensorboard(summaries / "validation").Tags()["images"] == []
