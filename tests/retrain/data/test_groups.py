"""retrain.data.groups: which photos belong together, by a pattern or a table."""

from pathlib import Path

import pytest

from bottlenecks.errors import UsageError
from retrain.data.groups import check_groups, grouping, on_its_own

PATHS = ["daisy/s1_01.jpg", "daisy/s1_02.jpg", "daisy/s2_01.jpg", "rose/s1_03.jpg", "rose/x.jpg"]


def groups(group_by: str | None) -> list[str]:
    return [grouping(group_by)(path) for path in PATHS]


def parts(group_by: str | None) -> set[frozenset[str]]:
    """The paths that are put together."""
    found = groups(group_by)
    return {
        frozenset(p for p, g in zip(PATHS, found, strict=True) if g == one) for one in set(found)
    }


def test_without_a_pattern_each_photo_is_on_its_own_but_for_its_variants() -> None:
    assert groups(None) == PATHS
    assert on_its_own("daisy/a_nohash_1.jpg") == on_its_own("daisy/a_nohash_2.png") == "daisy/a"


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
    assert grouping("(x)")("daisy/x.jpg") != on_its_own("x")


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
        check_groups(group_by, PATHS[:3])
    check_groups(r"s\d", PATHS)
    check_groups(None, PATHS)
