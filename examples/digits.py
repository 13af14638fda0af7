"""The demonstration: a classifier of handwritten digits, from image files to labelled ones.

Writes scikit-learn's digits (no network needed) as PNG files, one folder per digit, retrains on
them and labels some that it has not seen, showing each command that it runs. Everything goes
to demo_data/. Without a network it uses untrained weights, and says so.
"""

import shlex
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from bottlenecks.config import Config
from bottlenecks.errors import WeightsUnavailableError
from bottlenecks.network.weights import find_weights
from bottlenecks.progress import ProgressBar

DATA = Path("demo_data")
PER_DIGIT = 40
UNSEEN = 2  # of each digit
SIDE = 128


def main() -> int:
    write_digits()
    train = ["retrain", "--image_dir", "demo_data/digits", "--how_many_training_steps", "500"]
    train += ["--eval_step_interval", "100", "--bottleneck_dir", "demo_data/bottleneck_cache"]
    train += ["--output_graph", "demo_data/digits.pb", "--output_labels", "demo_data/digits.txt"]
    if not imagenet_weights_can_be_had():
        train += ["--weights", "random"]
    use = ["label_image", "--graph", "demo_data/digits.pb", "--labels", "demo_data/digits.txt"]
    use += ["--num_top_predictions", "2", "demo_data/unseen"]
    for command in (train, use):
        if code := run(command):
            return code
    print("\nEach photo above is named after the digit it shows. Now try photos of your own:")
    print("  .venv/bin/python -m retrain --image_dir YOUR_FOLDER --how_many_training_steps 1000")
    return 0


def write_digits() -> None:
    digits = load_digits()
    seen: Counter[int] = Counter()
    for image, digit in zip(digits.images, digits.target, strict=True):
        seen[digit] += 1
        if seen[digit] <= PER_DIGIT:
            path = DATA / "digits" / str(digit) / f"digit_{seen[digit]:02}.png"
        elif seen[digit] <= PER_DIGIT + UNSEEN:
            path = DATA / "unseen" / f"a_{digit}_{seen[digit]}.png"
        else:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray(np.uint8(image * 255 / 16))  # 8 x 8, values 0 to 16
        grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
    print(f"wrote {10 * PER_DIGIT} images of 10 digits to {DATA}/digits, 20 to {DATA}/unseen")


def imagenet_weights_can_be_had() -> bool:
    print("fetching the ImageNet weights (88 MB, once) ...", flush=True)
    try:
        with ProgressBar("weights", "B", unit_scale=True) as bar:
            find_weights("imagenet", Path(Config.model_dir).expanduser(), on_download=bar)
    except WeightsUnavailableError as error:
        line = "*" * 78
        reason = textwrap.fill(str(error), 78, break_long_words=False, break_on_hyphens=False)
        print(
            f"{reason}\n{line}\n"
            "  NOTICE: the ImageNet weights CANNOT BE DOWNLOADED here.\n"
            "  The demonstration goes on with an UNTRAINED network (--weights random).\n"
            "  That is enough for these simple digits, and useless for real photos.\n"
            f"{line}",
            flush=True,
        )
        return False
    return True


def run(arguments: list[str]) -> int:
    print(f"\n$ python -m {shlex.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", *arguments], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
