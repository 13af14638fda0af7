"""What InceptionV3 is made of, and what its 1x1 convolutions save: counted in Keras' own model.

A multiply-add is one product of a convolution or of the softmax layer: each weight of a kernel is
used once at each place of what comes out (what falls on the padding counts too). That is how 5
billion are published for this network (Szegedy et al. 2015, "Rethinking the Inception
Architecture", abstract) and 5.7 billion for torchvision's; normalisation, ReLU and pooling are left
out. Parameters are Keras': all weights, with the means and variances of the normalisation.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottlenecks.network.cuts import BLOCKS, CUTS, INPUT
from bottlenecks.network.inception import canonical_names, untrained

IMAGENET_CLASSES = 1000
EXAMPLE = "mixed0"  # whose 5x5 convolution is shown in full
WIDTH = 74  # characters of the table
_BEGINS = {INPUT: "stem", BLOCKS[0]: "blocks", "avg_pool": "top"}


@dataclass(frozen=True)
class Kernel:
    """The weights of a convolution, or of the softmax layer, and where they are used.

    ``size`` is (height, width), nothing for the softmax layer; ``places`` are those (height,
    width) of what comes out. ``others`` are the parameters beside it, which hold one value for each
    channel: the normalisation's or the bias. ``reads`` is the layer of the convolution whose
    channels it reads and no other's, if any.
    """

    layer: str
    size: tuple[int, ...]
    inputs: int
    outputs: int
    places: tuple[int, ...]
    others: int
    reads: str = ""

    @property
    def weights(self) -> int:
        return math.prod(self.size) * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + self.others

    @property
    def multiply_adds(self) -> int:
        return self.weights * math.prod(self.places)


@dataclass(frozen=True)
class Part:
    """What lies between two places where the network can be cut, or behind the last of them.

    ``shape`` (height, width, channels) is that of its output, called ``name``.
    """

    name: str
    shape: tuple[int, ...]
    kernels: tuple[Kernel, ...]


def parts_of(model: Any) -> list[Part]:
    """The parts of a Keras InceptionV3 with its top, in the order of the flow."""
    names = canonical_names([layer.name for layer in model.layers])
    kernels = _kernels_of(model, names)
    ends = {*CUTS, "avg_pool", "predictions"}
    parts: list[Part] = []
    within: list[Kernel] = []
    for layer in model.layers:
        name = INPUT if layer is model.layers[0] else names[layer.name]
        within += [kernels[name]] if name in kernels else []
        if name in ends:
            parts.append(Part(name, tuple(layer.output.shape[1:]), tuple(within)))
            within = []
    return parts


def _kernels_of(model: Any, names: Mapping[str, str]) -> dict[str, Kernel]:
    """The kernels of a Keras model by the ``names`` of its layers."""
    made_by = {id(layer.output): layer for layer in model.layers}
    norms = {id(x.input): x for x in model.layers if type(x).__name__ == "BatchNormalization"}

    def convolution_before(tensor: Any) -> str:
        layer = made_by[id(tensor)]
        while type(layer).__name__ in ("Activation", "BatchNormalization"):
            layer = made_by[id(layer.input)]
        return names[layer.name] if type(layer).__name__ == "Conv2D" else ""

    kernels = {}
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        *size, inputs, outputs = layer.kernel.shape
        parameters = layer.count_params()
        if id(layer.output) in norms:
            parameters += norms[id(layer.output)].count_params()
        kernels[names[layer.name]] = Kernel(
            names[layer.name],
            tuple(size),
            inputs,
            outputs,
            places=tuple(layer.output.shape[1:-1]),
            others=parameters - math.prod(layer.kernel.shape),
            reads=convolution_before(layer.input),
        )
    return kernels


def reductions(kernels: Iterable[Kernel]) -> list[Kernel]:
    """The 1x1 convolutions that give fewer channels than they read, before other convolutions."""
    kernels = list(kernels)
    read = {kernel.reads for kernel in kernels}
    return [
        kernel
        for kernel in kernels
        if kernel.size == (1, 1) and kernel.outputs < kernel.inputs and kernel.layer in read
    ]


def without_reductions(kernels: Iterable[Kernel]) -> list[Kernel]:
    """The same network where what lies behind a reduction reads all that the reduction reads."""
    kernels = list(kernels)
    inputs = {kernel.layer: kernel.inputs for kernel in reductions(kernels)}
    return [
        dataclasses.replace(kernel, inputs=inputs.get(kernel.reads, kernel.inputs), reads="")
        for kernel in kernels
        if kernel.layer not in inputs
    ]


def summary() -> str:
    """The network's parts, the totals and the arithmetic, in lines of at most 80 characters."""
    parts = parts_of(untrained(IMAGENET_CLASSES))
    return "\n".join([*_table(parts), "", *_savings(parts)])


