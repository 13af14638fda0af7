"""Read a flatbuffer that may be anything: within its bytes, and nothing that is not described.

The format is that of https://flatbuffers.dev/internals. What is read here can be read by a program
that trusts it: each offset leads into the file, and each text has an end.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError, UnsafeGraphError

MAX_WORK = 2**22  # characters of all texts, and `_OF_A_TABLE` for each table
_OF_A_TABLE = 16  # InceptionV3 has about two thousand
_END = b"\0"  # of a text


@dataclass(frozen=True)
class Number:
    """A number, in a format of `struct`."""

    format: str = "i"


@dataclass(frozen=True)
class Numbers:
    """A vector of numbers, read as an array of ``dtype`` that shares the file's bytes."""

    dtype: str = "<i4"


@dataclass(frozen=True)
class Text:
    """UTF-8, read as bytes."""


@dataclass(frozen=True)
class One:
    """A table."""

    table: "Table"


@dataclass(frozen=True)
class Many:
    """A vector of tables."""

    table: "Table"


@dataclass(frozen=True)
class Skipped:
    """What is not looked at."""


@dataclass(frozen=True)
class Choice:
    """A table of one of several kinds; the number of the kind is the field ``kind`` before it."""

    kind: str
    tables: Mapping[int, "Table"]


Table = Mapping[str, Number | Numbers | Text | One | Many | Choice | Skipped | None]
"""The fields of a table in their order; None for one that may not be there."""


class Flatbuffer:
    """The flatbuffer in ``data``.

    What is broken raises `GraphError`, and what is not described `UnsafeGraphError`. The message
    goes on from the file's name: "is broken: ...".
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._work = 0

    def root(self, table: Table) -> dict[str, Any]:
        """The outermost table: its fields that are there, by their names."""
        return self._table(self._number("I", 0), table)

    def _table(self, at: int, table: Table) -> dict[str, Any]:
        self._spend(_OF_A_TABLE)
        places = at - self._number("i", at)
        length, size = self._number("H", places), self._number("H", places + 2)
        if length < 4 or length % 2 or size < 4 or at + size > len(self._data):
            raise _broken()
        fields = list(table.items())
        found: dict[str, Any] = {}
        for slot in range((length - 4) // 2):
            offset = self._number("H", places + 4 + 2 * slot)
            if not offset:
                continue
            name, kind = fields[slot] if slot < len(fields) else ("", None)
            if kind is None:
                raise UnsafeGraphError(
                    f"has {name or 'something'} that no image classifier needs; not loading it"
                )
            if isinstance(kind, Skipped):
                continue
            if offset + _size(kind) > size:
                raise _broken()
            found[name] = self._field(at + offset, kind, found)
        return found

    def _field(self, at: int, kind: Any, found: Mapping[str, Any]) -> Any:
        if isinstance(kind, Number):
            return self._number(kind.format, at)
        to = at + self._number("I", at)
        if isinstance(kind, Numbers):
            return self._numbers(to, kind.dtype)
        if isinstance(kind, Text):
            return self._text(to)
        if isinstance(kind, Many):
            starts = self._numbers(to, "<u4").astype(np.int64)
            self._spend(len(starts))
            starts += to + 4 + 4 * np.arange(len(starts))
            return [self._table(start, kind.table) for start in starts.tolist()]
        if isinstance(kind, Choice):
            return self._table(to, _chosen(kind, found))
        return self._table(to, kind.table)

    def _text(self, at: int) -> bytes:
        characters = self._numbers(at, "u1")
        self._spend(len(characters))
        end = at + 4 + len(characters)
        if self._data[end : end + 1] != _END:
            raise _broken()
        return characters.tobytes()

    def _numbers(self, at: int, dtype: str) -> np.ndarray:
        count = self._number("I", at)
        if at + 4 + count * np.dtype(dtype).itemsize > len(self._data):
            raise _broken()
        return np.frombuffer(self._data, dtype, count, at + 4)

    def _number(self, kind: str, at: int) -> Any:
        if not 0 <= at <= len(self._data) - struct.calcsize(f"<{kind}"):
            raise _broken()
        return struct.unpack_from(f"<{kind}", self._data, at)[0]

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise UnsafeGraphError("has more parts than an image classifier has; not loading it")


def _size(kind: Any) -> int:
    """The bytes of a field within its table."""
    return struct.calcsize(f"<{kind.format}") if isinstance(kind, Number) else 4


def _chosen(kind: Choice, found: Mapping[str, Any]) -> Table:
    number = found.get(kind.kind, 0)
    if number not in kind.tables:
        raise UnsafeGraphError("has an operation that no image classifier needs; not loading it")
    return kind.tables[number]


def _broken() -> GraphError:
    return GraphError("is broken: a part of it would lie outside of the file")
