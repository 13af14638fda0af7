"""Strangers' files in the place of a checkpoint: none is waited for, followed or believed."""

import hashlib
import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.errors import CacheError
from bottlenecks.store.cache import Cache
from retrain.config import Config
from retrain.plan import plan
from retrain.trainer import train
from retrain.training import checkpoint
from tests.tiny import Tiny

NAME = f"{'0' * 64}.checkpoint"
ARRAYS = {"0000": np.arange(6, dtype=np.float32).reshape(2, 3)}
STATE = {"identity": "0" * 64, "step": 7, "evaluations": []}


def written(path: Path) -> bytes:
    checkpoint.write(path, ARRAYS, STATE)
    return path.read_bytes()


def config_for(folder: Path) -> Config:
    """A run that fine-tunes for a few steps; all output to ``folder``."""
    return Config(
        image_dir=str(folder / "Dataset"),
        bottleneck_dir=str(folder / "cache"),
        model_dir=str(folder / "models"),
        output_graph=str(folder / "graph.pb"),
        output_labels=str(folder / "labels.txt"),
        how_many_training_steps=10,
        fine_tune_from="mixed7",
        fine_tune_epochs=2,
        fine_tune_batch_size=5,
    )


def at_cut(folder: Path) -> Cache:
    return Cache(folder / "cache", Tiny("mixed7").fingerprint, Tiny("mixed7").spec)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_folder(path: Path) -> None:
    path.mkdir()


def as_socket(path: Path) -> None:
    there, path_ = Path.cwd(), path
    os.chdir(path_.parent)  # a socket's path has 107 letters at most
    try:
        with socket.socket(socket.AF_UNIX) as own:
            own.bind(path_.name)
    finally:
        os.chdir(there)


def as_link_to_a_sound_one(path: Path) -> None:
    written(path.with_name("yours"))
    path.symlink_to(path.with_name("yours"))


def as_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def as_link_to_endless_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_huge_file(path: Path) -> None:
    """100 GB that begin as a checkpoint does, and take no room."""
    written(path)
    os.truncate(path, 100 * 10**9)


def as_empty_file(path: Path) -> None:
    path.touch()


def as_text(path: Path) -> None:
    path.write_text("my notes")


FOREIGN = [
    *(as_pipe, as_folder, as_socket, as_link_to_a_sound_one, as_link_to_nothing),
    *(as_link_to_endless_zeros, as_huge_file, as_empty_file, as_text),
]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(tmp_path / NAME)
    found = checkpoint.read(tmp_path / NAME)
    assert found is not None
    np.testing.assert_array_equal(found[0]["0000"], ARRAYS["0000"])
    assert (list(found[0]), found[1]) == (["0000"], STATE)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_is_no_checkpoint_is_none(foreign: Callable[[Path], None], tmp_path: Path) -> None:
    foreign(tmp_path / NAME)
    before = os.lstat(tmp_path / NAME)
    assert checkpoint.read(tmp_path / NAME) is None
    assert os.path.samestat(os.lstat(tmp_path / NAME), before)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_checkpoint_replaces_what_is_there_and_nothing_that_it_leads_to(
    foreign: Callable[[Path], None], tmp_path: Path
) -> None:
    foreign(tmp_path / NAME)
    yours = tmp_path / "yours"
    before = yours.read_bytes() if yours.exists() else None
    if foreign is as_folder:
        with pytest.raises(OSError, match=NAME):
            written(tmp_path / NAME)
    else:
        written(tmp_path / NAME)
        assert checkpoint.read(tmp_path / NAME) is not None
        assert not (tmp_path / NAME).is_symlink()
    assert (yours.read_bytes() if yours.exists() else None) == before
    assert not (tmp_path / "nothing").exists()
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


class Told:
    """What unpickling would make: it tells that it was."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def body(savez: Callable[..., None] = np.savez, state: object = STATE, **arrays: object) -> bytes:
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    savez(file, **{"state": text, **arrays})
    return file.getvalue()


BODIES: dict[str, Callable[[], bytes]] = {
    "compressed": lambda: body(np.savez_compressed, zeros=np.zeros(10**6)),
    "pickled": lambda: body(told=np.array([Told()])),
    "a list for a state": lambda: body(state=[7]),
    "a text that is no JSON": lambda: body(state=None).replace(b"null", b"nope"),
    "no state": lambda: body().replace(b"state.npy", b"stole.npy"),
    "no archive": lambda: b"no archive",
    "nothing": bytes,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_sound_hash_does_not_make_a_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can make the hash of anything."""
    monkeypatch.chdir(tmp_path)
    content = BODIES[name]()
    magic = written(tmp_path / NAME).splitlines(keepends=True)[0]
    digest = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / NAME).write_bytes(magic + digest + b"\n" + content)
    assert checkpoint.read(tmp_path / NAME) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is damaged; beginning again" in caplog.text
    assert not (tmp_path / "unpickled").exists()


def test_the_same_way_of_making_a_body_makes_one_that_is_read(tmp_path: Path) -> None:
    """Else the test above would pass for any reason."""
    content = body(own=np.zeros(3))
    magic = written(tmp_path / NAME).splitlines(keepends=True)[0]
    digest = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / NAME).write_bytes(magic + digest + b"\n" + content)
    found = checkpoint.read(tmp_path / NAME)
    assert found is not None
    assert found[1] == STATE


@pytest.fixture
def interrupted(small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was interrupted after its first step."""
    write = checkpoint.write

    def write_once(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SECONDS", 0.0)
        patch.setattr(checkpoint, "write", write_once)
        with pytest.raises(KeyboardInterrupt):
            train(config_for(tmp_path), extractor=Tiny())
    (path,) = at_cut(tmp_path).folder.glob("*.checkpoint")
    return path


@pytest.mark.parametrize(
    "foreign", [None, as_pipe, as_folder, as_link_to_a_sound_one, as_huge_file]
)
def test_a_run_begins_anew_beside_what_is_no_checkpoint(
    foreign: Callable[[Path], None] | None, interrupted: Path, tmp_path: Path
) -> None:
    """With the checkpoint as it was (None) it goes on."""
    if foreign is not None:
        interrupted.unlink()
        foreign(interrupted)
    result = train(config_for(tmp_path), extractor=Tiny())
    assert result.fine_tuned is not None
    assert result.fine_tuned.resumed_at == (1 if foreign is None else 0)
    assert (tmp_path / "graph.pb").exists()
    assert os.path.lexists(interrupted) == (foreign is as_folder)  # the rest went at the end
    if foreign is as_link_to_a_sound_one:
        assert checkpoint.read(interrupted.with_name("yours")) is not None


def test_a_linked_folder_of_a_cut_is_refused_before_a_row_of_it_is_computed(
    small_dataset: Path, tmp_path: Path
) -> None:
    """By a dry run too; what the link leads to is left as it is."""
    yours = tmp_path / "yours"
    yours.mkdir()
    folder = at_cut(tmp_path).folder
    folder.parent.mkdir()
    folder.symlink_to(yours)
    for look in (plan, lambda config, extractor: train(config, extractor=extractor)):
        extractor = Tiny()
        with pytest.raises(CacheError, match="is a link, which is not followed"):
            look(config_for(tmp_path), extractor)
        assert extractor.at("mixed7").rows == 0
    assert list(yours.iterdir()) == []
    assert not (tmp_path / "graph.pb").exists()
