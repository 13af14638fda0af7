"""Where InceptionV3 can be cut: its layers by Keras' names.

What is below a cut is frozen and its output, a row for each image, is cached; what is above is
trained. The network can be cut where all that flows passes through one tensor: after the input,
between the layers of the stem, and between the blocks (Szegedy et al. 2015, "Rethinking the
Inception Architecture", figures 5 to 7 and table 1).
"""

import re

from bottlenecks.errors import UsageError, shown

INPUT = "input"

# The shape (height, width, channels) of what comes out at each place, in the order of the flow.
SHAPES = {
    INPUT: (299, 299, 3),
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
# How many numbers there are to train above each place (weights and biases), without the head.
TRAINED = {
    INPUT: 21_768_352,
    "activation": 21_767_456,
    "activation_1": 21_758_208,
    "activation_2": 21_739_712,
    "max_pooling2d": 21_739_712,
    "activation_3": 21_734_512,
    "activation_4": 21_596_080,
    "max_pooling2d_1": 21_596_080,
    "mixed0": 21_340_640,
    "mixed1": 21_063_664,
    "mixed2": 20_779_008,
    "mixed3": 19_626_368,
    "mixed4": 18_330_496,
    "mixed5": 16_641_216,
    "mixed6": 14_951_936,
    "mixed7": 12_811_904,
    "mixed8": 11_114_880,
    "mixed9": 6_073_536,
    "mixed10": 0,
}
BLOCKS = tuple(name for name in SHAPES if name.startswith("mixed"))
CUTS = tuple(SHAPES)
_STEM_CONVOLUTIONS = 5
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
    if layer in SHAPES:
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
        f"InceptionV3 has no layer {shown(layer)}; choose one of {', '.join([INPUT, *BLOCKS[:-1]])}"
        ", or a layer between them"
    )
