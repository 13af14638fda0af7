"""What a machine of a cluster does: it reads, decodes, computes, and commits whole shards."""

import bisect
import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottlenecks import __version__, machine
from bottlenecks.cluster.carried import Carried, unpacked
from bottlenecks.computing import Read, Reader
from bottlenecks.errors import RetrainError, one_line, shown
from bottlenecks.network.inception import Extractor
from bottlenecks.pools import pool_of
from bottlenecks.row_spec import IMAGE_KEY_BYTES
from bottlenecks.rows import Rows
from bottlenecks.store.cache import Cache, Committed


@dataclass(frozen=True)
class Setup:
    """What all workers of a run are told.

    Paths are relative to ``folder``. ``sample`` is a photo, and its bytes, that each must see.
    ``batch_size`` and ``threads`` are None where each machine has its own.
    """

    version: str
    folder: str
    bottleneck_dir: str
    reader: Reader[Any, Any]
    sample: tuple[str, int] | None
    batch_size: int | None
    threads: int | None
    commit_seconds: float


@dataclass(frozen=True)
class Started:
    """What a worker is when it has got ready: why it cannot be, or how many rows it batches."""

    problem: str
    batch_size: int = 0


@dataclass(frozen=True)
class Done:
    """How far a worker is: rows through the network so far, and shards since it said so last."""

    computed: int
    shards: tuple[Committed, ...]


class NotSharedError(RetrainError):
    """A worker that does not see the photos or the cache that the others see."""


class KnownKeys:
    """The keys of images whose rows are cached, as (n, 32) uint8 in their order."""

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys

    @staticmethod
    def of(cache: Cache) -> np.ndarray:
        keys = sorted(key for key in cache if len(key) == IMAGE_KEY_BYTES)
        return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, IMAGE_KEY_BYTES)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._keys[row])

    def __contains__(self, key: bytes) -> bool:
        row = bisect.bisect_left(self, key)
        return row < len(self) and self[row] == key


class Worker:
    """One process of a machine, with a network of its own; an actor of Ray.

    Calls come in threads: one at a time reads and another one computes, so that photos are read
    while the network runs. What was read waits in memory until it is known which of its rows are
    wanted.
    """

    def start(
        self, setup: Setup, sent: "Carried | Extractor", known: np.ndarray, most_threads: int
    ) -> Started:
        """Get ready, with the network loaded."""
        if setup.version != __version__:
            return Started(f"it has version {__version__} of this program, not {setup.version}")
        try:
            os.chdir(setup.folder)
        except OSError:
            os.chdir(os.sep)
        try:
            _check_sees(setup.sample)
            extractor = unpacked(sent)
            extractor(np.zeros((1, *extractor.spec.input_size, 3), np.uint8))
        except (RetrainError, OSError, ImportError) as error:
            return Started(one_line(error))
        self._cache = Cache(setup.bottleneck_dir, extractor.fingerprint, extractor.spec)
        self._committed: list[Committed] = []
        batch_size = setup.batch_size or machine.batch_size()
        self._rows = Rows(
            self._cache,
            extractor,
            batch_size,
            setup.commit_seconds,
            self._committed.extend,
        )
        self._reader = setup.reader
        self._known = KnownKeys(known)
        threads = setup.threads or max(1, min(machine.threads(), most_threads))
        self._stack = contextlib.ExitStack()
        self._pool = self._stack.enter_context(pool_of(threads, "photos"))
        self._pieces: dict[int, Mapping[bytes, np.ndarray]] = {}  # pixels that were read
        self._reading, self._computing = threading.Lock(), threading.Lock()
        self._sees_cache = False
        self._stopping = threading.Event()
        return Started("", batch_size)

    def read(self, piece: int, items: Sequence[Any]) -> list[tuple[Any, list[bytes]]]:
        """The answer of each item, and the keys of the pixels that are kept of it."""
        with self._reading:
            found: list[Read[Any]] = list(self._pool.map(self._read, items))
        self._pieces[piece] = {key: one.pixels[key] for one in found for key in one.pixels}
        return [(one.answer, list(one.pixels)) for one in found]

    def _read(self, item: Any) -> Read[Any]:
        if self._stopping.is_set():
            raise RuntimeError("it was told to stop")
        return self._reader(item, self._is_cached)

    def _is_cached(self, key: bytes) -> bool:
        return key in self._known or key in self._rows

    def compute(self, piece: int, keys: Sequence[bytes], token: str) -> Done:
        """Run the network on these rows of a piece; commit if the last time is long enough ago.

        The file ``token`` lies in the cache's folder, so that it is known to be the same one.
        Raises `NotSharedError`, and what the network and the disk raise.
        """
        with self._computing:
            return self._compute(piece, keys, token)

    def _compute(self, piece: int, keys: Sequence[bytes], token: str) -> Done:
        pixels = self._pieces.pop(piece, None)
        if pixels is None or not keys:  # it was dropped
            return self._done()
        if not self._sees_cache:
            self._check_sees_cache(token)
        for key in keys:
            if not self._stopping.is_set():
                self._rows.add(key, pixels[key])
        return self._done()

    def _check_sees_cache(self, token: str) -> None:
        try:
            self._cache.store.look(token)
        except FileNotFoundError as error:
            raise NotSharedError(
                f"it does not see the cache {self._cache.store.place}, which must lie where all "
                "machines see it"
            ) from error
        self._sees_cache = True

    def finish(self) -> Done:
        """Compute what waits, unless it is stopping, and commit all."""
        with self._computing:
            if not self._stopping.is_set():
                self._rows.flush()
            self._rows.commit()
            return self._done()

    def drop(self, piece: int) -> bool:
        """Forget a piece that was read, for others to do; False where it is being computed."""
        return self._pieces.pop(piece, None) is not None

    def stop(self) -> None:
        """Let all calls that come return at once, but for a last `finish`."""
        self._stopping.set()

    def _done(self) -> Done:
        shards = tuple(self._committed)
        self._committed.clear()
        return Done(self._rows.computed, shards)


def _check_sees(sample: tuple[str, int] | None) -> None:
    if sample is None:
        return
    path, size = sample
    try:
        seen = Path(path).stat().st_size
    except OSError:
        seen = -1
    if seen != size:
        raise NotSharedError(
            f"it does not see the photo {shown(os.path.abspath(path))}; photos must lie where all "
            "machines see them"
        )
