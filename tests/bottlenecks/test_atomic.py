"""A file is seen whole or as it was before, and nothing is left beside it."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bottlenecks import atomic
from tests.conftest import ROOT

Failing = Callable[..., Any]


def failing(error: BaseException) -> Failing:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_new_content_and_nothing_beside_it(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names_in(tmp_path) == ["a"]


def test_replaces_old_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old content")
    atomic.write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_old_content_is_seen_until_the_new_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    seen = {}

    def replace(partial: Path, path: Path) -> None:
        seen["before"] = path.read_bytes()
        seen["partial"] = Path(partial).read_bytes()
        rename(partial, path)

    rename = os.replace
    monkeypatch.setattr(os, "replace", replace)
    atomic.write_bytes(tmp_path / "a", b"new")
    assert seen == {"before": b"old", "partial": b"new"}


def test_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        calls.append("replace")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_rename)
    atomic.write_bytes(tmp_path / "a", b"new")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder


class _FullDisk(io.FileIO):
    """A file that takes half of what is written to it."""

    def write(self, data: Any) -> int:
        super().write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")


ERRORS = [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(1)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failure_keeps_the_old_content_and_leaves_no_partial(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    call: str,
    old: bytes | None,
) -> None:
    path = tmp_path / "a"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, call, failing(error))
    with pytest.raises(type(error)):
        atomic.write_bytes(path, b"new")
    assert names_in(tmp_path) == ([] if old is None else ["a"])
    assert old is None or path.read_bytes() == old


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic, "open", _FullDisk, raising=False)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new content")
    assert names_in(tmp_path) == ["a"]
    assert path.read_bytes() == b"old"


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "open", failing(PermissionError(13, "denied")), raising=False)
    with pytest.raises(PermissionError):
        atomic.write_bytes(tmp_path / "a", b"new")
    assert names_in(tmp_path) == []


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / "missing" / "a", b"new")
    assert names_in(tmp_path) == []


def test_text_is_utf8_and_names_keep_their_bytes(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a", "rosé\n" + os.fsdecode(b"\xff"))
    assert (tmp_path / "a").read_bytes() == "rosé\n".encode() + b"\xff"


def test_remove_partials_removes_nothing_else(tmp_path: Path) -> None:
    foreign = {".a.h5.0123.partial", ".x.partial", ".partial", "kept.partial", ".lock", "a.h5"}
    ours = f".a.h5.{'0f' * 16}.partial"
    for name in (*foreign, ours):
        (tmp_path / name).touch()
    folder = tmp_path / f".b.h5.{'0f' * 16}.partial"
    folder.mkdir()
    atomic.remove_partials(tmp_path)
    assert set(names_in(tmp_path)) == foreign | {folder.name}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode
    (tmp_path / "link").symlink_to(path)
    atomic.write_bytes(tmp_path / "link", b"newer")
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == mode


def test_a_link_is_replaced_itself_where_it_is_not_to_be_followed(tmp_path: Path) -> None:
    (tmp_path / "yours").write_bytes(b"yours")
    (tmp_path / "link").symlink_to("yours")
    atomic.write_bytes(tmp_path / "link", b"ours", follow=False)
    assert (tmp_path / "yours").read_bytes() == b"yours"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"ours"


def test_remove_partials_matches_what_write_bytes_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as if killed before it
    monkeypatch.setattr(os, "replace", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "a", b"new")
    (partial,) = names_in(tmp_path)
    assert partial.startswith(".a.")
    monkeypatch.undo()
    atomic.remove_partials(tmp_path)
    assert names_in(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_when_the_file_is_written_again(
    tmp_path: Path,
) -> None:
    source = (
        "import os, signal\n"
        "from bottlenecks import atomic\n"
        "with atomic.replacing('out.h5') as partial:\n"
        "    partial.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run(
        [sys.executable, "-c", source],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert len(atomic.partials(tmp_path)) == 1
    atomic.write_bytes(tmp_path / "other.h5", b"whole")  # is another file's business
    assert len(atomic.partials(tmp_path)) == 1
    atomic.write_bytes(tmp_path / "out.h5", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.h5", "out.h5"]


def test_what_a_living_writer_has_begun_stays(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "out") as first:
        first.write_bytes(b"one")
        with atomic.replacing(tmp_path / "out") as second:
            second.write_bytes(b"two")
        assert first.exists()
    assert (tmp_path / "out").read_bytes() == b"one"


def aged(path: Path, seconds: float) -> Path:
    path.write_bytes(b"half")
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(("age", "stays"), [(3600.0, True), (25 * 3600.0, False)])
def test_what_another_machine_has_begun_stays_for_a_day(
    tmp_path: Path, age: float, stays: bool
) -> None:
    with atomic.replacing(tmp_path / "other") as own:
        tag = own.name.split(".")[-2]
        own.touch()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    another = f"{int(tag[8:16], 16) ^ 1:08x}"
    theirs = tmp_path / f".out.{dead.pid:08x}{another}{tag[16:]}.partial"
    aged(theirs, age)
    atomic.write_bytes(tmp_path / "out", b"whole")
    assert theirs.exists() == stays


def test_what_was_left_of_another_file_is_removed_after_a_day(tmp_path: Path) -> None:
    """A graph may never be written again under the name that a killed run was to give it."""
    old = aged(tmp_path / f".graph.pb.{'0f' * 16}.partial", 25 * 3600.0)
    young = aged(tmp_path / f".labels.txt.{'0f' * 16}.partial", 23 * 3600.0)
    foreign = [aged(tmp_path / name, 1e7) for name in (".a.0f.partial", "graph.pb.partial")]
    atomic.write_bytes(tmp_path / "out", b"whole")
    assert not old.exists()
    assert young.exists() and all(path.exists() for path in foreign)


def test_of_two_files_that_are_written_together_the_one_that_failed_is_named(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(OSError) as caught,
        atomic.replacing(tmp_path / "labels") as labels,
        atomic.replacing(tmp_path / "missing" / "graph") as graph,
    ):
        labels.write_bytes(b"labels")
        graph.write_bytes(b"graph")
    assert caught.value.filename == str(tmp_path / "missing" / "graph")
    assert list(tmp_path.iterdir()) == []
