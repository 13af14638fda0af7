"""retrain.data.split: retrain.py's formula, stable as a data set grows."""

import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterable

import pytest

from bottlenecks.builder import CachedImage
from retrain.data.groups import on_its_own
from retrain.data.split import SETS, Member, SetName, percentage, split

SHARES = [(10, 10), (1, 1), (40, 40), (49, 50), (0, 10), (10, 0), (0, 0), (98, 1)]


def retrain_py_percentage(name: str) -> float:
    """The lines of retrain.py's create_image_lists, 2017."""
    max_num_images_per_class = 2**27 - 1  # ~134M
    hash_name = re.sub(r"_nohash_.*$", "", name)
    hash_name_hashed = hashlib.sha1(os.fsencode(hash_name)).hexdigest()
    return (int(hash_name_hashed, 16) % (max_num_images_per_class + 1)) * (
        100.0 / max_num_images_per_class
    )


def own_set(relpath: str, validation: int, testing: int) -> str:
    """Where its percentage alone puts an image."""
    place = retrain_py_percentage(relpath)
    if place < validation:
        return "validation"
    return "testing" if place < validation + testing else "training"


def alone(relpath: str) -> str:
    """The group of a photo that nothing is said of."""
    return on_its_own(CachedImage("label", relpath, relpath, b""))


def split_label(relpaths: Iterable[str], validation: int, testing: int) -> dict[str, SetName]:
    """The sets of the images of one label, each of them on its own."""
    return split((Member("label", p, alone(p)) for p in relpaths), validation, testing)


def names(count: int, seed: int = 0) -> list[str]:
    numbers = random.Random(seed)
    return [f"label/{numbers.getrandbits(64):016x}.jpg" for _ in range(count)]


def test_the_percentage_is_that_of_retrain_py() -> None:
    for relpath in [*names(500), "rosé/a b.JPG", "daisy/21652746_cc379e0eea_m.jpg"]:
        assert percentage(relpath) == retrain_py_percentage(relpath)
        assert 0 <= percentage(relpath) <= 100


def test_nohash_variants_are_where_retrain_py_put_their_photo() -> None:
    for relpath in names(50):
        stem = relpath.removesuffix(".jpg")
        variants = {percentage(alone(f"{stem}_nohash_{i}.jpg")) for i in range(5)}
        assert variants == {percentage(stem), retrain_py_percentage(f"{stem}_nohash_9.png")}


def test_nohash_in_a_folder_name_does_not_make_one_photo_of_all() -> None:
    assert len({alone(f"my_nohash_label/{i}.jpg") for i in range(20)}) == 20


def test_a_name_that_is_not_utf8_is_hashed_by_its_bytes() -> None:
    relpath = os.fsdecode(b"label/caf\xe9.jpg")
    digest = int(hashlib.sha1(b"label/caf\xe9.jpg").hexdigest(), 16)
    assert percentage(relpath) == digest % 2**27 * (100.0 / (2**27 - 1))
    sets = split_label([relpath, os.fsdecode(b"label/\xff.jpg"), "label/a.jpg"], 10, 10)
    assert sorted(sets.values()) == ["testing", "training", "validation"]


@pytest.mark.parametrize(("validation", "testing"), [(10, 10), (1, 1), (40, 40), (0, 25)])
def test_many_images_spread_as_asked(validation: int, testing: int) -> None:
    total = 20_000
    counts: Counter[str] = Counter(split_label(names(total), validation, testing).values())
    shares = {
        "validation": validation,
        "testing": testing,
        "training": 100 - validation - testing,
    }
    for name, share in shares.items():
        deviation = (total * share * (100 - share)) ** 0.5 / 100
        assert abs(counts[name] - total * share / 100) <= 4 * deviation


@pytest.mark.parametrize(("validation", "testing"), SHARES)
def test_growing_labels_move_borrowed_images_only(validation: int, testing: int) -> None:
    for seed in range(250):
        before: dict[str, str] = {}
        relpaths = names(12, seed)
        for count in range(3, 13):
            after = split_label(relpaths[:count], validation, testing)
            moved = [path for path in before if after[path] != before[path]]
            own = [path for path in moved if before[path] == own_set(path, validation, testing)]
            assert own == [], (seed, count)
            before = dict(after)


