"""The parts of a network that is cut: below, whose rows are cached, and above."""

from typing import Any

from bottlenecks.network.cuts import INPUT, SHAPES
from bottlenecks.network.names import INPUT_NODE, NETWORK_SCOPE
from bottlenecks.row_spec import BOTTLENECK, RowSpec

CUT_NODE = "cut"  # what `below` gives, float32, and `above` reads
_FLOAT32 = 1  # DT_FLOAT in tensorflow/core/framework/types.proto


def spec_at(cut: str) -> RowSpec:
    """What a row is at one of the `CUTS`: decoded pixels, or activations in half precision."""
    dtype = "uint8" if cut == INPUT else "float16"
    return RowSpec(cut, SHAPES[cut], dtype, BOTTLENECK.input_size)


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
