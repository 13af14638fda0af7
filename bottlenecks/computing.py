"""Who computes rows: what it reads is yielded, and what is added goes through the network.

`here` is this process; `bottlenecks.cluster.crew` are the machines of a cluster.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from bottlenecks.network.inception import Extractor
from bottlenecks.pools import in_order, pool_of
from bottlenecks.rows import Rows
from bottlenecks.store.cache import Cache

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_Item = TypeVar("_Item", contravariant=True)
_Answer = TypeVar("_Answer", covariant=True)


@dataclass(frozen=True)
class Read(Generic[_Answer]):
    """What reading an item gave: an answer, and pixels (height, width, 3) uint8 by their keys."""

    answer: _Answer
    pixels: Mapping[bytes, np.ndarray] = field(default_factory=dict)


class Reader(Protocol[_Item, _Answer]):
    """Reads an item, in a thread; it can be pickled, and so can its items and its answers."""

    def __call__(self, item: _Item, is_cached: Callable[[bytes], bool], /) -> Read[_Answer]:
        """What is ``is_cached`` needs no pixels."""


class Computing(Protocol[_Item, _Answer]):
    """Reads items, and runs the network on those of their rows that are added."""

    @property
    def computed(self) -> int:
        """Rows that are through the network."""

    @property
    def waiting(self) -> int:
        """Rows that were added and are not through the network yet."""

    @property
    def images_per_second(self) -> float:
        """Without the first batch, which starts the network, where there is more to go by."""

    @property
    def machines(self) -> int:
        """How many compute, 0 where it is this one."""

    def __contains__(self, key: bytes) -> bool:
        """Whether a row was added."""

    def read(self, items: Sequence[_Item]) -> Generator[tuple[int, _Answer], None, None]:
        """Each item's number with its answer, in any order; when it ends, all rows are committed.

        An item comes again where what was added of it is lost.
        """

    def add(self, key: bytes) -> None:
        """Compute the row of this key of the item that was yielded last, if it has pixels."""


@dataclass
class _Here(Generic[Item, Answer]):
    rows: Rows
    pool: ThreadPoolExecutor
    reader: Reader[Item, Answer]
    ahead: int
    is_cached: Callable[[bytes], bool]
    pixels: Mapping[bytes, np.ndarray] = field(default_factory=dict)

    machines = 0

    @property
    def computed(self) -> int:
        return self.rows.computed

    @property
    def waiting(self) -> int:
        return self.rows.waiting

    @property
    def images_per_second(self) -> float:
        return self.rows.images_per_second

    def __contains__(self, key: bytes) -> bool:
        return key in self.rows

    def read(self, items: Sequence[Item]) -> Generator[tuple[int, Answer], None, None]:
        def read(number: int) -> Read[Answer]:
            return self.reader(items[number], self.is_cached)

        with closing(in_order(self.pool, read, range(len(items)), self.ahead)) as results:
            for number, found in results:
                self.pixels = found.pixels
                yield number, found.answer
        self.rows.flush()

    def add(self, key: bytes) -> None:
        if key in self.pixels:
            self.rows.add(key, self.pixels[key])


@contextmanager
def here(
    cache: Cache,
    extractor: Extractor,
    reader: Reader[Item, Answer],
    batch_size: int,
    threads: int,
    rows_each: int = 1,
) -> Iterator[Computing[Item, Answer]]:
    """This process: ``threads`` read, the network runs in between.

    ``rows_each`` is how many rows an item has at most. What is computed is committed at the end,
    also when it is interrupted.
    """
    rows = Rows(cache, extractor, batch_size)
    with ExitStack() as stack:
        stack.callback(rows.commit)
        pool = stack.enter_context(pool_of(threads, "photos"))
        ahead = max(2, 2 * batch_size // rows_each)
        yield _Here(rows, pool, reader, ahead, cache.__contains__)
