"""The settings of stage one."""

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from bottlenecks.errors import UsageError, shown
from bottlenecks.network.names import AUTO, ENGINES, IMAGENET, PRECISIONS, RANDOM
from bottlenecks.photos.places.addresses import is_address
from bottlenecks.photos.places.place import archive_in, check_folder
from bottlenecks.settings import Output, Settings, flag, require

LOCAL = "local"  # a cluster of this machine; AUTO is the one that it is in
CLIENT = "ray://"


@dataclass(frozen=True, kw_only=True)
class PhotoSettings(Settings):
    """Where the photos are, and how they are read."""

    title: ClassVar[str] = "stage one: photos -> bottlenecks"

    image_dir: str = flag(
        dataclasses.MISSING,
        "folder of photos, with one sub-folder per label, or of a ready-made split: train, "
        "validation and test folders with these in each; also a .zip or .tar of it, or an address "
        "(s3://bucket/photos, gs://..., https://...)",
        metavar="DIR",
        first=True,
    )
    validation_dir: str | None = flag(
        None, "folder of photos to validate on, where it lies elsewhere", metavar="DIR"
    )
    test_dir: str | None = flag(
        None, "folder of photos to test on, where it lies elsewhere", metavar="DIR"
    )
    batch_size: int | None = flag(
        None, "photos that go through the network at once (default: 16, on a GPU 64)", metavar="N"
    )
    decode_threads: int | None = flag(
        None,
        "threads that read and decode photos (default: one a core, at most 8, on a GPU 32; for "
        "photos behind an address at least 16)",
        metavar="N",
    )
    strict: bool = flag(False, "stop at the first image that cannot be read")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "decode_threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        for name, folder in self.image_dirs.items():
            check_folder(folder, name)

    @property
    def image_dirs(self) -> dict[str, str]:
        """The folders of photos, by their flags."""
        names = ("image_dir", "validation_dir", "test_dir")
        return {name: folder for name in names if (folder := getattr(self, name)) is not None}

    @property
    def inputs(self) -> dict[str, str]:
        archives = {name: archive_in(folder) for name, folder in self.image_dirs.items()}
        return super().inputs | {name: archive for name, archive in archives.items() if archive}


@dataclass(frozen=True, kw_only=True)
class Config(PhotoSettings):
    """What `bottlenecks.build` is to do. Raises `UsageError` for values that cannot be."""

    bottleneck_dir: str = flag(
        "bottleneck_cache",
        "where the bottleneck vectors are kept: a folder, or an address as s3://bucket/cache",
        metavar="DIR",
    )
    model_dir: str = flag(
        "~/.cache/retrain", "where downloaded and frozen networks are kept", metavar="DIR"
    )
    weights: str = flag(
        IMAGENET,
        "imagenet (downloaded once), a Keras InceptionV3 weights file, or random (untrained, "
        "for trials)",
        metavar="imagenet|random|FILE",
        first=True,
    )
    precision: str = flag(
        AUTO,
        "what the network computes in: bfloat16 and int8 are faster and a little less exact; auto "
        "goes on with what the cache was made in, else takes the fastest that pays",
        choices=(AUTO, *PRECISIONS),
        metavar="|".join((AUTO, *PRECISIONS)),
        first=True,
    )
    engine: str = flag(
        AUTO,
        "what runs the network; openvino is faster on processors, and an extra",
        choices=(AUTO, *ENGINES),
        metavar="|".join((AUTO, *ENGINES)),
    )

    cluster: str | None = flag(
        None,
        "let the machines of a Ray cluster compute: local (this one), auto (the one this machine "
        "is in), or its address (ray://host:10001, host:6379); an extra",
        metavar="local|auto|ADDRESS",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folder(self.bottleneck_dir, "bottleneck_dir")
        if self.cluster is not None:
            check_cluster(self.cluster)

    @property
    def inputs(self) -> dict[str, str]:
        own = {} if self.weights in (IMAGENET, RANDOM) else {"weights": self.weights}
        return super().inputs | own

    @property
    def outputs(self) -> list[Output]:
        names = (
            ["model_dir"] if is_address(self.bottleneck_dir) else ["bottleneck_dir", "model_dir"]
        )
        return [*super().outputs, *(Output(x, getattr(self, x), folder=True) for x in names)]


def check_cluster(address: str) -> None:
    """Raise `UsageError` for what is no address of a cluster, and where Ray is not installed."""
    if address not in (LOCAL, AUTO) and host_and_port(address) is None:
        raise UsageError(
            "--cluster must be local (this machine), auto (the cluster that it is in), or an "
            f"address such as ray://host:10001 or host:6379. Received: {shown(address)}"
        )
    if find_spec("ray") is None:
        raise UsageError("--cluster needs Ray: pip install ray, or leave it out")


def host_and_port(address: str) -> tuple[str, int] | None:
    """Those of the address of a cluster elsewhere; None for what is none."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        return None
    return host.strip("[]"), int(port)
