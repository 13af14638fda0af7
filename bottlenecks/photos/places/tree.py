"""A list of names with slashes -> folders that can be looked through as those of the disk are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bottlenecks.errors import ImageFolderError
from bottlenecks.photos.images import FILE, FOLDER, Entry, Signature

MOST_FOLDERS = 1_000_000
DEEPEST = 100  # folders that a file lies in
_LONGEST = 4096  # letters of its whole name
_TWICE = "is there more than once, so it cannot be told which one is meant"
# Of a file whose place says nothing by which a change would show: it is read each time. The times
# are so late that no index remembers it.
UNKNOWN: Signature = (-1, 2**62, 2**62, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a listing, or a folder; ``problem`` says why it is not to be read.

    ``address`` is what it is opened by, where that does not follow from its name.
    """

    name: str
    signature: Signature = UNKNOWN
    problem: str = ""
    is_folder: bool = False
    address: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """An `Entry` of a `Tree`."""

    name: str
    path: str
    found: Found | None  # None for a folder

    def is_dir(self) -> bool:
        return self.found is None


@dataclass
class Tree:
    """The folders of a listing, by their names from its top: "", "daisy", "daisy/2019".

    ``unsafe`` are the names of which no file can be made: absolute ones, or with ``..`` in them.
    """

    folders: dict[str, dict[str, Found | None]] = field(default_factory=lambda: {"": {}})
    unsafe: list[str] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """Put a file or folder into the tree; of two of one name none can be read.

        Raises `ImageFolderError` for more folders than `MOST_FOLDERS`.
        """
        parts = _parts(found.name)
        if parts is None:
            self.unsafe.append(found.name)
            return
        folder = self._folder(parts if found.is_folder else parts[:-1])
        if found.is_folder or not parts:
            return
        name = parts[-1]
        if name not in folder:
            folder[name] = found
        elif folder[name] is None:  # of a disk no file has the name of a folder
            self.unsafe.append(found.name)
        else:
            folder[name] = Found(found.name, problem=_TWICE)

    def _folder(self, parts: Sequence[str]) -> dict[str, Found | None]:
        """What is in a folder; makes it, and those above it."""
        name = "/".join(parts)
        if name not in self.folders:
            above = ""
            for depth, own in enumerate(parts, start=1):
                if (file := self.folders[above].get(own)) is not None:
                    self.unsafe.append(file.name)
                self.folders[above][own] = None
                above = "/".join(parts[:depth])
                self.folders.setdefault(above, {})
            if len(self.folders) > MOST_FOLDERS:
                raise ImageFolderError(f"there are more than {MOST_FOLDERS:,} folders in it")
        return self.folders[name]

    def kind(self, name: str) -> str:
        if name in self.folders:
            return FOLDER
        return FILE if self.found(name) is not None else ""

    def found(self, name: str) -> Found | None:
        """The file of that name, if there is one."""
        above, _, last = name.rpartition("/")
        return self.folders.get(above, {}).get(last)

    def list(self, name: str, path: str) -> list[Listed]:
        """What lies in a folder, by name; ``path`` is what it is opened by."""
        if name not in self.folders:
            raise FileNotFoundError(2, "No such folder", path)
        above = path.rstrip("/")
        return [
            Listed(own, (found and found.address) or f"{above}/{own}", found)
            for own, found in sorted(self.folders[name].items())
        ]


def versions_of(files: Iterable[Entry]) -> Iterator[tuple[Signature, str]]:
    """The versions that a listing has told of its own entries."""
    for file in files:
        assert isinstance(file, Listed)
        assert file.found is not None
        yield file.found.signature, file.found.problem


def below(path: str, root: str) -> str | None:
    """The name of ``path`` from ``root``; None where it lies elsewhere."""
    path, root = path.rstrip("/"), root.rstrip("/")
    if path == root:
        return ""
    return path[len(root) + 1 :] if path.startswith(f"{root}/") else None


def _parts(name: str) -> list[str] | None:
    """The folders and the file of a name; None where it is unsafe."""
    parts = name.removeprefix("./").removesuffix("/").split("/")
    if parts in ([""], ["."]):
        return []
    is_safe = "\0" not in name and {"", ".", ".."}.isdisjoint(parts)
    return parts if is_safe and len(parts) <= DEEPEST and len(name) <= _LONGEST else None
