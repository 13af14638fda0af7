"""retrain.report.events: records that TensorFlow and TensorBoard read."""

import errno
import io
import time
from pathlib import Path
from typing import Any

import pytest

from bottlenecks.errors import OutputError
from bottlenecks.network.messages import message
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.evaluate import Score
from retrain.report import events
from retrain.report.events import EventFile
from retrain.report.summaries import Summaries


def summary_of(tag: str, value: float) -> Any:
    summary = message("Summary", "summary")()
    summary.value.add(tag=tag, simple_value=value)
    return summary


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_tensorflow_reads_back_what_was_written(tmp_path: Path) -> None:
    """It checks the checksum of each record."""
    values = {step: summary_of("ż" * 3**step, step / 2) for step in range(8)}
    file = EventFile(tmp_path / "new" / "folder", "run")
    for step, summary in values.items():
        file.add(step, summary)
    file.close()
    path = only_file(tmp_path / "new" / "folder")
    first, *rest = import_tensorflow().compat.v1.train.summary_iterator(str(path))
    assert first.file_version == "brain.Event:2"
    assert first.wall_time > 1e9
    assert {event.step: event.summary.SerializeToString() for event in rest} == {
        step: summary.SerializeToString() for step, summary in values.items()
    }


def test_the_name_is_as_tensorflow_names_event_files(tmp_path: Path) -> None:
    EventFile(tmp_path, "suffix").close()
    tf = import_tensorflow()
    with tf.Graph().as_default():
        tf.compat.v1.summary.FileWriter(str(tmp_path / "tf"), filename_suffix=".suffix").close()
    own = next(path for path in tmp_path.iterdir() if path.is_file()).name.split(".")
    theirs = only_file(tmp_path / "tf").name.split(".")
    assert own[:3] + own[4:] == theirs[:3] + theirs[4:]  # but for the second
    assert len(own[3]) == len(theirs[3]) == 10


def test_an_event_can_be_read_while_the_file_is_open(tmp_path: Path) -> None:
    file = EventFile(tmp_path, "run")
    file.add(3, summary_of("a", 1.0))
    found = import_tensorflow().compat.v1.train.summary_iterator(str(only_file(tmp_path)))
    assert [event.step for event in found] == [0, 3]
    file.close()


def test_a_file_that_is_there_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.5e9)
    EventFile(tmp_path, "run").close()
    before = only_file(tmp_path).read_bytes()
    with pytest.raises(FileExistsError):
        EventFile(tmp_path, "run")
    assert only_file(tmp_path).read_bytes() == before


def test_a_write_of_a_part_goes_on_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:7])

    monkeypatch.setattr(events, "open", lambda path, *_, **__: Slow(path, "x"), raising=False)
    file = EventFile(tmp_path, "run")
    file.add(5, summary_of("a", 1.0))
    file.close()
    found = import_tensorflow().compat.v1.train.summary_iterator(str(only_file(tmp_path)))
    assert [event.step for event in found] == [0, 5]


def test_a_disk_that_is_full_later_stops_no_training_and_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summaries = Summaries(tmp_path)
    summaries.add("train", 1, Score(0.5, 1.0, 2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "add", full)
        summaries.add("train", 2, Score(0.5, 1.0, 2))
    summaries.add("train", 3, Score(0.5, 1.0, 2))
    with pytest.raises(OutputError, match=r"No space left.*end there, all else is done"):
        summaries.close()
    found = import_tensorflow().compat.v1.train.summary_iterator(str(only_file(tmp_path / "train")))
    assert [event.step for event in found] == [0, 1, 1]
