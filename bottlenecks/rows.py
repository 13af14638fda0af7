"""Pixels -> network -> rows committed to the cache, batch by batch."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from bottlenecks.errors import RetrainError
from bottlenecks.network.inception import Extractor
from bottlenecks.store.cache import Cache, Committed

COMMIT_SECONDS = 5.0  # at most this much work, and a batch, is lost when a run is killed
COMMIT_BYTES = 2**25


class Rows:
    """Images on their way through the network into the cache.

    ``images_per_second`` leaves out the first batch, which starts the network, where there is
    more to go by. ``on_commit`` is told what was committed.
    """

    def __init__(
        self,
        cache: Cache,
        extractor: Extractor,
        batch_size: int,
        commit_seconds: float | None = None,
        on_commit: Callable[[Sequence[Committed]], None] = lambda _: None,
    ) -> None:
        self._cache, self._extractor, self._batch_size = cache, extractor, batch_size
        self._commit_seconds = COMMIT_SECONDS if commit_seconds is None else commit_seconds
        self._on_commit = on_commit
        self._keys: set[bytes] = set()  # all that were added
        self._batch: dict[bytes, np.ndarray] = {}  # not yet through the network
        self._ready: list[tuple[list[bytes], np.ndarray]] = []  # not yet committed
        self._committed = self._since = time.monotonic()
        self._first_batch = 0
        self.computed = 0
        self.images_per_second = 0.0

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    @property
    def waiting(self) -> int:
        """Images that are not through the network yet."""
        return len(self._batch)

    def add(self, key: bytes, pixels: np.ndarray) -> None:
        self._keys.add(key)
        self._batch[key] = pixels
        if len(self._batch) == self._batch_size:
            self.flush()

    def flush(self) -> None:
        """Run the network on what is waiting; commit if the last time is long enough ago."""
        if not self._batch:
            return
        vectors = _checked_vectors(self._extractor, np.stack(list(self._batch.values())))
        self._ready.append((list(self._batch), vectors))
        self._batch = {}
        now = time.monotonic()
        if self.computed:
            self.computed += len(vectors)
            self.images_per_second = (self.computed - self._first_batch) / (now - self._since)
        else:
            self.computed = self._first_batch = len(vectors)
            self.images_per_second = len(vectors) / (now - self._since)
            self._since = now
        nbytes = sum(vectors.nbytes for _, vectors in self._ready)
        if now - self._committed > self._commit_seconds or nbytes >= COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Commit what is through the network."""
        if self._ready:
            keys = [key for keys, _ in self._ready for key in keys]
            vectors = np.concatenate([vectors for _, vectors in self._ready])
            self._on_commit(self._cache.append(keys, vectors))
            self._ready = []
        self._committed = time.monotonic()


def _checked_vectors(extractor: Extractor, pixels: np.ndarray) -> np.ndarray:
    vectors, spec = extractor(pixels), extractor.spec
    is_whole = len(vectors) == len(pixels) and spec.fits(vectors)
    if not is_whole or not np.isfinite(vectors).all():
        expected = (len(pixels), *spec.shape)
        raise RetrainError(
            f"the network gave {vectors.shape} {vectors.dtype}, expected finite {expected} "
            f"{spec.dtype}; the weights are not what they should be"
        )
    return vectors
