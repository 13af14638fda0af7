"""The shards of a store: found and checked, at once or when their rows are read, and listed.

Nothing is served that was not checked. What a catalogue says of a shard's keys is compared with
them when the shard is read.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from bottlenecks.errors import DamagedShardError, LostRowsError, OtherRowsError
from bottlenecks.row_spec import RowSpec
from bottlenecks.store import catalogue, layout, shard
from bottlenecks.store.folder import Store, Version, read_shard
from bottlenecks.store.layout import DAMAGED_SUFFIX, catalogue_of
from bottlenecks.store.places import Places


class OtherKeysError(LostRowsError):
    """A catalogue that was believed has not said what its shard says."""


@dataclass(frozen=True)
class Found:
    """A shard's ``keys`` (n, 32 or 64) uint8 and ``size`` in bytes.

    ``seen`` is its version as its bytes were checked, None where a change since then might not
    show; ``is_listed`` whether its catalogue says all this.
    """

    keys: np.ndarray
    size: int
    seen: Version | None = None
    is_listed: bool = False


class Shelf:
    """The shards of one fingerprint. ``shards`` are those found, by name, ``places`` their rows."""

    def __init__(self, store: Store, fingerprint: str, spec: RowSpec) -> None:
        self.store, self.fingerprint, self.spec = store, fingerprint, spec
        self.shards: dict[str, Found] = {}
        self.places = Places()
        self._believes = True  # what catalogues say

    def find(self, every_row: bool = False) -> tuple[dict[str, str], dict[str, str]]:
        """Find them; returns what is wrong with which, damaged ones apart from those of other rows.

        The bytes of each that no catalogue lists as it looks now are checked. With ``every_row``
        those of all are, and their numbers.
        """
        shards: dict[str, Found] = {}
        places = Places()
        damaged, foreign = {}, {}
        for name, version in self.store.files().items():
            if not layout.is_shard(name):
                continue
            try:
                found = None if every_row else self._listed(name, version)
                found = found or self._checked(name, every_row)
            except FileNotFoundError:
                continue  # merged away by another run; its rows are in a shard of that run
            except DamagedShardError as error:
                damaged[name] = str(error)
            except OtherRowsError as error:
                foreign[name] = str(error)
            else:
                shards[name] = found
                places.add(name, found.keys)
        self.shards, self.places = shards, places
        return damaged, foreign

    def _listed(self, name: str, version: Version) -> Found | None:
        """A shard as this process or its catalogue knows it; None unless it looks as it did."""
        if not self._believes:
            return None
        known = self.shards.get(name)
        if known is not None and known.seen == version:
            return known
        keys = self._keys_in_catalogue(name, version)
        return None if keys is None else Found(keys, version[0], version, is_listed=True)

    def _checked(self, name: str, every_row: bool) -> Found:
        """A shard as its bytes are."""
        read_ns = time.time_ns()
        image, version = read_shard(self.store, name)
        if every_row:
            keys, _ = shard.unpack(name, image, self.fingerprint, self.spec)
        else:
            keys = shard.unpack_keys(name, image, self.fingerprint, self.spec)
        is_settled = self.store.is_settled(version, read_ns)
        return Found(keys, len(image), version if is_settled else None)

    def rows(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The keys (n, 32 or 64) uint8 and rows (n, ...) of a shard.

        Raises `LostRowsError` where it is damaged, and has set it aside.
        """
        with self._one_error(name):
            with self.store.open(name) as file:
                image = layout.read_whole(file)
            keys, vectors = shard.unpack(name, image, self.fingerprint, self.spec)
        self._check_keys(name, keys)
        return keys, vectors

    def open(self, name: str) -> tuple[BinaryIO, np.ndarray]:
        """A shard, checked after it was opened, and where each row begins in it, (n,) int64.

        Raises as `rows` does.
        """
        with contextlib.ExitStack() as stack:
            with self._one_error(name):
                file = stack.enter_context(self.store.open(name))
                keys, offsets = shard.unpack_offsets(
                    name, layout.read_whole(file), self.fingerprint, self.spec
                )
            self._check_keys(name, keys)
            stack.pop_all()
        return file, offsets

    def commit(self, keys: np.ndarray, vectors: np.ndarray) -> str:
        """Put rows into the store as one shard; returns its name. Raises ``OSError``."""
        name, image = shard.pack(self.fingerprint, self.spec, keys, vectors)
        version = self.store.write(name, image)
        self.shards[name] = Found(keys, len(image), version)
        self.places.add(name, keys)
        return name

    def adopt(self, name: str, size: int, keys: np.ndarray) -> None:
        """Take in a shard of ``keys`` (n, 32 or 64) uint8 that others have put into the store."""
        self.shards[name] = Found(keys, size)
        self.places.add(name, keys)

    def remove(self, name: str) -> None:
        """Remove a shard, whose rows are elsewhere or not wanted."""
        del self.shards[name]
        self.store.remove(name)
        self.store.remove(catalogue_of(name))

    def set_aside(self, name: str) -> None:
        """Give a damaged shard another name, under which it is not read."""
        with contextlib.suppress(FileNotFoundError):
            self.store.rename(name, name + DAMAGED_SUFFIX)
            self.store.remove(catalogue_of(name))

    @contextlib.contextmanager
    def _one_error(self, name: str) -> Iterator[None]:
        try:
            yield
        except DamagedShardError as error:
            self._disbelieve()
            self.set_aside(name)
            raise LostRowsError(
                f"the cache file {layout.path_in(self.store.place, name)} is damaged: {error}; it "
                f"was set aside as *{DAMAGED_SUFFIX}"
            ) from error

    def _check_keys(self, name: str, keys: np.ndarray) -> None:
        """Raise `OtherKeysError` unless they are what the shard's catalogue said."""
        if not np.array_equal(keys, self.shards[name].keys):
            self._disbelieve()
            path = layout.path_in(self.store.place, catalogue_of(name))
            raise OtherKeysError(f"{path} says other keys than its shard has")

    def _disbelieve(self) -> None:
        """From now on check the bytes of all shards: where one is bad, others may be."""
        self._believes = False
        with contextlib.suppress(OSError):
            for name in filter(layout.is_catalogue, self.store.files()):
                self.store.remove(name)

    # Catalogues.

    def lies(self) -> dict[str, str]:
        """The catalogues that would be believed and say other keys than `find` has found."""
        found = {}
        for name, own in self.shards.items():
            with contextlib.suppress(FileNotFoundError):
                keys = self._keys_in_catalogue(name, self.store.look(name))
                if keys is not None and not np.array_equal(keys, own.keys):
                    found[catalogue_of(name)] = "says other keys than its shard has; remove it"
        return found

    def _keys_in_catalogue(self, name: str, version: Version) -> np.ndarray | None:
        try:
            data, _ = self.store.read(catalogue_of(name), catalogue.most_bytes(version))
        except OSError:
            return None
        return catalogue.unpack(data, self.fingerprint, self.spec, version)

    @property
    def is_listed(self) -> bool:
        """Whether catalogues list all shards that were checked, and no others."""
        return not self._unlisted() and not self._orphans()

    def _unlisted(self) -> list[str]:
        """The shards whose bytes were checked, and whose catalogues do not say so."""
        return [
            name
            for name, found in self.shards.items()
            if found.seen is not None and not found.is_listed
        ]

    def _orphans(self) -> list[str]:
        """The catalogues of shards that are not there."""
        names = self.store.files()
        shards = {catalogue_of(name) for name in names if layout.is_shard(name)}
        return [name for name in names if layout.is_catalogue(name) and name not in shards]

    def write_catalogues(self) -> None:
        """Write those that are missing, and remove those of shards that are gone.

        With the store's `exclusive`. Raises ``OSError``.
        """
        for name in self._unlisted():
            found = self.shards[name]
            assert found.seen is not None
            data = catalogue.pack(self.fingerprint, self.spec, found.seen, found.keys)
            with contextlib.suppress(IsADirectoryError):  # somebody's, in its place
                self.store.write(catalogue_of(name), data, sync=False)
            self.shards[name] = replace(found, is_listed=True)
        for name in self._orphans():
            self.store.remove(name)
