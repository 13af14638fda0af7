"""A zip archive -> its members, and the bytes of one.

The list of members is read by ``zipfile``, the bytes here: by several threads at once, and never
more of them than a member says it has.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from bottlenecks.errors import BadImageError, ImageFolderError
from bottlenecks.photos.places.members import Member, Sparing, bytes_at

MOST_LIST_BYTES = 128 * 2**20  # of the list of members: a million photos and more
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # before a member's bytes: lengths of name and extras
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ENCRYPTED = 0x1  # the bit of its flags
_UNIX, _KIND, _PLAIN = 3, 0o170000, (0, 0o100000)  # the system that gives it a mode; mode's bits


def members(file: BinaryIO) -> Iterator[Member]:
    """All members of a zip archive, in its order. Raises `ImageFolderError`, ``OSError``."""
    try:
        with Sparing(file, MOST_LIST_BYTES) as list_, zipfile.ZipFile(list_) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise ImageFolderError("is no whole zip archive: it is damaged, or cut off") from error
    for info in infos:
        yield Member(
            info.filename,
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.CRC,
            info.compress_type,
            _problem(info),
            info.is_dir(),
        )


def read(file: BinaryIO, member: Member, limit: int) -> bytes:
    """The first ``limit`` bytes of a member; of one that is larger they are not checked.

    Raises `BadImageError` for one that is not what the archive's list says.
    """
    header = bytes_at(file, member.start, _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise BadImageError(_DAMAGED)
    _, name, extra = _LOCAL_HEADER.unpack(header)
    most = min(member.packed, 2 * limit + _LEAST_PACKED)
    packed = bytes_at(file, member.start + _LOCAL_HEADER.size + name + extra, most)
    wanted = min(member.size + 1, limit)
    try:
        if member.method == _STORED:
            data = packed[:wanted]
        else:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, wanted)
    except zlib.error as error:
        raise BadImageError(_DAMAGED) from error
    if member.size < limit and (len(data), zlib.crc32(data)) != (member.size, member.checksum):
        raise BadImageError(_DAMAGED)
    return data


_DAMAGED = "is damaged in the archive"
_LEAST_PACKED = 2**16  # what bytes that cannot be packed take more, and then some


def _problem(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16 & _KIND if info.create_system == _UNIX else 0
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted; unpack the archive"
    if not info.is_dir() and mode not in _PLAIN:
        return "is a link or a device in the archive, and these are not followed"
    if info.compress_type not in (_STORED, _DEFLATED):
        return "is packed by a method that is not read; unpack the archive"
    return ""
