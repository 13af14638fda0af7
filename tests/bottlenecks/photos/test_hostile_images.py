"""No image can stop or poison a run."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottlenecks.builder import build
from bottlenecks.config import Config
from tests.conftest import ROOT, make_dataset, photo
from tests.standin import StandIn

MAX_PEAK_BYTES = 1.5e9

FORMATS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp"}
FORMATS |= {"MPO": ".mpo", "TIFF": ".tif"}
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    if image_format == "MPO":
        options = {"save_all": True, "append_images": [image], **options}
    image.save(file, image_format, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks after its header."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), kind, data]
        parts.append(struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def bad_files() -> Iterator[tuple[str, bytes]]:
    """Files that are named like images and cannot be read as one."""
    noisy = photo((90, 120, 30), 7, (200, 150))
    for image_format, suffix in FORMATS.items():
        data = encoded(noisy, image_format)
        if image_format == "MPO":  # its second image may be missing
            data = data[: len(data) // 2]
        for share in (0.01, 0.3, 0.9):
            yield f"cut_{share}{suffix}", data[: int(len(data) * share)]
        yield f"empty{suffix}", b""
        yield f"page{suffix}", HTML
        yield f"text{suffix}", b"BM is how a bitmap begins, and this is a text"
        yield f"zeros{suffix}", bytes(5000)
        yield f"header{suffix}", data[:40] + os.urandom(500)
    yield "photo.heic", b"\0\0\0\x18ftypheic" + bytes(500)
    yield "photo.avif", b"\0\0\0\x18ftypavif" + bytes(500)
    idat = (b"IDAT", zlib.compress(bytes(10_000_000)))
    yield "declares_10_gigapixels.png", png(100_000, 100_000, 8, 2, idat)
    yield "declares_91_megapixels.png", png(9_600, 9_600, 8, 0, idat)
    yield "too_few_rows.png", png(9_000, 9_000, 8, 2, idat)
    yield (
        "text_bomb.png",
        png(1, 1, 8, 0, (b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000))), idat),
    )
    yield "declares_4_gigapixels.gif", b"GIF89a" + b"\xff" * 4 + bytes(100)
    yield (
        "declares_much.bmp",
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 2**30, 2**30, 1, 24, 0),
    )
    huge_webp = bytearray(encoded(noisy.convert("RGBA"), "WEBP", lossless=True))
    huge_webp[21:25] = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
    yield "declares_268_megapixels.webp", bytes(huge_webp)
    jpeg = bytearray(encoded(noisy, "JPEG"))
    sof = jpeg.index(b"\xff\xc0")
    jpeg[sof + 5 : sof + 9] = struct.pack(">HH", 65_000, 65_000)
    yield "declares_4_gigapixels.jpg", bytes(jpeg)
    large = Image.new("RGB", (12_000, 12_000), "red")
    yield (
        "progressive_144_megapixels.jpg",
        encoded(large, "JPEG", progressive=True, subsampling=0, quality=20),
    )


def good_files() -> Iterator[tuple[str, bytes]]:
    """Files that are odd, and images all the same."""
    noisy = photo((90, 120, 30), 8, (200, 150))
    for image_format in FORMATS:
        yield f"wrong_suffix_{image_format}.txt.jpg", encoded(noisy, image_format)
    for mode in ("1", "L", "P", "LA", "RGBA", "I;16"):
        image = noisy.convert("I").convert(mode) if mode == "I;16" else noisy.convert(mode)
        yield f"mode_{mode.replace(';', '_')}.png", encoded(image, "PNG")
    yield "mode_CMYK.jpg", encoded(noisy.convert("CMYK"), "JPEG")
    frames = [photo((10 * i, 200, 30), i) for i in range(5)]
    for suffix, image_format in ((".gif", "GIF"), (".webp", "WEBP"), (".png", "PNG")):
        yield (
            f"animated{suffix}",
            encoded(frames[0], image_format, save_all=True, append_images=frames[1:]),
        )
    for orientation in range(10):  # 1 to 8 are defined
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = photo((90, 120, 30), 100 + orientation)
        yield f"turned_{orientation}.jpg", encoded(turned, "JPEG", exif=exif)
    yield "broken_exif.jpg", encoded(noisy, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    for width, height in ((1, 1), (10_000, 1), (1, 10_000)):
        yield f"size_{width}_{height}.png", encoded(Image.new("RGB", (width, height), "red"), "PNG")
    yield "trailing_junk.jpg", encoded(noisy, "JPEG") + os.urandom(100_000)
    megapixels_90 = Image.new("RGBA", (9_480, 9_480), (200, 0, 0, 128))
    yield "alpha_90_megapixels.png", encoded(megapixels_90, "PNG", compress_level=1)
    yield "palette_90_megapixels.gif", encoded(megapixels_90.convert("P"), "GIF")
    grey = Image.new("L", (14_100, 14_100), 100)
    yield "jpeg_199_megapixels.jpg", encoded(grey, "JPEG", quality=20)


def make_hostile(folder: Path) -> tuple[int, int]:
    """Fill ``folder``; returns how many of its files are good images, and how many are bad."""
    folder.mkdir(parents=True)
    bad, good = dict(bad_files()), dict(good_files())
    for name, data in (bad | good).items():
        (folder / name).write_bytes(data)
    noisy = encoded(photo((1, 2, 3), 9), "JPEG")
    (folder / os.fsdecode(b"not_utf8_\xff.jpg")).write_bytes(noisy)
    (folder / "new\nline.jpg").write_bytes(noisy + b"\0")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "a_folder.jpg").mkdir()
    (folder / "around").symlink_to("..")
    (folder / "device.jpg").symlink_to("/dev/zero")
    return len(good) + 2, len(bad) + 4


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """A data set with a label full of hostile files; how many of these are good, and bad."""
    root = make_dataset(tmp_path_factory.mktemp("hostile") / "Dataset", per_label=4)
    return root, *make_hostile(root / "hostile")


def config(root: Path, cache: Path) -> Config:
    return Config(image_dir=str(root), bottleneck_dir=str(cache))


def test_bad_ones_are_listed_and_good_ones_unharmed(
    hostile: tuple[Path, int, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, good, bad = hostile
    assert good + bad >= 60
    report = build(config(root, tmp_path / "cache"), extractor=StandIn())
    assert report.counts["hostile"] == good, sorted(Path(b.path).name for b in report.failed)
    assert len(report.failed) == bad
    assert all(b.reason and "\n" not in b.reason for b in report.failed)
    listed = (report.cache.folder / "bad_images.csv").read_text("utf-8").splitlines()
    assert len(listed) == 1 + bad
    assert capfd.readouterr() == ("", "")  # no decoder writes to the terminal

    alone = build(
        config(make_dataset(tmp_path / "Dataset", per_label=4), tmp_path / "alone"),
        extractor=StandIn(),
    )
    assert set(alone.cache) < set(report.cache)
    for key in alone.cache:
        np.testing.assert_array_equal(alone.cache.read([key]), report.cache.read([key]))


def test_peak_memory_with_the_real_network(
    hostile: tuple[Path, int, int], tmp_path: Path, model_dir: Path
) -> None:
    root, good, bad = hostile
    script = (
        "import json, pathlib, re, sys\n"
        "from bottlenecks.builder import build\n"
        "from bottlenecks.config import Config\n"
        "report = build(Config(**json.loads(sys.argv[1])))\n"
        # Not getrusage's, which begins with the peak of the process that started this one.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "peak = 1024 * int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
        "print(json.dumps([report.counts['hostile'], len(report.failed), peak]))\n"
    )
    settings = {
        "image_dir": str(root),
        "bottleneck_dir": str(tmp_path / "cache"),
        "model_dir": str(model_dir),
        "weights": "random",
    }
    result = subprocess.run(
        [sys.executable, "-c", script, json.dumps(settings)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found_good, found_bad, peak = json.loads(result.stdout)
    assert (found_good, found_bad) == (good, bad)
    assert peak < MAX_PEAK_BYTES
