"""An archive on the disk as a folder of photos: ``photos.zip/daisy/a.jpg`` is a photo in it.

Nothing is unpacked. Its list of members is read once; then each photo is read from where it lies.
"""

import errno
import functools
import hashlib
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import BinaryIO

from bottlenecks.errors import BadImageError, ImageFolderError, shown
from bottlenecks.forks import PerProcess
from bottlenecks.photos.images import HEADER_BYTES, Entry, Signature, signature_of
from bottlenecks.photos.places import tars, zips
from bottlenecks.photos.places.members import Member
from bottlenecks.photos.places.tree import Found, Listed, Tree, below, versions_of

KINDS: dict[str, ModuleType] = {".zip": zips, ".tar": tars}
_MOST_OPEN = 4  # archives: the images, and the sets of a split


@dataclass(frozen=True, eq=False)
class Archive:
    """An open archive: its members by their names, and the folders that these make."""

    file: BinaryIO
    signature: Signature
    members: dict[str, Member]
    tree: Tree
    kind: ModuleType

    def read(self, name: str, limit: int) -> bytes:
        """Raises `BadImageError`, also where the archive is another by now."""
        found = self.tree.found(name)
        if found is None:
            raise BadImageError("is not in the archive")
        if found.problem:
            raise BadImageError(found.problem)
        if signature_of(os.fstat(self.file.fileno())) != self.signature:
            raise BadImageError("cannot be read: the archive was changed while this ran")
        data: bytes = self.kind.read(self.file, self.members[found.name], limit)
        return data


@dataclass(frozen=True)
class ArchiveFolder:
    """A `PhotoSource`: what lies at ``root``, a path of an archive, and below."""

    root: str

    @functools.cached_property
    def _archive(self) -> Archive:
        return opened(self.root)

    def kind(self, path: str) -> str:
        name = below(path, self.root)
        return "" if name is None else self._archive.tree.kind(name)

    def list(self, folder: str) -> Sequence[Listed]:
        return self._archive.tree.list(self._name(folder), folder)

    def identity(self, folder: str) -> Hashable:
        return (*self._archive.signature, self._name(folder))

    def real(self, path: str) -> str:
        name = below(path, self.root)
        if name is None:
            return os.path.realpath(path)
        return os.path.join(os.path.realpath(self.root), name).rstrip("/")

    def versions(self, files: Sequence[Entry]) -> Iterable[tuple[Signature, str]]:
        return versions_of(files)

    def starts(self, paths: Sequence[str]) -> Iterable[bytes]:
        return map(self._start, paths)

    def _start(self, path: str) -> bytes:
        try:
            return self.read(path, HEADER_BYTES)
        except BadImageError:
            return b""

    def read(self, path: str, limit: int) -> bytes:
        try:
            return self._archive.read(self._name(path), limit)
        except ImageFolderError as error:
            raise BadImageError(f"cannot be read: {error}") from error
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror or error}") from error

    def _name(self, path: str) -> str:
        return below(path, self.root) or ""


class _Opened:
    """The archives that are open, the one that was asked for last at the end."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.archives: OrderedDict[str, Archive] = OrderedDict()


_opened = PerProcess(_Opened)


def opened(path: str) -> Archive:
    """The archive at ``path`` as it is now; its members are listed once.

    Raises `ImageFolderError` for what is none, ``OSError``.
    """
    real, here = os.path.realpath(path), _opened()
    with here.lock:
        known = here.archives.get(real)
        if known is None or known.signature != signature_of(os.stat(real)):
            here.archives[real] = known = _open(real)
            while len(here.archives) > _MOST_OPEN:
                here.archives.popitem(last=False)  # closed when no thread reads from it
        here.archives.move_to_end(real)
        return known


def _open(path: str) -> Archive:
    kind = KINDS[os.path.splitext(path)[1].lower()]
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb", 0)
    try:
        archive = _listed(path, kind, file)
    except BaseException:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    return archive


def _listed(path: str, kind: ModuleType, file: BinaryIO) -> Archive:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", path)
    signature = signature_of(status)
    members: dict[str, Member] = {}
    tree = Tree()
    try:
        list_: Callable[[BinaryIO], Iterable[Member]] = kind.members
        for member in list_(file):
            own = _signature(signature, member)
            tree.add(Found(member.name, own, member.problem, member.is_folder))
            members[member.name] = member
    except ImageFolderError as error:
        raise ImageFolderError(f"the archive {shown(path)} {error}") from error
    if tree.unsafe:
        raise ImageFolderError(
            f"the archive {shown(path)} holds names that would lie outside of it, or that no file "
            f"can have, such as {shown(tree.unsafe[0])!r}; unpack it and see what they are"
        )
    return Archive(file, signature, members, tree, kind)


def _signature(archive: Signature, member: Member) -> Signature:
    """That of a member: its size, the archive's times, and what tells it from others there."""
    _, mtime_ns, ctime_ns, inode = archive
    text = f"{archive[0]} {inode} {member.start} {member.packed} {member.checksum}"
    digest = hashlib.sha256(text.encode()).digest()
    return member.size, mtime_ns, ctime_ns, int.from_bytes(digest[:8])
