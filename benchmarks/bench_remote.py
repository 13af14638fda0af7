"""How much slower is stage one where the photos lie in an S3 bucket, or in an archive?

Against the same photos on the disk, with the network of the real size; S3 is moto's server, in a
process of its own on the same cores, whose share of them is said too. And how many reads under way
are worth it where each answer takes a while: without a network, reading alone.
"""

import contextlib
import functools
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_stage_one import stage_one
from measure import Finding, Inputs, alternate, main, of, photos, ratios, speeds

from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.network.inception import InceptionV3, NetworkExtractor
from bottlenecks.photos.labels import LabeledImage, scan
from bottlenecks.photos.reading import file_bytes
from bottlenecks.pools import in_order, pool_of

COUNT = 96
LATENCY = 0.05  # seconds until an answer begins, as of a store in another town
UNDER_WAY = (2, 8, 16, 32)
LOCAL, S3, ZIP = "photos on the disk", "photos in S3 on loopback", "photos in a zip"
BUCKET = "photos-to-measure"


def measure(inputs: Inputs) -> list[Finding]:
    with photos(inputs.image_dir, COUNT) as folder, s3() as server:
        put(folder / "photos")
        pack(folder / "photos", folder / "photos.zip")
        precision = inputs.options["precision"]
        extractor = InceptionV3(inputs.weights, folder / "models", precision)
        address = f"s3://{BUCKET}/photos"
        sides: dict[str, Callable[[], object]] = {
            LOCAL: stage_one(folder, extractor),
            S3: elsewhere(address, folder, extractor),
            ZIP: elsewhere(str(folder / "photos.zip"), folder, extractor),
        }
        images = scan(address).images
        before = cpu_seconds(server)
        seconds = alternate(sides, rounds=inputs.options["rounds"])
        used = (cpu_seconds(server) - before) / len(seconds[S3]) / len(images) * 1000
        waits = alternate({str(n): functools.partial(reads, images, n) for n in UNDER_WAY}, 3)
    return [
        of("stage one, S3 / disk", ratios(seconds, LOCAL, S3), "times", at_least=0.9),
        of("stage one, zip / disk", ratios(seconds, LOCAL, ZIP), "times"),
        of("  processor time of the server", [used], "ms a photo"),
        *speeds(seconds, len(images)),
        *(
            of(f"reads with {LATENCY * 1000:.0f} ms each, {n} under way / 2", gain, "times")
            for n in UNDER_WAY[1:]
            for gain in [ratios(waits, "2", str(n))]
        ),
    ]


def elsewhere(place: str, folder: Path, extractor: NetworkExtractor) -> Callable[[], object]:
    """Build a new cache of the photos at ``place`` each time."""

    def run() -> None:
        cache = folder / f"elsewhere{time.monotonic_ns()}"
        report = build(Config(image_dir=place, bottleneck_dir=str(cache)), extractor=extractor)
        assert not report.failed

    return run


def reads(images: tuple[LabeledImage, ...], under_way: int) -> None:
    def read(image: LabeledImage) -> int:
        time.sleep(LATENCY)
        with file_bytes(image.path, image.file.signature) as (data, _):
            return len(data)

    with pool_of(under_way, "reads") as pool:
        assert all(size for _, size in in_order(pool, read, images, 2 * under_way))


def pack(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.glob("*/*")):
            archive.write(file, file.relative_to(folder))


def put(folder: Path) -> None:
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir(BUCKET)
    for file in sorted(folder.glob("*/*")):
        store.pipe_file(f"{BUCKET}/photos/{file.relative_to(folder)}", file.read_bytes())


@contextlib.contextmanager
def s3() -> Iterator[int]:
    """An S3 server on loopback, which the environment leads to; gives its process."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = next(line for line in server.stderr if "Running on" in line)
        os.environ["AWS_ENDPOINT_URL"] = line.split()[-1]
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ[name] = "measured"
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
        drain(server)
        yield server.pid
    finally:
        server.kill()
        server.wait()


def drain(server: "subprocess.Popen[str]") -> None:
    """Read away what the server says of each request, so that it never waits for a reader."""
    import threading

    assert server.stderr is not None
    threading.Thread(target=server.stderr.read, daemon=True).start()


def cpu_seconds(process: int) -> float:
    """What a process has used of the cores (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(measure, __doc__, precision="float32", rounds=5)
