"""What archives of all kinds have: members, and bytes that several threads read at once."""

import io
import os
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: where it begins, and how many bytes it has there and unpacked.

    ``problem`` says why it is not read, or is empty.
    """

    name: str
    start: int
    packed: int
    size: int
    checksum: int = 0
    method: int = 0
    problem: str = ""
    is_folder: bool = False


def bytes_at(file: BinaryIO, start: int, count: int) -> bytes:
    """``count`` bytes from ``start``, fewer at the file's end; the file's own position stays."""
    parts, got = [], 0
    while got < count and (part := os.pread(file.fileno(), count - got, start + got)):
        parts.append(part)
        got += len(part)
    return b"".join(parts)


class Sparing(io.BufferedReader):
    """The same file from its beginning, of which at most ``most`` bytes are read at once.

    Raises ``ValueError`` for more: lists of members say themselves how long they are.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._most = most
        super().__init__(io.FileIO(os.dup(file.fileno())))
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        asked = left if size is None or size < 0 else min(size, left)
        if asked > self._most:
            raise ValueError("it is too much to read at once")
        return super().read(asked)
