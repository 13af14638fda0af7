"""How much of the network's own speed is left from photos on disk to rows in HDF5?

Against the same frozen graph that is fed arrays which are decoded already (goal: 0.92 of its
images/s), and against Keras' ``model.predict`` over ``image_dataset_from_directory`` (goal: 1.15
times), as its users write it; with bfloat16 (goal: 1.75 times float32) where there is one.

    python benchmarks/bench_stage_one.py IMAGE_DIR WEIGHTS [PHOTOS]
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from compare import alternate, ratio, show

from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.decode import decode
from bottlenecks.images import scan
from bottlenecks.inception import InceptionV3, cpu_has_bfloat16

ROUNDS = 3
FROZEN, STAGE_ONE, KERAS = "frozen graph, decoded arrays", "stage one", "Keras model.predict"


def main(image_dir: str, weights: str, photos: int = 200) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        every = scan(image_dir).images
        chosen = every[:: max(1, len(every) // photos)][:photos]
        for image in chosen:
            link = folder / "images" / image.relpath
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(image.path).resolve())
        pixels = np.stack([decode(Path(image.path).read_bytes()) for image in chosen])
        caches = (folder / f"cache{i}" for i in itertools.count())
        batch = Config.batch_size

        def frozen(extractor: InceptionV3) -> Callable[[], object]:
            def run() -> None:
                for start in range(0, len(pixels), batch):
                    extractor(pixels[start : start + batch])

            return run

        def stage_one(extractor: InceptionV3) -> Callable[[], object]:
            return lambda: build(
                Config(image_dir=str(folder / "images"), bottleneck_dir=str(next(caches))),
                extractor=extractor,
            )

        float32 = InceptionV3(weights, folder / "models")
        sides = {FROZEN: frozen(float32), STAGE_ONE: stage_one(float32)}
        if cpu_has_bfloat16():
            bfloat16 = InceptionV3(weights, folder / "models", "bfloat16")
            sides["stage one, bfloat16"] = stage_one(bfloat16)
        sides[KERAS] = keras_predict(folder / "images", weights)
        seconds = alternate(sides, ROUNDS)
    show(seconds, len(chosen))
    print(f"stage one has {ratio(seconds, FROZEN, STAGE_ONE)} of the frozen graph's speed")
    print(f"stage one has {ratio(seconds, KERAS, STAGE_ONE)} times the speed of model.predict")
    if "stage one, bfloat16" in sides:
        faster = ratio(seconds, STAGE_ONE, "stage one, bfloat16")
        print(f"bfloat16 has {faster} times the speed of float32")


def keras_predict(images: Path, weights: str) -> Callable[[], object]:
    import keras

    model = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)

    def predict() -> None:
        dataset = keras.utils.image_dataset_from_directory(
            images, image_size=(299, 299), shuffle=False, verbose=False
        )
        prepared = dataset.map(lambda x, _: keras.applications.inception_v3.preprocess_input(x))
        model.predict(prepared, verbose=0)

    return predict


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
