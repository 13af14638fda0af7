"""How do ONNX models compare with the frozen graph: their size, speed, scores and cold answer?

Both are of one run. The speed is that of the network fed decoded batches; the cold answer is the
whole of ``python -m label_image photo.jpg``, against ``import tensorflow``.
"""

from pathlib import Path

import numpy as np
from measure import Finding, Inputs, alternate, command, main, of, photos, ratios, speeds

from bottlenecks.machine import batch_size
from bottlenecks.photos.decode import decode
from bottlenecks.photos.labels import scan
from retrain.engines.engine import Engine
from retrain.engines.settings import GraphSettings

FROZEN, ONNX, IMPORT = "frozen graph", "ONNX", "import tensorflow"
FILES = {FROZEN: "retrained_graph.pb", ONNX: "retrained.onnx"}
PHOTOS, ROUNDS = 3 * batch_size(), 3


def measure(inputs: Inputs) -> list[Finding]:
    with photos(inputs.image_dir, PHOTOS) as folder:
        flags = ["--image_dir=photos", f"--weights={inputs.weights}", "--model_dir=models"]
        flags += ["--how_many_training_steps=100", f"--output_onnx={FILES[ONNX]}"]
        command("-m", "retrain", *flags, folder=folder)()
        paths = [Path(image.path) for image in scan(folder / "photos").images]
        return [*sizes(folder), *warm(folder, paths), *cold(folder, paths[0])]


def sizes(folder: Path) -> list[Finding]:
    found = {name: (folder / file).stat().st_size / 1e6 for name, file in FILES.items()}
    return [
        of("size, ONNX / frozen graph", [found[ONNX] / found[FROZEN]], "times"),
        *(of(f"  {name}", [size], "MB") for name, size in found.items()),
    ]


def warm(folder: Path, paths: list[Path]) -> list[Finding]:
    """Speed and scores of the two, as `label_image` runs them."""
    pixels = np.stack([decode(path.read_bytes()) for path in paths])
    batches = pixels.reshape(-1, batch_size(), *pixels.shape[1:])
    labels = str(folder / "retrained_labels.txt")
    engines = {
        name: Engine(GraphSettings(graph=str(folder / file), labels=labels))
        for name, file in FILES.items()
    }
    scores = {
        name: np.concatenate([engine.scores(batch) for batch in batches])
        for name, engine in engines.items()
    }
    apart = np.abs(scores[ONNX] - scores[FROZEN]).max(axis=1)
    same = scores[ONNX].argmax(axis=1) == scores[FROZEN].argmax(axis=1)

    def over_all(engine: Engine) -> None:
        for batch in batches:
            engine.scores(batch)

    sides = {name: lambda engine=engine: over_all(engine) for name, engine in engines.items()}
    seconds = alternate(sides, ROUNDS)
    return [
        of("speed, ONNX / frozen graph", ratios(seconds, FROZEN, ONNX), "times"),
        *speeds(seconds, len(pixels)),
        of("largest difference of a score", apart.tolist(), "", at_most=1e-5),
        of("photos with the same label", [100 * same.mean()], "%", at_least=100),
    ]


def cold(folder: Path, photo: Path) -> list[Finding]:
    """The seconds to the answer for one photo, in a process of its own."""
    sides = {
        name: command("-m", "label_image", f"--graph={file}", photo, folder=folder)
        for name, file in FILES.items()
    }
    seconds = alternate({**sides, IMPORT: command("-c", IMPORT, folder=folder)}, ROUNDS)
    return [
        of("cold answer, ONNX / import tensorflow", ratios(seconds, ONNX, IMPORT), "times"),
        of(
            "cold answer, frozen graph / import tensorflow",
            ratios(seconds, FROZEN, IMPORT),
            "times",
        ),
        *(of(f"  cold, {name}", values, "s") for name, values in seconds.items()),
    ]


if __name__ == "__main__":
    main(measure, __doc__)
