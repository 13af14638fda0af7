"""Where InceptionV3's weights come from: a download that is checked, a file, or a seed."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bottlenecks import atomic
from bottlenecks.errors import WeightsError, WeightsUnavailableError, shown
from bottlenecks.network.names import IMAGENET, RANDOM

CONNECT_SECONDS = 10
_BLOCK = 2**20

OnDownload = Callable[[int, int], None]  # (bytes so far, bytes in all or 0)


@dataclass(frozen=True)
class PublishedFile:
    """A file to download, with the MD5 (32 hex digits) that its publisher gives for it.

    An error says ``what`` it is, and what to do ``otherwise``.
    """

    url: str
    md5: str
    what: str = "ImageNet weights"
    otherwise: str = "use --weights FILE, or --weights random to try the program untrained"

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


# keras/src/applications/inception_v3.py: WEIGHTS_PATH_NO_TOP and its file_hash.
KERAS_IMAGENET = PublishedFile(
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "bcbd6486424b2319ff4ef7d526e38f63",
)


@dataclass(frozen=True)
class Weights:
    """Weights by what they are: ``sha256`` (64 hex digits) of the file's bytes.

    ``path`` is None for the seeded random ones, whose hash is over the recipe's name.
    """

    name: str
    sha256: str
    path: Path | None


def find_weights(
    weights: str,
    model_dir: str | os.PathLike[str],
    published: PublishedFile | None = None,
    on_download: OnDownload | None = None,
) -> Weights:
    """Resolve ``--weights``: "imagenet", "random", or the path of a Keras weights file.

    Raises `WeightsUnavailableError` where there is no such file, or neither a file nor a
    network, and `WeightsError` for a file that cannot be weights.
    """
    if weights == RANDOM:
        recipe = b"He normal, numpy RandomState, seed 0"
        return Weights(RANDOM, hashlib.sha256(recipe).hexdigest(), None)
    if weights == IMAGENET:
        path = fetch(published or KERAS_IMAGENET, model_dir, on_download)
        return Weights(IMAGENET, _digest(path, "sha256"), path)
    path = Path(weights)
    check_weights_argument(weights)
    return Weights(path.name, _digest(path, "sha256"), path)


def are_at_hand(
    weights: str, model_dir: str | os.PathLike[str], published: PublishedFile | None = None
) -> bool:
    """Whether `find_weights` would find them without a download; they are not read for it."""
    name = (published or KERAS_IMAGENET).name
    return weights != IMAGENET or os.path.isfile(os.path.join(model_dir, name))


def check_weights_argument(weights: str, takes: str = "imagenet, random, or") -> None:
    """Raise what `find_weights` would raise for a path that is no weights file.

    ``takes`` is what else the flag may be, for the message.
    """
    if weights in (RANDOM, IMAGENET):
        return
    remedy = f"--weights takes {takes} the path of a Keras .h5 weights file"
    if not os.path.exists(weights):
        raise WeightsUnavailableError(f"there is no weights file {shown(weights)}; {remedy}")
    if not os.path.isfile(weights):
        raise WeightsError(f"the weights {shown(weights)} are no file; {remedy}")
    with open(weights, "rb") as file:
        if file.read(8) != b"\x89HDF\r\n\x1a\n":
            raise WeightsError(f"the weights file {shown(weights)} is not HDF5; {remedy}")


def fetch(
    published: PublishedFile,
    model_dir: str | os.PathLike[str],
    on_download: OnDownload | None = None,
) -> Path:
    """The path of ``published`` in ``model_dir``, downloaded if it is not there whole.

    Its MD5 is checked each time. Raises `WeightsUnavailableError` with what to do by hand.
    """
    path = Path(model_dir) / published.name
    if path.exists() and _digest(path, "md5") == published.md5:
        return path
    try:
        data = _download(published.url, on_download)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsUnavailableError(_by_hand(published, path, str(reason))) from error
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != published.md5:
        raise WeightsUnavailableError(_by_hand(published, path, f"what came has MD5 {md5}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, data)
    return path


def _download(url: str, on_download: OnDownload | None) -> bytes:
    with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as response:
        length = response.headers.get("Content-Length") or ""
        total = int(length) if length.isdecimal() else 0
        blocks = []
        received = 0
        while block := response.read(_BLOCK):
            blocks.append(block)
            received += len(block)
            if on_download is not None:
                on_download(received, total)
    if received < total:
        raise OSError(f"the connection was cut after {received} of {total} bytes")
    return b"".join(blocks)


def _by_hand(published: PublishedFile, path: Path, reason: str) -> str:
    return (
        f"cannot download the {published.what} ({reason}); download {published.url} "
        f"(MD5 {published.md5}) elsewhere and put it at {shown(path)}, or {published.otherwise}"
    )


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