@pytest.mark.parametrize(("validation", "testing"), SHARES)
def test_no_set_with_a_share_is_empty_and_none_without_is_filled(
    validation: int, testing: int
) -> None:
    shares = {"validation": validation, "testing": testing, "training": 100}
    expected = {name for name, share in shares.items() if share > 0}
    for seed in range(250):
        for count in range(3, 13):
            sets = split_label(names(count, seed), validation, testing)
            assert set(sets.values()) == expected, (seed, count)


def test_only_what_is_needed_is_borrowed_and_lowest_first() -> None:
    for seed in range(250):
        relpaths = names(8, seed)
        own = {path: own_set(path, 10, 10) for path in relpaths}
        sets = split_label(relpaths, 10, 10)
        borrowed = {path for path in relpaths if sets[path] != own[path]}
        assert borrowed == set(sorted(relpaths, key=percentage)[: len(borrowed)])
        assert bool(borrowed) == (len(set(own.values())) < 3)


def test_a_large_label_borrows_nothing_as_it_grows() -> None:
    relpaths = names(3_000)
    small, large = split_label(relpaths[:1_500], 10, 10), split_label(relpaths, 10, 10)
    assert {path: large[path] for path in small} == small
    assert large == {path: own_set(path, 10, 10) for path in relpaths}


def test_the_order_of_the_images_does_not_matter() -> None:
    for seed in range(50):
        relpaths = names(5, seed)
        assert split_label(relpaths, 10, 10) == split_label(reversed(relpaths), 10, 10)


def test_a_single_image_is_trained_on_and_of_two_one_is_tested_on() -> None:
    for one, two in zip(names(50), names(50, seed=1), strict=True):
        assert split_label([one], 10, 10) == {one: "training"}
        assert sorted(split_label([one, two], 10, 10).values()) == ["testing", "training"]


# Groups.


def variants(label: str, groups: int, each: int) -> list[Member]:
    paths = [f"{label}/{g}_nohash_{i}.jpg" for g in range(groups) for i in range(each)]
    return [Member(label, path, alone(path)) for path in paths]


@pytest.mark.parametrize("groups", range(1, 12))
def test_no_group_is_parted_when_a_small_label_borrows(groups: int) -> None:
    members = variants("rose", groups, 5)
    sets = split(members, 10, 10)
    for group in {member.group for member in members}:
        assert len({sets[member.relpath] for member in members if member.group == group}) == 1
    found = set(sets.values())
    assert found == {1: {"training"}, 2: {"training", "testing"}}.get(
        groups, {"training", "testing", "validation"}
    )


@pytest.mark.parametrize("seed", range(100))
def test_groups_of_several_labels_leave_no_label_without_a_set(seed: int) -> None:
    """Patients, each with photos of both diagnoses, or of one."""
    random_ = random.Random(seed)
    members = []
    for patient in range(random_.randrange(3, 9)):
        for label in random_.choice((["ill"], ["well"], ["ill", "well"], ["ill", "well"])):
            path = f"{label}/{patient}_{random_.random()}.jpg"
            members.append(Member(label, path, f"patient {patient} {seed}\0"))
    sets = split(members, 20, 20)
    for group in {member.group for member in members}:
        assert len({sets[m.relpath] for m in members if m.group == group}) == 1
    for label in {member.label for member in members}:
        assert "training" in {sets[m.relpath] for m in members if m.label == label}


def test_a_label_that_borrows_takes_no_other_s_only_one() -> None:
    members = [Member("a", "a/1", "shared"), Member("b", "b/1", "shared")]
    members += [Member("b", f"b/{i}", f"b{i}") for i in range(2, 30)]
    sets = split(members, 10, 10)
    assert sets["a/1"] == sets["b/1"] == "training"
    assert {sets[m.relpath] for m in members if m.label == "b"} == set(SETS)


def test_a_given_set_is_taken_as_it_is_and_the_rest_is_split() -> None:
    members = [Member("a", f"train/a/{i}.jpg", f"a/{i}.jpg", "training") for i in range(200)]
    held = [
        Member("a", f"val/a/{i}.jpg", f"validation\0/a/{i}.jpg", "validation") for i in range(9)
    ]
    sets = split([*members, *held], 10, 20)
    assert {sets[member.relpath] for member in held} == {"validation"}
    of_training = Counter(sets[member.relpath] for member in members)
    assert set(of_training) == {"training", "testing"}
    assert 25 < of_training["testing"] < 55
    # As they fall without the given set, so that the training folder alone gives the same test.
    alone = split(members, 0, 20)
    assert all(sets[member.relpath] == alone[member.relpath] for member in members)
