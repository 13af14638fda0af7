"""The stat index: (path, size, times, inode) -> sha256, so that a warm run opens no image.

It only ever saves work: without it, or with a damaged one, every file is hashed again.
"""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Any

from bottlenecks.photos.images import Signature, is_settled
from bottlenecks.store.cache import Cache
from bottlenecks.store.folder import Store
from bottlenecks.store.layout import INDEX_FILE

_MAX_BYTES = 2**30  # 5 million files
_CHECKSUM, _CHECKSUM_BYTES = re.compile(rb"[0-9a-f]{64}\n"), 65


class StatIndex:
    """The hashes of files that have not changed since they were read; paths are absolute."""

    @classmethod
    def of(cls, cache: Cache) -> "StatIndex":
        return cls(cache.store)

    def __init__(self, store: Store) -> None:
        self.store = store
        self._entries = _read(store)
        self._news: dict[str, list[int | str] | None] = {}  # None: forget it

    @property
    def is_changed(self) -> bool:
        return bool(self._news)

    def get(self, path: str, signature: Signature) -> bytes | None:
        """The sha256 of the file as it is, or None where it must be read to know."""
        try:
            entry = self._news[path] if path in self._news else self._entries[path]
            *remembered, digest = entry  # type: ignore[misc]
            return bytes.fromhex(str(digest)) if tuple(remembered) == signature else None
        except (KeyError, TypeError, ValueError):  # not there, or not what this program writes
            return None

    def put(self, path: str, signature: Signature, sha256: bytes, read_ns: int) -> None:
        """Remember a hash; ``read_ns`` is ``time.time_ns()`` from before the file was read.

        A file as young as the reading itself is not remembered, because a later change might not
        show in its signature.
        """
        if is_settled(signature, read_ns):
            self._news[path] = [*signature, sha256.hex()]
        elif path in self._entries or path in self._news:
            self._news[path] = None

    def keep_only(self, root: str, paths: Collection[str]) -> None:
        """Forget the files below ``root`` that are not among ``paths``."""
        for path in self._entries:
            if path.startswith(root) and path not in paths:
                self._news[path] = None

    def save(self) -> None:
        """Write what is new into the index as it is on the disk now. Raises ``OSError``.

        Call it with the cache's lock.
        """
        if not self._news:
            return
        entries = {**_read(self.store), **self._news}
        self._entries = {path: entry for path, entry in entries.items() if entry is not None}
        body = json.dumps(self._entries, separators=(",", ":")).encode()
        checksum = hashlib.sha256(body).hexdigest().encode()
        self.store.write(INDEX_FILE, checksum + b"\n" + body)
        self._news = {}


def _read(store: Store) -> dict[str, Any]:
    try:
        # What has no checksum is not read at all.
        if not _CHECKSUM.fullmatch(store.read_start(INDEX_FILE, _CHECKSUM_BYTES)):
            return {}
        checksum, _, body = store.read(INDEX_FILE, _MAX_BYTES)[0].partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            return {}
        entries = json.loads(body)
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
