"""Folders that a web server lists: only what lies right in each, by the rules of the disk."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from bottlenecks.builder import build
from bottlenecks.config import Config
from bottlenecks.errors import BadImageError, ImageFolderError, ImageFolderNotFoundError
from bottlenecks.photos.labels import scan
from bottlenecks.photos.places import store, web
from bottlenecks.photos.reading import file_bytes
from tests.conftest import make_dataset
from tests.places import WebServer, web_server
from tests.standin import StandIn

ODD = ["a b%41#ü?.jpg", "100%.jpg", "+&.jpg", "a;b=c.jpg", "no suffix"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Of ``Dataset``, whose names are odd ones too."""
    folder = make_dataset(tmp_path / "Dataset", 2)
    for name in ODD:
        shutil.copy(folder / "cyan" / "cyan_000.jpg", folder / "cyan" / name)
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "cyan" / "cyan_000.jpg", folder / ".hidden" / "a.jpg")
    monkeypatch.setattr(store, "_PAUSES", (0.001,) * 5)
    with web_server(tmp_path) as server:
        yield server


def config(server: WebServer, tmp_path: Path) -> Config:
    return Config(image_dir=f"{server.address}/Dataset", bottleneck_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("end", ["", "/"])
def test_the_names_are_those_of_the_folder(server: WebServer, tmp_path: Path, end: str) -> None:
    own, found = scan(tmp_path / "Dataset"), scan(f"{server.address}/Dataset{end}")
    assert found.images == own.images
    assert found.passed_over == own.passed_over
    for image in found.images:
        address = f"{server.address}/Dataset/{quote(image.relpath)}"
        assert image.path.replace("%26", "&") == address.replace("%26", "&")
        with file_bytes(image.path) as (data, _):
            assert data == (tmp_path / "Dataset" / image.relpath).read_bytes()


def test_hidden_folders_are_not_even_looked_into(server: WebServer) -> None:
    scan(f"{server.address}/Dataset")
    assert not [path for _, path in server.requests if ".hidden" in path]


def test_a_warm_run_reads_no_photo(server: WebServer, tmp_path: Path) -> None:
    long_ago = time.time() - 3600
    for path in (tmp_path / "Dataset").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    report = build(config(server, tmp_path), extractor=StandIn())
    assert (report.computed, report.copies) == (6, len(ODD))
    server.requests.clear()
    report = build(config(server, tmp_path), extractor=StandIn())
    assert (report.computed, report.cached) == (0, 6 + len(ODD))
    assert server.photos_read() == 1  # the start of what is not named as an image


def test_only_links_into_the_folder_are_followed(server: WebServer, tmp_path: Path) -> None:
    links = [
        *("a.jpg", "./b.jpg", "/page/c.jpg", f"{server.address}/page/d.jpg", "sub/"),
        *(
            "../e.jpg",
            "/f.jpg",
            "https://elsewhere.invalid/page/g.jpg",
            "//elsewhere.invalid/h.jpg",
        ),
        *(
            "?C=N;O=D",
            "i.jpg?size=1",
            "#top",
            "sub/j.jpg",
            "%2e%2e/k.jpg",
            "l%2fm.jpg",
            "..%2fn.jpg",
        ),
        *("javascript:alert(1)", "file:///etc/o.jpg", "http://[bad", "", "/page/", "p.jpg#x"),
    ]
    page = "".join(f'<A class="x" HREF="{link}">x</a>' for link in links)
    server.pages["/page/label/"] = page.replace("page/", "page/label/").encode()
    server.pages["/page/label/sub/"] = b"<a href=../a.jpg>up</a>"
    server.pages["/page/"] = b"<a href=label/>label</a>"
    for name in "abcdefghijklmnop":
        server.pages[f"/page/label/{name}.jpg"] = b""
    found = scan(f"{server.address}/page")
    assert [image.relpath for image in found.images] == [f"label/{x}.jpg" for x in "abcdp"]
    assert all(path.startswith("/page/") for _, path in server.requests)


def test_a_server_that_shows_no_list_is_an_error(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("photos")
    for name in ("plain.txt", "Dataset/cyan/cyan_000.jpg"):
        with pytest.raises((ImageFolderError, ImageFolderNotFoundError)):
            scan(f"{server.address}/{name}")
    server.pages["/empty/"] = b"<p>nothing</p>"
    with pytest.raises(ImageFolderError, match="found no images"):
        scan(f"{server.address}/empty")
    with pytest.raises(ImageFolderNotFoundError, match="does not exist"):
        scan(f"{server.address}/missing")


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "no permission"), (401, "no permission"), (500, "answers with status 500")],
)
def test_a_list_that_is_refused_is_one_error(server: WebServer, status: int, message: str) -> None:
    server.broken = [status] * 10
    with pytest.raises(ImageFolderError, match=f"^cannot list http.*: .*{message}$"):
        scan(f"{server.address}/Dataset")
    assert len(server.requests) == (6 if status == 500 else 1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_throttling_server_is_asked_again(server: WebServer, status: int) -> None:
    server.broken = [status] * 5
    assert len(scan(f"{server.address}/Dataset").images) == 6 + len(ODD)


def test_a_server_that_hangs(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    image = scan(f"{server.address}/Dataset").images[0]
    monkeypatch.setattr(web, "_PAGE_SECONDS", 0.3)
    monkeypatch.setattr(store, "READ_SECONDS", 0.3)
    monkeypatch.setattr(store, "_SLOWEST", 1e12)
    server.hangs_at = ("GET", "")
    with pytest.raises(ImageFolderError, match="does not answer in time"):
        scan(f"{server.address}/Dataset")
    with pytest.raises(BadImageError, match="does not answer in time"), file_bytes(image.path):
        pass


def test_names_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec")
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    monkeypatch.setattr(store, "_PAUSES", (0.001,) * 5)
    with pytest.raises(ImageFolderError, match="name of its host is not known"):
        scan("http://nowhere.invalid/photos/")
    with pytest.raises(ImageFolderError, match="no connection"):
        scan("http://127.0.0.1:1/photos/")


def test_a_list_without_an_end(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/deep/"] = b"<a href=a/>a</a><a href=b/>b</a>"
    for depth in range(12):
        for i in range(2**depth):
            path = "".join("ab"[i >> bit & 1] + "/" for bit in range(depth))
            server.pages[f"/deep/{path}"] = server.pages["/deep/"]
    monkeypatch.setattr(web, "MOST_PAGES", 50)
    with pytest.raises(ImageFolderError, match="more than 50 folders"):
        scan(f"{server.address}/deep")
    monkeypatch.setattr(web, "_PAGE_BYTES", 10)
    with pytest.raises(ImageFolderError, match="too long"):
        scan(f"{server.address}/deep")


def test_a_flood_is_read_no_further_than_the_limit(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottlenecks.photos import reading

    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(reading, "LARGE_FILE_BYTES", 100)
    server.pages["/large.jpg"] = bytes(10_000)
    with pytest.raises(BadImageError, match="MB"), file_bytes(f"{server.address}/large.jpg"):
        pass
    server.pages["/small.jpg"] = bytes(1000)
    with file_bytes(f"{server.address}/small.jpg") as (data, _):
        assert data == bytes(1000)


def test_the_signature_is_of_the_tag_the_time_and_the_size() -> None:
    headers = {
        "ETag": '"a"',
        "Last-Modified": "Sun, 29 Nov 2026 12:00:00 GMT",
        "Content-Length": "7",
    }
    whole = web.signature_in(headers)
    assert whole[0] == 7
    assert whole[1] == whole[2] == 1795953600 * 10**9
    others = [
        web.signature_in({**headers, name: value})
        for name, value in (
            ("ETag", '"b"'),
            ("Last-Modified", "Sun, 29 Nov 2026 12:00:01 GMT"),
            ("Content-Length", "8"),
        )
    ]
    assert len({whole, *others}) == 4
    time_of_none = web.signature_in({"Content-Length": "7"})[1]
    assert time_of_none > time.time_ns() * 2  # never settled: an index does not remember it
    assert web.signature_in({"ETag": "x"})[:3] == (-1, 0, 0)
    assert web.signature_in({**headers, "Content-Encoding": "gzip"})[0] == -1
