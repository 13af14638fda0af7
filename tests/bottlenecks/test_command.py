"""Flags come from a dataclass, errors are one line, exit codes mean something."""

import contextlib
import dataclasses
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import pytest

from bottlenecks import command
from bottlenecks.command import Parser, run
from bottlenecks.errors import RetrainError, UsageError, if_interrupted
from bottlenecks.settings import Settings, flag
from tests.conftest import ROOT


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    """What a command might want to know."""

    image_dir: str = flag(dataclasses.MISSING, "where the photos are")
    learning_rate: float = flag(0.01, "size of a step")
    how_many_training_steps: int = flag(4000, "how often")
    summaries_dir: str | None = flag(None, "where the summaries go")
    precision: str = flag("float32", "how exact", choices=("float32", "bfloat16"))
    strict: bool = flag(False, "stop early")


def parse(*arguments: str) -> Example:
    parser = Parser(prog="python -m program", description="A program.")
    parser.add_flags(Example)
    return Example(**parser.parse(arguments))


@pytest.fixture(autouse=True)
def _leave_logging_and_signals_alone() -> Iterator[None]:
    handlers, previous = logging.root.handlers[:], signal.getsignal(signal.SIGTERM)
    yield
    logging.root.handlers[:] = handlers
    assert signal.getsignal(signal.SIGTERM) is previous


def failing(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    "type_",
    [tuple[int, ...], tuple[int, int], list[str], dict[str, int], int | str, bool | None, Path],
    ids=str,
)
def test_a_setting_of_a_type_that_no_flag_has_is_a_type_error_that_names_it(type_: Any) -> None:
    field = ("sizes", type_, flag(None, "how large"))
    settings = dataclasses.make_dataclass("S", [field], bases=(Settings,), frozen=True)
    with pytest.raises(TypeError, match="setting sizes cannot be a flag: its type must be bool"):
        Parser(prog="program").add_flags(settings)


@pytest.mark.parametrize("type_", [int | None, Optional[int], int])  # noqa: UP045
def test_a_setting_that_may_be_none_takes_what_else_it_is(type_: Any) -> None:
    field = ("size", type_, flag(None, "how large"))
    settings = dataclasses.make_dataclass("S", [field], bases=(Settings,), frozen=True)
    parser = Parser(prog="program")
    parser.add_flags(settings)
    assert parser.parse(["--size", "3"])["size"] == 3
    assert parser.parse([])["size"] is None


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse("--image_dir", "a") == Example(image_dir="a")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--image_dir=a", "--learning_rate=0.5", "--how_many_training_steps=7", "--strict"],
        ["--image-dir=a", "--learning-rate=0.5", "--how-many-training-steps=7", "--strict"],
        ["--image-dir", "a", "--learning-rate", "0.5", "--how_many-training_steps", "7",
         "--strict"],
    ],
)  # fmt: skip
def test_spellings(arguments: list[str]) -> None:
    assert parse(*arguments) == Example(
        image_dir="a", learning_rate=0.5, how_many_training_steps=7, strict=True
    )


@pytest.mark.parametrize("value", ["a-b_c", "--a-b", "x=y-z", "-1", ""])
def test_a_value_is_taken_as_it_is(value: str) -> None:
    assert parse(f"--image-dir={value}").image_dir == value


def test_a_value_after_a_space_keeps_its_dashes() -> None:
    assert parse("--image-dir", "a-b/c-d").image_dir == "a-b/c-d"


def test_an_optional_value() -> None:
    assert parse("--image_dir=a", "--summaries-dir=b-c").summaries_dir == "b-c"


@dataclass(frozen=True, kw_only=True)
class Longer(Example):
    """An example with a flag more."""

    last: int = flag(0, "of its own")


