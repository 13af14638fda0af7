"""The keys of a shard in a small file beside it, so that a warm run need not read the shard.

A catalogue, ``<64 hex>.keys`` beside ``<64 hex>.h5``, also says how the shard looked (`Version`)
when this machine last checked its bytes. It counts only where the shard looks so still, and else
is as good as none: it only ever saves reading.
"""

import hashlib
import json

import numpy as np

from bottlenecks.row_spec import IMAGE_KEY_BYTES, VARIANT_KEY_BYTES, RowSpec
from bottlenecks.store.folder import Version

FORMAT = "retrain-keys-1"
_CHECKSUM_BYTES = 32  # sha256, before all else
_MOST_BEFORE_KEYS = 4096  # bytes; a shard's own bytes are more than those of its keys


def pack(fingerprint: str, spec: RowSpec, version: Version, keys: np.ndarray) -> bytes:
    """The catalogue of a shard of ``keys`` (n, 32 or 64) uint8 that has this ``version``."""
    body = _head(fingerprint, spec, version, keys.shape[1]) + keys.tobytes()
    return hashlib.sha256(body).digest() + body


def most_bytes(version: Version) -> int:
    """How large the catalogue of a shard of this ``version`` can be."""
    return version[0] + _MOST_BEFORE_KEYS


def unpack(data: bytes, fingerprint: str, spec: RowSpec, version: Version) -> np.ndarray | None:
    """The keys (n, 32 or 64) uint8 of a shard that has this ``version``, n > 0.

    None for what is damaged, or was made of another shard, of other rows or in another format.
    """
    checksum, body = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    for key_bytes in (IMAGE_KEY_BYTES, VARIANT_KEY_BYTES):
        head = _head(fingerprint, spec, version, key_bytes)
        count, rest = divmod(len(body) - len(head), key_bytes)
        if body.startswith(head) and count > 0 and not rest:
            if hashlib.sha256(body).digest() != checksum:
                return None
            return np.frombuffer(body, np.uint8, offset=len(head)).reshape(count, key_bytes)
    return None


def _head(fingerprint: str, spec: RowSpec, version: Version, key_bytes: int) -> bytes:
    """What must be in it before the keys, word for word."""
    head = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "row": [*spec.shape, spec.dtype],
        "shard": version,
        "key_bytes": key_bytes,
    }
    return json.dumps(head).encode() + b"\n"
