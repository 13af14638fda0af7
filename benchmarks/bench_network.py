"""How fast is the frozen network alone, against OpenVINO and ONNX Runtime on the same GraphDef?

All are fed the same decoded batches; none of them reads a file.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import Finding, Inputs, alternate, main, of, photos, ratios, speeds

from bottlenecks.machine import batch_size, cpu_has_bfloat16
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import decode
from bottlenecks.photos.labels import scan

OURS, OPENVINO, ONNX = "frozen graph", "OpenVINO", "ONNX Runtime"
BY_OPENVINO = "frozen graph, --engine openvino"
Run = Callable[[np.ndarray], np.ndarray]


def measure(inputs: Inputs) -> list[Finding]:
    with photos(inputs.image_dir, 4 * batch_size()) as folder:
        images = [decode(Path(i.path).read_bytes()) for i in scan(folder / "photos").images]
        batches = np.stack(images).reshape(-1, batch_size(), *images[0].shape)
        float32 = InceptionV3(inputs.weights, folder / "models")
        graph_def = with_input(float32.frozen)
        runs: dict[str, Run] = {
            OURS: float32,
            BY_OPENVINO: float32.computed_in("float32", "openvino"),
            OPENVINO: openvino(graph_def, folder, "f32"),
            ONNX: onnx_runtime(graph_def),
        }
        if cpu_has_bfloat16():
            runs[f"{OURS}, bfloat16"] = InceptionV3(inputs.weights, folder / "models", "bfloat16")
            runs[f"{OPENVINO}, bfloat16"] = openvino(graph_def, folder, "bf16")
        expected = float32(batches[0])
        distances = {name: distance(run(batches[0]), expected) for name, run in runs.items()}
        for name in (OPENVINO, ONNX):
            assert distances[name] < 1e-4, f"{name} computes something else"

        def over_all(run: Run) -> Callable[[], object]:
            return lambda: [run(batch) for batch in batches]

        seconds = alternate({name: over_all(run) for name, run in runs.items()})
    findings = [
        of("frozen graph / OpenVINO", ratios(seconds, OPENVINO, OURS), "times", at_least=0.93),
        of("frozen graph / ONNX Runtime", ratios(seconds, ONNX, OURS), "times"),
        of(
            "the better engine, float32 / ONNX Runtime",
            [
                other / min(both)
                for other, *both in zip(
                    seconds[ONNX], seconds[OURS], seconds[BY_OPENVINO], strict=True
                )
            ],
            "times",
            at_least=0.97,
        ),
    ]
    if cpu_has_bfloat16():
        pair = f"{OPENVINO}, bfloat16", f"{OURS}, bfloat16"
        findings.append(of("bfloat16, frozen graph / OpenVINO", ratios(seconds, *pair), "times"))
        findings += [
            of(f"{name}: distance from float32", [100 * distances[name]], "%") for name in pair
        ]
    return [*findings, *speeds(seconds, len(images))]


def distance(vectors: np.ndarray, expected: np.ndarray) -> float:
    """The median relative L2 distance of the rows."""
    norms = np.linalg.norm(vectors - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(np.median(norms))


def with_input(frozen: bytes) -> Any:
    """The network as a GraphDef that has its input, which other runtimes want."""
    tf = import_tensorflow()
    network = tf.compat.v1.GraphDef.FromString(frozen)
    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3), name=INPUT_NODE)
    graph_def = graph.as_graph_def()
    graph_def.node.extend(network.node)
    return graph_def


def openvino(graph_def: Any, folder: Path, precision: str) -> Run:
    import openvino as ov

    path = folder / "network.pb"
    path.write_bytes(graph_def.SerializeToString())
    model = ov.Core().read_model(path)
    model.reshape([batch_size(), 299, 299, 3])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda pixels: compiled(pixels / np.float32(127.5) - np.float32(1))[0]


def onnx_runtime(graph_def: Any) -> Run:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    import tf2onnx

    model, _ = tf2onnx.convert.from_graph_def(
        graph_def, input_names=[f"{INPUT_NODE}:0"], output_names=[f"{BOTTLENECK_NODE}:0"]
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(pixels: np.ndarray) -> np.ndarray:
        fed = pixels / np.float32(127.5) - np.float32(1)
        return np.asarray(session.run(None, {f"{INPUT_NODE}:0": fed})[0])

    return run


if __name__ == "__main__":
    main(measure, __doc__)
