"""InceptionV3's layers by Keras' names: where the network can be cut, and the parts of a cut.

What is below a cut is frozen and its output, a row for each image, is cached; what is above is
trained. The network can be cut where all that flows passes through one tensor: after the input,
between the layers of the stem, and between the blocks (Szegedy et al. 2015, "Rethinking the
Inception Architecture", figure 5 to 7 and table 1).
"""

import re
from typing import Any

from bottlenecks.errors import UsageError, shown
from bottlenecks.network.names import INPUT_NODE, NETWORK_SCOPE
from bottlenecks.row_spec import BOTTLENECK, RowSpec

INPUT = "input"
CUT_NODE = "cut"  # what `below` gives, float32, and `above` reads

# The shape (height, width, channels) of what comes out at each place, in the order of the flow.
_SHAPES = {
    INPUT: (*BOTTLENECK.input_size, 3),
    "activation": (149, 149, 32),
    "activation_1": (147, 147, 32),
    "activation_2": (147, 147, 64),
    "max_pooling2d": (73, 73, 64),
    "activation_3": (73, 73, 80),
    "activation_4": (71, 71, 192),
    "max_pooling2d_1": (35, 35, 192),
    "mixed0": (35, 35, 256),
    "mixed1": (35, 35, 288),
    "mixed2": (35, 35, 288),
    "mixed3": (17, 17, 768),
    "mixed4": (17, 17, 768),
    "mixed5": (17, 17, 768),
    "mixed6": (17, 17, 768),
    "mixed7": (17, 17, 768),
    "mixed8": (8, 8, 1280),
    "mixed9": (8, 8, 2048),
    "mixed10": (8, 8, 2048),
}
BLOCKS = tuple(name for name in _SHAPES if name.startswith("mixed"))
CUTS = tuple(_SHAPES)
_STEM_CONVOLUTIONS = 5
_FLOAT32 = 1  # DT_FLOAT in tensorflow/core/framework/types.proto
# The number of the last layer of a kind in each of the `BLOCKS`, which are numbered through.
_LAST = {
    **dict.fromkeys(
        ("conv2d", "batch_normalization", "activation"),
        (11, 18, 25, 29, 39, 49, 59, 69, 75, 84, 93),
    ),
    "average_pooling2d": (0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8),
    "max_pooling2d": (1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3),
    "mixed9": (-1,) * 9 + (0, 1),  # mixed9_0 is in mixed9, mixed9_1 in mixed10
    "concatenate": (-1,) * 9 + (0, 1),
}


def cut_for(layer: str) -> str:
    """Where to cut so that ``layer`` is below, or within the first block above.

    A block, a layer of the stem or `INPUT` is below, with the normalisation and activation that
    belong to it. A layer within a block cannot be parted from what flows beside it, so the cut is
    before that block. Raises `UsageError` for a name that InceptionV3 does not have.
    """
    if layer in _SHAPES:
        return layer
    kind, _, digits = layer.rpartition("_") if re.search(r"_[0-9]+$", layer) else (layer, "", "0")
    number = int(digits) if len(digits) < 4 else -1
    if kind in ("conv2d", "batch_normalization") and 0 <= number < _STEM_CONVOLUTIONS:
        return f"activation_{number}".removesuffix("_0")
    last = _LAST.get(kind, ())
    canonical = layer == (f"{kind}_{number}" if number or kind == "mixed9" else kind)
    if canonical and last and 0 <= number <= last[-1]:
        block = next(i for i, most in enumerate(last) if number <= most)
        return CUTS[CUTS.index(BLOCKS[block]) - 1]
    raise UsageError(
        f"InceptionV3 has no layer {shown(layer)}; its blocks are {INPUT}, {', '.join(BLOCKS)}"
    )


def spec_at(cut: str) -> RowSpec:
    """What a row is at one of the `CUTS`: decoded pixels, or activations in half precision."""
    dtype = "uint8" if cut == INPUT else "float16"
    return RowSpec(cut, _SHAPES[cut], dtype, BOTTLENECK.input_size)


def node_of(cut: str) -> str:
    """The node of the frozen network that gives what is cut at."""
    return INPUT_NODE if cut == INPUT else f"{NETWORK_SCOPE}/{cut}"


def below(network: Any, cut: str) -> Any:
    """The part of a frozen GraphDef up to ``cut``, whose output is `CUT_NODE`."""
    part = type(network)(versions=network.versions)
    wanted = _below(network, cut)
    part.node.extend(node for node in network.node if node.name in wanted)
    part.node.add(name=CUT_NODE, op="Identity", input=[node_of(cut)])
    part.node[-1].attr["T"].type = _FLOAT32
    return part


def above(network: Any, cut: str) -> Any:
    """The part of a frozen GraphDef behind ``cut``, whose input is `CUT_NODE`, not in it."""
    part = type(network)(versions=network.versions)
    left_out = _below(network, cut)
    part.node.extend(node for node in network.node if node.name not in left_out)
    for node in part.node:
        for i, name in enumerate(node.input):
            if name == node_of(cut):
                node.input[i] = CUT_NODE
    return part


def _below(network: Any, cut: str) -> set[str]:
    """The names of the nodes that the output at ``cut`` needs, and its own."""
    inputs = {node.name: list(node.input) for node in network.node}
    found: set[str] = set()
    to_do = [node_of(cut)]
    while to_do:
        name = to_do.pop()
        if name in inputs and name not in found:
            found.add(name)
            to_do += inputs[name]
    return found
