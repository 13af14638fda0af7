"""The settings of stage one: one frozen dataclass that the flags are made from."""

import dataclasses
from dataclasses import dataclass

from bottlenecks.command import check_paths, flag
from bottlenecks.errors import UsageError

PRECISIONS = ("float32", "bfloat16")
NO_FILES = ("imagenet", "random")  # weights that are no file of the user's


@dataclass(frozen=True, kw_only=True)
class Config:
    """What `bottlenecks.build` is to do. Raises `UsageError` for values that cannot be."""

    image_dir: str = flag(
        dataclasses.MISSING, "folder of photos, with one sub-folder per label", metavar="DIR"
    )
    bottleneck_dir: str = flag(
        "bottleneck_cache", "where the bottleneck vectors are kept", metavar="DIR"
    )
    model_dir: str = flag(
        "~/.cache/retrain", "where downloaded and frozen networks are kept", metavar="DIR"
    )
    weights: str = flag(
        "imagenet",
        "imagenet (downloaded once), a Keras InceptionV3 weights file, or random (untrained, "
        "for trials)",
        metavar="imagenet|random|FILE",
    )
    precision: str = flag(
        "float32",
        "bfloat16 is faster where the processor has it, and a little less exact",
        choices=PRECISIONS,
        metavar="|".join(PRECISIONS),
    )
    batch_size: int | None = flag(
        None, "photos that go through the network at once (default: 16, on a GPU 64)", metavar="N"
    )
    decode_threads: int | None = flag(
        None,
        "threads that read and decode photos (default: one a core, at most 8, on a GPU 32)",
        metavar="N",
    )
    strict: bool = flag(False, "stop at the first image that cannot be read")

    def __post_init__(self) -> None:
        check_paths(self)
        for name in ("batch_size", "decode_threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)

    @property
    def inputs(self) -> dict[str, str]:
        """The files that are read beside the photos, by their flags."""
        return {} if self.weights in NO_FILES else {"weights": self.weights}


def require(condition: bool, name: str, expected: str, received: object) -> None:
    """Raise a `UsageError` that names the flag unless ``condition``."""
    if not condition:
        raise UsageError(f"--{name} must be {expected}. Received: {received}")
