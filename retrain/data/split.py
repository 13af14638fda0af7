"""Images -> training | validation | testing, a whole group at a time; pure, stable."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from bottlenecks.photos.labels import TESTING, TRAINING, VALIDATION

SetName = Literal["validation", "testing", "training"]
SETS: tuple[SetName, ...] = (VALIDATION, TESTING, TRAINING)
MIN_IMAGES = 3  # one for each set

_BUCKETS = 2**27  # retrain.py: MAX_NUM_IMAGES_PER_CLASS + 1


class Member(NamedTuple):
    """An image, and the group that it shares its set with; see `retrain.data.groups`.

    ``given`` is the set that somebody else has put it into, or empty.
    """

    label: str
    relpath: str
    group: str
    given: str = ""


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

    A given validation or testing set is taken as it is, and then no other image gets into it; what
    is not given is split off the rest.

    Where a set whose share is above 0 would have no image of a label, it borrows the label's
    group with the lowest percentage; but for training, only if no other label loses its only one
    in a set for it. A label of two groups has none in validation, one of a single group is
    trained on alone. Adding images moves no others than borrowed ones, because the borrowed are
    always the first in that order.
    """
    members = tuple(members)
    fixed = {m.relpath: name for m in members for name in SETS[:2] if m.given == name}
    members = tuple(member for member in members if member.relpath not in fixed)
    validation_percentage *= VALIDATION not in fixed.values()
    testing_percentage *= TESTING not in fixed.values()
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
    shares = {TRAINING: 100, TESTING: testing_percentage, VALIDATION: validation_percentage}
    wanted = [name for name, share in shares.items() if share > 0]
    # How many groups of each label each set has.
    counts = {label: Counter(sets[g] for g in groups) for label, groups in groups_of.items()}
    for label in sorted(groups_of):
        groups = groups_of[label]
        most = wanted[: len(groups)]
        for group in sorted(groups, key=lambda g: (places[g], os.fsencode(g))):
            empty = [name for name in SETS if name in most and not counts[label][name]]
            # Its own label is filled up again by what comes next, but for what it is trained on.
            losers = labels_of[group] - ({label} if sets[group] != TRAINING else set())
            spared = all(counts[loser][sets[group]] > 1 for loser in losers)
            to = next((name for name in empty if spared or name == TRAINING), None)
            if to is not None:
                for one in labels_of[group]:
                    counts[one][sets[group]] -= 1
                    counts[one][to] += 1
                sets[group] = to
    return {member.relpath: sets[member.group] for member in members} | fixed


def _own_set(place: float, validation_percentage: int, testing_percentage: int) -> SetName:
    if place < validation_percentage:
        return VALIDATION
    return TESTING if place < validation_percentage + testing_percentage else TRAINING
