"""A server on loopback that stands in for the publishers of weights and labels."""

import contextlib
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator

from bottlenecks.network.weights import PublishedFile


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` under every name; counts the requests."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.declared = len(content)
        self.status = 200
        self.requests = 0
        self._md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()

    def published(self, name: str = "weights.h5") -> PublishedFile:
        """What its publisher says of the file, whatever comes of it later."""
        return PublishedFile(f"http://127.0.0.1:{self.server_port}/{name}", self._md5)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.declared))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A `Server` that runs."""
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def at_a_dead_port(name: str = "weights.h5") -> PublishedFile:
    """A file at a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return PublishedFile(f"http://127.0.0.1:{port}/{name}", "0" * 32)
