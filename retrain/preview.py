"""What the distortions make of some photos: a sheet of them, for the eye."""

import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bottlenecks import atomic
from bottlenecks.errors import BadImageError, ImageFolderError, UsageError, shown
from bottlenecks.outputs import check_ways, check_writable
from bottlenecks.photos.decode import decode
from bottlenecks.photos.distort import distorted, variant_keys
from bottlenecks.photos.labels import ImageFolder, LabeledImage
from bottlenecks.photos.reading import file_bytes
from bottlenecks.photos.sheet import MARKER, Row, sheet
from bottlenecks.settings import Output, checked_path
from retrain.config import Config, check_apart_from_photos
from retrain.data.groups import members_of
from retrain.data.split import split
from retrain.plan import checked_folder

FLAG = "show_distortions"
PHOTOS, VARIANTS = 8, 8  # on a sheet, and of each photo, at the most


@dataclass(frozen=True)
class Preview:
    """What `preview` wrote: the ``path`` of the sheet, how many photos and variants of each."""

    path: str
    photos: int
    variants: int


def preview(config: Config, path: str) -> Preview:
    """Write a PNG of some training photos and their first variants to ``path``.

    The photos are spread over the labels, by the seed; those that cannot be read are passed over.
    Raises `UsageError` where no distortion is on or ``path`` cannot be meant, and what
    `retrain.train` raises before it computes anything; `ImageFolderError` where no photo can be
    read.
    """
    path = _checked(config, path)
    folder = checked_folder(config)
    rows: list[Row] = []
    for image in _spread(config, folder):
        if len(rows) == PHOTOS:
            break
        try:
            rows.append(_row(config, image))
        except BadImageError:
            continue
    if not rows:
        raise ImageFolderError(
            f"none of the training photos in {shown(folder.root)} can be read; python -m "
            "bottlenecks lists why"
        )
    variants = _count(config)
    headings = ["photo", *(f"variant {number + 1}" for number in range(variants))]
    atomic.make_parents(path)
    atomic.write_bytes(path, sheet(_title(config), headings, rows))
    return Preview(path, len(rows), variants)


def _checked(config: Config, path: str) -> str:
    """``path`` with the home folder for ``~``, once it may be written."""
    if not config.distorts:
        raise UsageError(
            f"--{FLAG} has nothing to show without a distortion; add one, as --flip_left_right or "
            "--random_crop 10"
        )
    path = checked_path(path, FLAG)
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"--{FLAG} must be a file called .png. Received: {shown(path)}")
    check_apart_from_photos(config, path, FLAG)
    output = Output(FLAG, path, marker=MARKER)
    check_ways([*config.outputs, output], config.inputs)
    check_writable([output])
    return path


def _spread(config: Config, folder: ImageFolder) -> Iterator[LabeledImage]:
    """The training photos in an order by the seed: one of each label, then the next of each."""
    members = members_of(folder.images, config.group_by)
    set_of = split(members, config.validation_percentage, config.testing_percentage)
    photos: dict[str, list[LabeledImage]] = defaultdict(list)
    for image in folder.images:
        if set_of[image.relpath] == "training" and not image.file.problem:
            photos[image.label].append(image)
    shuffled = random.Random(config.seed)
    labels = sorted(photos)
    shuffled.shuffle(labels)
    for label in labels:
        shuffled.shuffle(photos[label])
    for turn in range(max(map(len, photos.values()), default=0)):
        yield from (photos[label][turn] for label in labels if turn < len(photos[label]))


def _row(config: Config, image: LabeledImage) -> Row:
    """A photo as it is, and its first variants. Raises `BadImageError`."""
    with file_bytes(image.path) as (data, _):
        key = hashlib.sha256(data).digest()
        keys = variant_keys(key, config, config.seed)[: _count(config)]
        pictures = [decode(data), *distorted(data, config, keys)]
    return Row(f"{image.label}: {os.path.basename(image.relpath)}", pictures)


def _count(config: Config) -> int:
    """How many variants of a photo are shown."""
    return min(VARIANTS, config.variants)


def _title(config: Config) -> str:
    """What makes the variants."""
    values = {name: getattr(config, name) for name in config.distortions}
    words = [name if value is True else f"{name} {value:g}" for name, value in values.items()]
    return ", ".join([*words, f"seed {config.seed}"])
