"""Key -> shard and row: where the rows of a cache lie, in as little memory as a million need."""

from collections.abc import Container, Iterable, Iterator

import numpy as np


class Places:
    """The place of each key; of one that is added twice, the later."""

    def __init__(self) -> None:
        # A row's number is that of the first row of its shard, and its own in it.
        self._number: dict[bytes, int] = {}
        self._names: list[str] = []
        self._firsts: list[int] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, key: bytes) -> bool:
        return key in self._number

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._number)

    def add(self, shard: str, keys: np.ndarray) -> None:
        """Place all ``keys`` (n, bytes of a key) uint8 in ``shard``, in its order."""
        count, nbytes = keys.shape
        joined = keys.tobytes()
        each = (joined[start : start + nbytes] for start in range(0, len(joined), nbytes))
        self._number.update(zip(each, range(self._end, self._end + count), strict=True))
        self._names.append(shard)
        self._firsts.append(self._end)
        self._end += count

    def drop(self, keys: Container[bytes]) -> None:
        self._number = {key: place for key, place in self._number.items() if key not in keys}

    def by_shard(self, keys: Iterable[bytes]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Shard -> where in ``keys`` its own are, and the rows of these in it, both (m,) int64.

        Raises ``KeyError``.
        """
        numbers = np.fromiter((self._number[key] for key in keys), np.int64)
        shards = np.searchsorted(np.array(self._firsts, np.int64), numbers, "right") - 1
        order = np.argsort(shards, kind="stable")
        bounds = np.searchsorted(shards[order], np.arange(len(self._names) + 1))
        return {
            name: (own := order[start:end], numbers[own] - first)
            for name, first, start, end in zip(
                self._names, self._firsts, bounds[:-1], bounds[1:], strict=True
            )
            if start < end
        }
