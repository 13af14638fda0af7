"""retrain.data.groups: which photos belong together, by a pattern or a table."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bottlenecks.errors import UsageError
from retrain.data.groups import check_groups, grouping, on_its_own


@dataclass(frozen=True)
class Photo:
    """What `grouping` asks of an image."""

    relpath: str
    given: str = ""
    name_at: int = 0
    label: str = "label"

    @property
    def name(self) -> str:
        return self.relpath[self.name_at :]


PATHS = ["daisy/s1_01.jpg", "daisy/s1_02.jpg", "daisy/s2_01.jpg", "rose/s1_03.jpg", "rose/x.jpg"]


def photos(paths: Iterable[str]) -> list[Photo]:
    return [Photo(path) for path in paths]


def groups(group_by: str | None) -> list[str]:
    return [grouping(group_by)(Photo(path)) for path in PATHS]


def parts(group_by: str | None) -> set[frozenset[str]]:
    """The paths that are put together."""
    found = groups(group_by)
    return {
        frozenset(p for p, g in zip(PATHS, found, strict=True) if g == one) for one in set(found)
    }


def test_without_a_pattern_each_photo_is_on_its_own_but_for_its_variants() -> None:
    assert groups(None) == PATHS
    assert on_its_own(Photo("daisy/a_nohash_1.jpg")) == "daisy/a"
    assert on_its_own(Photo("daisy/a_nohash_2.png")) == "daisy/a"


def test_what_is_in_parentheses_is_the_group_also_over_labels() -> None:
    assert parts(r"/(s\d+)_") == {
        frozenset([PATHS[0], PATHS[1], PATHS[3]]),
        frozenset([PATHS[2]]),
        frozenset([PATHS[4]]),
    }


def test_without_parentheses_all_that_is_found_is() -> None:
    assert parts(r"^\w+/s\d+") == {
        frozenset(PATHS[:2]),
        *(frozenset([path]) for path in PATHS[2:]),
    }


def test_several_parentheses_count_together_and_may_find_nothing() -> None:
    assert parts(r"^(\w+)/(?:(s1)|(s2))?") == {
        frozenset(PATHS[:2]),
        *(frozenset([path]) for path in PATHS[2:]),
    }


def test_a_group_is_never_taken_for_a_photo_on_its_own() -> None:
    assert grouping("(x)")(Photo("daisy/x.jpg")) != on_its_own(Photo("x"))


def test_a_table_names_groups(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("Path,Group,note\ndaisy/s1_01.jpg,one,\n./rose/x.jpg, one ,x\n\n", "utf-8-sig")
    assert parts(str(table)) == {
        frozenset([PATHS[0], PATHS[4]]),
        *(frozenset([path]) for path in PATHS[1:4]),
    }


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("", "path,group"),
        ("daisy/a.jpg,one\n", "path,group"),
        ("path,group\ndaisy/a.jpg\n", "line 2"),
        ("path,group\ndaisy/a.jpg,\n", "names no group"),
        ("path,group\na,1\na,2\n", "second group"),
        ('path,group\n"' + "x" * 200_000 + '",1\n', "no CSV"),
    ],
    ids=["empty", "no header", "no group", "empty group", "two groups", "huge field"],
)
def test_a_table_that_cannot_be_meant_is_one_error(tmp_path: Path, text: str, mention: str) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=mention):
        grouping(str(table))


def test_a_missing_table_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        grouping(str(tmp_path / "none.csv"))
    with pytest.raises(UsageError, match="is no file"):
        grouping(str(tmp_path))


def test_a_broken_pattern_is_an_error_that_says_what_is_wrong() -> None:
    with pytest.raises(UsageError, match=r"--group_by .*missing \).*Received: \(s"):
        grouping("(s")


@pytest.mark.parametrize("group_by", ["nothing like it", r"\d+_\d+"])
def test_what_puts_no_photos_together_is_an_error(group_by: str) -> None:
    with pytest.raises(UsageError, match=r"no two photos together.*daisy/s1_01\.jpg"):
        check_groups(group_by, photos(PATHS[:3]))
    check_groups(r"s\d", photos(PATHS))
    check_groups(None, photos(PATHS))


def test_a_variant_s_name_may_be_put_together_by_a_pattern() -> None:
    check_groups(r"(a)_nohash", photos(["d/a_nohash_1.jpg", "d/a_nohash_2.jpg", "d/b.jpg"]))


@pytest.mark.parametrize("group_by", [r"(\w)", "^rose", ".*(e).*"])
def test_all_photos_in_one_group_is_an_error(group_by: str) -> None:
    with pytest.raises(UsageError, match="puts all photos into one group"):
        check_groups(group_by, photos([f"rose/e{i}.jpg" for i in range(4)]))


@pytest.mark.parametrize("group_by", [r"(s\d)?", "^", r"(x)?(y)?"])
def test_a_pattern_that_finds_nothing_leaves_a_photo_on_its_own(group_by: str) -> None:
    assert len(set(groups(group_by))) == len(PATHS)


@pytest.mark.parametrize("mark", ["\n", "\u2028", "\x85", "\x0c", ","])
def test_a_table_names_photos_with_any_letter_in_their_names(tmp_path: Path, mark: str) -> None:
    table = tmp_path / "groups.csv"
    names = [f"a/x{mark}{i}.jpg" for i in range(2)]
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "group"), *((name, "one") for name in names)])
    group_of = grouping(str(table))
    assert group_of(Photo(names[0])) == group_of(Photo(names[1])) == "one\0"


def test_rows_that_are_no_photo_and_photos_without_a_row_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "groups.csv"
    rows = [*(f"{path},one" for path in PATHS[:2]), "flowers/daisy/s2_01.jpg,two", "x.jpg,two"]
    table.write_text("\n".join(["path,group", *rows]))
    check_groups(str(table), photos(PATHS))
    first, second = (record.getMessage() for record in caplog.records)
    assert "2 paths in it are no photo below --image_dir, such as flowers/daisy/s2_01" in first
    assert "3 photos are not in it and count as groups of one, such as daisy/s2_01" in second
    caplog.clear()
    table.write_text("\n".join(["path,group", *(f"{path},{path[-6]}" for path in PATHS)]))
    check_groups(str(table), photos(PATHS))
    assert not caplog.records


SETS = [
    Photo("train/cat/7_1.jpg", "training", 6),
    Photo("val/cat/7_1.jpg", "validation", 4),
    Photo("val/cat/8_1.jpg", "validation", 4),
]


def test_in_a_ready_made_split_a_group_may_be_in_two_sets_and_a_name_is_not() -> None:
    alone = [on_its_own(photo) for photo in SETS]
    assert alone[0] == "cat/7_1.jpg" and len(set(alone)) == 3
    grouped = [grouping(r"/(\d+)_")(photo) for photo in SETS]
    assert grouped[0] == grouped[1] != grouped[2]


@pytest.mark.parametrize("paths", [["train/cat/7_1.jpg", "val/cat/7_1.jpg"], ["cat/7_1.jpg"]])
def test_a_table_names_photos_with_their_set_or_without(tmp_path: Path, paths: list[str]) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("\n".join(["path,group", *(f"{path},one" for path in paths)]))
    group_of = grouping(str(table))
    assert group_of(SETS[0]) == group_of(SETS[1]) == "one\0" != group_of(SETS[2])
