"""Where the files of one cache lie: what is asked of such a place, and the one on a local disk."""

import contextlib
import errno
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from bottlenecks import atomic
from bottlenecks.errors import CacheError, OutputError, shown
from bottlenecks.photos.images import Signature, is_settled, signature_of
from bottlenecks.store import layout, lock

# What changes when a file's content does. Its size in bytes comes first.
Version = Signature | tuple[int, str]


class Store(Protocol):
    """The files of one cache by their names; a file is there whole, or not at all.

    What is not named as a cache's own is left alone. ``place`` is what people call it, ``folder``
    where it has files on this machine. All raise ``OSError``, and ``FileNotFoundError`` for a file
    that is not there.
    """

    @property
    def place(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    def exists(self) -> bool: ...

    def make(self) -> None:
        """Make it, if it has to be made. Raises `OutputError` where something is in the way."""

    def files(self) -> dict[str, Version]:
        """The files that are there, sorted by name; no links, pipes and folders."""

    def names(self) -> list[str]:
        """All that is there, whatever it is."""

    def look(self, name: str) -> Version: ...

    def read(self, name: str, most: int) -> tuple[bytes, Version]:
        """A file, and its version from before it was read; ``OSError`` beyond ``most`` bytes."""

    def read_start(self, name: str, count: int) -> bytes:
        """The first ``count`` bytes of a file, or what it has."""

    def open(self, name: str) -> BinaryIO:
        """A shard on this machine, unbuffered; it can be read on when it is removed."""

    def write(self, name: str, data: bytes, sync: bool = True) -> Version | None:
        """Put ``data`` under ``name``; without ``sync`` a loss of power may take it.

        Returns its version, None where a change right after it might not show in that.
        """

    def remove(self, name: str) -> None:
        """Remove a file if it is there, and if it is none leave it."""

    def rename(self, name: str, new: str) -> None: ...

    def is_settled(self, version: Version, read_ns: int) -> bool:
        """Whether a change since ``read_ns``, before a file was read, would show in its version."""

    def exclusive(self, wait: bool = True) -> AbstractContextManager[bool]:
        """Be the only one that merges, prunes and keeps the books; see `lock.exclusive`."""

    def has_partials(self) -> bool:
        """Whether a killed writer has left parts of files."""

    def remove_partials(self) -> None:
        """Remove them; with `exclusive`."""

    def dismiss(self) -> None:
        """Remove what is left when its own files are gone: with it, unless it holds others."""


def read_shard(store: Store, name: str) -> tuple[bytes, Version]:
    """The bytes of a shard, and its version from before they were read.

    Raises `DamagedShardError` for a file too large to be one, and ``OSError``.
    """
    layout.check_size(store.look(name)[0])
    return store.read(name, layout.MAX_SHARD_BYTES)


def read_json(store: Store, name: str) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is none or it is something else."""
    try:
        data, _ = store.read(name, layout.MAX_JSON_BYTES)
    except OSError:
        return {}
    return layout.json_of(data)


def write_json(store: Store, name: str, content: Mapping[str, Any]) -> None:
    """Write what `read_json` reads, for people to read too. Raises ``OSError``."""
    store.write(name, layout.json_text(content).encode())


class Folder:
    """`Store` in a folder of a local disk, in which no link is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made_parent = False

    @property
    def place(self) -> str:
        return shown(self.folder)

    def exists(self) -> bool:
        return self.folder.exists() and not self.folder.is_symlink()

    def make(self) -> None:
        layout.refuse_link(self.folder)
        self._made_parent = not self.folder.parent.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"cannot make the cache folder {self.place}: a file is in the way; "
                "choose another --bottleneck_dir"
            ) from error

    def files(self) -> dict[str, Version]:
        layout.refuse_link(self.folder)
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(e.name for e in entries if e.is_file(follow_symlinks=False))
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise CacheError(
                f"the cache folder {self.place} is a file; choose another --bottleneck_dir"
            ) from error
        found: dict[str, Version] = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self.look(name)
        return found

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []

    def look(self, name: str) -> Signature:
        return signature_of(os.lstat(self.folder / name))

    def read(self, name: str, most: int) -> tuple[bytes, Version]:
        with self.open(name) as file:
            signature = signature_of(os.fstat(file.fileno()))
            if signature[0] > most:
                path = os.fspath(self.folder / name)
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            return file.read(), signature

    def read_start(self, name: str, count: int) -> bytes:
        with self.open(name) as file:
            return file.read(count)

    def open(self, name: str) -> BinaryIO:
        return layout.open_own(self.folder / name)

    def write(self, name: str, data: bytes, sync: bool = True) -> None:
        atomic.write_bytes(self.folder / name, data, follow=False, sync=sync)

    def remove(self, name: str) -> None:
        path = self.folder / name
        if layout.can_go(path):
            path.unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        os.replace(self.folder / name, self.folder / new)

    def is_settled(self, version: Version, read_ns: int) -> bool:
        return len(version) == 4 and is_settled(version, read_ns)

    def exclusive(self, wait: bool = True) -> AbstractContextManager[bool]:
        layout.refuse_link(self.folder)
        return lock.exclusive(self.folder, wait)

    def has_partials(self) -> bool:
        return bool(atomic.partials(self.folder))

    def remove_partials(self) -> None:
        atomic.remove_partials(self.folder)

    def dismiss(self) -> None:
        (self.folder / lock.NAME).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
            if self._made_parent:
                self.folder.parent.rmdir()
