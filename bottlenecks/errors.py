"""Every exception of the project, under one base class.

Each also derives from the builtin that fits, so that a caller may catch either. A
message says what is wrong, what was received, and what to do about it; the commands
print it as one line that begins with ``error:``.
"""

import contextlib
import os
import re
from collections.abc import Iterator

# An address: its scheme, its user, and its host and path. In the second kind a user is no user.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*@)?([^?#]*)")
_CONTAINERS = frozenset(("abfs", "abfss", "az", "adl", "wasb", "wasbs"))


class RetrainError(Exception):
    """Base of everything that this project raises on purpose."""


class UsageError(RetrainError, ValueError):
    """A flag or argument that cannot be what was meant."""


class ImageFolderError(RetrainError, ValueError):
    """An image folder that cannot be trained on: its labels or counts are wrong."""


class ImageFolderNotFoundError(ImageFolderError, FileNotFoundError):
    """No folder at the path given."""


class BadImageError(RetrainError, ValueError):
    """One file that cannot be read as an image; the message is the reason alone."""


class StoreLostError(RetrainError, ConnectionError):
    """A store of photos that gave some, and then nothing any more."""


class WeightsError(RetrainError, ValueError):
    """A weights file that is not what InceptionV3 needs."""


class WeightsUnavailableError(WeightsError, FileNotFoundError):
    """The weights are neither on disk nor to be had over the network."""


class CacheError(RetrainError, ValueError):
    """A bottleneck cache that cannot be used as asked."""


class StoreError(CacheError, OSError):
    """A cache behind an address that does not answer, or refuses what is asked."""


class DamagedShardError(CacheError):
    """A shard whose bytes or structure are not what its name and format promise."""


class LostRowsError(CacheError):
    """Rows that were in a cache when it was loaded, and turn out to be damaged or gone.

    ``problem`` is what is wrong; making and loading the cache anew knows that they are missing.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; run the same command again to compute its images anew")
        self.problem = problem


class OtherRowsError(CacheError):
    """A shard that is sound, but whose rows are not of the kind that was asked for."""


class GraphError(RetrainError, ValueError):
    """A graph or labels file that cannot be used for labelling."""


class UnsafeGraphError(GraphError):
    """A graph with operations that have no place in an image classifier."""


class TensorFlowError(RetrainError, ImportError):
    """TensorFlow that cannot be imported."""


class WorkerError(RetrainError, ConnectionError):
    """Other processes of the same training that do not come, or are lost."""


class ClusterError(RetrainError, ConnectionError):
    """A cluster that does not answer, or of which no machine can take part."""


class OutputError(RetrainError, OSError):
    """A place where nothing can be written."""


def utf8(name: str | os.PathLike[str]) -> str:
    """``name`` with what is not UTF-8 in it escaped, so that it can be written as UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def public(name: str) -> str:
    """An address without its user and what comes after its path, which may be secret.

    What is no address is as it was.

    >>> public("https://me:secret@host/a.jpg?signature=1")
    'https://host/a.jpg'
    """
    if (parts := _ADDRESS.match(name)) is None:
        return name
    scheme, user, rest = parts.groups()
    is_container = scheme.lower() in _CONTAINERS and ":" not in (user or "")
    return f"{scheme}://{user or '' if is_container else ''}{rest}"


def shown(name: str | os.PathLike[str]) -> str:
    """``name`` as one printable line: what is not UTF-8 or not printable is escaped.

    Of an address what is `public`.

    >>> shown("a\\nb")
    'a\\\\nb'
    """
    text = public(utf8(name))
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def one_line(error: BaseException) -> str:
    """What an exception of a library says, or what it is, cut to a line that is safe to print."""
    return shown(" ".join(str(error).split())[:300]) or type(error).__name__


@contextlib.contextmanager
def if_interrupted(note: str) -> Iterator[None]:
    """Note on a KeyboardInterrupt, or what else is no ``Exception``, how things then stand.

    The commands print the innermost note behind "interrupted".
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as stop:
        stop.add_note(note)
        raise
