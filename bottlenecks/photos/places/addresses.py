"""Addresses of photos: ``s3://bucket/photos``, ``https://host/photos/``, all that fsspec knows.

Who may read them is for the environment and the profiles of each kind of store to say, never for
an address: one with a password in it is refused.
"""

import posixpath
import re

from bottlenecks.errors import UsageError, shown

WEB = ("http", "https")
AT_ONCE = 16  # requests that are under way: a store is slow, not busy
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_LOCAL = ("file", "local")


def is_address(path: str) -> bool:
    """Whether it is one, and no path."""
    return _ADDRESS.match(path) is not None


def scheme_of(address: str) -> str:
    return address.partition("://")[0].lower()


def origin_of(address: str) -> str:
    """The store that an address leads to: its scheme, and what it calls host, bucket or user."""
    scheme, _, rest = address.partition("://")
    return f"{scheme.lower()}://{re.split('[/?#]', rest, maxsplit=1)[0]}"


def problem_of(address: str, folder: bool = False) -> str:
    """Why an address is not followed; empty where it may be.

    The name of a ``folder`` could be taken for a chain of addresses, as ``zip://*::s3://...`` is.
    """
    user = origin_of(address).partition("://")[2].rpartition("@")[0]
    if ":" in user or (user and scheme_of(address) in WEB):
        return (
            "has a password or a user in it, where lists and reports would show them; set them up "
            "as the store's other programs want them (environment, profile, .netrc)"
        )
    if "::" in (address if folder else origin_of(address)):
        return "is a chain of addresses; name one that holds the photos themselves"
    if scheme_of(address) in _LOCAL:
        return "is a folder of this machine; name it without the scheme"
    return "" if origin_of(address).partition("://")[2] else "names no host or bucket"


def check_folder(address: str, flag: str) -> None:
    """Raise `UsageError` for an address that cannot be that of a folder."""
    problem = problem_of(address, folder=True)
    if not problem and re.search("[?#]", address):
        problem = "has a ? or # in it, which a folder has not"
    if problem:
        raise UsageError(f"--{flag} {shown(address)} {problem}")


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def relative(address: str, folder: str) -> str:
    """The way to an address from another one; the whole of it where that is of another store."""
    if origin_of(address) != origin_of(folder):
        return address
    return posixpath.relpath(*(_path(one) for one in (address, folder)))


def _path(address: str) -> str:
    return "/" + address.partition("://")[2].partition("/")[2]
