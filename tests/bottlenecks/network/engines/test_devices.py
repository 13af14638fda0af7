"""A batch that is shared out among devices gives the rows of one."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from bottlenecks.network.engines.devices import gpus, in_parts
from tests.conftest import ROOT


@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 17])
def test_rows_keep_their_order(n: int) -> None:
    pixels = np.arange(n * 4).reshape(n, 4)
    rows = in_parts([lambda x: x + 1] * 3)(pixels)
    np.testing.assert_array_equal(rows, pixels + 1)


def test_all_parts_run_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=60)

    def run(pixels: np.ndarray) -> np.ndarray:
        together.wait()
        return pixels

    assert len(in_parts([run, run])(np.zeros((5, 2)))) == 5


def test_an_error_of_one_part_is_raised() -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise MemoryError("of one device")

    with pytest.raises(MemoryError, match="of one device"):
        in_parts([lambda x: x, fail])(np.zeros((5, 2)))


def test_a_machine_without_gpus_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus() == []


TWO_DEVICES = """
import sys
import numpy as np
from bottlenecks.network.engines import with_tensorflow
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.tensorflow import import_tensorflow
tf = import_tensorflow()
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
names = [device.name for device in tf.config.list_logical_devices("CPU")]
assert len(names) == 2, names
pixels = np.random.default_rng(0).integers(0, 256, (5, 299, 299, 3)).astype(np.uint8)
for cut in (None, "mixed2"):
    one, two = (InceptionV3("random", sys.argv[1]) for _ in range(2))
    if cut is not None:
        one, two = one.at(cut), two.at(cut)
    expected = one(pixels)
    with_tensorflow.gpus, seen = lambda: names, []
    placed = tf.device
    tf.device = lambda name: seen.append(name) or placed(name)
    found = two(pixels)
    tf.device, with_tensorflow.gpus = placed, lambda: []
    assert set(names) <= set(seen), seen
    assert one.fingerprint == two.fingerprint
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
print("equal")
"""


def test_two_devices_give_the_rows_of_one(model_dir: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(model_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("equal\n"), done.stderr
