"""Images -> training | validation | testing, a whole group at a time; pure, stable."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from bottlenecks.errors import ImageFolderError, shown
from bottlenecks.photos.images import ImageFolder

SetName = Literal["validation", "testing", "training"]
SETS: tuple[SetName, ...] = ("validation", "testing", "training")
MIN_IMAGES = 3  # one for each set

_BUCKETS = 2**27  # retrain.py: MAX_NUM_IMAGES_PER_CLASS + 1

# What the folders of a split are called that somebody else has made.
_SETS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
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
    """Raise `ImageFolderError` where the folders are the sets of a ready-made split.

    That is, ``train/daisy/a.jpg`` and ``validation/daisy/b.jpg``: all are called as sets are, and
    hold folders, of which some are called the same. What is trained on them would tell "train"
    from "validation".
    """
    if not set(folder.counts) <= _SETS or len(folder.counts) < 2:
        return
    inner: dict[str, set[str]] = defaultdict(set)
    for image in folder.images:
        parts = image.relpath.split("/")
        inner[parts[0]].add(parts[1] if len(parts) > 2 else "")
    labels = set.intersection(*inner.values()) - {""}
    if labels:
        sets = ", ".join(shown(name) for name in sorted(inner))
        first = next(
            name for name in sorted(inner, key=lambda name: not name.lower().startswith("train"))
        )
        raise ImageFolderError(
            f"{shown(folder.root)} is a ready-made split: its folders {sets} hold the same labels, "
            f"such as {shown(min(labels))}; put the photos of a label into one folder, or train on "
            f"one set, which is split anew: --image_dir {shown(os.path.join(folder.root, first))}"
        )


def _own_set(place: float, validation_percentage: int, testing_percentage: int) -> SetName:
    if place < validation_percentage:
        return "validation"
    return "testing" if place < validation_percentage + testing_percentage else "training"
