"""Small ONNX models as other programs might write them, for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed")

Shape = tuple[int | str, ...]


def node(operation: str, *names: str, outputs: int = 1, **attributes: Any) -> Any:
    """A NodeProto; the last of the ``names`` are its outputs."""
    given, made = names[:-outputs], names[-outputs:]
    return onnx.helper.make_node(operation, given, made, name=f"{made[0]} node", **attributes)


def constant(name: str, value: np.ndarray) -> Any:
    return onnx.numpy_helper.from_array(value, name)


def model_of(
    nodes: Sequence[Any],
    shape: Shape,
    constants: Sequence[Any] = (),
    source: str = "input",
    output: str = "scores",
    kind: int = 1,
    **parts: Any,
) -> Any:
    """A ModelProto whose input ``source`` has ``shape``, and whose output has none that it says."""
    info = onnx.helper.make_tensor_value_info(source, kind, shape)
    graph = onnx.helper.make_graph(
        nodes, "made", [info], [onnx.ValueInfoProto(name=output)], constants
    )
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("com.example", 1)]
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets, **parts)


def colours(
    shape: Shape,
    source: str = "input",
    mean: float = 0.0,
    std: float = 1.0,
    output: str = "scores",
    keepdims: bool = False,
) -> Any:
    """Scores for cyan, magenta and yellow: the colour that a photo has least of.

    It is fed (pixel - ``mean``) / ``std`` of pixels in [0, 1].
    """
    axes, softmax = ([1, 2], 3) if shape[3] == 3 else ([2, 3], 1)
    nodes = [
        node("ReduceMean", source, "means", axes=axes, keepdims=int(keepdims)),
        node("Mul", "means", "std", "spread"),
        node("Add", "spread", "mean", "unit"),
        node("Mul", "unit", "gain", "logits"),
        node("Softmax", "logits", output, axis=softmax if keepdims else 1),
    ]
    values = {"std": std, "mean": mean, "gain": -20.0}
    constants = [constant(name, np.array(value, np.float32)) for name, value in values.items()]
    return model_of(nodes, shape, constants, source, output)


def of_retrain(labels: Sequence[str], about: str = "") -> Any:
    """`colours` as retrain would write it, with ``labels``."""
    model = colours(("n", 3, 299, 299), "Placeholder", output="final_result")
    carried = {"retrain/labels": "\n".join(labels), "retrain/about": about}
    onnx.helper.set_model_props(model, carried)
    return model


def write(folder: Path, model: Any, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path
