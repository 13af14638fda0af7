"""What the files of a cache folder are called, and how they are read: never through a link.

``inception_v3-<12 hex of the fingerprint>/`` holds shards (``<64 hex>.h5``), their catalogues
(``<64 hex>.keys``), shards set aside (``<64 hex>.h5.damaged``), checkpoints of fine-tuning
(``<64 hex>.checkpoint``), the numbers of the network in 8 bits where rows are computed with such
(``<64 hex>.int8``), and the bookkeeping. What is called otherwise is somebody else's.
"""

import errno
import json
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bottlenecks import atomic
from bottlenecks.errors import CacheError, DamagedShardError, shown
from bottlenecks.photos.reading import open_file

FOLDER_PREFIX = "inception_v3-"
DAMAGED_SUFFIX = ".damaged"
CHECKPOINT_SUFFIX = ".checkpoint"
NUMBERS_SUFFIX = ".int8"
CATALOGUE_SUFFIX = ".keys"
MODEL_FILE, INDEX_FILE, BAD_IMAGES_FILE = "model.json", "stat_index.json", "bad_images.csv"
CHECKPOINT_SECONDS = 7 * 24 * 3600.0  # after which nobody goes on with one any more
MAX_JSON_BYTES = 2**20
MAX_SHARD_BYTES = 256 * 2**20  # larger files are not of this program
_FOLDER = re.compile(r"inception_v3-[0-9a-f]{12}")
_SHARD = re.compile(r"[0-9a-f]{64}\.h5")
_CATALOGUE = re.compile(r"[0-9a-f]{64}\.keys")
_CHECKPOINT = re.compile(r"[0-9a-f]{64}\.checkpoint")
_NUMBERS = re.compile(r"[0-9a-f]{64}\.int8")
_SET_ASIDE = re.compile(r"[0-9a-f]{64}\.h5\.damaged")


def is_cache(name: str) -> bool:
    """Whether the folders of caches are called so."""
    return bool(_FOLDER.fullmatch(name))


def is_shard(name: str) -> bool:
    return bool(_SHARD.fullmatch(name))


def is_vectors(name: str) -> bool:
    """Whether shards are called so, sound ones or those set aside."""
    return is_shard(name) or bool(_SET_ASIDE.fullmatch(name))


def is_ours(name: str) -> bool:
    """Whether anything in a cache folder is called so, but for the lock and partial files."""
    bookkeeping = (MODEL_FILE, INDEX_FILE, BAD_IMAGES_FILE)
    kinds = (is_vectors, is_catalogue, is_checkpoint, is_numbers)
    return name in bookkeeping or any(is_one(name) for is_one in kinds)


def is_catalogue(name: str) -> bool:
    """Whether the catalogues of shards are called so."""
    return bool(_CATALOGUE.fullmatch(name))


def catalogue_of(shard: str) -> str:
    """The name of a shard's catalogue."""
    return shard.rpartition(".")[0] + CATALOGUE_SUFFIX


def path_in(place: str, name: str) -> str:
    """A file of a store, for people."""
    return f"{place.rstrip('/')}/{name}"


def is_checkpoint(name: str) -> bool:
    """Whether checkpoints of fine-tuning are called so."""
    return bool(_CHECKPOINT.fullmatch(name))


def is_numbers(name: str) -> bool:
    """Whether the network's numbers of 8 bits are called so: by the sha256 of their bytes."""
    return bool(_NUMBERS.fullmatch(name))


def checkpoints(folder: Path, older_than: float = -math.inf) -> list[Path]:
    """The checkpoints in a cache folder that were written ``older_than`` seconds ago or before.

    Raises ``OSError``.
    """
    if not folder.exists():
        return []
    before = time.time() - older_than
    return sorted(
        path
        for path in folder.iterdir()
        if is_checkpoint(path.name) and path.lstat().st_mtime < before and can_go(path)
    )


def can_go(path: Path) -> bool:
    """Whether ``path`` can be unlinked: a file, or a link to anything."""
    return path.is_symlink() or not path.is_dir()


def open_own(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file that this program has written, unbuffered, for reading.

    Raises ``OSError`` for a link, a pipe, a folder or a device in its place.
    """
    return open_file(path, follow=False)


def read_own(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of such a file; raises ``OSError`` also where it has more than ``most``."""
    with open_own(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
        return file.read()


def refuse_link(folder: Path) -> None:
    """Raise `CacheError` where a cache folder is a link, so that nothing behind it is touched."""
    if folder.is_symlink():
        raise CacheError(
            f"the cache folder {shown(folder)} is a link, which is not followed; remove it, or "
            "name the folder that holds the real one with --bottleneck_dir"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is none or it is something else."""
    try:
        return json_of(read_own(path, MAX_JSON_BYTES))
    except OSError:
        return {}


def json_of(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``; an empty one where it is something else."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `read_json` reads, for people to read too. Raises ``OSError``."""
    atomic.write_text(path, json_text(content), follow=False)


def json_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def read_whole(file: BinaryIO) -> bytes:
    """The bytes of a shard that is open; raises as `check_size` does."""
    check_size(os.fstat(file.fileno()).st_size)
    return file.read()


def check_size(nbytes: int) -> None:
    """Raise `DamagedShardError` for a file too large to be a shard."""
    if nbytes > MAX_SHARD_BYTES:
        raise DamagedShardError(f"it has {nbytes / 1e6:.0f} MB, more than this program writes")
