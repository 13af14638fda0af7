"""A cache behind an address, ``s3://bucket/cache``: `Store` in whatever fsspec knows.

A shard is one object, so one request commits it. Shards are read through copies on this machine,
whose bytes are checked against their names, so that training reads them as it does any others.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from bottlenecks.errors import DamagedShardError, RetrainError, StoreError, shown
from bottlenecks.photos.places.addresses import is_address, join
from bottlenecks.photos.places.reasons import reason
from bottlenecks.photos.places.store import store_of
from bottlenecks.store import layout, lock
from bottlenecks.store.folder import Folder, Store, Version

COPIES = "~/.cache/retrain/copies"  # of shards behind addresses
SECONDS = 60.0  # that a request may take, and more for a large object
_SLOWEST = 1_000_000  # bytes in a second
# What a kind of store says of an object that changes with its content, the surest first.
_TOKENS = ("generation", "ETag", "etag", "md5Hash", "content_md5", "LastModified", "created")


def store_for(bottleneck_dir: str | os.PathLike[str], name: str) -> Store:
    """The store of the cache whose folder is called ``name``; asks nobody."""
    place = os.fspath(bottleneck_dir)
    return Remote(place, name) if is_address(place) else Folder(Path(place) / name)


def copies_of(bottleneck_dir: str | os.PathLike[str]) -> Path:
    """Where the caches of a ``--bottleneck_dir`` have files on this machine."""
    place = os.fspath(bottleneck_dir)
    if not is_address(place):
        return Path(place)
    digest = hashlib.sha256(place.rstrip("/").encode()).hexdigest()
    return Path(os.path.expanduser(COPIES)) / digest[:16]


def cache_names(bottleneck_dir: str | os.PathLike[str]) -> list[str]:
    """The folders of caches in a ``--bottleneck_dir``, sorted. Raises ``OSError``."""
    place = os.fspath(bottleneck_dir)
    if is_address(place):
        names = (_name_of(entry) for entry in _Objects(place).list())
    else:
        folder = Path(place)
        found = list(folder.iterdir()) if folder.is_dir() else []
        names = (path.name for path in found if path.is_dir())
    return sorted(name for name in names if layout.is_cache(name))


class _Objects:
    """The objects below an address. All raise `StoreError`, and ``FileNotFoundError``."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    def list(self) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = self._call("ls", "", detail=True)
        except FileNotFoundError:
            return []
        return entries

    def info(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("info", name)
        return found

    def get(self, name: str, nbytes: int, **part: int) -> bytes:
        return bytes(self._call("cat_file", name, nbytes=nbytes, **part))

    def put(self, name: str, data: bytes, **options: Any) -> None:
        self._call("pipe_file", name, data, nbytes=len(data), **options)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call("rm_file", name)

    def _call(
        self, method: str, name: str, *arguments: Any, nbytes: int = 0, **options: Any
    ) -> Any:
        address = join(self.address, name) if name else self.address
        try:
            store = store_of(self.address)
            store.fs.invalidate_cache()
            path = store.fs._strip_protocol(address)
            request = store.once if "mode" in options else store.call
            seconds = SECONDS + nbytes / _SLOWEST
            return request(method, path, *arguments, seconds=seconds, **options)
        except (RetrainError, FileExistsError):
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from error
        except Exception as error:
            raise StoreError(
                f"the cache {shown(address)} cannot be used: {reason(error)}; what was committed "
                "is kept, and the same command resumes"
            ) from error


class Remote:
    """`Store` behind an address; asks nobody until it is used."""

    def __init__(self, bottleneck_dir: str, name: str) -> None:
        self.address = join(bottleneck_dir, name)
        self.folder = copies_of(bottleneck_dir) / name
        self._objects = _Objects(self.address)
        self._copies = Folder(self.folder)

    @property
    def place(self) -> str:
        return shown(self.address)

    def exists(self) -> bool:
        return bool(self._objects.list())

    def make(self) -> None:
        pass

    def files(self) -> dict[str, Version]:
        found = {_name_of(e): _version(e) for e in self._objects.list() if e["type"] == "file"}
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        return list(self.files())

    def look(self, name: str) -> Version:
        return _version(self._objects.info(name))

    def read(self, name: str, most: int) -> tuple[bytes, Version]:
        version = self.look(name)
        if version[0] > most:
            path = join(self.address, name)
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        data = self._objects.get(name, version[0])
        if layout.is_shard(name) and _is_whole(name, data):
            self._keep(name, data)
        return data, version

    def read_start(self, name: str, count: int) -> bytes:
        count = min(count, self.look(name)[0])
        return self._objects.get(name, count, start=0, end=count) if count else b""

    def open(self, name: str) -> BinaryIO:
        if not self._has_copy(name):
            data, _ = self.read(name, layout.MAX_SHARD_BYTES)
            if not _is_whole(name, data):
                raise DamagedShardError("its bytes are not those it was written with")
            self._copy(name, data)
        return self._copies.open(name)

    def _has_copy(self, name: str) -> bool:
        try:
            data, _ = self._copies.read(name, layout.MAX_SHARD_BYTES)
        except OSError:
            return False
        return _is_whole(name, data)

    def _keep(self, name: str, data: bytes) -> None:
        """Keep a copy of a shard, so that it need not be fetched to be read; or do without."""
        with contextlib.suppress(OSError):
            self._copy(name, data)

    def _copy(self, name: str, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._copies.write(name, data, sync=False)

    def write(self, name: str, data: bytes, sync: bool = True) -> Version | None:
        self._objects.put(name, data)
        if layout.is_shard(name):
            self._keep(name, data)
        version = self.look(name)
        return version if version[1] else None

    def remove(self, name: str) -> None:
        self._objects.remove(name)
        self._copies.remove(name)

    def rename(self, name: str, new: str) -> None:
        data = self._objects.get(name, self.look(name)[0])
        self._objects.put(new, data)
        self.remove(name)

    def is_settled(self, version: Version, read_ns: int) -> bool:
        return bool(version[1])

    @contextlib.contextmanager
    def exclusive(self, wait: bool = True) -> Iterator[bool]:
        with lock.lease(_LeaseObject(self._objects), self.place, wait) as held:
            yield held

    def has_partials(self) -> bool:
        return False

    def remove_partials(self) -> None:
        """Remove the copies of shards that are not there any more."""
        there = set(self.names())
        for name in filter(layout.is_shard, self._copies.names()):
            if name not in there:
                self._copies.remove(name)

    def dismiss(self) -> None:
        for name in filter(layout.is_ours, self._copies.names()):
            self._copies.remove(name)
        self._copies.dismiss()


class _LeaseObject:
    """`lock.Objects` of one store."""

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects

    def create(self, data: bytes) -> bool:
        try:
            self._objects.put(lock.LEASE_NAME, data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self) -> bytes | None:
        try:
            return self._objects.get(lock.LEASE_NAME, 0)
        except FileNotFoundError:
            return None

    def write(self, data: bytes) -> None:
        self._objects.put(lock.LEASE_NAME, data)

    def remove(self) -> None:
        self._objects.remove(lock.LEASE_NAME)


def _name_of(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _version(entry: dict[str, Any]) -> Version:
    token = next((entry[name] for name in _TOKENS if entry.get(name)), "")
    if isinstance(token, datetime):  # of which some stores give both forms
        token = token.timestamp()
    return int(entry["size"] or 0), str(token)


def _is_whole(name: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == name.partition(".")[0]