def test_flags_of_a_base_come_first_and_those_that_are_there_stay() -> None:
    one, two = Parser(prog="program"), Parser(prog="program")
    one.add_flags(Longer)
    two.add_flags(Example)
    two.add_flags(Longer)
    for parser in (one, two):
        text = parser.format_help()
        assert text.index("--image_dir") < text.index("--strict") < text.index("--last")
        assert parser.parse(["--image_dir=a", "--last=3"])["last"] == 3


def test_two_dashes_end_the_flags() -> None:
    parser = Parser(prog="program")
    parser.add_flags(Example)
    parser.add_argument("photos", nargs="*")
    values = parser.parse(["--image-dir", "a", "--", "--my-photo.jpg", "b"])
    assert values["photos"] == ["--my-photo.jpg", "b"]


def test_arguments_of_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--image-dir", "a"])
    parser = Parser(prog="program")
    parser.add_flags(Example)
    assert parser.parse()["image_dir"] == "a"


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ([], ["--image_dir"]),
        (["--image_dir"], ["--image_dir"]),
        (["--image_dir=a", "--learning_rat=1"], ["--learning_rat", "did you mean --learning_rate"]),
        (["--image_dir=a", "--learning-rat", "1"], ["did you mean --learning_rate"]),
        (["--image_dir=a", "--xyzzy"], ["--xyzzy", "--help"]),
        (["--image_dir=a", "--strict=yes"], ["--strict"]),
        (["--image_dir=a", "photo.jpg"], ["photo.jpg"]),
        (["--image_dir=a", "--learning_rate=fast"], ["--learning_rate", "fast", "float"]),
        (["--image_dir=a", "--how_many_training_steps=1.5"], ["--how_many_training_steps", "1.5"]),
        (["--image_dir=a", "--precision=float16"], ["float16", "float32", "bfloat16"]),
        (["--image=a"], ["--image"]),  # no abbreviations: they change when a flag is added
    ],
)
def test_usage_errors(arguments: list[str], mentions: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    for mention in (*mentions, "python -m program --help"):
        assert mention in str(caught.value)


def test_help_names_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(Settings):
        assert f"--{field.name}" in text
        assert field.metadata["help"] in " ".join(text.split())
    for mention in ("default: 4000", "default: 0.01", "default: float32"):
        assert mention in text
    assert "None" not in text


def test_the_help_texts_of_the_dataclass_are_not_changed() -> None:
    before = [dict(field.metadata) for field in dataclasses.fields(Settings)]
    for _ in range(2):
        parse("--image_dir=a")
    assert [dict(field.metadata) for field in dataclasses.fields(Settings)] == before


def test_the_exit_code_is_that_of_main(capsys: pytest.CaptureFixture[str]) -> None:
    assert [run(partial(int, code)) for code in (0, 1)] == [0, 1]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "mention"),
    [
        (RetrainError("it is wrong"), "it is wrong"),
        (UsageError("two\nlines\r\nor three"), "two lines or three"),
        (MemoryError(), "memory"),
        (FileNotFoundError(2, "No such file or directory", "/a/b.pb"), "/a/b.pb"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("something odd"), "something odd"),
        (PermissionError(13, "Permission denied", os.fsdecode(b"/\xff\n")), "/\\xff\\n"),
        (OSError(28, "No space left on device", "/a", None, "/b"), "/a"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, mention: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(error)) == command.ERROR == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert mention in err


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (command.Terminated, 143)])
def test_interruptions_say_how_things_stand(
    stop: type[BaseException], code: int, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        if not noted:
            raise stop
        with if_interrupted("all is lost"), if_interrupted("the rows are kept"):
            raise stop

    assert run(main) == code
    expected = "interrupted; the rows are kept" if noted else "interrupted"
    assert capsys.readouterr().err.strip() == expected


def test_an_error_has_no_such_note() -> None:
    with pytest.raises(ValueError) as caught, if_interrupted("the rows are kept"):
        raise ValueError
    assert not hasattr(caught.value, "__notes__")


def test_sigterm_ends_main_even_where_exceptions_are_swallowed() -> None:
    def main() -> int:
        with contextlib.suppress(Exception):  # the way of much code
            os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert run(main) == 143


def test_help_goes_through_run_with_code_0() -> None:
    def main() -> int:
        parse("--help")
        return 1

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 0


def test_only_the_log_of_the_packages_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        logging.getLogger("bottlenecks.store.cache").warning("a shard of %s", "yours")
        logging.getLogger("retrain.trainer").warning("a label")
        logging.getLogger("bottlenecks.store.cache").info("a detail")
        for foreign in ("tensorflow", "absl", "PIL.Image", "bottlenecks_of_others", "root"):
            logging.getLogger(foreign).error("noise")
        return 0

    run(main)
    assert capsys.readouterr().err.splitlines() == [
        "warning: a shard of yours",
        "warning: a label",
    ]


@pytest.mark.parametrize("text", ["'x' * 10**6", "'x'"], ids=["much", "little"])
def test_a_reader_who_has_enough_is_no_error(text: str) -> None:
    """``python -m bottlenecks ... | head -1``; little output is written only at the exit."""
    program = (
        f"from bottlenecks.command import run\nraise SystemExit(run(lambda: print({text}) or 0))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("finishes", [True, False])
def test_work_is_finished_without_a_reader(stream: str, finishes: bool, tmp_path: Path) -> None:
    """``python -m retrain ... | head -3``: the graph is the point of it."""
    program = f"""
import sys
from bottlenecks.command import run
def main():
    for i in range(1000):
        print("x" * 1000, file=sys.{stream}, flush=True)
    open("done", "w").close()
    return 0
raise SystemExit(run(main, finishes={finishes}))
"""
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if stream == "stdout" else "stdout"
    streams: dict[str, Any] = {stream: writer, other: subprocess.PIPE}
    try:
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            **streams,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    finally:
        os.close(writer)
    assert (tmp_path / "done").exists() == finishes
    if finishes:
        assert result.returncode == 0
        assert not getattr(result, other)


def test_the_streams_are_given_back() -> None:
    before = sys.stdout, sys.stderr
    run(lambda: print("x") or 0, finishes=True)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_what_cannot_be_printed_is_said_after_the_work_is_done(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from bottlenecks.command import run\n"
        "def main():\n"
        "    for _ in range(3): print('figures', flush=True)\n"
        "    pathlib.Path('done').touch()\n"
        "    return 0\n"
        "sys.exit(run(main, finishes=True))\n"
    )
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (tmp_path / "done").exists()
    assert result.returncode == 2
    assert result.stderr.startswith("error: what was to be printed could not be written: No space")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_work_is_finished_when_the_terminal_has_gone(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys, time\n"
        "from bottlenecks.command import run\n"
        "def main():\n"
        "    pathlib.Path('begun').touch()\n"
        "    while not pathlib.Path('gone').exists(): time.sleep(0.01)\n"
        "    for _ in range(3): print('figures', flush=True); print('x', file=sys.stderr)\n"
        "    pathlib.Path('done').touch()\n"
        "    return 0\n"
        "code = run(main, finishes=True)\n"
        "pathlib.Path('code').write_text(str(code))\n"
        "os._exit(code)\n"
    )
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.close(ours)
    (tmp_path / "gone").touch()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_second_ctrl_c_does_not_cut_off_the_cleaning_up_of_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cleaned = []

    def main() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            cleaned.append("all of it")
        return 0

    assert run(main) == 130
    assert cleaned == ["all of it"]
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_hangs_while_it_cleans_up_can_still_be_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "CLEANING_SECONDS", 0.05)
    ends = time.monotonic() + 20

    def main() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            while time.monotonic() < ends:  # until the next but one is heard
                signal.raise_signal(signal.SIGINT)
        return 0

    assert run(main) == 130
    assert time.monotonic() < ends


def test_ctrl_c_stays_ignored_where_the_shell_ignores_it() -> None:
    def main() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(main) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
