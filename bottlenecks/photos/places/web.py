"""A web server's folders, page by page: the links to what lies right in each.

The requests go through the session of fsspec's file system, with what is set up for it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from bottlenecks.errors import ImageFolderError, shown
from bottlenecks.photos.images import Signature
from bottlenecks.photos.places.addresses import AT_ONCE, join
from bottlenecks.photos.places.store import Store
from bottlenecks.photos.places.tree import DEEPEST, UNKNOWN, Found
from bottlenecks.pools import in_order, pool_of

MOST_PAGES = 100_000
_PAGE_BYTES = 64 * 2**20
_CHUNK = 2**16
HTML = "text/html"
_PAGE_SECONDS = 60.0


def crawl(store: Store, root: str) -> Iterator[Found]:
    """All files and folders below a folder, by names as people write them.

    Raises `ImageFolderError` where the server shows no list of files, and what a request raises.
    """
    folders = [("", root)]
    pages = 0
    with pool_of(AT_ONCE, "pages") as pool:
        while folders:
            pages += len(folders)
            if pages > MOST_PAGES:
                raise ImageFolderError(f"{shown(root)} has more than {MOST_PAGES:,} folders")
            below = []
            found = in_order(pool, lambda one: _links(store, one[1]), folders, 2 * AT_ONCE)
            with closing(found) as answers:
                for (above, _), links in answers:
                    for name, address in links:
                        is_folder = address.endswith("/")
                        yield Found(above + name, is_folder=is_folder, address=address)
                        if is_folder and not name.startswith("."):
                            below.append((f"{above}{name}/", address))
            folders = [one for one in below if one[0].count("/") <= DEEPEST]


def _links(store: Store, folder: str) -> Sequence[tuple[str, str]]:
    page = store.run(_page, store.fs, join(folder, ""), seconds=_PAGE_SECONDS)
    if page is None:
        raise ImageFolderError(
            f"{shown(folder)} shows no list of files; name a folder that does, or a copy on the "
            "disk"
        )
    return list(_in_folder(folder, *page))


def _in_folder(folder: str, base: str, text: str) -> Iterator[tuple[str, str]]:
    """The names and addresses right in ``folder`` that its page links to; ``base`` is the page's.

    Links to anything else are passed over: parents, other servers, the same page sorted otherwise.
    """
    seen = set()
    parser = _Links()
    parser.feed(text)
    for link in parser.links:
        try:
            parts, own = urlsplit(urljoin(base, link)), urlsplit(base)
        except ValueError:
            continue
        is_same = (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
        if not is_same or parts.query or not parts.path.startswith(own.path):
            continue
        segment = parts.path[len(own.path) :]
        name = unquote(segment.removesuffix("/"))
        if name and "/" not in name and segment not in seen:
            seen.add(segment)
            yield name, join(folder, segment)


class _Links(HTMLParser):
    """Collects what a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


async def _page(fs: Any, address: str) -> tuple[str, str] | None:
    """A page's address, and its text; None for what is no page."""
    session = await fs.set_session()
    async with session.get(fs.encode_url(address), **fs.kwargs) as answer:
        _check(answer)
        if answer.content_type != HTML:
            return None
        data = await _bytes_of(answer, _PAGE_BYTES + 1)
        if len(data) > _PAGE_BYTES:
            raise ImageFolderError(f"the list of {shown(address)} is too long")
        return str(answer.url), data.decode(answer.charset or "utf-8", "replace")


async def get(fs: Any, address: str, limit: int) -> bytes:
    """The first ``limit`` bytes of what is at an address."""
    session = await fs.set_session()
    async with session.get(fs.encode_url(address), **fs.kwargs) as answer:
        _check(answer)
        return await _bytes_of(answer, limit)


async def head(fs: Any, address: str) -> tuple[Signature, str]:
    """The signature of what is at an address, by what the server says of it, and its type."""
    session = await fs.set_session()
    options = {**fs.kwargs, "allow_redirects": True}
    async with session.head(fs.encode_url(address), **options) as answer:
        if answer.status in (405, 501):  # the server knows no such request
            return UNKNOWN, ""
        _check(answer)
        return signature_in(answer.headers), answer.content_type


def signature_in(headers: Any) -> Signature:
    """By the tag and the time of a file; either is enough."""
    size = -1
    if "Content-Encoding" not in headers and headers.get("Content-Length", "").isdecimal():
        size = int(headers["Content-Length"])
    tag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "")
    try:
        time_ns = int(parsedate_to_datetime(changed).timestamp()) * 1_000_000_000
    except ValueError:
        time_ns = 0 if tag else UNKNOWN[1]
    digest = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8]) if tag else 0
    return size, time_ns, time_ns, digest


def _check(answer: Any) -> None:
    if answer.status in (401, 403):
        raise PermissionError
    if answer.status in (404, 410):
        raise FileNotFoundError
    answer.raise_for_status()


async def _bytes_of(answer: Any, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit and (chunk := await answer.content.read(_CHUNK)):
        data += chunk
    return bytes(data[:limit])
