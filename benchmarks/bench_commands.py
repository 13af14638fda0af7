"""How long do the commands take, as multiples of ``python -c "import tensorflow"``?

A warm ``python -m retrain`` with 3,670 cached vectors (1000 steps, graph exported), and a cold
``python -m label_image photo.jpg`` by each engine; ``--help`` and an error that needs no TensorFlow
in seconds.
"""

import os
import tempfile
from pathlib import Path

from made_up import make
from measure import Finding, Inputs, alternate, command, main, of, ratios

from bottlenecks.network.inception import InceptionV3

VECTORS, LABELS = 3_670, 5
IMPORT = "import tensorflow"
ENGINES = {"tensorflow": 1.7, "openvino": 0.35}  # and the goals for label_image


def measure(inputs: Inputs) -> list[Finding]:
    photo = next(p for p in sorted(Path(inputs.image_dir).glob("*/*")) if p.is_file())
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        extractor = InceptionV3(inputs.weights, models)
        warm = ["-m", "retrain", *make(Path(folder), VECTORS, LABELS, extractor.fingerprint)]
        warm += [f"--weights={inputs.weights}", f"--model_dir={models}"]
        warm += ["--how_many_training_steps=1000"]
        error = "import sys; from retrain.cli import main; sys.exit(main(['--image_dir=no']) != 2)"
        seconds = alternate(
            {
                IMPORT: command("-c", IMPORT, folder=folder),
                "retrain": command(*warm, folder=folder),
                **{
                    engine: command("-m", "label_image", "--engine", engine, photo, folder=folder)
                    for engine in ENGINES
                },
                "help": command("-m", "retrain", "--help", folder=folder),
                "error": command("-c", error, folder=folder),
            }
        )
    return [
        of(
            f"python -m retrain, {VECTORS:,} cached vectors / {IMPORT}",
            *(ratios(seconds, "retrain", IMPORT), "times"),
            at_most=0.5,
        ),
        *(
            of(
                f"python -m label_image photo.jpg, {engine} / {IMPORT}",
                *(ratios(seconds, engine, IMPORT), "times"),
                at_most=goal,
            )
            for engine, goal in ENGINES.items()
        ),
        of("python -m retrain --help", seconds["help"], "s", at_most=0.4),
        of("python -m retrain, an error", seconds["error"], "s", at_most=0.4),
        of(f"  {IMPORT}", seconds[IMPORT], "s"),
    ]


if __name__ == "__main__":
    main(measure, __doc__)
