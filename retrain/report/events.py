"""TensorBoard's event files, written without TensorFlow.

A file of records (tensorflow/core/lib/io/record_writer.h), each an ``Event`` message. The
``tensorboard`` package has a writer of them too, which imports TensorFlow where there is one.
"""

import functools
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlenecks.network.messages import message

_VERSION = "brain.Event:2"  # of the first event of a file
_POLYNOMIAL = 0x82F63B78  # of CRC-32C (RFC 3720, appendix B.4), reflected
_MASK, _MASK_DELTA = 0xFFFFFFFF, 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h


class EventFile:
    """A new event file in ``folder``, which is made; ``run`` tells it from others of this second.

    Every event is in the file when its call ends, or that raises ``OSError``.
    """

    def __init__(self, folder: str | os.PathLike[str], run: str) -> None:
        os.makedirs(folder, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{run}"
        self._file = open(Path(folder, name), "xb", buffering=0)  # noqa: SIM115
        self._write(file_version=_VERSION)

    def add(self, step: int, summary: Any) -> None:
        """Write a ``Summary`` message of `bottlenecks.network.messages` at ``step``."""
        self._write(step=step, summary=summary)

    def close(self) -> None:
        self._file.close()

    def _write(self, **event: Any) -> None:
        event_class = message("Event", "event")
        record = _record(event_class(wall_time=time.time(), **event).SerializeToString())
        while record:  # a write may be a part of it
            record = record[self._file.write(record) :]


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    """The CRC-32C of ``data``, turned and added to, so that no record is its own checksum's."""
    table, crc = _table(), _MASK
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= _MASK
    turned = (crc >> 15 | crc << 17) & _MASK
    return struct.pack("<I", (turned + _MASK_DELTA) & _MASK)


@functools.cache
def _table() -> Sequence[int]:
    """What each byte makes of a CRC of 0."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table
