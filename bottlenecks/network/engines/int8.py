"""The frozen network in whole numbers of 8 bits: what is multiplied, and what it stands for.

A convolution reads levels of 0 to 255 and multiplies them with whole numbers of -127 to 127; then
its sums are floats until the next ReLU has rounded them to levels. What one level stands for
follows from photos that were run in float32:

- Each channel has a level of its own. A factor above 0 passes through ReLU, pooling and
  concatenation, so it is worked into the kernels before and behind. Levels that are all alike leave
  channels of small numbers with few of them; such as give all channels the same number of them
  leave kernels with weights of very different sizes. Levels in between were found to be best.
- The largest number that the photos have shown is the last level. To cut off the largest ones was
  found to harm.
- Kernels are rounded as `bottlenecks.network.engines.rounding` describes.
- A mean pool comes behind the 1x1 convolution that reads it, which is the same and spares rounding.

The first convolution, which reads pixels, and the last ReLUs, whose mean is the bottleneck, are
floats. Vectors of photos that were not calibrated on are 4 to 5 % (median relative L2) from those
of float32, with kernels of 7 bits 5 to 6 %.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlenecks.errors import CacheError
from bottlenecks.machine import one_blas_thread
from bottlenecks.network.engines.rounding import rounded
from bottlenecks.network.messages import constants_of
from bottlenecks.network.names import INPUT_NODE

VERSION = 1  # part of the fingerprint: change it with anything here that changes a row
LEVELS = 255  # above 0
MOST = 127  # of the whole numbers in kernels
MOST_BYTES = 2**26  # three times what InceptionV3's numbers take
_EQUALISED = 0.25  # power of a channel's range that its levels follow: 0 all alike, 1 in full
_LEAST_RANGE = 1e-3  # of a channel, as a share of the largest of its layer
_PLACES = 24  # of a photo at which what a convolution reads is looked at
_AT_ONCE = 250  # patches whose products are added up at once, for speed
_FORMAT = "retrain int8"
_MOST_HEAD = 2**16  # bytes of the JSON

# Pixels (n, 299, 299, 3) uint8 -> what nodes of the network give for them, (n, height, width, C).
Observe = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Int8:
    """The numbers of a network, by the names of its nodes.

    ``kernels`` of convolutions (height, width, in, out) int8 with the ``steps`` (out,) float32 that
    a sum is multiplied with, and the ``levels`` (C,) float32 that one level of a ReLU stands for.
    """

    kernels: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]
    levels: Mapping[str, np.ndarray]

    def levels_of(self, relus: Iterable[str]) -> np.ndarray:
        """(C,) those of several ReLUs whose channels lie one behind the other."""
        return np.concatenate([self.levels[name] for name in relus])


@dataclass(frozen=True)
class Convolution:
    """A convolution that reads levels: what it ``reads`` (a node), and the ReLUs that it is of.

    ``behind`` is the ReLU behind it, ``kernel`` (height, width, in, out) float32 its own.
    """

    name: str
    reads: str
    relus: tuple[str, ...]
    behind: str
    kernel: np.ndarray
    strides: tuple[int, int]
    is_same: bool  # whether what it reads is padded, so that its size stays

    @property
    def window(self) -> tuple[Any, ...]:
        """What the patches that it multiplies depend on."""
        return self.reads, self.kernel.shape[:2], self.strides, self.is_same


def convolutions_of(graph_def: Any) -> list[Convolution]:
    """Those of the frozen network that read levels, in the order of the flow."""
    nodes = {node.name: node for node in graph_def.node}
    constants = constants_of(graph_def)
    behind = {node.input[0]: node.name for node in graph_def.node if node.op in ("BiasAdd", "Relu")}
    return [
        Convolution(
            node.name,
            node.input[0],
            tuple(relus),
            behind[behind[node.name]],
            constants[node.input[1]],
            tuple(node.attr["strides"].list.i[1:3]),
            node.attr["padding"].s == b"SAME",
        )
        for node in graph_def.node
        if node.op == "Conv2D" and (relus := list(_relus(nodes, node.input[0])))
    ]


def _relus(nodes: Mapping[str, Any], name: str) -> Iterator[str]:
    """The ReLUs whose channels ``name`` gives, in their order; none for pixels."""
    node = nodes.get(name)
    if node is None or name == INPUT_NODE or node.op == "Const":
        return
    if node.op == "Relu":
        yield name
    else:
        for one in node.input if node.op == "ConcatV2" else node.input[:1]:
            yield from _relus(nodes, one)


def observed(convolutions: Sequence[Convolution]) -> list[str]:
    """The nodes whose output `calibrated` wants to see."""
    return list(dict.fromkeys(one.reads for one in convolutions))


def calibrated(
    graph_def: Any,
    observe: Observe,
    photos: Iterable[np.ndarray],
    most: int,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> Int8:
    """The numbers for a frozen network, by what it gives for ``photos``.

    ``observe`` gives what the nodes of `observed` do for a few of them, (n, 299, 299, 3) uint8;
    ``photos`` are such, a few at a time for little memory. Kernels have whole numbers up to
    ``most``. ``on_step`` is told how many convolutions are done, and of how many.
    """
    import scipy.linalg  # noqa: F401  # before BLAS is told, so that its own is told too

    with one_blas_thread():
        return _calibrated(graph_def, observe, photos, most, on_step)


def _calibrated(
    graph_def: Any,
    observe: Observe,
    photos: Iterable[np.ndarray],
    most: int,
    on_step: Callable[[int, int], None],
) -> Int8:
    convolutions = convolutions_of(graph_def)
    names, sizes = observed(convolutions), _sizes(graph_def)
    ranges: dict[str, np.ndarray] = {}
    seen = {one.window: _Moments() for one in convolutions}
    random = np.random.default_rng(0)
    for pixels in photos:
        given = dict(zip(names, observe(pixels), strict=True))
        for name, relus in {one.reads: one.relus for one in convolutions}.items():
            largest = given[name].max(axis=(0, 1, 2))
            for relu, own in zip(relus, np.split(largest, _ends(relus, sizes)), strict=True):
                ranges[relu] = np.maximum(ranges.get(relu, 0.0), own)
        for window, moments in seen.items():
            moments.add(_patches(given[window[0]], window, random))
    levels = {name: _levels(found) for name, found in ranges.items()}
    kernels, steps = {}, {}
    for done, one in enumerate(convolutions, start=1):
        height, width, inputs, outputs = one.kernel.shape
        level = np.concatenate([levels[name] for name in one.relus])
        behind = levels.get(one.behind, np.ones(outputs, np.float32))
        kernel = one.kernel * level[:, np.newaxis] / behind
        each = np.repeat(1.0 / level, height * width)
        is_last = all(later.window != one.window for later in convolutions[done:])
        mean = (seen.pop if is_last else seen.__getitem__)(one.window).mean()  # they take 0.5 GB
        mean *= each
        mean *= each[:, np.newaxis]
        flat = kernel.transpose(2, 0, 1, 3).reshape(-1, outputs)
        whole, steps[one.name] = rounded(flat, mean, most)
        kernels[one.name] = np.ascontiguousarray(
            whole.reshape(inputs, height, width, outputs).transpose(1, 2, 0, 3)
        )
        on_step(done, len(convolutions))
    return Int8(kernels, steps, levels)


class _Moments:
    """The mean products of any two of d numbers, as they come."""

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._sum: np.ndarray | None = None
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        """Take in ``rows`` (n, d) float32; many are worked in at once."""
        self._waiting.append(rows)
        if len(rows) * len(self._waiting) >= _AT_ONCE:
            self._work_in()

    def mean(self) -> np.ndarray:
        """(d, d) float32 of one row or more; the upper triangle, below it are zeros."""
        self._work_in()
        assert self._sum is not None
        return np.asarray(self._sum / self._count)

    def _work_in(self) -> None:
        if self._waiting:
            from scipy.linalg import blas

            rows = np.concatenate(self._waiting)
            if self._sum is None:  # the upper triangle, in the order of columns as BLAS has it
                self._sum = np.zeros((rows.shape[1],) * 2, np.float32, "F")
            self._sum = blas.ssyrk(1.0, rows.T, 1.0, self._sum, overwrite_c=True)
            self._count += len(rows)
            self._waiting = []


def _sizes(graph_def: Any) -> dict[str, int]:
    """How many channels each ReLU has."""
    constants = constants_of(graph_def)
    biases = {x.name: constants[x.input[1]] for x in graph_def.node if x.op == "BiasAdd"}
    return {x.name: len(biases[x.input[0]]) for x in graph_def.node if x.op == "Relu"}


def _ends(relus: Sequence[str], sizes: Mapping[str, int]) -> list[int]:
    """Where each of several ReLUs but the last one ends, among the channels of all."""
    return list(itertools.accumulate(sizes[name] for name in relus[:-1]))


def _levels(largest: np.ndarray) -> np.ndarray:
    """(C,) float32: what a level stands for, where ``largest`` (C,) is the last one's number."""
    ranges = np.maximum(largest, _LEAST_RANGE * largest.max() or 1.0)
    share: np.ndarray = ranges**_EQUALISED
    return np.asarray(share * (ranges / share).max() / LEVELS, np.float32)


