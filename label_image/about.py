"""A classifier's file -> what made it, for people and as JSON. Nothing in the file is run.

The file may be anybody's, so what it says may be anything: of any type, and without end.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bottlenecks.errors import GraphError, shown
from retrain.engines.formats import format_of, read

MAX_LETTERS = 2**20  # of the JSON; retrain writes one or two thousand
MAX_DEPTH = 20  # retrain writes 2
_MOST_ROWS, _MOST_LABELS, _MOST_LETTERS = 200, 100, 300  # that are shown
_TEST = "test accuracy"
_WIDEST = 30  # letters of a column of names
_FIRST = (
    "program",
    "date",
    "network",
    "fingerprint",
    "images",
    "test",
    "quantised",
    "fine_tuned_from",
    "flags",
)


@dataclass(frozen=True)
class Made:
    """What a classifier's file, ``graph``, says of itself.

    ``labels`` are those in it, and ``about`` is the JSON object that retrain put in, as it is
    described by `retrain.export.about`, or None in a file of another program.
    """

    graph: str
    format: str
    labels: Sequence[str]
    about: Mapping[str, Any] | None

    @property
    def text(self) -> str:
        """All of it, in lines that are safe to print; what is very long is cut."""
        rows = [("graph", self.graph), ("format", self.format)]
        if self.about is None:
            rows.append(("program", "another than retrain: nothing in it says what made it"))
        else:
            rows += _rows(self.about)
        rows = [(_line(name), _line(value)) for name, value in rows]
        rows.append(("labels", _labels(self.labels)))
        width = min(_WIDEST, max(len(name) for name, _ in rows))
        return "\n".join(f"{name:{width}}  {value}".rstrip() for name, value in rows)


def read_made(path: str) -> Made:
    """What the file or folder at ``path`` says of itself.

    Raises `GraphError` where it is no classifier, or what it says is no JSON object.
    """
    contents = read(path, any_graph=True)  # as nothing of it is run
    about = _parsed(path, contents.about) if contents.about else None
    return Made(shown(path), format_of(path).NAME, contents.labels, about)


def _parsed(path: str, text: str) -> Mapping[str, Any]:
    try:
        about = json.loads(text, parse_constant=_no_json) if len(text) <= MAX_LETTERS else None
        json.dumps(about, allow_nan=False)  # 1e999 is read as infinity
        if isinstance(about, dict) and _depth(about) <= MAX_DEPTH:
            return about
    except (ValueError, RecursionError):
        pass
    raise GraphError(
        f"what {shown(path)} says of how it was made is no JSON object, or one of more than "
        f"{MAX_LETTERS} letters or {MAX_DEPTH} levels, so retrain did not write it; ask whoever "
        "gave you the file"
    )


def _no_json(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which `json` reads and no other program does."""
    raise ValueError(name)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _rows(about: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The names and values of all that is in ``about``, those that are known first."""
    names = [*(name for name in _FIRST if name in about), *sorted(set(about) - set(_FIRST))]
    rows = [row for name in names for row in _of(name, about[name])]
    if about.get("quantised", "none") != "none":
        rows = [
            (name, f"{value}, before it was quantised") if name == _TEST else (name, value)
            for name, value in rows
        ]
    more = len(rows) - _MOST_ROWS
    return [*rows[:_MOST_ROWS], *([("...", f"and {more} more")] if more > 0 else [])]


def _of(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The rows of one value: a row for each of the values of an object."""
    match name, value:
        case "test", {
            "accuracy": int() | float() as accuracy,
            "low": int() | float() as low,
            "high": int() | float() as high,
            "images": images,
        }:
            interval = f"95 % interval {_percent(low)} to {_percent(high)}"
            yield _TEST, f"{_percent(accuracy)} ({interval}, {images} images)"
        case "images", {"training": training, "validation": validation, "testing": testing}:
            yield name, f"{training} training, {validation} validation, {testing} testing"
        case "test" | "fine_tuned_from", None:
            yield name, "none"
        case _, dict():
            yield name, ""
            yield from ((f"  {inner}", each) for inner, each in value.items())
        case _:
            yield name, value


def _percent(share: float) -> str:
    return f"{share:.1%}" if -10 <= share <= 10 else _line(share)


def _labels(labels: Sequence[str]) -> str:
    if not labels:
        return "none in it; they are in a labels file beside it"
    more = len(labels) - _MOST_LABELS
    names = ", ".join(map(_line, labels[:_MOST_LABELS]))
    return f"{len(labels)}: {names}" + (f", and {more} more" if more > 0 else "")


def _line(value: Any) -> str:
    """A value in one line of at most `_MOST_LETTERS`."""
    text = value if isinstance(value, str) else json.dumps(value)
    cut = text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."
    return shown(cut.encode("utf-8", "backslashreplace").decode())
