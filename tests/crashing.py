"""Builds that are killed, or that fail, at a chosen moment; in child processes by fork.

`make soak` sets RETRAIN_SOAK, and the tests that use `trials` run their full counts.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bottlenecks import atomic, builder, rows
from bottlenecks.builder import CachedImage
from bottlenecks.config import Config
from bottlenecks.photos.decode import decode
from bottlenecks.photos.distort import distorted, variant_keys
from bottlenecks.photos.reading import key_of
from bottlenecks.photos.settings import DistortionSettings
from bottlenecks.store import layout, lock
from bottlenecks.store.cache import Cache
from bottlenecks.variants import Wanted, complete
from tests.standin import AtCut, StandIn

_fork = multiprocessing.get_context("fork")


def trials(sample: int, full: int) -> range:
    """The trials of a test: ``sample`` of them in the ordinary run, ``full`` in the soak."""
    return range(full if os.environ.get("RETRAIN_SOAK") else sample)


def config_for(dataset: Path, bottleneck_dir: Path) -> Config:
    return Config(image_dir=str(dataset), bottleneck_dir=str(bottleneck_dir), batch_size=4)


def build(dataset: Path, bottleneck_dir: Path, seconds: float = 0.0) -> builder.BuildReport:
    """A build with the stand-in."""
    return builder.build(config_for(dataset, bottleneck_dir), extractor=StandIn(seconds=seconds))


def expected_rows(dataset: Path) -> dict[bytes, np.ndarray]:
    """key -> vector of every image, computed without any cache."""
    rows = {}
    for image in cached_images(dataset):
        rows[image.key] = StandIn()(decode(Path(image.path).read_bytes())[np.newaxis])[0]
    return rows


def cached_images(dataset: Path) -> list[CachedImage]:
    """The JPEGs of a folder as a build knows them."""
    return [
        CachedImage(path.parent.name, f"{path.parent.name}/{path.name}", str(path), key_of(path))
        for path in sorted(dataset.rglob("*.jpg"))
    ]


def fill_cut(dataset: Path, bottleneck_dir: Path, seconds: float = 0.0) -> Cache:
    """The rows of every image, and of a variant of each, at the cut of `AtCut`."""
    wanted = [
        Wanted(image, (image.key, *variant_keys(image.key, MIRRORED, 0)))
        for image in cached_images(dataset)
    ]
    config, extractor = config_for(dataset, bottleneck_dir), AtCut(seconds=seconds)
    return complete(config, extractor, wanted, MIRRORED)


def expected_at_cut(dataset: Path) -> dict[bytes, np.ndarray]:
    """key -> row of all that `fill_cut` wants, computed without any cache."""
    rows = {}
    for image in cached_images(dataset):
        data = Path(image.path).read_bytes()
        rows[image.key] = AtCut()(decode(data)[np.newaxis])[0]
        for key in variant_keys(image.key, MIRRORED, 0):
            rows[key] = AtCut()(distorted(data, MIRRORED, [key]))[0]
    return rows


MIRRORED = DistortionSettings(flip_left_right=True, random_brightness=50, distortions_per_image=1)


class Kind(NamedTuple):
    """A kind of rows: what fills a cache with them, what they must be, and what they are of."""

    fill: Callable[..., Any]
    expected: Callable[[Path], dict[bytes, np.ndarray]]
    extractor: StandIn


BOTTLENECKS = Kind(build, expected_rows, StandIn())
AT_CUT = Kind(fill_cut, expected_at_cut, AtCut())
KINDS = pytest.mark.parametrize("kind", [BOTTLENECKS, AT_CUT], ids=["bottlenecks", "at a cut"])


def shard_paths(cache: Cache) -> list[Path]:
    """The shards of a cache on this disk, links to some left out."""
    names = filter(layout.is_shard, cache.store.files())
    return [cache.folder / name for name in names]


def loaded(bottleneck_dir: Path, kind: Kind = BOTTLENECKS) -> Cache:
    """The cache as it is on the disk, without repairing anything."""
    cache = Cache(bottleneck_dir, kind.extractor.fingerprint, kind.extractor.spec)
    cache.load()
    return cache


def assert_only_right_rows(cache: Cache, expected: dict[bytes, np.ndarray]) -> None:
    """Every row is that of one of the images, and is what its image must give."""
    for key in cache:
        np.testing.assert_allclose(cache.read([key])[0], expected[key], atol=1e-6)


def assert_finished(
    bottleneck_dir: Path, expected: dict[bytes, np.ndarray], kind: Kind = BOTTLENECKS
) -> None:
    """Exactly the rows of ``expected``, in whole files, with nothing left over."""
    cache = loaded(bottleneck_dir, kind)
    assert not cache.damaged
    assert set(cache) == set(expected)
    assert_only_right_rows(cache, expected)
    assert not list(bottleneck_dir.rglob(f"*{atomic.PARTIAL_SUFFIX}"))


class Child:
    """``function(connection, *arguments)`` in a forked process."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self.connection, theirs = _fork.Pipe()
        self.process = _fork.Process(target=function, args=(theirs, *arguments))
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        """``kill -9``, unless it is done already."""
        self.process.kill()
        self.process.join()

    def join(self) -> int:
        self.process.join(60)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def messages(self) -> list[Any]:
        """All that it sent."""
        received = []
        try:
            while self.connection.poll(0):
                received.append(self.connection.recv())
        except EOFError:
            pass
        return received


def build_and_tell(
    connection: Connection, dataset: Path, bottleneck_dir: Path, kind: Kind = BOTTLENECKS
) -> None:
    """A slow filling that commits after every batch and sends how many rows are committed."""
    rows.COMMIT_SECONDS = 0.0
    append = Cache.append

    def append_and_tell(self: Cache, keys: list[bytes], vectors: np.ndarray) -> None:
        append(self, keys, vectors)
        connection.send(len(self))

    pytest.MonkeyPatch().setattr(Cache, "append", append_and_tell)
    kind.fill(dataset, bottleneck_dir, seconds=0.01)


class Steps:
    """Counts the calls that change the disk; ``at(n)`` does something at the n-th."""

    NAMES = ("open", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[str], None]):
        self.count = 0
        self.done: list[str] = []
        self._at, self._action = at, action
        os_proxy = _Proxy(os)
        for name in ("fsync", "replace", "open", "ftruncate", "pwrite"):
            setattr(os_proxy, name, self._wrapped(name, getattr(os, name)))
        for module in (atomic, lock):
            monkeypatch.setattr(module, "os", os_proxy)
        monkeypatch.setattr(atomic, "open", self._open, raising=False)
        monkeypatch.setattr(Path, "unlink", self._wrapped("unlink", Path.unlink))
        monkeypatch.setattr(Path, "mkdir", self._wrapped("mkdir", Path.mkdir))

    def _step(self, name: str) -> None:
        self.done.append(name)
        if self.count == self._at:
            self.count += 1
            self._action(name)
        else:
            self.count += 1

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._step(name)
            return function(*arguments, **options)

        return call

    def _open(self, path: Any, mode: str) -> Any:
        self._step("open")
        file = open(path, mode)  # noqa: SIM115
        if "x" in mode:
            return _SteppingFile(file, self._step)
        return file


class _Proxy:
    """A module of which some functions are replaced."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _SteppingFile:
    """A file that takes a step before it writes, and another when half is written."""

    def __init__(self, file: Any, step: Callable[[str], None]) -> None:
        self._file, self._step = file, step

    def __enter__(self) -> "_SteppingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> None:
        self._step("write")
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._step("write")
        self._file.write(data[len(data) // 2 :])


def kill_self(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
