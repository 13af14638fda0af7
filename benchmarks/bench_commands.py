"""How long do the commands take, as multiples of ``python -c "import tensorflow"``?

A warm ``python -m retrain`` (1000 steps, graph exported) has the goal 2.2, a cold
``python -m label_image photo.jpg`` 1.7; ``--help`` and an error are to take less than 0.4 s.

    python benchmarks/bench_commands.py IMAGE_DIR WEIGHTS
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from compare import alternate, ratio, show

ROUNDS = 5


def main(image_dir: str, weights: str) -> None:
    photo = next(path for path in sorted(Path(image_dir).resolve().glob("*/*")) if path.is_file())
    with tempfile.TemporaryDirectory() as folder:

        def command(*arguments: object) -> Callable[[], object]:
            line = [sys.executable, *map(str, arguments)]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            return lambda: subprocess.run(
                line, cwd=folder, env=environment, capture_output=True, check=False
            )

        warm = ["-m", "retrain", "--image_dir", Path(image_dir).resolve()]
        warm += ["--weights", Path(weights).resolve(), "--model_dir", "models"]
        warm += ["--how_many_training_steps", 1000]
        first = command(*warm)()
        assert first.returncode == 0, first.stderr  # type: ignore[attr-defined]
        sides = {
            "import tensorflow": command("-c", "import tensorflow"),
            "retrain, warm": command(*warm),
            "label_image, one photo": command("-m", "label_image", photo),
            "retrain --help": command("-m", "retrain", "--help"),
            "retrain, an error": command("-m", "retrain", "--image_dir", "nowhere"),
        }
        seconds = alternate(sides, ROUNDS)
    show(seconds)
    for side in list(sides)[1:3]:
        print(f"{side} takes {ratio(seconds, side, 'import tensorflow')} times the import")


if __name__ == "__main__":
    main(*sys.argv[1:])
