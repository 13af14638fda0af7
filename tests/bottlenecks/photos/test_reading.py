"""Files are read whole, in order, and never so many that memory runs out."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bottlenecks.errors import BadImageError
from bottlenecks.photos import reading
from bottlenecks.photos.images import Signature, signature_of
from bottlenecks.photos.reading import file_bytes
from bottlenecks.pools import in_order, pool_of


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def read_file(path: Path) -> tuple[bytes, Signature]:
    with file_bytes(path) as read:
        return read


def test_one_large_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread gets its large file when the first has done with it; small ones go on."""
    monkeypatch.setattr(reading, "LARGE_FILE_BYTES", 3)
    (tmp_path / "large").write_bytes(b"1234")
    (tmp_path / "small").write_bytes(b"123")
    with ThreadPoolExecutor(2) as pool:
        with file_bytes(tmp_path / "large"):
            large = pool.submit(read_file, tmp_path / "large")
            small = pool.submit(read_file, tmp_path / "small")
            assert small.result(10)[0] == b"123"
            assert not large.done()
        assert large.result(10)[0] == b"1234"


def test_an_error_of_the_reader_is_not_one_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(OSError, match="elsewhere"), file_bytes(tmp_path / "a"):
        raise OSError("elsewhere")


def test_bytes_and_signature(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\0content\r\n")
    assert read_file(path) == (b"\0content\r\n", signature_of(path.stat()))


def test_the_limit_itself_is_read_and_one_byte_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 3)
    path = tmp_path / "a"
    path.write_bytes(b"123")
    assert read_file(path)[0] == b"123"
    path.write_bytes(b"1234")
    with pytest.raises(BadImageError, match="MB"):
        read_file(path)


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImageError, match="MB"):
        read_file(tmp_path / "sparse")


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody ever writes to it
    with pytest.raises(BadImageError, match="regular"):
        read_file(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file"), ("folder", r"regular|directory")]
)
def test_what_cannot_be_read_gives_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadImageError, match=reason):
        read_file(tmp_path / name)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as root, who reads all
    with pytest.raises(BadImageError, match="Permission denied"):
        read_file(tmp_path / "a")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_read_file_closes_what_it_opens(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_file(tmp_path / "a")
        for bad in ("pipe", "missing"):
            with pytest.raises(BadImageError):
                read_file(tmp_path / bad)
    assert len(os.listdir("/proc/self/fd")) == before


def test_order_is_kept_when_later_items_are_done_first(pool: ThreadPoolExecutor) -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(10)
        if item == 1:
            second_is_done.set()
        return item * item

    assert list(in_order(pool, work, range(6), ahead=4)) == [(i, i * i) for i in range(6)]


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_at_most_ahead_are_taken_before_they_are_used(pool: ThreadPoolExecutor, ahead: int) -> None:
    taken = used = 0
    most = 0

    def items() -> Iterator[int]:
        nonlocal taken, most
        for i in range(20):
            taken += 1
            most = max(most, taken - used)
            yield i

    for _ in in_order(pool, str, items(), ahead):
        used += 1
    assert (taken, used, most) == (20, 20, min(ahead, 20))


def test_when_the_caller_stops_the_rest_is_dropped(pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    started = []

    def work(item: int) -> int:
        started.append(item)
        if item > 0:
            assert gate.wait(10)
        return item

    results = in_order(pool, work, iter(range(1000)), ahead=50)
    assert next(results) == (0, 0)
    results.close()
    gate.set()
    pool.shutdown()
    assert len(started) <= 3  # the first, and one in each thread


def test_an_error_of_the_function_reaches_the_caller(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(pool, lambda i: 1 // i, [1, 0, 1], ahead=2))


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_second_ctrl_c_at_any_line_does_not_wait_for_a_stuck_thread(nth: int) -> None:
    """The first one is on its way out of `pool_of` when the second comes, at its ``nth`` line."""
    end, seen = threading.Event(), 0

    def interrupt(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal seen
        if frame.f_code.co_filename == reading.__file__ and frame.f_code.co_name == "pool_of":
            if event == "line":
                seen += 1
                if seen == nth:
                    raise KeyboardInterrupt
            return interrupt
        return None

    def use() -> None:
        with pytest.raises(KeyboardInterrupt), pool_of(1, "stuck") as pool:
            pool.submit(end.wait)
            sys.settrace(interrupt)
            raise KeyboardInterrupt

    rescue = threading.Timer(5, end.set)  # where it does wait
    rescue.start()
    try:
        use()
        assert not end.is_set()
    finally:
        sys.settrace(None)
        end.set()
        rescue.cancel()
