"""Folder -> image files, recognised by their names and first bytes.

Nothing is decoded here; only a file that is not *named* like an image is opened, for its first
bytes. The rules are the same wherever the folder lies: `Folders` is what they need of a place, and
`Disk` the first of these.
"""

import errno
import os
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bottlenecks.errors import ImageFolderError, shown

# Named like an image: what decode reads, and what it can give advice on (AVIF).
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    *(".heic", ".heif", ".avif", ".tif", ".tiff"),
)

HEADER_BYTES = 32  # enough for `sniff`
# A file changed this shortly before it was read may change again without another time stamp:
# kernels advance them in ticks of up to 10 ms, and some file systems keep whole seconds.
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
FOLDER, FILE = "folder", "file"  # what a place has at a path
_BMP_HEADER_SIZES = frozenset((12, 40, 52, 56, 64, 108, 124))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def sniff(header: bytes) -> str | None:
    """The image format that a file's first `HEADER_BYTES` bytes show, or None.

    One of JPEG (MPO too), PNG, GIF, BMP, WEBP, TIFF, HEIC, which can be decoded, or AVIF.
    """
    if header.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if header.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if header.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if header.startswith(b"RIFF") and header[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone also begins many a text: ask for a known header size too.
    if header.startswith(b"BM") and int.from_bytes(header[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if header[4:8] == b"ftyp":
        if header[8:12] in (b"avif", b"avis"):
            return "AVIF"
        if header[8:12] in _HEIF_BRANDS:
            return "HEIC"
    if header.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    return None


Signature = tuple[int, int, int, int]  # (size in bytes, mtime_ns, ctime_ns, inode)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that is an image, or is named like one, or a folder that cannot be looked into.

    ``signature`` is (size in bytes, mtime_ns, ctime_ns, inode) as last seen; ``problem`` says
    why the file must not even be opened (a FIFO, a dangling link), or is empty. ``relpath`` is its
    name below the folder that was walked, with ``/``.
    """

    path: str
    signature: Signature = (0, 0, 0, 0)
    problem: str = ""
    is_folder: bool = False
    relpath: str = ""


class Entry(Protocol):
    """What lies in a folder: ``path`` is what it is opened by."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def is_dir(self) -> bool: ...


class Folders(Protocol):
    """A place whose folders are looked through; all may raise ``OSError`` and `ImageFolderError`.

    ``list`` gives the entries of a folder by their names; ``kind`` is "folder", "file", or empty
    for what is not there; ``identity`` is the same for one folder however it is named, and ``real``
    its one name. ``versions`` are the signatures of files, each with a problem as in `ImageFile`;
    ``starts`` their first `HEADER_BYTES`, empty for what cannot be read.
    """

    def kind(self, path: str) -> str: ...

    def list(self, folder: str) -> Sequence[Entry]: ...

    def identity(self, folder: str) -> Hashable: ...

    def real(self, path: str) -> str: ...

    def versions(self, files: Sequence[Entry]) -> Iterable[tuple[Signature, str]]: ...

    def starts(self, paths: Sequence[str]) -> Iterable[bytes]: ...


class Disk:
    """The folders of this machine."""

    def kind(self, path: str) -> str:
        if os.path.isdir(path):
            return FOLDER
        return FILE if os.path.exists(path) else ""

    def list(self, folder: str) -> Sequence[Entry]:
        return entries_of(folder)

    def identity(self, folder: str) -> Hashable:
        status = Path(folder).stat()
        return status.st_dev, status.st_ino

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def versions(self, files: Sequence[Entry]) -> Iterator[tuple[Signature, str]]:
        return (_version(file.path) for file in files)

    def starts(self, paths: Sequence[str]) -> Iterator[bytes]:
        return map(_start, paths)


DISK = Disk()


def find_images(folder: str | os.PathLike[str], folders: Folders = DISK) -> list[str]:
    """The paths of all images below ``folder``, sorted, by the rules of `scan`.

    Raises `ImageFolderError` where ``folder`` itself cannot be read.
    """
    folder = os.fspath(folder)
    files = Walk(folders).files(folder)
    if [file.path for file in files] == [folder]:
        raise ImageFolderError(f"the folder {shown(folder)} {files[0].problem}")
    return [file.path for file in files]


class Walk:
    """Walks folders for images, each real folder once however it is linked, and counts the rest."""

    def __init__(self, folders: Folders, *seen: str) -> None:
        self.passed_over = 0
        self._folders = folders
        self._seen = {folders.identity(folder) for folder in seen}

    def files(self, top: str, name: str = "") -> list[ImageFile]:
        """The images below the folder ``top``, and the folders that cannot be read, sorted.

        ``name`` is what their relpaths begin with.
        """
        found = []
        folders = [(top, name)]
        while folders:
            folder, name = folders.pop()
            try:
                identity = self._folders.identity(folder)
                entries = [] if identity in self._seen else self._folders.list(folder)
            except OSError as error:  # no permission, or deeper than a path can be long
                problem = f"is a folder that cannot be read: {error.strerror}"
                found.append(ImageFile(folder, problem=problem, is_folder=True, relpath=name))
                continue
            self.passed_over += identity in self._seen  # a link to it, or a loop
            self._seen.add(identity)
            above = f"{name}/" if name else ""
            files = []
            for entry in entries:
                if entry.name.startswith("."):
                    self.passed_over += 1
                elif is_folder(entry):
                    folders.append((entry.path, above + entry.name))
                else:
                    files.append(entry)
            images = list(self._images(files, above))
            self.passed_over += len(files) - len(images)
            found += images
        return sorted(found, key=lambda file: file.path)

    def _images(self, files: Sequence[Entry], above: str) -> Iterator[ImageFile]:
        """Those of the ``files`` of a folder that are images, or are named like one."""
        unsure = []
        for file, (signature, problem) in zip(files, self._folders.versions(files), strict=True):
            image = ImageFile(file.path, signature, problem, relpath=above + file.name)
            if os.path.splitext(file.name)[1].lower() in IMAGE_SUFFIXES:
                yield image
            elif not problem:
                unsure.append(image)
        starts = self._folders.starts([image.path for image in unsure])
        for image, start in zip(unsure, starts, strict=True):
            if sniff(start) is not None:
                yield image


def _version(path: str) -> tuple[Signature, str]:
    try:
        status = os.stat(path)
    except OSError as error:
        problem = f"cannot be found: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ELOOP):
            problem += " (a dangling or looping link?)"
        return (0, 0, 0, 0), problem
    is_file = stat.S_ISREG(status.st_mode)
    problem = "" if is_file else "is no regular file (a pipe, a socket or a device)"
    return signature_of(status), problem


def _start(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(HEADER_BYTES)
    except OSError:
        return b""


def signature_of(status: os.stat_result) -> Signature:
    """What changes when a file's content does: (size, mtime_ns, ctime_ns, inode).

    The inode's change time cannot be set back, so an edit that keeps size and mtime shows.
    """
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def is_settled(signature: Signature, read_ns: int) -> bool:
    """Whether a change after ``read_ns``, ``time.time_ns()`` from before reading, would show.

    Git's rule for racy entries: not of a file as young as the reading itself.
    """
    changed_ns = max(signature[1], signature[2])
    tick = _TICK_NS if changed_ns % 1_000_000_000 else _COARSE_TICK_NS
    return changed_ns + tick < read_ns


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops onto itself
        return False
