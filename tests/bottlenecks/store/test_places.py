"""A key is found where it was placed last."""

import numpy as np
import pytest

from bottlenecks.store.places import Places


def keys(*numbers: int, nbytes: int = 32) -> np.ndarray:
    """(n, nbytes) uint8."""
    joined = b"".join(number.to_bytes(nbytes, "big") for number in numbers)
    return np.frombuffer(joined, np.uint8).reshape(-1, nbytes)


def key(number: int, nbytes: int = 32) -> bytes:
    return number.to_bytes(nbytes, "big")


@pytest.fixture
def places() -> Places:
    """a: 0, 1, 2; b: 64 bytes of 3, 4; c: 5, and 1 once more."""
    places = Places()
    places.add("a", keys(0, 1, 2))
    places.add("b", keys(3, 4, nbytes=64))
    places.add("c", keys(5, 1))
    return places


def test_each_key_has_its_place(places: Places) -> None:
    assert len(places) == 6
    assert set(places) == {key(0), key(1), key(2), key(5), key(3, 64), key(4, 64)}
    assert key(3) not in places
    wanted = [key(5), key(4, 64), key(0), key(1), key(2), key(0)]
    found = places.by_shard(wanted)
    rows = {}
    for name, (to_rows, from_rows) in found.items():
        for i, row in zip(to_rows.tolist(), from_rows.tolist(), strict=True):
            rows[i] = (name, row)
    assert [rows[i] for i in range(6)] == [
        *(("c", 0), ("b", 1), ("a", 0), ("c", 1), ("a", 2), ("a", 0)),
    ]


def test_only_shards_that_are_wanted_are_named(places: Places) -> None:
    assert list(places.by_shard([key(3, 64)])) == ["b"]
    assert places.by_shard([]) == {}


def test_an_unknown_key(places: Places) -> None:
    with pytest.raises(KeyError):
        places.by_shard([key(0), key(3)])


def test_what_was_dropped_is_not_there(places: Places) -> None:
    places.drop({key(1), key(99)})
    assert len(places) == 5
    assert key(1) not in places
    assert list(places.by_shard([key(2)])) == ["a"]
