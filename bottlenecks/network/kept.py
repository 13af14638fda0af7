"""Frozen networks in a folder, under the hash of their bytes: each is made once."""

import hashlib
import logging
import os
import re
from pathlib import Path

from bottlenecks import atomic
from bottlenecks.errors import shown
from bottlenecks.network.names import ARCHITECTURE

log = logging.getLogger(__name__)


def find(folder: str | os.PathLike[str], source: str) -> Path | None:
    """The network in ``folder`` that was made of ``source``, if it is there and whole.

    ``source`` tells all that its bytes follow from. A damaged one is removed, with a warning.
    """
    stem = _stem(source)
    for path in Path(folder).glob(f"{stem}-*.pb"):
        if not (re.fullmatch(rf"{stem}-[0-9a-f]{{64}}", path.stem) and path.is_file()):
            continue  # somebody else's
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stem == f"{stem}-{digest}":
            return path
        log.warning("the frozen network %s is damaged; building it again", shown(path))
        path.unlink()
    return None


def keep(folder: str | os.PathLike[str], source: str, network: bytes) -> Path:
    """Put the ``network`` that was made of ``source`` where `find` finds it; returns its path.

    Raises ``OSError`` where that cannot be.
    """
    path = Path(folder) / f"{_stem(source)}-{hashlib.sha256(network).hexdigest()}.pb"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, network)
    return path


def _stem(source: str) -> str:
    return f"{ARCHITECTURE}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
