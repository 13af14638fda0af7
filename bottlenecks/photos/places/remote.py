"""An address as a folder of photos.

A listing is asked for once, in pages; it says of each file by what a change would show.
"""

import functools
import hashlib
import logging
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from bottlenecks.errors import UsageError, shown
from bottlenecks.photos.images import FILE, FOLDER, HEADER_BYTES, IMAGE_SUFFIXES, Entry, Signature
from bottlenecks.photos.places import reasons, web
from bottlenecks.photos.places import store as stores
from bottlenecks.photos.places.addresses import AT_ONCE, WEB, join, problem_of, scheme_of
from bottlenecks.photos.places.store import Store, store_of
from bottlenecks.photos.places.tree import UNKNOWN, Found, Listed, Tree, below, versions_of
from bottlenecks.pools import in_order, pool_of

# What stores call a version of a file, and the time of it.
_TAGS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "checksum")
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFolder:
    """A `PhotoSource`: what lies at the address ``root``, and below."""

    root: str

    @functools.cached_property
    def _store(self) -> Store:
        return store_of(self.root)

    @functools.cached_property
    def _listing(self) -> tuple[str, Tree]:
        """What is there, "folder", "file" or empty, and all below.

        Raises `ImageFolderError`, `UsageError`.
        """
        if problem := problem_of(self.root, folder=True):
            raise UsageError(f"{shown(self.root)} {problem}")
        tree = Tree()
        try:
            kind = self._fill(tree)
        except FileNotFoundError:
            return "", tree
        except Exception as error:
            raise reasons.failure(self.root, error) from error
        if tree.unsafe:
            log.warning(
                "%s: names that no file can have are passed over, %d of them, such as %s",
                *(shown(self.root), len(tree.unsafe), shown(tree.unsafe[0])),
            )
        return kind, tree

    def _fill(self, tree: Tree) -> str:
        from fsspec.core import url_to_fs

        store = self._store
        try:
            about = store.call("info", self.root, seconds=stores.CONTACT_SECONDS)
        except PermissionError:  # which may be to list and to read alone
            about = {}
        found = store.call("find", self.root, detail=True, seconds=stores.LIST_SECONDS)
        base = url_to_fs(self.root)[1]
        names = [name for name in found if name != base]
        if not names and about.get("type") != "directory":
            return FILE if found else ""
        for name in names:
            own = name[len(base) + 1 :]
            tree.add(Found(own, signature_in(found[name]), is_folder=own.endswith("/")))
        store.fs.invalidate_cache()  # what is listed again is to be as it is then
        return FOLDER

    def kind(self, path: str) -> str:
        if below(path, self.root) is None:
            return ""
        kind, tree = self._listing
        name = self._name(path)
        return tree.kind(name) if name else kind

    def list(self, folder: str) -> Sequence[Listed]:
        return self._listing[1].list(self._name(folder), folder)

    def _name(self, path: str) -> str:
        """The name of a path of this folder, from its top."""
        return below(path, self.root) or ""

    def identity(self, folder: str) -> Hashable:
        return self.real(folder)

    def real(self, path: str) -> str:
        return path.rstrip("/")

    def versions(self, files: Sequence[Entry]) -> Iterable[tuple[Signature, str]]:
        return versions_of(files)

    def starts(self, paths: Sequence[str]) -> Iterator[bytes]:
        return self._each(self._start, paths)

    def _each(self, ask: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """What the store answers to each of many requests. Raises `ImageFolderError`."""
        with (
            pool_of(AT_ONCE, "photos") as pool,
            closing(in_order(pool, ask, items, 2 * AT_ONCE)) as answers,
        ):
            try:
                for _, answer in answers:
                    yield answer
            except Exception as error:
                raise reasons.failure(self.root, error) from error

    def _start(self, path: str) -> bytes:
        try:
            return self._bytes(path, HEADER_BYTES, stores.CONTACT_SECONDS)
        except Exception as error:
            if reasons.is_final(error):
                return b""
            raise

    def read(self, path: str, limit: int) -> bytes:
        """Raises `BadImageError`, `StoreLostError`."""
        return self._store.read(lambda seconds: self._bytes(path, limit, seconds), limit)

    def _bytes(self, path: str, limit: int, seconds: float) -> bytes:
        data: bytes = self._store.once("cat_file", path, start=0, end=limit, seconds=seconds)
        return data

    def is_prefix(self) -> bool:
        """Whether there is a folder at the address itself."""
        about = self._store.call("info", self.root, seconds=stores.CONTACT_SECONDS)
        return bool(about.get("type") == "directory")


class WebFolder(RemoteFolder):
    """The same of a web server, whose folders are pages of links.

    These say nothing of the files: each that is an image is asked for once, without its content.
    """

    def _fill(self, tree: Tree) -> str:
        for found in web.crawl(self._store, self.root):
            tree.add(found)
        return FOLDER

    def _name(self, path: str) -> str:
        return unquote(super()._name(path))

    def list(self, folder: str) -> Sequence[Listed]:
        return [
            replace(entry, path=join(folder, quote(entry.name))) if entry.is_dir() else entry
            for entry in super().list(folder)
        ]

    def versions(self, files: Sequence[Entry]) -> Iterable[tuple[Signature, str]]:
        return self._each(self._version, [file.path for file in files])

    def _version(self, address: str) -> tuple[Signature, str]:
        store = self._store
        try:
            return store.run(web.head, store.fs, address, seconds=stores.CONTACT_SECONDS)[0], ""
        except Exception as error:
            if reasons.is_final(error):
                return UNKNOWN, f"cannot be read: {reasons.reason(error)}"
            raise

    def _bytes(self, path: str, limit: int, seconds: float) -> bytes:
        data: bytes = self._store.run_once(web.get, self._store.fs, path, limit, seconds=seconds)
        return data

    def is_page(self) -> bool:
        """Whether there is a page at the address itself, and no photo."""
        store = self._store
        kind = store.run(web.head, store.fs, self.root, seconds=stores.CONTACT_SECONDS)[1]
        return bool(kind == web.HTML)


def remote(address: str) -> RemoteFolder:
    return WebFolder(address) if scheme_of(address) in WEB else RemoteFolder(address)


def is_folder(address: str) -> bool:
    """Whether an address is that of a folder: it ends so, or is not named as a photo and is one.

    What cannot be asked is taken for a photo, whose reading says why.
    """
    path = re.split("[?#]", address, maxsplit=1)[0]
    if path.endswith("/"):
        return True
    if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
        return False
    folder = remote(address)
    try:
        return folder.is_page() if isinstance(folder, WebFolder) else folder.is_prefix()
    except UsageError:
        raise
    except Exception:
        return False


def signature_in(about: Mapping[str, Any]) -> Signature:
    """The signature of a file by what a store's listing says of it.

    Its tag is another for each content; a time alone may be the same for two within a second.
    """
    size = about.get("size")
    known = int(size) if isinstance(size, int) else -1
    tag = next((str(about[name]) for name in _TAGS if about.get(name)), "")
    if tag:
        return known, 0, 0, int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8])
    times = (_time_ns(about[name]) for name in _TIMES if name in about)
    time_ns = next((time for time in times if time is not None), UNKNOWN[1])
    return known, time_ns, time_ns, 0


def _time_ns(value: object) -> int | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        value = value.timestamp()
    return int(value * 1e9) if isinstance(value, int | float) else None