def kernels_of(parts: Iterable[Part]) -> list[Kernel]:
    """The kernels of them all."""
    return [kernel for part in parts for kernel in part.kernels]


def _table(parts: Sequence[Part]) -> list[str]:
    *body, top = parts
    lines = [_row("output of", "shape", "convolutions", "parameters", "multiply-adds")]
    for part in parts:
        if part.name in _BEGINS:
            lines.append(f"{_BEGINS[part.name]} ".ljust(WIDTH, "-"))
        lines.append(_row(part.name, _times(part.shape), *_counts(part.kernels)))
    return [
        *lines,
        "-" * WIDTH,
        _row("without the top", _times(body[-1].shape), *_counts(kernels_of(body))),
        _row("all of it", _times(top.shape), *_counts(kernels_of(parts))),
        "",
        "Multiply-adds are those of the convolutions and of the top alone. Parameters",
        "include the means and variances that normalisation uses.",
        "",
        f"--fine_tune_from takes each of {CUTS[0]} to {CUTS[-2]}, and trains all behind it.",
        "The bottleneck is avg_pool; predictions is ImageNet's softmax layer, in whose",
        "place python -m retrain trains one of your labels.",
    ]


def _row(name: str, shape: str, convolutions: str, parameters: str, multiply_adds: str) -> str:
    return f"{name:<15}  {shape:<15}  {convolutions:>12}  {parameters:>11}  {multiply_adds:>13}"


def _counts(kernels: Iterable[Kernel]) -> tuple[str, str, str]:
    """How many convolutions, parameters and multiply-adds."""
    kernels = list(kernels)
    convolutions = sum(1 for kernel in kernels if kernel.size)
    parameters, multiply_adds = _totals(kernels)
    return f"{convolutions:,}", f"{parameters:,}", f"{multiply_adds:,}"


def _totals(kernels: Iterable[Kernel]) -> tuple[int, int]:
    """The parameters and multiply-adds of them all."""
    kernels = list(kernels)
    return sum(x.parameters for x in kernels), sum(x.multiply_adds for x in kernels)


def _savings(parts: Sequence[Part]) -> list[str]:
    kernels = kernels_of(parts)
    reduced, without = reductions(kernels), without_reductions(kernels)
    example = next(part for part in parts if part.name == EXAMPLE)
    wide = next(x for x in example.kernels if x.size == (5, 5))
    narrow = next(x for x in reduced if x.layer == wide.reads)
    alone = next(x for x in without if x.layer == wide.layer)
    both = narrow.multiply_adds + wide.multiply_adds
    more = f"{alone.multiply_adds / both:.1f} times as many"
    return [
        f"What the 1x1 convolutions save, at the 5x5 convolution of {EXAMPLE}: {narrow.inputs}",
        f"channels come in, of which a 1x1 convolution first makes {narrow.outputs}. Weights, and",
        f"the places ({_times(wide.places)}) at which each is used:",
        "",
        *(_arithmetic("with it", x) for x in (narrow, wide)),
        f"{'together':>17}{both:>55,}",
        _arithmetic("without", alone),
        f"{more:>72}",
        "",
        f"There are {len(reduced)} of them: 1x1, with fewer channels behind than before, and then",
        "another convolution. If that read all channels, the whole network would have",
        "",
        *_compared(_totals(kernels), _totals(without)),
    ]


def _compared(with_them: tuple[int, int], without: tuple[int, int]) -> list[str]:
    """Parameters and multiply-adds of two networks, and how many times as many there are."""
    parameters, products = (f"{y / x:.1f} times" for x, y in zip(with_them, without, strict=True))
    return [
        f"{'':<9}{'parameters':>12}{'multiply-adds':>32}",
        f"{'with them':<9}{with_them[0]:>12,}{with_them[1]:>32,}",
        f"{'without':<9}{without[0]:>12,}, {parameters}{without[1]:>21,}, {products}",
    ]


def _arithmetic(case: str, kernel: Kernel) -> str:
    """How its products come about, as in 5 x 5 x 48 x 64 = 76,800 x 1,225 = 94,080,000."""
    what = f"{'x'.join(map(str, kernel.size))} {kernel.inputs} -> {kernel.outputs}"
    factors = _times((*kernel.size, kernel.inputs, kernel.outputs))
    places = math.prod(kernel.places)
    weights = f"{factors:>16} = {kernel.weights:>7,}"
    return f"{case:<9}{what:<15}{weights} x {places:,} = {kernel.multiply_adds:>11,}"


def _times(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
