"""Image folder -> sorted `LabeledImage`: which files are images, and of which label.

``Dataset/Red Roses/2019/a.jpg`` is an image of the label ``red roses``. Nothing is decoded
here; only a file that is not *named* like an image is opened, for its first bytes.
"""

import errno
import functools
import os
import stat
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bottlenecks.errors import ImageFolderError, ImageFolderNotFoundError, shown

# Named like an image: what decode reads, and what it can give advice on (AVIF).
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    *(".heic", ".heif", ".avif", ".tif", ".tiff"),
)

HEADER_BYTES = 32  # enough for `sniff`
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


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image of a data set; ``relpath`` is relative to the image folder, with ``/``."""

    label: str
    relpath: str
    file: ImageFile = field(compare=False)

    @property
    def path(self) -> str:
        return self.file.path


@dataclass(frozen=True)
class ImageFolder:
    """What `scan` found: images sorted by ``relpath``, labels sorted.

    ``passed_over`` counts the hidden entries and the files that are no images;
    ``empty_folders`` names the label folders without a single image.
    """

    root: str
    images: tuple[LabeledImage, ...]
    passed_over: int
    empty_folders: tuple[str, ...]

    def absolute(self, image: LabeledImage) -> str:
        """The absolute path of one of the images, by which a stat index knows it."""
        return self.absolute_root + image.relpath

    @functools.cached_property
    def absolute_root(self) -> str:
        """The absolute path of the image folder, with a separator at its end."""
        return os.path.join(os.path.abspath(self.root), "")

    @property
    def counts(self) -> dict[str, int]:
        """Images per label, labels sorted."""
        return dict(sorted(Counter(image.label for image in self.images).items()))


def scan(image_dir: str | os.PathLike[str]) -> ImageFolder:
    """Find the labelled images below ``image_dir``.

    Raises `ImageFolderNotFoundError` where there is no folder, `ImageFolderError` where there
    are no labels, or two folders give the same label.
    """
    root = os.fspath(image_dir)
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise ImageFolderNotFoundError(
            f"the image folder {shown(root)} {what}; --image_dir takes a folder that holds "
            "one sub-folder of photos per label"
        )
    try:
        entries = _entries(root)
    except OSError as error:
        raise ImageFolderError(f"cannot read the folder {shown(root)}: {error.strerror}") from error
    below = len(os.path.join(root, ""))
    images: list[LabeledImage] = []
    folder_of: dict[str, str] = {}
    empty_folders = []
    stray = passed_over = 0
    for entry in entries:
        if entry.name.startswith("."):
            passed_over += 1
        elif not _is_dir(entry):
            passed_over += 1
            stray += os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
        else:
            walk = _Walk(root)
            files = walk.files(entry.path)
            passed_over += walk.passed_over
            if not files:
                empty_folders.append(entry.name)
                continue
            label = normalise(entry.name)
            if not label:
                raise ImageFolderError(
                    f"the folder name {shown(entry.name)!r} has no letter or digit to make a "
                    "label of; rename it"
                )
            if label in folder_of:
                raise ImageFolderError(
                    f"the folders {shown(folder_of[label])!r} and {shown(entry.name)!r} give the "
                    f"same label {label!r}; rename one or put their images together"
                )
            folder_of[label] = entry.name
            images += [LabeledImage(label, f.path[below:].replace(os.sep, "/"), f) for f in files]
    if not images:
        if stray:
            raise ImageFolderError(
                f"the {stray} images of {shown(root)} lie directly in it; put them into "
                "sub-folders, one per label, named as the labels"
            )
        raise ImageFolderError(
            f"found no images in {shown(root)}; it must hold one sub-folder of photos per label"
        )
    images.sort(key=lambda image: os.fsencode(image.relpath))
    return ImageFolder(root, tuple(images), passed_over, tuple(empty_folders))


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of all images below ``folder``, sorted, by the rules of `scan`.

    Raises `ImageFolderError` where ``folder`` itself cannot be read.
    """
    folder = os.fspath(folder)
    files = _Walk().files(folder)
    if [file.path for file in files] == [folder]:
        raise ImageFolderError(f"the folder {shown(folder)} {files[0].problem}")
    return [file.path for file in files]


def normalise(folder_name: str) -> str:
    """A folder's name as a label: lower case, other than letters and digits -> one space.

    As retrain.py did, for all of Unicode (NFC; combining marks belong to their letter).

    >>> normalise("Red_Roses (2019)")
    'red roses 2019'
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", folder_name).lower())
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return " ".join("".join(kept).split())


class _Walk:
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
                entries = [] if identity in self._seen else _entries(folder)
            except OSError as error:  # no permission, or deeper than a path can be long
                problem = f"is a folder that cannot be read: {error.strerror}"
                found.append(ImageFile(folder, problem=problem, is_folder=True))
                continue
            self.passed_over += identity in self._seen  # a link to it, or a loop
            self._seen.add(identity)
            for entry in entries:
                if entry.name.startswith("."):
                    self.passed_over += 1
                elif _is_dir(entry):
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


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_dir(entry: os.DirEntry[str]) -> bool:
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
