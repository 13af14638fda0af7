"""How much memory does stage one take at its peak, whatever the photos?

Whole processes, the first with the freezing of the network: ordinary photos; 12-megapixel
ones; and the largest images that are let in, several of each kind.
"""

import subprocess
import sys
from pathlib import Path

from bench_photo_size import make_large
from measure import Finding, Inputs, main, of, photos

PEAK = """
import sys
from measure import peak_gigabytes
from bottlenecks.cli import main
assert main(sys.argv[1:]) == 0
print(peak_gigabytes())
"""
# Made by another process, which needs more memory for it than reading them may take.
MAKE_HUGE = """
import sys
from PIL import Image
tile = Image.effect_noise((700, 700), 60).convert("RGB")
def mosaic(width, height):
    image = Image.new("RGB", (width, height))
    for left in range(0, width, 700):
        for top in range(0, height, 700):
            image.paste(tile, (left, top))
    return image
for i in range(3):
    name = f"{sys.argv[1]}/{i}"
    mosaic(16300 + i, 12200).save(f"{name}-baseline.jpg", quality=60)
    progressive = {"progressive": True, "subsampling": 0}
    mosaic(8400 + i, 7200).save(f"{name}-progressive.jpg", quality=60, **progressive)
    mosaic(9400 + i, 9400).convert("P").save(f"{name}.gif")
    mosaic(9400 + i, 9400).quantize(16).save(f"{name}.png")
    mosaic(5000 + i, 3900).save(f"{name}.webp", quality=50, method=0)
"""


def measure(inputs: Inputs) -> list[Finding]:
    here = Path(__file__).parent
    with photos(inputs.image_dir) as folder:
        sources = sorted((folder / "photos").glob("*/*"))
        for i in range(40):
            make_large(sources, folder / "large", i)
        (folder / "huge" / "label").mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-c", MAKE_HUGE, str(folder / "huge" / "label")], check=True
        )

        def peak(name: str, note: str) -> Finding:
            flags = [f"--image_dir={folder / name}", f"--weights={inputs.weights}"]
            flags += [f"--model_dir={folder / 'models'}", f"--bottleneck_dir={folder / 'cache'}"]
            line = [sys.executable, "-c", PEAK, *flags]
            run = subprocess.run(line, check=True, cwd=here, capture_output=True, text=True)
            assert "bad                   0" in run.stdout, run.stdout
            size = float(run.stdout.split()[-1])
            return of(f"stage one, peak memory: {note}", [size], "GB", at_most=1.5)

        return [
            peak("photos", f"{len(sources)} ordinary photos, first run"),
            peak("large", "40 of 12 megapixels"),
            peak("huge", "15 of 19 to 199 megapixels"),
        ]


if __name__ == "__main__":
    main(measure, __doc__)
