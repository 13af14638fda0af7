"""A killed fine-tuning goes on where it was, or begins again; never from anything else."""

import contextlib
import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bottlenecks import atomic
from bottlenecks.store import lock
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import Subset
from retrain.training import checkpoint
from retrain.training.checkpoint import Checkpoint, read, write
from retrain.training.fine_tuning import FineTuning
from retrain.training.fitting import Judges, Loop
from retrain.training.head import Head, Standardisation
from retrain.training.upper import Variables
from tests.retrain.training.test_fine_tuning import CLASSES, distance, recipe, rows_and_labels
from tests.tiny import Tiny

FROZEN, SPEC = Tiny().frozen, Tiny("mixed7").spec
IDENTITY, OTHER = "a" * 64, "b" * 64
STEPS, EVERY = 12, 3


@pytest.fixture(autouse=True)
def always_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


@dataclass
class Run:
    """A fine-tuning of 12 steps, its loop and its checkpoint."""

    tuning: FineTuning
    loop: Loop
    checkpoint: Checkpoint
    variables: Variables


def a_run(folder: Path, identity: str = IDENTITY) -> Run:
    x, y = rows_and_labels(48)
    head = Head(np.zeros((2048, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    standardisation = Standardisation(np.full(2048, 0.5), np.full(2048, 1.0))
    variables = Variables(FROZEN, "mixed7", head, standardisation)
    tuning = FineTuning(variables, InMemory(x, spec=SPEC), y, CLASSES, recipe(epochs=4))
    x, y = rows_and_labels(30, seed=1)
    judges = Judges(Subset([], InMemory(x, spec=SPEC), y), np.ones(30), np.arange(30))
    loop = Loop(tuning, judges, steps=STEPS, every=EVERY)
    return Run(tuning, loop, Checkpoint(folder, identity, tuning, variables), variables)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those of the program, not TensorFlow's."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("retrain.")]


class Killed(BaseException):
    """What ends a run in the middle."""


def run_until(run: Run, step: int, save: bool = True) -> Run:
    """Take steps up to ``step`` of all, with a checkpoint after each."""

    def after(taken: int) -> None:
        if save:
            run.checkpoint.save_sometimes(run.loop)
        if taken == step:
            raise Killed

    run.loop.on_step = after
    with contextlib.suppress(Killed):
        run.loop.run()
    run.tuning.close()
    return run


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != lock.NAME)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "one": random.normal(size=(3, 4)).astype(np.float32),
        "two": np.array(7, np.int64),
        "none": np.empty(0),
    }
    state = {"step": 3, "evaluations": [{"train": 0.1}, None]}
    write(tmp_path / "checkpoint", arrays, state)
    found = read(tmp_path / "checkpoint")
    assert found is not None
    assert found[1] == state
    assert sorted(found[0]) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[0][name], array)
        assert found[0][name].dtype == array.dtype
    assert files(tmp_path) == ["checkpoint"]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the last byte is gone": lambda data: data[:-1],
    "half of it is gone": lambda data: data[: len(data) // 2],
    "cut off within the digest": lambda data: data[:40],
    "nothing behind the digest": lambda data: data[:86],
    "a bit of the digest": lambda data: flip(data, 30),
    "a bit of the arrays": lambda data: flip(data, len(data) // 2),
    "a byte too many": lambda data: data + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_begins_again_with_one_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run_until(a_run(tmp_path), 5).checkpoint.path
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again = a_run(tmp_path)
    before = again.tuning.model()
    assert again.checkpoint.resume(again.loop) == 0
    assert (again.loop.step, again.loop.evaluations, again.loop.best) == (0, [], None)
    assert distance(before, again.tuning.model()) == 0
    assert warnings(caplog) == [f"the checkpoint {path} is damaged; beginning again"]
    run_until(again, STEPS, save=False)
    whole = run_until(a_run(tmp_path / "none"), STEPS, save=False)
    assert distance(whole.tuning.model(), again.tuning.model()) < 1e-5


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04", b"nothing", b"\x80\x04N."])
def test_a_digest_does_not_make_it_one(
    body: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hashlib.sha256(body).hexdigest().encode()
    (tmp_path / "checkpoint").write_bytes(b"retrain-checkpoint-1\n" + digest + b"\n" + body)
    assert read(tmp_path / "checkpoint") is None
    (warning,) = warnings(caplog)
    assert "is damaged; beginning again" in warning


def test_a_state_that_is_no_object_is_none(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint", {"one": np.zeros(3)}, [1, 2])  # type: ignore[arg-type]
    assert read(tmp_path / "checkpoint") is None


@pytest.mark.parametrize("data", [b"", b"retrain-checkpoint-0\n" + b"0" * 500, b"PK\x03\x04"])
def test_what_another_program_wrote_is_passed_over(
    data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again = a_run(tmp_path)
    again.checkpoint.path.write_bytes(data)
    assert again.checkpoint.resume(again.loop) == 0
    assert not warnings(caplog)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = run_until(a_run(tmp_path), 5).checkpoint.path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    again = a_run(tmp_path)
    assert again.checkpoint.resume(again.loop) == 0


def test_one_of_another_identity_is_not_resumed(tmp_path: Path) -> None:
    first = run_until(a_run(tmp_path), 5)
    other = a_run(tmp_path, OTHER)
    assert other.checkpoint.resume(other.loop) == 0
    first.checkpoint.path.rename(other.checkpoint.path)  # though it has its name
    assert other.checkpoint.resume(other.loop) == 0


def test_one_whose_arrays_do_not_fit_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run_until(a_run(tmp_path), 5).checkpoint.path
    found = read(path)
    assert found is not None
    arrays, state = found
    first = next(iter(arrays))
    for broken in (
        {name: array for name, array in arrays.items() if name != first},
        {**arrays, first: np.zeros((2, 2), np.float32)},
    ):
        write(path, broken, state)
        again = a_run(tmp_path)
        before = again.tuning.model()
        assert again.checkpoint.resume(again.loop) == 0
        assert again.loop.step == 0
        assert distance(before, again.tuning.model()) == 0
    for broken_state in ({**state, "step": -1}, {**state, "step": STEPS}, {"identity": IDENTITY}):
        write(path, arrays, broken_state)
        again = a_run(tmp_path)
        assert again.checkpoint.resume(again.loop) == 0
    assert all("does not fit" in warning for warning in warnings(caplog))
    assert len(warnings(caplog)) == 5


@pytest.mark.parametrize("step", [1, 3, 8, 11])
def test_a_killed_run_goes_on_with_all_that_it_knew(step: int, tmp_path: Path) -> None:
    whole = run_until(a_run(tmp_path / "none"), STEPS, save=False)
    killed = run_until(a_run(tmp_path), step)
    again = a_run(tmp_path)
    assert again.checkpoint.resume(again.loop) == step
    assert again.loop.evaluations == killed.loop.evaluations
    if killed.loop.best is None:
        assert again.loop.best is None
    else:
        assert again.loop.best is not None
        assert again.loop.best.step == killed.loop.best.step
        np.testing.assert_array_equal(again.loop.best.losses, killed.loop.best.losses)
        kept, kept_before = again.loop.best.model, killed.loop.best.model
        assert distance(kept_before, kept) == 0  # type: ignore[arg-type]
    run_until(again, STEPS, save=False)
    assert distance(whole.tuning.model(), again.tuning.model()) < 1e-5
    assert [e.step for e in again.loop.evaluations] == [3, 6, 9, 12]
    for one, other in zip(whole.loop.evaluations, again.loop.evaluations, strict=True):
        assert one.validation is not None
        assert other.validation is not None
        assert other.validation.cross_entropy == pytest.approx(
            one.validation.cross_entropy, rel=1e-4
        )
    assert again.loop.kept().step == whole.loop.kept().step


def test_evaluations_without_a_validation_set_come_back(tmp_path: Path) -> None:
    def without_judges() -> Run:
        run = a_run(tmp_path)
        nobody = Subset([], InMemory(rows_and_labels(3)[0][:0], spec=SPEC), np.empty(0, np.int64))
        run.loop = replace(run.loop, judges=Judges(nobody, np.empty(0), np.empty(0)))
        return run

    killed = run_until(without_judges(), 4)
    again = without_judges()
    assert again.checkpoint.resume(again.loop) == 4
    assert again.loop.evaluations == killed.loop.evaluations
    run_until(again, STEPS)
    assert again.loop.kept().step == STEPS


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_it_cannot_be_written_there_is_only_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextlib.contextmanager
    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(code, "cannot")
        yield

    for module, name in ((atomic, "replacing"), (lock, "exclusive")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing)
            caplog.clear()
            run = a_run(tmp_path)
            run_until(run, 2)
            assert run.loop.step == 2
            assert "cannot write the checkpoint" in warnings(caplog)[0]
            assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["a file", "a lock that is a folder"])
def test_a_place_that_cannot_be_a_cache_is_only_a_warning(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "a lock that is a folder" / lock.NAME).mkdir(parents=True)
    run = run_until(a_run(tmp_path / name), 1)
    assert run.loop.step == 1
    assert len(warnings(caplog)) == 1


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    run = run_until(a_run(tmp_path / "gone"), 1)
    assert files(tmp_path / "gone") == [run.checkpoint.path.name]


def test_it_is_not_saved_before_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 1000.0)
    run_until(a_run(tmp_path), 5)
    assert files(tmp_path) == []


def test_it_is_not_saved_at_the_last_step(tmp_path: Path) -> None:
    run = run_until(a_run(tmp_path), STEPS, save=False)
    run.checkpoint.save_sometimes(run.loop)
    assert files(tmp_path) == []


def test_it_is_not_saved_where_another_run_writes(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path) as held:
        assert held
        run_until(a_run(tmp_path), 2)
        assert files(tmp_path) == []


@pytest.mark.parametrize("task", [0, 1])
def test_of_several_workers_the_first_saves_and_removes(task: int, tmp_path: Path) -> None:
    run = run_until(a_run(tmp_path), 2, save=False)
    resolver = SimpleNamespace(task_type="worker", task_id=task)
    run.variables.strategy = SimpleNamespace(cluster_resolver=resolver)
    run.checkpoint.save_sometimes(run.loop)
    assert files(tmp_path) == [run.checkpoint.path.name][task:]
    run.checkpoint.path.touch()
    run.checkpoint.remove()
    assert files(tmp_path) == [run.checkpoint.path.name][:task]


def test_in_the_end_it_is_removed(tmp_path: Path) -> None:
    run = run_until(a_run(tmp_path), 5)
    assert files(tmp_path) == [run.checkpoint.path.name]
    run.checkpoint.remove()
    run.checkpoint.remove()  # though it is gone
    assert files(tmp_path) == []
