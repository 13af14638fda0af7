"""What the three commands share: flags made from settings, one-line errors, exit codes.

Exit codes: 0 done, 1 ``--verify`` found damage, 2 a usage, data or configuration error, 130 and
143 interrupted by Ctrl-C and SIGTERM.
"""

import argparse
import contextlib
import dataclasses
import difflib
import errno
import inspect
import io
import logging
import os
import signal
import sys
import time
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from bottlenecks.errors import RetrainError, UsageError, shown
from bottlenecks.settings import Settings

DONE, DAMAGED, ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
FIRST = "what most people need"  # the first group of the help
CLEANING_SECONDS = 5.0
_VALUES = {str, int, float}  # what one argument can be
_NOBODY_READS = (errno.EPIPE, errno.EIO)  # a pipe that was closed, a terminal that was


# What flags are called in programs that people come from.
_ELSEWHERE = {
    **dict.fromkeys(("steps", "epochs", "iterations", "n_steps"), "how_many_training_steps"),
    **dict.fromkeys(("max_steps", "num_epochs", "train_steps"), "how_many_training_steps"),
    **dict.fromkeys(("lr", "rate"), "learning_rate"),
    **dict.fromkeys(("data", "data_dir", "dataset", "input", "images", "folder"), "image_dir"),
    **dict.fromkeys(("train_dir", "training_dir", "input_dir", "data_path"), "image_dir"),
    **dict.fromkeys(("val_dir", "valid_dir"), "validation_dir"),
    **dict.fromkeys(("val_split", "validation_split"), "validation_percentage"),
    **dict.fromkeys(("test_split", "test_size"), "testing_percentage"),
    **dict.fromkeys(("cache", "cache_dir"), "bottleneck_dir"),
    **dict.fromkeys(("output", "out", "output_dir", "export"), "output_graph"),
    **dict.fromkeys(("labels_file", "label_file"), "output_labels"),
    **dict.fromkeys(("threads", "workers", "num_workers", "jobs"), "decode_threads"),
    **dict.fromkeys(("topk", "top_k", "top", "num_labels"), "num_top_predictions"),
    **dict.fromkeys(("model", "graph_file", "model_file"), "graph"),
    **dict.fromkeys(("logdir", "log_dir", "tensorboard"), "summaries_dir"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("output_format", "fmt", "as_json", "as_csv"), "format"),
    **dict.fromkeys(("input_size", "image_size", "size"), "input_height"),
}
# What is meant in a command that lacks the usual flag.
_INSTEAD = {"image_dir": "image", "output_graph": "format"}


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, no ``except Exception`` may swallow it."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser for flags in retrain.py's spelling (``--image_dir``).

    Dashes work too, a usage error raises `UsageError`, and an unknown flag is answered with
    the one that was probably meant.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.add_argument(
            "--version",
            action=_Version,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            nargs=0,
            help="show the versions of this program, TensorFlow and Keras, and exit",
        )

    def add_flags(self, settings: type[Settings], optional: Sequence[str] = ()) -> None:
        """Add a flag for every field of ``settings``, grouped by the class that has it.

        The few that most people need come first, whatever their class. Those without a default are
        required, but for the ``optional`` ones. Flags that are there already stay as they are.
        Raises ``TypeError`` for a field of a type that no flag has.
        """
        hints = typing.get_type_hints(settings)
        groups = {FIRST: self.add_argument_group(FIRST)}
        added = {option.lstrip("-") for option in self._option_string_actions}
        for owner in _owners(settings):
            for field in dataclasses.fields(settings):
                if field.name in added or field.name not in inspect.get_annotations(owner):
                    continue
                added.add(field.name)
                options = dict(field.metadata)
                title = FIRST if options.pop("first", False) else owner.title
                if title not in groups:
                    groups[title] = self.add_argument_group(title)
                if field.default is dataclasses.MISSING:
                    options["required"] = field.name not in optional
                options |= _argparse_options(field, hints[field.name], options)
                groups[title].add_argument(f"--{field.name}", **options)

    def parse(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """The flags' values by name. Raises `UsageError`."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        flags_end = arguments.index("--") if "--" in arguments else len(arguments)
        arguments[:flags_end] = map(_with_underscores, arguments[:flags_end])
        for argument in arguments[:flags_end]:  # before what is missing: it may be meant by it
            name = argument.split("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                meant = self._meant_by(name)
                hint = f"did you mean {meant}?" if meant else "it is none of this command"
                self.error(f"unknown argument {shown(name)}; {hint}")
        # Names may stand between flags, but argparse cannot have both that and "--".
        mixed = flags_end == len(arguments)
        parse = self.parse_known_intermixed_args if mixed else self.parse_known_args
        values, unknown = parse(arguments)
        if unknown:
            name = unknown[0].split("=")[0]
            self.error(f"unknown argument {shown(name)}")
        return vars(values)

    def _meant_by(self, name: str) -> str:
        """The flag that was probably meant by the unknown ``name``; empty where none is like it."""
        flags, bare = list(self._option_string_actions), name.lstrip("-").lower()
        usual = _ELSEWHERE.get(bare, "")
        for meant in (usual, _INSTEAD.get(usual, "")):
            if f"--{meant}" in flags:
                return f"--{meant}"
        for action in self._actions:  # what a flag may be set to: --json
            if bare in (action.choices or ()):
                return f"{action.option_strings[0]} {bare}"
        words = bare.split("_")
        within = [flag for flag in flags if set(words) <= set(flag.lstrip("-").split("_"))]
        names = {flag.lstrip("-"): flag for flag in flags}
        close = difflib.get_close_matches(name.lstrip("-"), names, n=1, cutoff=0.7)
        return within[0] if within else names[close[0]] if close else ""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help explains)")


def _owners(settings: type[Settings]) -> Iterator[type[Settings]]:
    """The classes that have the flags: the bases of each before it, in the order it names them."""
    for base in settings.__bases__:
        if issubclass(base, Settings):
            yield from _owners(base)
    yield settings


class _Version(argparse.Action):
    """Prints the versions without importing what they are of."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        def of(package: str) -> str:
            try:
                return version(package)
            except PackageNotFoundError:
                return "is not installed"

        from bottlenecks import __version__

        others = ", ".join(f"{name} {of(name.lower())}" for name in ("TensorFlow", "Keras"))
        print(f"retrain {__version__} ({others}, Python {sys.version.split()[0]})")
        parser.exit()


def _argparse_options(
    field: "dataclasses.Field[Any]", type_: Any, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What argparse is to be told of a flag beside what it was ``given``."""
    default = field.default
    options = {} if default is dataclasses.MISSING else {"default": default}
    if type_ is bool:
        action = argparse.BooleanOptionalAction if default else "store_true"
        return options | {"action": action}
    is_union = typing.get_origin(type_) in (types.UnionType, typing.Union)
    kinds = set(typing.get_args(type_) if is_union else [type_]) - {type(None)}
    if len(kinds) != 1 or not kinds <= _VALUES:
        raise TypeError(
            f"the setting {field.name} cannot be a flag: its type must be bool, or str, int or "
            f"float, or one of these three | None. Received: {type_}"
        )
    (plain,) = kinds  # int | None -> int
    shows_default = default not in (None, "", dataclasses.MISSING)
    return options | {
        "type": plain,
        "metavar": given.get("metavar", plain.__name__.upper()),
        "help": given["help"] + (" (default: %(default)s)" if shows_default else ""),
    }


def _with_underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def run(main: Callable[[], int], finishes: bool = False) -> int:
    """Call ``main`` and turn whatever stops it into one line on stderr and an exit code.

    With ``finishes`` it goes on without a terminal where the reader of its output is gone
    (``| head``): there is more to it than what it prints.
    """
    _open_missing_streams()
    streams = sys.stdout, sys.stderr
    for stream in streams:  # a label may have letters that the terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    outliving = [_Outliving(stream) for stream in streams]
    if finishes:
        sys.stdout, sys.stderr = outliving
    try:
        code = _run(main)
    finally:
        sys.stdout, sys.stderr = streams
    lost = outliving[0].lost
    if lost is None or code != DONE:
        return code
    return _fail(
        f"what was to be printed could not be written: {lost.strerror}; all else is done: mend "
        "what the output goes to, and run the same command again to see it"
    )


def as_process(main: Callable[[], int]) -> NoReturn:
    """Call ``main``, which calls `run`, and end the process with its exit code.

    After an interruption at once: elsewise Python would wait for each thread, and one may be stuck
    in a photo.
    """
    try:
        code = main()
    except KeyboardInterrupt:  # before or after `run`
        code = INTERRUPTED
    except Terminated:
        code = TERMINATED
    if code in (INTERRUPTED, TERMINATED):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(main: Callable[[], int]) -> int:
    logging.basicConfig(format="%(message)s", handlers=[_StderrHandler()], force=True)
    if not sys.warnoptions:  # Pillow warns of odd files; what matters of them is reported
        warnings.simplefilter("ignore")
    stop_once = _Stop()
    previous = _on_signal(signal.SIGTERM, stop_once)
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:  # not where it is ignored, as behind a shell's &
        _on_signal(signal.SIGINT, stop_once)
    try:
        code = main()
        sys.stdout.flush()  # so that a closed pipe is met here and not at the very end
        return code
    except (KeyboardInterrupt, Terminated) as stop:
        notes = getattr(stop, "__notes__", [])[:1]
        _print_error("\n" + "; ".join(["interrupted", *notes]))
        return INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
    except BrokenPipeError:  # the reader of a pipe (head) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except RetrainError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory; close other programs, or use a smaller --batch_size if set")
    except OSError as error:
        # h5py puts its own internals into strerror.
        reason = os.strerror(error.errno) if error.errno else error.strerror or error
        place = f" {shown(error.filename)}" if error.filename is not None else ""
        return _fail(
            f"cannot use{place or ' a file'}: {reason}; "
            "check the free space and the permissions, then run the same command again"
        )
    finally:
        _on_signal(signal.SIGTERM, previous)
        if interrupts:
            _on_signal(signal.SIGINT, signal.default_int_handler)


def _open_missing_streams() -> None:
    """Give a process that was started with closed streams (``>&-``) ones that lead nowhere."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _fail(message: str) -> int:
    _print_error("error: " + " ".join(message.splitlines()))
    return ERROR


def _print_error(line: str) -> None:
    with contextlib.suppress(OSError):  # where it cannot be said, the exit code still is
        print(line, file=sys.stderr, flush=True)


class _Stop:
    """A signal's handler that raises, and then is deaf for `CLEANING_SECONDS`.

    The first Ctrl-C makes a run commit what it has computed. The second of an impatient user must
    not cut that off.
    """

    def __init__(self) -> None:
        self._deaf_until = 0.0

    def __call__(self, number: int, _: object) -> None:
        now = time.monotonic()
        if now >= self._deaf_until:
            self._deaf_until = now + CLEANING_SECONDS
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _on_signal(number: int, handler: Any) -> Any:
    try:
        return signal.signal(number, handler)
    except ValueError:  # not in the main thread: nobody's signals are ours to take
        return None


class _Outliving:
    """A stream that falls silent, rather than raise, when its reader or terminal has gone.

    ``lost`` is the error of what else could not be written, as on a full disk.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        self._unless_closed(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._unless_closed(self._stream.flush)

    def _unless_closed(self, use: Callable[[], object]) -> None:
        try:
            use()
        except OSError as error:  # what it still holds goes nowhere too
            if error.errno not in _NOBODY_READS:
                self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _StderrHandler(logging.Handler):
    """Prints the packages' own log records as ``warning: ...`` and nobody else's."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in ("bottlenecks", "retrain", "label_image"):
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
