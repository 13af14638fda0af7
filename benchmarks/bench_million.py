"""Can stage two train on, test and examine more vectors than memory should hold?

A million cached vectors of 100 labels (8.2 GB on disk) against 3,000 of them: steps a second from
the first evaluation to the last, and the peak memory of the whole process, from listing the
files to the written graph. Then once more with half of the images to test, a calibration
and data health. Takes 16 GB of disk and half an hour.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
    def trained(self, result):
        self.tested = time.perf_counter()
    def finished(self, result):
        self.finished = time.perf_counter()

clock = Clock()
result = train(Config(**json.loads(sys.argv[1])), listener=clock)
(first, started), *_, (last, ended) = clock.ticks
compared = result.samples.get("near leaks")
print(json.dumps({
    "speed": (last - first) / (ended - started),
    "memory": peak_gigabytes(),
    "accuracy": result.test.accuracy,
    "tested": result.test.n,
    "test": clock.tested - ended,
    "after": clock.finished - clock.tested,
    "compared": compared and compared.drawn,
    "held_out": compared and compared.available,
}))
"""
EVERYTHING = {
    "testing_percentage": 50,
    "validation_percentage": 20,
    "calibrate": True,
    "data_health": True,
}


def measure(inputs: Inputs) -> list[Finding]:
    found: dict[int, list[dict[str, Any]]] = {FEW: [], MANY: []}
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        extractor = InceptionV3(inputs.weights, models)
        assert extractor.frozen
        configs = {}
        for count in found:
            folder = Path(temporary, str(count))
            make(folder, count, LABELS, extractor.fingerprint)
            configs[count] = {
                "image_dir": str(folder / "images"),
                "bottleneck_dir": str(folder / "cache"),
                "output_graph": str(folder / "graph.pb"),
                "output_labels": str(folder / "labels.txt"),
                "model_dir": str(models),
                "weights": inputs.weights,
                "how_many_training_steps": 1000,
            }
        for _ in range(ROUNDS):
            for count, results in found.items():
                results.append(_run(configs[count]))
        everything = _run({**configs[MANY], **EVERYTHING, "report_dir": f"{temporary}/report"})
    many, few = found[MANY], found[FEW]
    slower = [small["speed"] / large["speed"] for small, large in zip(few, many, strict=True)]
    what = "a million vectors, tested, calibrated and examined"
    near_leaks = f"near leaks of {everything['compared']} of {everything['held_out']} held out"
    return [
        of("a million vectors: time of a step / with 3,000", slower, "times", at_most=3.0),
        of("a million vectors: peak memory", [x["memory"] for x in many], "GB", at_most=3.0),
        of("  steps a second, a million", [x["speed"] for x in many], "/s"),
        of("  steps a second, 3,000", [x["speed"] for x in few], "/s"),
        of("  test accuracy, a million", [100 * x["accuracy"] for x in many], "%"),
        of(f"{what}: peak memory", [everything["memory"]], "GB", at_most=3.0),
        of(f"  calibration, test of {everything['tested']:,} and graph", [everything["test"]], "s"),
        of("  data health and report", [everything["after"]], "s", note=near_leaks),
    ]


def _run(config: dict[str, Any]) -> dict[str, Any]:
    line = [sys.executable, "-c", TRAIN, json.dumps(config)]
    run = subprocess.run(line, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent)
    return dict(json.loads(run.stdout))


if __name__ == "__main__":
    main(measure, __doc__)
