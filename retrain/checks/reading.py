"""Read a classifier's files, which may be anything, and its labels."""

import os

from bottlenecks.errors import GraphError, shown
from bottlenecks.photos.reading import NotAFileError, open_file

MAX_LABELS = 2**18  # a head of more, 2048 float32 each, does not fit into a graph
MAX_LABELS_BYTES = 2**24  # 64 for each label
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
    """The labels, one per line. Raises `GraphError`."""
    text = read_file(path, "labels", MAX_LABELS_BYTES)
    try:
        labels = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise GraphError(
            f"the labels file {shown(path)} is no UTF-8 text; --labels takes the file that "
            "retrain wrote beside the graph"
        ) from error
    if labels[-1] == "":
        labels.pop()
    labels = [label.rstrip("\r") for label in labels]
    if not labels or "" in labels or any("\0" in label for label in labels):
        raise GraphError(
            f"the labels file {shown(path)} is empty or has empty lines; it must hold one label "
            "per line, in the order of the graph's output"
        )
    longest = max(map(len, labels))
    if longest > MAX_LABEL_LENGTH or len(labels) > MAX_LABELS:
        raise GraphError(
            f"the labels file {shown(path)} has {len(labels)} lines, the longest of {longest} "
            f"characters; at most {MAX_LABELS} of {MAX_LABEL_LENGTH} are read: --labels takes "
            "the file that retrain wrote beside the graph"
        )
    return labels
