"""Read a classifier's files, which may be anything, and its labels."""

import os

from bottlenecks.errors import GraphError, shown
from bottlenecks.photos.reading import NotAFileError, open_file

MAX_LABELS = 2**18  # a head of more, 2048 float32 each, does not fit into a graph
MAX_LABELS_BYTES = 2**24  # 64 for each label
_REMEDY = "; --labels takes the file that retrain wrote beside the graph"
MAX_LABEL_LENGTH = 1000  # characters; a folder's name has at most 255 bytes


def read_file(path: str | os.PathLike[str], what: str, most: int) -> bytes:
    """The bytes of a regular file, that of the flag ``--what``.

    Raises `GraphError`, before it reads more than ``most`` too.
    """
    remedy = f"run python -m retrain first, or name the file with --{what}"
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise GraphError(
                    f"the {what} file {shown(path)} has {size / 1e6:.0f} MB, at most "
                    f"{most / 1e6:.0f} are read; {remedy}"
                )
            return file.read(most)
    except FileNotFoundError as error:
        raise GraphError(f"the {what} file {shown(path)} does not exist; {remedy}") from error
    except NotAFileError as error:
        raise GraphError(f"the {what} file {shown(path)} is no file; {remedy}") from error
    except OSError as error:
        raise GraphError(
            f"the {what} file {shown(path)} cannot be read: {error.strerror}; {remedy}"
        ) from error


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The labels in a file, one per line. Raises `GraphError`."""
    found = labels_in(read_file(path, "labels", MAX_LABELS_BYTES), path)
    if not found:
        raise GraphError(f"the labels file {shown(path)} is empty{_REMEDY}")
    return found


def labels_in(text: bytes, path: str | os.PathLike[str]) -> list[str]:
    """The labels in ``text``, one per line, of the file at ``path``. Raises `GraphError`."""
    try:
        labels = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise GraphError(f"the labels in {shown(path)} are no UTF-8 text{_REMEDY}") from error
    if labels[-1] == "":
        labels.pop()
    labels = [label.rstrip("\r") for label in labels]
    if "" in labels or any("\0" in label for label in labels):
        raise GraphError(
            f"the labels in {shown(path)} have empty lines; there must be one label per line, in "
            f"the order of the graph's output{_REMEDY}"
        )
    longest = max(map(len, labels), default=0)
    if longest > MAX_LABEL_LENGTH or len(labels) > MAX_LABELS:
        raise GraphError(
            f"the labels in {shown(path)} have {len(labels)} lines, the longest of {longest} "
            f"characters; at most {MAX_LABELS} of {MAX_LABEL_LENGTH} are read{_REMEDY}"
        )
    return labels
