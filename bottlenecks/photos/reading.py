"""Image files -> bytes, several at once."""

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from bottlenecks import machine
from bottlenecks.errors import BadImageError
from bottlenecks.forks import PerProcess
from bottlenecks.photos.images import Signature, signature_of
from bottlenecks.photos.places.addresses import AT_ONCE, is_address
from bottlenecks.photos.places.place import PhotoSource, source_of
from bottlenecks.photos.places.tree import UNKNOWN

MAX_FILE_BYTES = 256 * 2**20
LARGE_FILE_BYTES = 16 * 2**20


# Held while a large file is read and decoded, so that several threads do not add up in memory.
_one_large = PerProcess(threading.Lock)


class NotAFileError(OSError):
    """A folder, a pipe or a device where there should be a file, or a link where none may be."""


def open_file(path: str | os.PathLike[str], follow: bool = True) -> BinaryIO:
    """Open a regular file for reading, unbuffered; without ``follow`` none behind a link.

    Raises `NotAFileError` for what is none, at once: opening a pipe would wait for its writer. And
    ``OSError`` as ``open`` does.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    try:
        opener = lambda name, _: os.open(name, flags)  # noqa: E731
        file = open(path, "rb", buffering=0, opener=opener)  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a socket
            raise NotAFileError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise NotAFileError(errno.EINVAL, "is no regular file", os.fspath(path))


@contextlib.contextmanager
def file_bytes(
    path: str | os.PathLike[str], listed: Signature | None = None
) -> Iterator[tuple[bytes, Signature]]:
    """The bytes of a regular file, and its signature from when it was opened.

    ``path`` may lead into an archive, or be an address: the signature of what is elsewhere is the
    one that it was ``listed`` with, by which it is known how large it is.

    Only one large file at a time is in memory, until its ``with`` block ends.

    Raises `BadImageError` for what cannot be read or is larger than `MAX_FILE_BYTES`.
    """
    source = source_of(os.fspath(path))
    with contextlib.ExitStack() as stack:
        if source is not None:
            yield _from(source, os.fspath(path), listed or UNKNOWN, stack), listed or UNKNOWN
            return
        try:
            file = stack.enter_context(open_file(path))
            status = os.fstat(file.fileno())
            _check_size(status.st_size)
            if status.st_size > LARGE_FILE_BYTES:
                stack.enter_context(_one_large())
            data = file.read(MAX_FILE_BYTES)
        except NotAFileError as error:
            raise BadImageError("is no regular file (a folder, a pipe or a device)") from error
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror or error}") from error
        yield data, signature_of(status)


def _from(source: PhotoSource, path: str, listed: Signature, stack: contextlib.ExitStack) -> bytes:
    """The bytes of what is elsewhere; how large it is may turn out when it is read."""
    size = listed[0]
    if size == 0:
        return b""
    _check_size(size)
    if size <= LARGE_FILE_BYTES:
        data = source.read(path, LARGE_FILE_BYTES + 1)
        if len(data) <= LARGE_FILE_BYTES:
            return data
    stack.enter_context(_one_large())
    data = source.read(path, MAX_FILE_BYTES + 1)
    _check_size(len(data))
    return data


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise BadImageError(
            f"has {size / 1e6:.0f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are read; save it smaller"
        )


def threads_for(given: int | None, paths: Iterable[str]) -> int:
    """How many threads read photos: as ``given``, else by the cores, or for any remote ones more.

    A thread waits for a store, where on the disk it decodes.
    """
    if given is not None:
        return given
    is_remote = any(map(is_address, paths))
    return max(machine.threads(), AT_ONCE) if is_remote else machine.threads()


def key_of(path: str | os.PathLike[str]) -> bytes:
    """The sha256 digest of a file's content, by which its row is known; raises `BadImageError`."""
    with file_bytes(path) as (data, _):
        return hashlib.sha256(data).digest()
