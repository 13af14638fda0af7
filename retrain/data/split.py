"""Images -> training | validation | testing, a whole group at a time; pure, stable."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from bottlenecks.errors import ImageFolderError, shown
from bottlenecks.photos.images import ImageFolder, normalise

SetName = Literal["validation", "testing", "training"]
SETS: tuple[SetName, ...] = ("validation", "testing", "training")
MIN_IMAGES = 3  # one for each set

_BUCKETS = 2**27  # retrain.py: MAX_NUM_IMAGES_PER_CLASS + 1

# What the folders of a split are called that somebody else has made, and what else is in such a
# name: seg_train, test_set, val2017.
_TRAINING = frozenset(("train", "training"))
_SETS = _TRAINING | frozenset(
    ("val", "valid", "validation", "dev", "eval", "test", "testing", "holdout")
)
_WORDS = _SETS | frozenset(
    ("set", "sets", "seg", "split", "data", "dataset", "image", "images", "img", "photos")
)


class Member(NamedTuple):
    """An image, and the group that it shares its set with; see `retrain.data.groups`."""

    label: str
    relpath: str
    group: str


def percentage(name: str) -> float:
    """Where in [0, 100] a group falls, by its name.

    sha1 of ``name`` modulo 2**27 as a percentage. For a photo on its own the name is
    ``label/filename``, so that it falls where retrain.py put it, which hashed the path as typed.
    """
    digest = hashlib.sha1(os.fsencode(name), usedforsecurity=False).hexdigest()
    return int(digest, 16) % _BUCKETS * (100.0 / (_BUCKETS - 1))


def split(
    members: Iterable[Member], validation_percentage: int, testing_percentage: int
) -> dict[str, SetName]:
    """Give each image its set, by the name of its group alone. Returns relpath -> set.

    Where a set whose share is above 0 would have no image of a label, it borrows the label's
    group with the lowest percentage; but for training, only if no other label loses its only one
    in a set for it. A label of two groups has none in validation, one of a single group is
    trained on alone. Adding images moves no others than borrowed ones, because the borrowed are
    always the first in that order.
    """
    members = tuple(members)
    places = {group: percentage(group) for group in {member.group for member in members}}
    sets = {
        group: _own_set(place, validation_percentage, testing_percentage)
        for group, place in places.items()
    }
    groups_of: dict[str, set[str]] = defaultdict(set)
    labels_of: dict[str, set[str]] = defaultdict(set)
    for member in members:
        groups_of[member.label].add(member.group)
        labels_of[member.group].add(member.label)
    shares = {"training": 100, "testing": testing_percentage, "validation": validation_percentage}
    wanted = [name for name, share in shares.items() if share > 0]
    # How many groups of each label each set has.
    counts = {label: Counter(sets[g] for g in groups) for label, groups in groups_of.items()}
    for label in sorted(groups_of):
        groups = groups_of[label]
        most = wanted[: len(groups)]
        for group in sorted(groups, key=lambda g: (places[g], os.fsencode(g))):
            empty = [name for name in SETS if name in most and not counts[label][name]]
            # Its own label is filled up again by what comes next, but for what it is trained on.
            losers = labels_of[group] - ({label} if sets[group] != "training" else set())
            spared = all(counts[loser][sets[group]] > 1 for loser in losers)
            to = next((name for name in empty if spared or name == "training"), None)
            if to is not None:
                for one in labels_of[group]:
                    counts[one][sets[group]] -= 1
                    counts[one][to] += 1
                sets[group] = to
    return {member.relpath: sets[member.group] for member in members}


def check_is_no_split(folder: ImageFolder) -> None:
    """Raise `ImageFolderError` where folders are the sets of a ready-made split.

    That is, ``train/daisy/a.jpg`` and ``validation/daisy/b.jpg``. What is trained on them would
    tell "train" from "validation". Two or more must be called as sets are, and be all there is, or
    one of them be for training and hold folders; or one must hold folders that are called as the
    labels beside it.
    """
    inner: dict[str, set[str]] = defaultdict(set)  # label folders in each folder
    for image in folder.images:
        first, *rest = image.relpath.split("/")
        inner[first] |= {normalise(rest[0])} if len(rest) > 1 else set()
    sets = {name for name in inner if _is_set(name)}
    labels = {normalise(name) for name in set(inner) - sets}
    training = sorted(name for name in sets if _words(name) & _TRAINING and inner[name])
    beside = sorted(name for name in sets if inner[name] & labels)
    if len(sets) > 1 and (len(sets) == len(inner) or training):
        shared = sorted(set.union(*(inner[name] for name in sets)))
        example = f", such as {shown(shared[0])}" if shared else ""
        one_set = os.path.join(folder.root, training[0]) if training else ""
        remedy = f", or train on one set, which is split anew: --image_dir {shown(one_set)}"
        raise ImageFolderError(
            f"{shown(folder.root)} is a ready-made split: its folders "
            f"{', '.join(map(shown, sorted(sets)))} are sets and no labels; put all photos of a "
            f"label{example} into one folder" + (remedy if training else "")
        )
    if beside:
        raise ImageFolderError(
            f"{shown(os.path.join(folder.root, beside[0]))} is no label but a set: it holds "
            f"folders that are called as the labels beside it, such as "
            f"{shown(min(inner[beside[0]] & labels))}; move it away, or put its photos into theirs"
        )


def _words(name: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", name.lower()))


def _is_set(name: str) -> bool:
    words = _words(name)
    return words <= _WORDS and bool(words & _SETS)


def _own_set(place: float, validation_percentage: int, testing_percentage: int) -> SetName:
    if place < validation_percentage:
        return "validation"
    return "testing" if place < validation_percentage + testing_percentage else "training"
