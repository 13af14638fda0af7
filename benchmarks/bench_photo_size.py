"""How much slower is stage one on 12-megapixel photos than on small ones?

The large photos are mosaics of the small ones, 4000 x 3000 pixels each, so that they have as much
detail as a camera's; quality 90, about 5 MB. Speeds are those of the run once the network
has started.
"""

import random
from pathlib import Path

from bench_stage_one import stage_one
from measure import Finding, Inputs, alternate, main, of, photos, ratios, speeds
from PIL import Image

from bottlenecks.calibration import calibrate
from bottlenecks.network.inception import InceptionV3
from bottlenecks.photos.labels import scan

COUNT, WIDTH, HEIGHT = 64, 4000, 3000


def measure(inputs: Inputs) -> list[Finding]:
    with photos(inputs.image_dir, COUNT) as small:
        large = small / "large"
        sources = sorted((small / "photos").glob("*/*"))
        size = [make_large(sources, large / "photos", i) for i in range(len(sources))]
        extractor = InceptionV3(inputs.weights, small / "models")
        openvino = extractor.computed_in("float32", "openvino")
        of_int8 = calibrate(openvino, scan(small / "photos"), str(small / "cache"))
        assert of_int8 is not None
        sides = {
            "small": stage_one(small, extractor),
            "large": stage_one(large, extractor),
            "small, int8": stage_one(small, of_int8),
            "large, int8": stage_one(large, of_int8),
        }
        seconds = alternate(sides)
    note = f"large: {WIDTH} x {HEIGHT}, {sum(size) / len(size) / 1e6:.1f} MB"
    ratio = ratios(seconds, "small", "large")
    return [
        of("stage one, 12-megapixel photos / small ones", ratio, "times", at_least=0.75, note=note),
        of(
            "stage one, int8, 12-megapixel photos / small ones",
            *(ratios(seconds, "small, int8", "large, int8"), "times"),
            at_least=0.6,
            note=note,
        ),
        *speeds(seconds, len(sources)),
    ]


def make_large(sources: list[Path], folder: Path, number: int) -> int:
    """Write one large photo; returns its size in bytes."""
    mosaic = Image.new("RGB", (WIDTH, HEIGHT))
    chance = random.Random(number)
    for left in range(0, WIDTH, 500):
        for top in range(0, HEIGHT, 500):
            with Image.open(chance.choice(sources)) as tile:
                mosaic.paste(tile.convert("RGB").resize((500, 500)), (left, top))
    path = folder / sources[number].parent.name / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    mosaic.save(path, quality=90)
    return path.stat().st_size


if __name__ == "__main__":
    main(measure, __doc__)