def _patches(x: np.ndarray, window: tuple[Any, ...], random: np.random.Generator) -> np.ndarray:
    """(n * places, in * height * width) float32 of what a convolution reads, at random places."""
    _, (height, width), (down, right), is_same = window
    if is_same:
        up, left = (height - 1) // 2, (width - 1) // 2
        x = np.pad(x, ((0, 0), (up, height - 1 - up), (left, width - 1 - left), (0, 0)))
    rows = random.integers(0, (x.shape[1] - height) // down + 1, (len(x), _PLACES)) * down
    columns = random.integers(0, (x.shape[2] - width) // right + 1, (len(x), _PLACES)) * right
    photo = np.arange(len(x))[:, np.newaxis, np.newaxis, np.newaxis]
    at_rows = rows[..., np.newaxis, np.newaxis] + np.arange(height)[:, np.newaxis]
    at_columns = columns[..., np.newaxis, np.newaxis] + np.arange(width)
    found = x[photo, at_rows, at_columns]  # (n, places, height, width, in)
    ordered: np.ndarray = found.transpose(0, 1, 4, 2, 3).reshape(len(x) * _PLACES, -1)
    return ordered


def to_bytes(numbers: Int8, about: Mapping[str, Any]) -> bytes:
    """One line of JSON, ``about`` the network and its calibration, and then all numbers."""
    head = json.dumps({"format": _FORMAT, "version": VERSION, **about}, sort_keys=True)
    arrays = [*numbers.kernels.values(), *numbers.steps.values(), *numbers.levels.values()]
    return b"".join([head.encode() + b"\n", *(array.tobytes() for array in arrays)])


def about_of(data: bytes) -> dict[str, Any]:
    """What `to_bytes` was told. Raises `CacheError` where that is not what ``data`` begins with."""
    try:
        found = json.loads(data[:_MOST_HEAD].partition(b"\n")[0])
        is_ours = (found["format"], found["version"]) == (_FORMAT, VERSION)
    except (ValueError, TypeError, LookupError, RecursionError):
        is_ours = False
    if not is_ours:
        raise CacheError("is not of this version of the program")
    return dict(found)


def from_bytes(data: bytes, graph_def: Any) -> Int8:
    """The numbers of ``graph_def`` that are in ``data``: as many as its shapes take.

    Raises `CacheError` for other bytes, and for numbers that no calibration gives.
    """
    about_of(data)
    at = data.index(b"\n") + 1
    convolutions = convolutions_of(graph_def)
    sizes = _sizes(graph_def)
    read = list(dict.fromkeys(name for one in convolutions for name in one.relus))
    kinds: list[tuple[dict[str, np.ndarray], str, tuple[int, ...], str]] = []
    kernels: dict[str, np.ndarray] = {}
    steps: dict[str, np.ndarray] = {}
    levels: dict[str, np.ndarray] = {}
    kinds += [(kernels, one.name, one.kernel.shape, "i1") for one in convolutions]
    kinds += [(steps, one.name, one.kernel.shape[3:], "<f4") for one in convolutions]
    kinds += [(levels, name, (sizes[name],), "<f4") for name in read]
    for numbers, name, shape, dtype in kinds:
        count = int(np.prod(shape))
        if len(data) - at < count * np.dtype(dtype).itemsize:
            raise CacheError("is cut off")
        numbers[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
        at += numbers[name].nbytes
    if at != len(data):
        raise CacheError("has more in it than the network's numbers")
    for positive in (*steps.values(), *levels.values()):
        if not (np.isfinite(positive).all() and (positive > 0).all()):
            raise CacheError("has numbers that no calibration gives")
    most = about_of(data).get("most", MOST)
    if any(np.abs(kernel.astype(np.int16)).max() > most for kernel in kernels.values()):
        raise CacheError("has numbers that no calibration gives")
    return Int8(kernels, steps, levels)
