"""How much of the network's own speed is left from photos on disk to rows in HDF5?

Against the same frozen network that is fed arrays which are decoded already, in float32 and in 8
bits; of one precision and engine against another; and against Keras' ``model.predict`` as its users
write it: over ``image_dataset_from_directory``, and photo by photo. A calibration is not in it.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Finding, Inputs, alternate, main, of, photos, ratios, speeds

from bottlenecks.builder import build
from bottlenecks.calibration import calibrate
from bottlenecks.config import Config
from bottlenecks.machine import batch_size, cpu_has_bfloat16
from bottlenecks.network.inception import InceptionV3, NetworkExtractor
from bottlenecks.photos.decode import decode
from bottlenecks.photos.labels import scan

FROZEN, STAGE_ONE, BFLOAT16 = "frozen graph, decoded arrays", "stage one", "stage one, bfloat16"
OPENVINO, OPENVINO_BFLOAT16 = "stage one, OpenVINO", "stage one, bfloat16, OpenVINO"
INT8, BARE_INT8 = "stage one, int8", "int8 network, decoded arrays"
DIRECTORY, ONE_BY_ONE = "model.predict, directory", "model.predict, one by one"


def measure(inputs: Inputs) -> list[Finding]:
    with photos(inputs.image_dir) as folder:
        chosen = scan(folder / "photos").images
        pixels = np.stack([decode(Path(image.path).read_bytes()) for image in chosen])
        float32 = InceptionV3(inputs.weights, folder / "models")
        sides = {FROZEN: frozen(float32, pixels), STAGE_ONE: stage_one(folder, float32)}
        if cpu_has_bfloat16():
            bfloat16 = InceptionV3(inputs.weights, folder / "models", "bfloat16")
            sides[BFLOAT16] = stage_one(folder, bfloat16)
            other = float32.computed_in("bfloat16", "openvino")
            sides[OPENVINO_BFLOAT16] = stage_one(folder, other)
        openvino = float32.computed_in("float32", "openvino")
        of_int8 = calibrate(openvino, scan(folder / "photos"), str(folder / "cache"))
        assert of_int8 is not None
        sides[OPENVINO] = stage_one(folder, openvino)
        sides[INT8], sides[BARE_INT8] = stage_one(folder, of_int8), frozen(of_int8, pixels)
        sides[DIRECTORY], sides[ONE_BY_ONE] = keras_predict(folder / "photos", inputs.weights)
        seconds = alternate(sides)
    findings = [
        of("stage one / frozen graph", ratios(seconds, FROZEN, STAGE_ONE), "times", at_least=0.92),
        of(
            "stage one / model.predict",
            ratios(seconds, DIRECTORY, STAGE_ONE),
            "times",
            at_least=1.15,
        ),
        of(
            "stage one / model.predict, one by one", ratios(seconds, ONE_BY_ONE, STAGE_ONE), "times"
        ),
    ]
    pairs = (
        ("stage one, int8 / float32 by TensorFlow", STAGE_ONE, INT8, 3.6),
        ("stage one, int8 / float32 by OpenVINO", OPENVINO, INT8, None),
        ("stage one, int8 / model.predict", DIRECTORY, INT8, 4.5),
        ("stage one, int8 / the bare int8 network", BARE_INT8, INT8, 0.92),
        ("stage one, float32 by OpenVINO / by TensorFlow", STAGE_ONE, OPENVINO, None),
    )
    for what, slow, fast, goal in pairs:
        findings.append(of(what, ratios(seconds, slow, fast), "times", at_least=goal))
    if BFLOAT16 in sides:
        engines = ratios(seconds, BFLOAT16, OPENVINO_BFLOAT16)
        what = "stage one, bfloat16 by OpenVINO / by TensorFlow"
        findings.append(of(what, engines, "times", at_least=1.2))
        faster = ratios(seconds, STAGE_ONE, BFLOAT16)
        findings.append(of("stage one, bfloat16 / float32", faster, "times", at_least=1.75))
    return [*findings, *speeds(seconds, len(chosen))]


def frozen(extractor: NetworkExtractor, pixels: np.ndarray) -> Callable[[], object]:
    size = batch_size()
    batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return lambda: [extractor(batch) for batch in batches]


_caches = itertools.count()


def stage_one(folder: Path, extractor: NetworkExtractor) -> Callable[[], object]:
    """Build a new cache of ``folder / "photos"`` each time."""
    return lambda: build(
        Config(
            image_dir=str(folder / "photos"), bottleneck_dir=str(folder / f"cache{next(_caches)}")
        ),
        extractor=extractor,
    )


def keras_predict(images: Path, weights: str) -> tuple[Callable[[], object], Callable[[], object]]:
    import keras

    model = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)
    preprocess = keras.applications.inception_v3.preprocess_input

    def directory() -> None:
        dataset = keras.utils.image_dataset_from_directory(
            images, image_size=(299, 299), shuffle=False, verbose=False
        )
        model.predict(dataset.map(lambda x, _: preprocess(x)), verbose=0)

    def one_by_one() -> None:
        for path in sorted(images.glob("*/*")):
            image = keras.utils.load_img(path, target_size=(299, 299))
            batch = preprocess(keras.utils.img_to_array(image)[np.newaxis])
            model.predict(batch, verbose=0)

    return directory, one_by_one


if __name__ == "__main__":
    main(measure, __doc__)
