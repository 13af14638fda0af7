"""One writer at a time, and a dead one holds nothing."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bottlenecks.store import lock
from tests.conftest import ROOT

fcntl = pytest.importorskip("fcntl")

HOLDER = """
import sys
from pathlib import Path
from bottlenecks.store import lock
with lock.exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Within it a process has the lock; it lets go when its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def is_locked(folder: Path) -> bool:
    descriptor = os.open(folder / lock.NAME, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_the_lock_is_held_within_and_only_there(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path):
        assert is_locked(tmp_path)
        assert (tmp_path / lock.NAME).read_text() == f"{os.getpid()}\n"
    assert not is_locked(tmp_path)


def test_an_error_frees_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock.exclusive(tmp_path):
        raise KeyboardInterrupt
    assert not is_locked(tmp_path)


def test_a_second_process_waits_with_one_notice_and_then_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noticed, entered, leave = threading.Event(), threading.Event(), threading.Event()

    class Notice(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            noticed.set()

    def wait_for_the_lock() -> None:
        with lock.exclusive(tmp_path):
            entered.set()
            leave.wait(10)

    lock.log.addHandler(handler := Notice())
    try:
        with another_process_holds(tmp_path) as holder:
            thread = threading.Thread(target=wait_for_the_lock)
            thread.start()
            assert noticed.wait(10)
            assert not entered.wait(0.2)
            assert holder.stdin is not None
            holder.stdin.close()
            assert entered.wait(10)
            owner = (tmp_path / lock.NAME).read_text()
            leave.set()
            thread.join()
    finally:
        lock.log.removeHandler(handler)
    assert owner == f"{os.getpid()}\n"
    (notice,) = (record.getMessage() for record in caplog.records)
    for mention in (str(holder.pid), str(tmp_path), "waiting"):
        assert mention in notice


def test_a_killed_holder_frees_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with another_process_holds(tmp_path) as holder:
        assert is_locked(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock.exclusive(tmp_path):
            assert is_locked(tmp_path)
    assert caplog.records == []


def test_a_shorter_process_number_leaves_no_digits_of_a_longer(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text("123456789012345\n")
    with lock.exclusive(tmp_path):
        assert (tmp_path / lock.NAME).read_text() == f"{os.getpid()}\n"


def test_a_file_system_without_locks_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock.exclusive(tmp_path):
        pass
    assert [str(tmp_path) in record.getMessage() for record in caplog.records] == [True]


def test_another_error_of_locking_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), lock.exclusive(tmp_path):
        raise AssertionError("went on without the lock")


def test_without_fcntl_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with lock.exclusive(tmp_path):
        assert os.listdir(tmp_path) == []
