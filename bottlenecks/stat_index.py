"""The stat index: (path, size, times, inode) -> sha256, so that a warm run opens no image.

It only ever saves work: without it, or with a damaged one, every file is hashed again.
"""

import hashlib
import json
from pathlib import Path

from bottlenecks import atomic
from bottlenecks.cache import INDEX_FILE, Cache
from bottlenecks.images import Signature

# A file changed this shortly before it was read may change again without another time stamp:
# kernels advance them in ticks of up to 10 ms, and some file systems keep whole seconds.
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000


class StatIndex:
    """The hashes of files that have not changed since they were read; paths are absolute."""

    @classmethod
    def of(cls, cache: Cache) -> "StatIndex":
        return cls(cache.folder / INDEX_FILE)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, list[int | str]] = {}
        self.is_changed = False
        try:
            checksum, _, body = path.read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() == checksum:
                self._entries = json.loads(body)
        except (OSError, ValueError):
            pass

    def get(self, path: str, signature: Signature) -> bytes | None:
        """The sha256 of the file as it is, or None where it must be read to know."""
        entry = self._entries.get(path)
        if entry is None or tuple(entry[:4]) != signature:
            return None
        return bytes.fromhex(str(entry[4]))

    def put(self, path: str, signature: Signature, sha256: bytes, read_ns: int) -> None:
        """Remember a hash; ``read_ns`` is ``time.time_ns()`` from before the file was read.

        Git's rule for racy entries: a file as young as the reading itself is not remembered,
        because a later change might not show in its signature.
        """
        changed_ns = max(signature[1], signature[2])
        tick = _TICK_NS if changed_ns % 1_000_000_000 else _COARSE_TICK_NS
        if changed_ns + tick < read_ns:
            self._entries[path] = [*signature, sha256.hex()]
            self.is_changed = True
        elif self._entries.pop(path, None) is not None:
            self.is_changed = True

    def save(self) -> None:
        """Write the index, if it changed. Raises ``OSError``."""
        if not self.is_changed:
            return
        body = json.dumps(self._entries, separators=(",", ":")).encode()
        atomic.write_bytes(self.path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        self.is_changed = False
