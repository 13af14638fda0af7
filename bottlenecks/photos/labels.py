"""Image folder -> sorted labelled images, and the sets of a split that somebody has made.

``Dataset/Red Roses/2019/a.jpg`` is an image of the label ``red roses``. In a ready-made split the
folders at the top are the sets, and the labels lie in them: ``Dataset/train/Red Roses/a.jpg``.
"""

import functools
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from bottlenecks.errors import ImageFolderError, ImageFolderNotFoundError, UsageError, shown
from bottlenecks.photos.images import (
    FILE,
    FOLDER,
    IMAGE_SUFFIXES,
    Folders,
    ImageFile,
    Walk,
    is_folder,
)
from bottlenecks.photos.places.place import absolute, advice, folders_at, relative

TRAINING: Final = "training"
VALIDATION: Final = "validation"
TESTING: Final = "testing"
# What the folders of a split are called that somebody else has made, and what else is in such a
# name: seg_train, test_set, val2017.
_SETS = {
    TRAINING: frozenset(("train", "training")),
    VALIDATION: frozenset(("val", "valid", "validation", "dev", "eval")),
    TESTING: frozenset(("test", "testing", "holdout")),
}
_FLAGS = {VALIDATION: "validation_dir", TESTING: "test_dir"}
_WORDS = frozenset.union(*_SETS.values()) | frozenset(
    ("set", "sets", "seg", "split", "data", "dataset", "image", "images", "img", "photos")
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image of a data set; ``relpath`` is relative to the image folder, with ``/``.

    Where somebody else has split the images, ``given`` is its set, and ``name_at`` where in
    ``relpath`` the folder of its label begins.
    """

    label: str
    relpath: str
    file: ImageFile = field(compare=False)
    given: str = ""
    name_at: int = 0

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def name(self) -> str:
        """``label folder/filename``, without the folder of its set."""
        return self.relpath[self.name_at :]


@dataclass(frozen=True)
class ImageFolder:
    """What `scan` found: images sorted by ``relpath``, labels sorted.

    ``passed_over`` counts the hidden entries and the files that are no images;
    ``empty_folders`` names the label folders without a single image; ``sets`` the folders of a
    ready-made split by their sets, none where there is no such.
    """

    root: str
    images: tuple[LabeledImage, ...]
    passed_over: int
    empty_folders: tuple[str, ...]
    sets: Mapping[str, str] = field(default_factory=dict)

    def absolute(self, image: LabeledImage) -> str:
        """The absolute path of one of the images, by which a stat index knows it."""
        return self.absolute_root + image.relpath

    @functools.cached_property
    def absolute_root(self) -> str:
        """The absolute path of the image folder, with a separator at its end."""
        return os.path.join(absolute(self.root), "")

    @property
    def counts(self) -> dict[str, int]:
        """Images per label, labels sorted."""
        return dict(sorted(Counter(image.label for image in self.images).items()))


def scan(
    image_dir: str | os.PathLike[str],
    *,
    validation_dir: str | os.PathLike[str] | None = None,
    test_dir: str | os.PathLike[str] | None = None,
) -> ImageFolder:
    """Find the labelled images below ``image_dir``, and in the sets that lie elsewhere.

    A ready-made split is recognised: a folder that is called as training sets are, and one or two
    that are called as the others, with label folders in each. What lies beside them without labels
    is passed over, with a warning where it is called as a set is.

    Raises `ImageFolderNotFoundError` where there is no folder, `ImageFolderError` where there
    are no labels, two folders give the same label, or a split cannot be told; `UsageError` for a
    set that is given twice.
    """
    elsewhere = {VALIDATION: validation_dir, TESTING: test_dir}
    named = {set_: os.fspath(folder) for set_, folder in elsewhere.items() if folder is not None}
    _check_apart(os.fspath(image_dir), named)
    folders = folders_at(os.fspath(image_dir))
    whole = _labelled(image_dir, "image_dir", folders, named.values())
    whole = _split(whole, folders, named.values())
    for set_, folder in named.items():
        whole = _with_set(
            whole, set_, folder, [other for other in named.values() if other != folder]
        )
    return whole


def _check_apart(image_dir: str, named: Mapping[str, str]) -> None:
    """Raise `UsageError` where two of the folders are one: its photos would be in two sets."""
    flags = {_real(image_dir): "image_dir"}
    for set_, folder in named.items():
        flag, real = _FLAGS[set_], _real(folder)
        if real in flags:
            raise UsageError(f"--{flag} and --{flags[real]} are the same folder, {shown(folder)}")
        flags[real] = flag


def _real(folder: str) -> str:
    return folders_at(folder).real(folder)


def _labelled(
    folder: str | os.PathLike[str], flag: str, folders: Folders, others: Iterable[str] = ()
) -> ImageFolder:
    """The images of a folder of label folders; ``others`` are sets of their own, if in it."""
    root = os.fspath(folder)
    if (kind := folders.kind(root)) != FOLDER:
        what = f"is a file{advice(root)}" if kind == FILE else "does not exist"
        raise ImageFolderNotFoundError(
            f"the image folder {shown(root)} {what}; --{flag} takes a folder that holds "
            "one sub-folder of photos per label"
        )
    try:
        entries = folders.list(root)
    except OSError as error:
        raise ImageFolderError(f"cannot read the folder {shown(root)}: {error.strerror}") from error
    apart = {folders.real(other) for other in others if folders.kind(other) == FOLDER}
    images: list[LabeledImage] = []
    folder_of: dict[str, str] = {}
    empty_folders = []
    stray = passed_over = 0
    for entry in entries:
        if entry.name.startswith("."):
            passed_over += 1
        elif apart and folders.real(entry.path) in apart:
            continue
        elif not is_folder(entry):
            passed_over += 1
            stray += os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
        else:
            walk = Walk(folders, root, *apart)
            files = walk.files(entry.path, entry.name)
            passed_over += walk.passed_over
            if not files:
                empty_folders.append(entry.name)
                continue
            label = _label_of(entry.name, folder_of)
            images += [LabeledImage(label, file.relpath, file) for file in files]
    if not images:
        if stray:
            raise ImageFolderError(
                f"the {stray} images of {shown(root)} lie directly in it; put them into "
                "sub-folders, one per label, named as the labels"
            )
        raise ImageFolderError(
            f"found no images in {shown(root)}; it must hold one sub-folder of photos per label"
        )
    return ImageFolder(root, _sorted(images), passed_over, tuple(empty_folders))


def _label_of(folder_name: str, folder_of: dict[str, str]) -> str:
    """The label that a folder's name gives; ``folder_of`` are the names of those before it."""
    label = normalise(folder_name)
    if not label:
        raise ImageFolderError(
            f"the folder name {shown(folder_name)!r} has no letter or digit to make a "
            "label of; rename it"
        )
    if folder_of.setdefault(label, folder_name) != folder_name:
        raise ImageFolderError(
            f"the folders {shown(folder_of[label])!r} and {shown(folder_name)!r} give the "
            f"same label {label!r}; rename one or put their images together"
        )
    return label


def _split(folder: ImageFolder, folders: Folders, others: Collection[str]) -> ImageFolder:
    """``folder`` by its sets where it is a ready-made split, else as it is.

    Where ``others``, sets with places of their own, complete it, a single folder for training is
    one.
    """
    inner: dict[str, set[str]] = {}  # label folders in each folder
    for image in folder.images:
        top, *rest = image.relpath.split("/")
        if image.file.is_folder and not rest and _set_of(top):
            raise ImageFolderError(f"{_in(folder, top)} {image.file.problem}")
        is_labelled = len(rest) > 1 or image.file.is_folder
        inner.setdefault(top, set()).update(rest[:1] if is_labelled else ())
    called = {top: set_ for top in inner if (set_ := _set_of(top))}
    training = [top for top, set_ in called.items() if set_ == TRAINING and inner[top]]
    several = len(called) > 1 or (others and training)
    if not (several and (training or len(called) == len(inner))):
        _check_no_set_among_labels(folder, inner, called)
        return folder
    sets: dict[str, str] = {}
    for top, set_ in called.items():
        if inner[top] and sets.setdefault(set_, top) != top:
            raise ImageFolderError(
                f"{shown(folder.root)} has two folders for {set_}, {shown(sets[set_])} and "
                f"{shown(top)}; put one elsewhere"
            )
    if TRAINING not in sets or (len(sets) < 2 and not others):
        raise ImageFolderError(
            f"{shown(folder.root)} looks like a ready-made split: its folders "
            f"{', '.join(map(shown, sorted(called)))} are called as sets are, but train and "
            "another one would have to hold one folder of photos per label; sort the photos by "
            "their labels"
            + (f", or name --image_dir {_in(folder, training[0])}" if training else "")
        )
    set_in = {top: set_ for set_, top in sets.items()}
    folder_of: dict[str, dict[str, str]] = {set_: {} for set_ in sets}
    images = []
    for image in folder.images:
        top, *rest = image.relpath.split("/")
        if top in set_in and (len(rest) > 1 or image.file.is_folder):
            label = _label_of(rest[0], folder_of[set_in[top]])
            images.append(replace(image, label=label, given=set_in[top], name_at=len(top) + 1))
    passed_over = folder.passed_over + len(folder.images) - len(images)
    _warn_of_passed_over(folder, folders, [*sets.values()], others)
    return replace(folder, images=_sorted(images), passed_over=passed_over, sets=sets)


def _warn_of_passed_over(
    folder: ImageFolder, folders: Folders, used: Collection[str], others: Iterable[str]
) -> None:
    """Warn of each folder that is called as a set is, but is not ``used`` nor one of ``others``."""
    elsewhere = set(map(_real, others))
    for entry in folders.list(folder.root):
        is_hidden, real = entry.name.startswith("."), folders.real(entry.path)
        if is_hidden or not _set_of(entry.name) or entry.name in used or real in elsewhere:
            continue
        if os.path.islink(entry.path) and not os.path.exists(entry.path):
            why, remedy = "is a link to nothing", "mend the link"
        elif is_folder(entry):
            why, remedy = "holds no label folders with photos", "sort its photos by their labels"
        else:
            continue
        log.warning(
            "%s is called as the %s set, but %s, so it is passed over; %s, or move it elsewhere",
            _in(folder, entry.name),
            _set_of(entry.name),
            why,
            remedy,
        )


def _check_no_set_among_labels(
    folder: ImageFolder, inner: Mapping[str, set[str]], called: Mapping[str, str]
) -> None:
    """Raise `ImageFolderError` for a set beside labels: daisy/, roses/ and validation/daisy/."""
    labels = {normalise(top) for top in inner if top not in called}
    for top in sorted(called):
        shared = {normalise(name) for name in inner[top]} & labels
        if shared:
            raise ImageFolderError(
                f"{_in(folder, top)} is no label but a set: it holds folders called as "
                f"the labels beside it, such as {shown(min(shared))}; move it elsewhere and name "
                f"it with --{'test' if called[top] == TESTING else 'validation'}_dir"
            )


def _with_set(folder: ImageFolder, set_: str, place: str, others: Iterable[str]) -> ImageFolder:
    """``folder`` and the images of a set that lies elsewhere, ``place``, without ``others``."""
    flag = _FLAGS[set_]
    if set_ in folder.sets:
        raise UsageError(
            f"--{flag} {shown(place)} is a second set: {shown(folder.root)} holds "
            f"{shown(folder.sets[set_])} already; leave one out"
        )
    found = _labelled(place, flag, folders_at(place), others)
    above = relative(_real(found.root), _real(folder.root)).replace(os.sep, "/") + "/"
    own = [image if image.given else replace(image, given=TRAINING) for image in folder.images]
    held_out = [
        replace(image, relpath=above + image.relpath, given=set_, name_at=len(above))
        for image in found.images
    ]
    return replace(
        folder,
        images=_sorted([*own, *held_out]),
        passed_over=folder.passed_over + found.passed_over,
        empty_folders=(*folder.empty_folders, *found.empty_folders),
        sets={TRAINING: folder.root, **folder.sets, set_: place},
    )


def single_folder(folder: ImageFolder) -> str:
    """The one folder in an image folder, where what it holds look like labels; else empty."""
    tops = {image.relpath.split("/")[0] for image in folder.images}
    inner = {tuple(image.relpath.split("/")[:2]) for image in folder.images}
    deep = all(image.relpath.count("/") > 1 for image in folder.images)
    return _in(folder, min(tops)) if len(tops) == 1 and deep and len(inner) > 1 else ""


def check_labels(folder: ImageFolder) -> None:
    """Raise `ImageFolderError` for a label of a split in one set only, or not in training."""
    if not folder.sets:
        return
    sets_of: dict[str, set[str]] = {}
    for image in folder.images:
        sets_of.setdefault(image.label, set()).add(image.given)
    for label in sorted(sets_of):
        if len(sets_of[label]) == 1:
            (only,) = sets_of[label]
            raise ImageFolderError(
                f"the label {label!r} is in the {only} set only, {shown(folder.sets[only])}; a "
                f"ready-made split has the same labels in each of its sets "
                f"({', '.join(sorted(folder.sets))}): add photos of it, or remove its folder"
            )
        if TRAINING not in sets_of[label]:
            raise ImageFolderError(
                f"the label {label!r} is not in the training set, {shown(folder.sets[TRAINING])}: "
                "add photos of it, or remove its folders from the others"
            )


def _sorted(images: Iterable[LabeledImage]) -> tuple[LabeledImage, ...]:
    return tuple(sorted(images, key=lambda image: os.fsencode(image.relpath)))


def _in(folder: ImageFolder, name: str) -> str:
    return shown(os.path.join(folder.root, name))


def _set_of(folder_name: str) -> str:
    """The set that a folder is called as; empty where it is not."""
    words = set(re.findall(r"[^\W\d_]+", folder_name.lower()))
    if not words <= _WORDS:
        return ""
    return next((set_ for set_, own in _SETS.items() if words & own), "")


def normalise(folder_name: str) -> str:
    """A folder's name as a label: lower case, other than letters and digits -> one space.

    As retrain.py did, for all of Unicode (NFC; combining marks belong to their letter).

    >>> normalise("Red_Roses (2019)")
    'red roses 2019'
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", folder_name).lower())
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return " ".join("".join(kept).split())
