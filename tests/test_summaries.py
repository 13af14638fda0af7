"""retrain.summaries: TensorBoard reads back what the evaluations were."""

from pathlib import Path

import pytest

from bottlenecks.quiet_tensorflow import import_tensorflow
from retrain.evaluate import Score
from retrain.summaries import Summaries
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
    ]


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
