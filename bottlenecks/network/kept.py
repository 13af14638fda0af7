"""Graphs in a folder, under the hash of their bytes: frozen networks; each is made once."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bottlenecks import atomic
from bottlenecks.errors import shown
from bottlenecks.network.names import ARCHITECTURE

log = logging.getLogger(__name__)


def read(folder: str | os.PathLike[str], source: str, kind: str = ARCHITECTURE) -> bytes | None:
    """The graph in ``folder`` that was made of ``source``, if it is there and whole.

    ``source`` tells all that its bytes follow from, and ``kind`` begins its name. A damaged one is
    removed, with a warning.
    """
    for path in _named(folder, source, kind):
        data = path.read_bytes()
        if _is_whole(path, hashlib.sha256(data).hexdigest()):
            return data
    return None


def find(folder: str | os.PathLike[str], source: str) -> Path | None:
    """The path of the frozen network that `read` would give."""
    for path in _named(folder, source, ARCHITECTURE):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _is_whole(path, digest):
            return path
    return None


def keep(
    folder: str | os.PathLike[str], source: str, graph: bytes, kind: str = ARCHITECTURE
) -> Path:
    """Put the ``graph`` that was made of ``source`` where `find` finds it; returns its path.

    Raises ``OSError`` where that cannot be.
    """
    stem = _stem(source, kind)
    path = Path(folder) / f"{stem}-{hashlib.sha256(graph).hexdigest()}.pb"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, graph)
    return path


def _named(folder: str | os.PathLike[str], source: str, kind: str) -> Iterator[Path]:
    """The files in ``folder`` that are named as those of ``source`` are, and so not others'."""
    stem = _stem(source, kind)
    for path in Path(folder).glob(f"{stem}-*.pb"):
        if re.fullmatch(rf"{stem}-[0-9a-f]{{64}}", path.stem) and path.is_file():
            yield path


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a file has the hash that its name says; if not, it is removed."""
    if path.stem.endswith(f"-{digest}"):
        return True
    log.warning("the kept graph %s is damaged; making it again", shown(path))
    path.unlink()
    return False


def _stem(source: str, kind: str) -> str:
    return f"{kind}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
