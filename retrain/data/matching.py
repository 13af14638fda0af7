"""Label folders <-> the labels of a classifier that somebody has trained, by their names."""

import re
from collections.abc import Callable, Iterable, Sequence

from bottlenecks.errors import ImageFolderError, shown
from bottlenecks.photos.labels import normalise

_SHOWN = 10  # labels in an error


def match(folders: Iterable[str], labels: Sequence[str], where: str) -> dict[str, int]:
    """folder name -> number of its label among ``labels``, those of the classifier.

    The same name comes first, then the same by `normalise`, then what retrain.py made of the
    folder's name; each only where it fits one label. Raises `ImageFolderError`, about the image
    folder ``where``, for folders of no label and for two of one: an image that is passed over would
    flatter the figures.
    """
    found = {folder: _number(folder, labels) for folder in sorted(set(folders))}
    unknown = [folder for folder, number in found.items() if number is None]
    if unknown:
        raise ImageFolderError(
            f"the classifier does not know {_listed(unknown, 'folder')} of {shown(where)}; its "
            f"labels are {_several(labels)}: rename the folders as these, or move elsewhere what "
            "it was not trained for"
        )
    numbers = {folder: number for folder, number in found.items() if number is not None}
    folder_of: dict[int, str] = {}
    for folder, number in numbers.items():
        if folder_of.setdefault(number, folder) != folder:
            raise ImageFolderError(
                f"the folders {shown(folder_of[number])!r} and {shown(folder)!r} of {shown(where)} "
                f"are both the classifier's label {shown(labels[number])!r}; put their images "
                "together, or rename one"
            )
    return numbers


def _number(folder: str, labels: Sequence[str]) -> int | None:
    ways: tuple[Callable[[str], bool], ...] = (
        lambda label: label == folder,
        lambda label: normalise(label) == normalise(folder),
        lambda label: label.strip() == _as_retrain_py(folder).strip() != "",
    )
    for is_meant in ways:
        meant = [number for number, label in enumerate(labels) if is_meant(label)]
        if len(meant) == 1:
            return meant[0]
        if meant:  # the next way is a wider one
            return None
    return None


def _as_retrain_py(folder: str) -> str:
    """The label that retrain.py made of a folder's name: without letters beyond ASCII."""
    return re.sub(r"[^a-z0-9]+", " ", folder.lower())


def _listed(names: Sequence[str], what: str) -> str:
    return f"the {what}{'s' * (len(names) > 1)} {_several(names)}"


def _several(names: Sequence[str]) -> str:
    listed = ", ".join(repr(shown(name)) for name in names[:_SHOWN])
    return listed + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
