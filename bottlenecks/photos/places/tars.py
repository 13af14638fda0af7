"""A tar archive -> its members, and the bytes of one.

It has no list: the headers are read one by one, of which each says where the next one is.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from bottlenecks.errors import ImageFolderError
from bottlenecks.photos.places.members import Member, Sparing, bytes_at

MOST_MEMBERS = 1_000_000
_MOST_AT_ONCE = 2**20  # bytes of a header with its long names


def members(file: BinaryIO) -> Iterator[Member]:
    """All members of a tar archive, in its order. Raises `ImageFolderError`, ``OSError``."""
    count = end = 0
    try:
        with (
            Sparing(file, _MOST_AT_ONCE) as headers,
            tarfile.open(fileobj=headers, mode="r:") as archive,
        ):
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # which it would keep all
                count += 1
                if count > MOST_MEMBERS:
                    raise ImageFolderError(f"holds more than {MOST_MEMBERS:,} files; unpack it")
                if archive.offset <= end:
                    raise ImageFolderError(_BROKEN)
                end = archive.offset
                yield _member(info)
    except ImageFolderError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise ImageFolderError(_BROKEN) from error
    if bytes_at(file, end, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ImageFolderError(_BROKEN)


_BROKEN = "is no whole tar archive: it is damaged, or cut off"


def _member(info: tarfile.TarInfo) -> Member:
    problem = ""
    if info.issym() or info.islnk():
        problem = "is a link in the archive, and these are not followed"
    elif not info.isdir() and (not info.isreg() or info.issparse()):
        problem = "is no plain file in the archive"
    name, size = info.name, info.size
    return Member(name, info.offset_data, size, size, problem=problem, is_folder=info.isdir())


def read(file: BinaryIO, member: Member, limit: int) -> bytes:
    """The first ``limit`` bytes of a member."""
    return bytes_at(file, member.start, min(member.size, limit))
