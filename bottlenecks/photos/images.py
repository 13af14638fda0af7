"""Folder -> image files, recognised by their names and first bytes.

Nothing is decoded here; only a file that is not *named* like an image is opened, for its first
bytes.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

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
    why the file must not even be opened (a FIFO, a dangling link), or is empty.
    """

    path: str
    signature: Signature = (0, 0, 0, 0)
    problem: str = ""
    is_folder: bool = False


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of all images below ``folder``, sorted, by the rules of `scan`.

    Raises `ImageFolderError` where ``folder`` itself cannot be read.
    """
    folder = os.fspath(folder)
    files = Walk().files(folder)
    if [file.path for file in files] == [folder]:
        raise ImageFolderError(f"the folder {shown(folder)} {files[0].problem}")
    return [file.path for file in files]


class Walk:
    """Walks folders for images, each real folder once however it is linked, and counts the rest."""

    def __init__(self, *seen: str) -> None:
        self.passed_over = 0
        self._seen = {_identity(folder) for folder in seen}

    def files(self, top: str) -> list[ImageFile]:
        """The images below the folder ``top``, and the folders that cannot be read, sorted."""
        found = []
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                identity = _identity(folder)
                entries = [] if identity in self._seen else entries_of(folder)
            except OSError as error:  # no permission, or deeper than a path can be long
                problem = f"is a folder that cannot be read: {error.strerror}"
                found.append(ImageFile(folder, problem=problem, is_folder=True))
                continue
            self.passed_over += identity in self._seen  # a link to it, or a loop
            self._seen.add(identity)
            for entry in entries:
                if entry.name.startswith("."):
                    self.passed_over += 1
                elif is_folder(entry):
                    folders.append(entry.path)
                elif (file := self._image_file(entry)) is not None:
                    found.append(file)
                else:
                    self.passed_over += 1
        return sorted(found, key=lambda file: file.path)

    def _image_file(self, entry: os.DirEntry[str]) -> ImageFile | None:
        """The image that ``entry`` is, or None."""
        named_like_one = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
        try:
            status = entry.stat() if os.name == "posix" else os.stat(entry.path)
        except OSError as error:
            problem = f"cannot be found: {error.strerror}"
            if error.errno in (errno.ENOENT, errno.ELOOP):
                problem += " (a dangling or looping link?)"
            return ImageFile(entry.path, problem=problem) if named_like_one else None
        signature = signature_of(status)
        if not stat.S_ISREG(status.st_mode):
            problem = "is no regular file (a pipe, a socket or a device)"
            return ImageFile(entry.path, signature, problem) if named_like_one else None
        if named_like_one or _starts_as_image(entry.path):
            return ImageFile(entry.path, signature)
        return None


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


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops onto itself
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _starts_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return sniff(file.read(HEADER_BYTES)) is not None
    except OSError:
        return False
