"""The keys of a shard in a small file beside it, so that a warm run need not read the shard.

A catalogue, ``<64 hex>.keys`` beside ``<64 hex>.h5``, also says how the shard looked (`Signature`)
when this machine last checked its bytes. It counts only where the shard looks so still, and else
is as good as none: it only ever saves reading.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from bottlenecks.photos.images import Signature
from bottlenecks.row_spec import IMAGE_KEY_BYTES, VARIANT_KEY_BYTES, RowSpec
from bottlenecks.store.layout import read_own

FORMAT = "retrain-keys-1"
_CHECKSUM_BYTES = 32  # sha256, before all else
_MOST_BEFORE_KEYS = 4096  # bytes; a shard's own bytes are more than those of its keys


def pack(fingerprint: str, spec: RowSpec, signature: Signature, keys: np.ndarray) -> bytes:
    """The catalogue of a shard of ``keys`` (n, 32 or 64) uint8 that has this ``signature``."""
    body = _head(fingerprint, spec, signature, keys.shape[1]) + keys.tobytes()
    return hashlib.sha256(body).digest() + body


def read(path: Path, fingerprint: str, spec: RowSpec, signature: Signature) -> np.ndarray | None:
    """The keys (n, 32 or 64) uint8 of a shard that has this ``signature``, n > 0.

    None where there is no catalogue, or one that is damaged, or was made of another shard, of
    other rows or by another version.
    """
    try:
        data = read_own(path, signature[0] + _MOST_BEFORE_KEYS)
    except OSError:
        return None
    checksum, body = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    for key_bytes in (IMAGE_KEY_BYTES, VARIANT_KEY_BYTES):
        head = _head(fingerprint, spec, signature, key_bytes)
        count, rest = divmod(len(body) - len(head), key_bytes)
        if body.startswith(head) and count > 0 and not rest:
            if hashlib.sha256(body).digest() != checksum:
                return None
            return np.frombuffer(body, np.uint8, offset=len(head)).reshape(count, key_bytes)
    return None


def _head(fingerprint: str, spec: RowSpec, signature: Signature, key_bytes: int) -> bytes:
    """What must be in it before the keys, word for word."""
    head = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "row": [*spec.shape, spec.dtype],
        "shard": signature,
        "key_bytes": key_bytes,
    }
    return json.dumps(head).encode() + b"\n"
