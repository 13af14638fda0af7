"""Can stage two train on more vectors than memory should hold?

A million cached vectors of 100 labels (8.2 GB on disk) against 3,000 of them: steps a second from
the first evaluation to the last, and the peak memory of the whole process, from listing the
files to the written graph. Takes 16 GB of disk and some minutes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from made_up import make
from measure import Finding, Inputs, main, of

from bottlenecks.network.inception import InceptionV3

MANY, FEW, LABELS, ROUNDS = 1_000_000, 3_000, 100, 3
TRAIN = """
import json, sys, time
from measure import peak_gigabytes
from retrain import Config, Listener, train

class Clock(Listener):
    ticks = []
    def evaluated(self, evaluation):
        self.ticks.append((evaluation.step, time.perf_counter()))

result = train(Config(**json.loads(sys.argv[1])), listener=Clock())
(first, started), *_, (last, ended) = Clock.ticks
print(json.dumps([(last - first) / (ended - started), peak_gigabytes(), result.test.accuracy]))
"""


def measure(inputs: Inputs) -> list[Finding]:
    found: dict[int, list[tuple[float, float, float]]] = {FEW: [], MANY: []}
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        extractor = InceptionV3(inputs.weights, models)
        assert extractor.frozen
        for count in found:
            make(Path(temporary, str(count)), count, LABELS, extractor.fingerprint)
        for _ in range(ROUNDS):
            for count, results in found.items():
                folder = Path(temporary, str(count))
                config = {
                    "image_dir": str(folder / "images"),
                    "bottleneck_dir": str(folder / "cache"),
                    "output_graph": str(folder / "graph.pb"),
                    "output_labels": str(folder / "labels.txt"),
                    "model_dir": str(models),
                    "weights": inputs.weights,
                    "how_many_training_steps": 1000,
                }
                line = [sys.executable, "-c", TRAIN, json.dumps(config)]
                run = subprocess.run(
                    line, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent
                )
                results.append(tuple(json.loads(run.stdout)))
    many, few = found[MANY], found[FEW]
    slower = [small[0] / large[0] for small, large in zip(few, many, strict=True)]
    return [
        of("a million vectors: time of a step / with 3,000", slower, "times", at_most=3.0),
        of("a million vectors: peak memory", [x[1] for x in many], "GB", at_most=3.0),
        of("  steps a second, a million", [x[0] for x in many], "/s"),
        of("  steps a second, 3,000", [x[0] for x in few], "/s"),
        of("  test accuracy, a million", [100 * x[2] for x in many], "%"),
    ]


if __name__ == "__main__":
    main(measure, __doc__)
