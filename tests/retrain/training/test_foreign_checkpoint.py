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

from retrain.training import checkpoint

NAME = f"{'0' * 64}.checkpoint"
ARRAYS = {"0000": np.arange(6, dtype=np.float32).reshape(2, 3)}
STATE = {"identity": "0" * 64, "step": 7, "evaluations": []}


def written(path: Path) -> bytes:
    checkpoint.write(path, ARRAYS, STATE)
    return path.read_bytes()


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
