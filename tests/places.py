"""The same photos in places of every kind, and stores that fail."""

import functools
import http.server
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest


def zip_of(folder: Path, path: Path) -> Path:
    """A zip archive of all that is in a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def tar_of(folder: Path, path: Path) -> Path:
    """A tar archive of the same; names begin with ``./``, as of ``tar cf photos.tar .``"""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
    return path


def in_memory(folder: Path, name: str, protocol: str = "memory") -> str:
    """The same in fsspec's memory; returns the address."""
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{name}"):
        memory.rm(f"/{name}", recursive=True)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        memory.pipe_file(f"/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"{protocol}://{name}"


class WebServer(http.server.ThreadingHTTPServer):
    """Shows the folders below ``folder`` as lists of links, and counts the requests."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(_Handler, directory=str(folder))
        super().__init__(("127.0.0.1", 0), handler)
        self.requests: list[tuple[str, str]] = []
        self.pages: dict[str, bytes] = {}  # in place of lists, by their paths
        self.broken: list[int] = []  # statuses that are answered first
        self.hangs_at: tuple[str, str] | None = None  # the method, and the end of the path

    def handle_error(self, *_: object) -> None:
        """Clients that go while they are answered are what some tests are about."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def photos_read(self) -> int:
        """How many files, and not lists, were asked for with their content."""
        return sum(method == "GET" and not path.endswith("/") for method, path in self.requests)


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: WebServer

    def _is_answered(self) -> bool:
        self.server.requests.append((self.command, self.path))
        method, end = self.server.hangs_at or ("", "")
        if self.command == method and self.path.endswith(end):
            time.sleep(5)
        if self.server.broken:
            self.send_error(self.server.broken.pop(0))
            return True
        if (page := self.server.pages.get(self.path)) is not None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(page)
            return True
        return False

    def do_GET(self) -> None:
        if not self._is_answered():
            super().do_GET()

    def do_HEAD(self) -> None:
        if not self._is_answered():
            super().do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[WebServer]:
    """A web server of a folder, on loopback."""
    pytest.importorskip("fsspec", reason="needs fsspec")
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    server = WebServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server on loopback, which the environment leads to; gives the name of a bucket."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    moto = pytest.importorskip("moto.server", reason="needs moto")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDNOTTOBESHOWN")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        # It knows what an earlier one of this process was given.
        reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urlopen(reset, timeout=30).close()
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("photos-of-tests")
        try:
            yield "photos-of-tests"
        finally:
            server.stop()


def in_s3(bucket: str, folder: Path, name: str) -> str:
    """The photos of a folder in a bucket; returns the address."""
    import s3fs

    store = s3fs.S3FileSystem()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = file.relative_to(folder).as_posix()
        store.pipe_file(f"{bucket}/{name}/{key}", file.read_bytes())
    return f"s3://{bucket}/{name}"


class Faults:
    """What a store of the protocol "faulty" does: every ``each``-th request fails, or it hangs.

    It has the files of fsspec's memory.
    """

    each = 0
    error: Exception = OSError("not now: key=not-to-be-shown")
    hangs = False
    after = 0  # requests that it serves before
    requests = 0
    lock = threading.Lock()

    @classmethod
    def reset(cls) -> None:
        cls.each = cls.after = cls.requests = 0
        cls.hangs = False
        cls.error = OSError("not now: key=not-to-be-shown")

    @classmethod
    def meet(cls) -> None:
        with cls.lock:
            cls.requests += 1
            number = cls.requests
        if number <= cls.after:
            return
        if cls.hangs:
            time.sleep(30)
        if cls.each and number % cls.each == 0:
            raise cls.error


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Faults]]:
    """A store whose addresses begin with ``faulty://``; pauses between attempts are short."""
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    from bottlenecks.forks import PerProcess
    from bottlenecks.photos.places import store

    class Faulty(MemoryFileSystem):  # type: ignore[misc]
        protocol = "faulty"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            stripped: str = MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://"))
            return stripped

        def info(self, path: str, **options: Any) -> Any:
            Faults.meet()
            return super().info(path, **options)

        def find(self, path: str, **options: Any) -> Any:
            Faults.meet()
            return super().find(path, **options)

        def cat_file(self, path: str, **options: Any) -> Any:
            Faults.meet()
            return super().cat_file(path, **options)

    fsspec.register_implementation("faulty", Faulty, clobber=True)
    monkeypatch.setattr(store, "_PAUSES", (0.001,) * 5)
    monkeypatch.setattr(store, "_stores", PerProcess(store._Stores))
    Faults.reset()
    yield Faults
    Faults.reset()
