"""Why a request failed, in words of this program.

What the libraries say may hold what nobody is to see: a signed address, a key.
"""

import re
import socket
from collections.abc import Iterator

from bottlenecks.errors import (
    BadImageError,
    ImageFolderError,
    RetrainError,
    UsageError,
    shown,
)
from bottlenecks.photos.places.addresses import scheme_of

# What lets everybody read what everybody may.
_FOR_EVERYBODY = {
    "s3": "FSSPEC_S3_ANON=true",
    "gs": "FSSPEC_GS_TOKEN=anon",
    "gcs": "FSSPEC_GCS_TOKEN=anon",
}


def failure(address: str, error: Exception) -> RetrainError:
    """The error of a folder that cannot be listed, in one line."""
    if isinstance(error, RetrainError):
        return error
    remedy = ""
    if is_credentials(error):
        remedy = "; set them up as for your other programs (environment, profile)"
        public = _FOR_EVERYBODY.get(scheme_of(address))
        remedy += f", or {public} for what everybody may read" if public else ""
    return ImageFolderError(f"cannot list {shown(address)}: {reason(error)}{remedy}")


def is_credentials(error: BaseException) -> bool:
    return any("Credential" in type(one).__name__ for one in _chain(error))


def is_final(error: BaseException) -> bool:
    """Whether asking again is of no use."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | UsageError):
        return True
    status = _status(error)
    is_wrong = status is not None and 400 <= status < 500 and status not in (408, 425, 429)
    no_name = any(isinstance(one, socket.gaierror) for one in _chain(error))
    is_ours = isinstance(error, TypeError | ValueError | NotImplementedError | BadImageError)
    return is_wrong or no_name or is_ours or is_credentials(error)


def reason(error: BaseException) -> str:
    """Why a request failed, for the end of a line."""
    chain = list(_chain(error))
    if is_credentials(error):
        return "no credentials were found for it, or they are incomplete"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, PermissionError):
        return "no permission"
    if any(isinstance(one, socket.gaierror) for one in chain):
        return "the name of its host is not known"
    if any(isinstance(one, TimeoutError) or "Timeout" in type(one).__name__ for one in chain):
        return "it does not answer in time"
    if (status := _status(error)) is not None:
        return f"it answers with status {status}"
    if any(isinstance(one, ConnectionError) or "Connect" in type(one).__name__ for one in chain):
        return "no connection"
    code = re.sub(r"[^A-Za-z0-9]", "", str(getattr(error, "errno", None) or ""))
    return f"it fails ({type(error).__name__}{' ' + code if code else ''})"


def _status(error: BaseException) -> int | None:
    """The status of the HTTP answer that an error comes from, as the libraries have it."""
    for one in _chain(error):
        status = getattr(one, "status", None) or getattr(one, "status_code", None)
        if isinstance(response := getattr(one, "response", None), dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", status)
        if isinstance(status, int):
            return status
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            causes = (one.__cause__, one.__context__, getattr(one, "os_error", None))
            left += [cause for cause in causes if isinstance(cause, BaseException)]
