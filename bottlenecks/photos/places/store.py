"""Requests to what an address leads to: again where they fail, and within a time."""

import functools
import importlib.util
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from bottlenecks.errors import (
    BadImageError,
    ImageFolderError,
    StoreLostError,
    UsageError,
    shown,
)
from bottlenecks.forks import PerProcess
from bottlenecks.photos.places.addresses import WEB, origin_of, problem_of, scheme_of
from bottlenecks.photos.places.reasons import is_final, reason

CONTACT_SECONDS = 20.0  # in which a store must answer for the first time
LIST_SECONDS = 3600.0  # of a listing, which is many requests
READ_SECONDS = 60.0  # of all attempts to read a photo, and more for a large one
MOST_LOST = 32  # reads in a row that fail until nothing more is expected of a store
_REQUEST_SECONDS = 20.0  # of one attempt to read, and more for a large photo
_SLOWEST = 1_000_000  # bytes in a second
_PAUSES = (0.25, 0.6, 1.5, 4.0, 10.0)  # seconds between attempts

# The packages that know a scheme, beside fsspec.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(WEB, "aiohttp"),
}
R = TypeVar("R")


class Store:
    """One store: fsspec's file system of it, and how it has answered."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.fs = _file_system(origin)
        self._failures = 0  # reads in a row

    def call(self, method: str, *arguments: Any, seconds: float, **options: Any) -> Any:
        """What a method of the file system gives, by its public name; again where it fails.

        Raises what the last attempt has raised, ``TimeoutError`` after so many seconds.
        """
        once = functools.partial(self.once, method, *arguments, **options)
        return self._again(lambda left: once(seconds=left), seconds, seconds)

    def once(self, method: str, *arguments: Any, seconds: float, **options: Any) -> Any:
        """The same, in one attempt."""
        if getattr(self.fs, "async_impl", False):
            coroutine = getattr(self.fs, f"_{method}")
            return self.run_once(coroutine, *arguments, seconds=seconds, **options)
        return _within(seconds, functools.partial(getattr(self.fs, method), *arguments, **options))

    def run(self, request: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        """What a coroutine function gives in fsspec's loop; again where it fails."""
        once = functools.partial(self.run_once, request, *arguments)
        return self._again(lambda left: once(seconds=left), seconds, seconds)

    def run_once(
        self, request: Callable[..., Any], *arguments: Any, seconds: float, **options: Any
    ) -> Any:
        """The same, in one attempt."""
        from fsspec.asyn import sync

        return sync(self.fs.loop, request, *arguments, timeout=seconds, **options)

    def _again(self, attempt: Callable[[float], R], seconds: float, each: float) -> R:
        deadline = time.monotonic() + seconds
        for pause in (*_PAUSES, 0.0):
            left = max(0.1, deadline - time.monotonic())
            try:
                return attempt(min(each, left))
            except Exception as error:
                is_last = not pause or time.monotonic() + pause > deadline
                if is_last or is_final(error) or self._failures >= MOST_LOST:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))  # so that not all come again at once
        raise AssertionError("the last attempt returns or raises")

    def read(self, attempt: Callable[[float], bytes], size: int) -> bytes:
        """The bytes of a photo of about ``size``, by an attempt that may take so many seconds.

        Raises `BadImageError`, and `StoreLostError` where the store gives nothing any more.
        """
        more = size / _SLOWEST
        try:
            data = self._again(attempt, READ_SECONDS + more, _REQUEST_SECONDS + more)
        except Exception as error:
            if not is_final(error):
                self._failures += 1
            if self._failures >= MOST_LOST:
                raise StoreLostError(
                    f"{shown(self.origin)} gives no photos any more: {reason(error)}; when it "
                    "does, run the same command again"
                ) from error
            raise BadImageError(f"cannot be read: {reason(error)}") from error
        self._failures = 0
        return data


class _Stores:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.of_origin: dict[str, Store] = {}


_stores = PerProcess(_Stores)


def store_of(address: str) -> Store:
    """The store that an address leads to, one for all that lead there.

    Raises `UsageError` for an address that is not followed, and where what it needs is missing.
    """
    if problem := problem_of(address):
        raise UsageError(f"{shown(address)} {problem}")
    origin, here = origin_of(address), _stores()
    with here.lock:
        if origin not in here.of_origin:
            here.of_origin[origin] = Store(origin)
        return here.of_origin[origin]


def _file_system(origin: str) -> Any:
    scheme = scheme_of(origin)
    package = _PACKAGES.get(scheme)
    needed = ["fsspec", *([package] if package else [])]
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise UsageError(
            f"{shown(origin)} cannot be read without {' and '.join(needed)}: pip install "
            f"{' '.join(needed)}"
        )
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    try:
        return _within(CONTACT_SECONDS, lambda: url_to_fs(origin)[0])
    except ImportError as error:
        advice = known_implementations.get(scheme, {}).get("err", "install what it needs")
        raise UsageError(f"{shown(origin)} cannot be read: {shown(advice)}") from error
    except Exception as error:
        known = sorted({*_PACKAGES, "memory"} | set(known_implementations))
        if scheme not in known:
            raise UsageError(
                f"{shown(origin)}: nothing here knows addresses that begin with {scheme}://; "
                "s3://, gs://, abfs:// and https:// are known, and a folder of this machine is "
                "named without any"
            ) from error
        raise ImageFolderError(f"{shown(origin)} cannot be reached: {reason(error)}") from error


def _within(seconds: float, work: Callable[[], R]) -> R:
    """What ``work`` gives; ``TimeoutError`` where it takes longer, and is left to itself."""
    results: list[R] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=run, name="store", daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
