"""Path or address -> where it lies; the one place that decides."""

import os
import re
from typing import Protocol

from bottlenecks.errors import public
from bottlenecks.photos.images import DISK, FOLDER, Folders, find_images
from bottlenecks.photos.places import addresses
from bottlenecks.photos.places.addresses import is_address

_ARCHIVE = re.compile(r"(\.(?:zip|tar))(?=/|$)", re.IGNORECASE)
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")


class PhotoSource(Folders, Protocol):
    """A place whose folders are looked through, and whose files are read, by their paths there.

    ``read`` gives the first ``limit`` bytes of one. Raises `BadImageError`.
    """

    def read(self, path: str, limit: int) -> bytes: ...


def source_of(path: str) -> PhotoSource | None:
    """What a path or an address leads to; None for the disk.

    An archive is one where the path goes through it, or ends there. Nothing is asked of a store.
    """
    if is_address(path):
        from bottlenecks.photos.places.remote import remote  # which wants fsspec

        return remote(path)
    if archive := archive_in(path):
        from bottlenecks.photos.places.archives import ArchiveFolder

        return ArchiveFolder(archive)
    return None


def folders_at(path: str) -> Folders:
    """The place of a folder of photos."""
    return source_of(path) or DISK


def archive_in(path: str) -> str:
    """The archive that a path goes through, or ends at; empty where there is none."""
    for found in _ARCHIVE.finditer(path):
        if os.path.isfile(path[: found.end(1)]):
            return path[: found.end(1)]
    return ""


def check_folder(path: str, flag: str) -> None:
    """Raise `UsageError` for an address that no folder can have; asks nobody."""
    if is_address(path):
        addresses.check_folder(path, flag)


def advice(path: str) -> str:
    """What to do with a file in place of a folder; empty where nothing is known."""
    if path.lower().endswith(_PACKED):
        return (
            ", packed so that no photo can be read without those before it; unpack it (tar xf, or "
            "gunzip for a plain .tar), and name what comes out"
        )
    return ", not a folder"


def find_photos(path: str) -> list[str] | None:
    """The photos in the folder at a path or an address; None where that is a photo, or nothing.

    Raises `ImageFolderError` where the folder cannot be read.
    """
    source = source_of(path)
    if source is None:
        return find_images(path) if os.path.isdir(path) else None
    if is_address(path):
        from bottlenecks.photos.places.remote import is_folder

        return find_images(path.rstrip("/"), source) if is_folder(path) else None
    return find_images(path, source) if source.kind(path) == FOLDER else None


def absolute(folder: str) -> str:
    """The place of a folder, the same wherever the command is run."""
    return public(folder) if is_address(folder) else os.path.abspath(folder)


def relative(folder: str, start: str) -> str:
    """The way to a folder from another; where there is none, the folder itself."""
    if is_address(folder) and is_address(start):
        return public(addresses.relative(folder, start))
    if is_address(folder) or is_address(start):
        return absolute(folder)
    return os.path.relpath(folder, start)
