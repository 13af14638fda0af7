"""retrain.data.dataset: vectors and labels of each set belong to its images."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bottlenecks.builder import BuildReport, CachedImage
from bottlenecks.errors import ImageFolderError
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store import vectors
from bottlenecks.store.cache import Cache
from bottlenecks.store.vectors import InMemory, OnDisk
from retrain.data.dataset import Dataset, Subset, _linked, assemble, check_counts, check_few
from retrain.data.groups import on_its_own
from retrain.data.split import Member, split

LABELS = ("ant", "bee", "cat")


def report_of(folder: Path, counts: dict[str, int]) -> BuildReport:
    """A build of images whose vector is filled with their number, in the reports' order."""
    cache = Cache(folder / "cache", "0" * 64)
    images = [
        CachedImage(label, f"{label}/{i:03}.jpg", f"Dataset/{label}/{i:03}.jpg", bytes(30) + key)
        for label, count in sorted(counts.items())
        for i in range(count)
        for key in [ord(label[0]).to_bytes(1, "big") + i.to_bytes(1, "big")]
    ]
    vectors = np.array([np.full(2048, number_of(image), np.float32) for image in images])
    backwards = slice(None, None, -1)  # the cache's order is its own
    with cache.writing({}):
        cache.append([image.key for image in images][backwards], vectors[backwards])
    return BuildReport(cache, tuple(images), len(images), 0, 0, (), 0.0, 0, ())


def number_of(image: CachedImage) -> float:
    return image.key[30] * 1000.0 + image.key[31]


def subsets(dataset: Dataset) -> dict[str, Subset]:
    return {name: getattr(dataset, name) for name in ("training", "validation", "testing")}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return assemble(report_of(tmp_path, {"bee": 30, "ant": 40, "cat": 25}), 20, 30)


def test_rows_are_the_images_own(dataset: Dataset) -> None:
    assert dataset.labels == LABELS
    for subset in subsets(dataset).values():
        assert subset.x.dtype == np.float32
        assert subset.y.dtype == np.int64
        assert subset.x.shape == (len(subset), 2048)
        assert subset.y.shape == (len(subset),)
        for image, vector, y in zip(subset.images, subset.x, subset.y, strict=True):
            np.testing.assert_array_equal(vector, np.full(2048, number_of(image)))
            assert LABELS[y] == image.label


def test_each_image_is_in_the_set_that_the_split_gives_it(dataset: Dataset) -> None:
    found = {
        image.relpath: name for name, subset in subsets(dataset).items() for image in subset.images
    }
    assert len(found) == 95 == sum(map(len, subsets(dataset).values()))
    for label in LABELS:
        own = {path: name for path, name in found.items() if path.startswith(label)}
        groups = {path: on_its_own(CachedImage(label, path, path, b"")) for path in own}
        assert own == split((Member(label, path, groups[path]) for path in own), 20, 30)


def test_a_share_of_0_gives_an_empty_set_of_the_right_shape(tmp_path: Path) -> None:
    dataset = assemble(report_of(tmp_path, {"ant": 5, "bee": 5}), 0, 50)
    assert len(dataset.validation) == 0
    assert dataset.validation.x.shape == (0, 2048)
    assert len(dataset.training) + len(dataset.testing) == 10


def test_one_label_is_an_error_that_names_it() -> None:
    with pytest.raises(ImageFolderError, match=r"'roses'.*at least two"):
        check_counts({"roses": 50})


@pytest.mark.parametrize(("count", "shown"), [(1, "1 readable image;"), (2, "2 readable images;")])
def test_fewer_than_three_images_are_an_error_that_names_label_and_count(
    count: int, shown: str
) -> None:
    with pytest.raises(ImageFolderError, match=f"'bee' has {shown}"):
        check_counts({"ant": 50, "bee": count})


def test_three_images_are_enough() -> None:
    check_counts({"ant": 3, "bee": 3})


def test_assemble_checks_the_readable_images(tmp_path: Path) -> None:
    with pytest.raises(ImageFolderError, match="'bee' has 2"):
        assemble(report_of(tmp_path, {"ant": 5, "bee": 2}), 10, 10)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"ant": 20, "bee": 19, "cat": 3}, "2 labels have fewer than 20 images (the label 'cat'"),
        ({"ant": 20, "bee": 19}, "1 label has fewer than 20 images (the label 'bee' has 19)"),
        ({f"label {i:03}": 4 for i in range(500)}, "500 labels have fewer than 20"),
    ],
    ids=["two", "one", "many"],
)
def test_labels_with_few_images_are_one_warning_that_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, counts: dict[str, int], said: str
) -> None:
    with caplog.at_level(logging.WARNING):
        check_few(counts)
    (message,) = [record.getMessage() for record in caplog.records]
    assert said in message and "--class_balance" in message
    caplog.clear()
    check_few({"ant": 20})
    assert not caplog.records


def ready_made(
    folder: Path, images: list[tuple[str, str, int]], group_by: str | None = None
) -> Dataset:
    """A ready-made split of images (set, label/filename, number of the content)."""
    cache = Cache(folder / "cache", "0" * 64)
    found = [
        CachedImage(
            name.split("/")[0],
            f"{set_}/{name}",
            f"D/{set_}/{name}",
            number.to_bytes(32, "big"),
            set_,
            len(set_) + 1,
        )
        for set_, name, number in images
    ]
    keys = sorted({image.key for image in found})
    with cache.writing({"weights": "none"}):
        cache.append(keys, np.zeros((len(keys), 2048), np.float32))
    sets = dict.fromkeys((set_ for set_, _, _ in images), "D")
    report = BuildReport(cache, tuple(found), 0, 0, 0, (), 0.0, 0, (), sets)
    return assemble(report, 10, 10, group_by)


def test_a_ready_made_split_is_the_split_and_what_is_missing_is_split_off(tmp_path: Path) -> None:
    images = [("training", f"{label}/{i}.jpg", i + 100 * (label == "b")) for label in "ab"
              for i in range(60)]  # fmt: skip
    images += [("validation", f"{label}/{i}.jpg", 500 + i + 100 * (label == "b")) for label in "ab"
               for i in range(5)]  # fmt: skip
    found = sets_of(ready_made(tmp_path, images))
    given = {path: name for path, name in found.items() if path.startswith("validation/")}
    assert set(given.values()) == {"validation"} and len(given) == 10
    rest = [name for path, name in found.items() if path.startswith("training/")]
    assert set(rest) == {"training", "testing"}
    assert 4 <= rest.count("testing") <= 25


def test_copies_between_given_sets_are_not_trained_on(tmp_path: Path) -> None:
    images = [("training", f"{label}/{i}.jpg", 10 * i + ord(label)) for label in "ab"
              for i in range(9)]  # fmt: skip
    images += [("testing", f"{label}/x.jpg", ord(label)) for label in "ab"]  # copies of 0.jpg
    images += [("validation", f"{label}/y.jpg", 999 + ord(label)) for label in "ab"]
    found = sets_of(ready_made(tmp_path, images))
    assert found["training/a/0.jpg"] == found["training/b/0.jpg"] == "left out"
    assert found["testing/a/x.jpg"] == "testing" and found["validation/a/y.jpg"] == "validation"
    assert found["training/a/1.jpg"] == "training"


def test_groups_hold_across_given_sets(tmp_path: Path) -> None:
    """A patient who is tested is not trained on; names alone make no group."""
    images = [("training", f"{label}/p{i}_1.jpg", 10 * i + ord(label)) for label in "ab"
              for i in range(9)]  # fmt: skip
    images += [("testing", f"{label}/p3_2.jpg", 700 + ord(label)) for label in "ab"]
    images += [("validation", f"{label}/p4_1.jpg", 900 + ord(label)) for label in "ab"]
    grouped = sets_of(ready_made(tmp_path / "1", images, r"/(p\d+)_"))
    for label in "ab":
        assert grouped[f"training/{label}/p3_1.jpg"] == "left out"
        assert grouped[f"training/{label}/p4_1.jpg"] == "left out"
        assert grouped[f"testing/{label}/p3_2.jpg"] == "testing"
        assert grouped[f"training/{label}/p5_1.jpg"] == "training"
    assert "left out" not in sets_of(ready_made(tmp_path / "2", images)).values()


@pytest.mark.parametrize("held_out", ["testing", "validation"])
def test_the_group_of_a_copy_of_a_held_out_image_is_left_out_with_it(
    tmp_path: Path, held_out: str
) -> None:
    """Whoever lies in the test under another name is known to a model that is trained on him."""
    other = {"testing": "validation", "validation": "testing"}[held_out]
    images = [("training", f"{label}/p{i}_{j}.jpg", 10 * i + 3 * j + 500 * (label == "b"))
              for label in "ab" for i in range(9) for j in range(2)]  # fmt: skip
    images += [(held_out, f"{label}/x_1.jpg", 500 * (label == "b")) for label in "ab"]  # p0_0
    images += [(other, f"{label}/y_1.jpg", 900 + (label == "b")) for label in "ab"]
    dataset = ready_made(tmp_path, images, r"/([a-z]\d*)_")
    found = sets_of(dataset)
    for label in "ab":
        assert found[f"training/{label}/p0_0.jpg"] == found[f"training/{label}/p0_1.jpg"]
        assert found[f"training/{label}/p0_1.jpg"] == "left out"
        assert found[f"{held_out}/{label}/x_1.jpg"] == held_out
        assert found[f"training/{label}/p1_0.jpg"] == "training"
    assert dataset.left_out == 4


def test_a_unit_counts_in_one_set_only(tmp_path: Path) -> None:
    """However it is linked, and whether or not the sets are given."""
    random = np.random.default_rng(0)
    images = [
        (name, f"{label}/p{random.integers(40)}_{i}.jpg", int(random.integers(300)))
        for name, count in (("training", 60), ("validation", 9), ("testing", 9))
        for label in "ab"
        for i in range(count)
    ]
    report = report_of(tmp_path / "split", {"ant": 90, "bee": 90})
    names = [image.relpath for image in report.images]
    copies = dict(zip(random.choice(names, 9), random.choice(names, 9), strict=True))
    for dataset in (
        ready_made(tmp_path / "given", images, r"/(p\d+)_"),
        assemble(with_copies(report, copies), 20, 20, r"(\w+/\d\d)"),
    ):
        sets: dict[int, set[str]] = {}
        for unit, name in zip(dataset.units.tolist(), dataset.set_of.tolist(), strict=True):
            sets.setdefault(unit, set()).add(name)
        assert {len(names - {"left out"}) for names in sets.values()} == {1}
        assert dataset.left_out > 0


def test_a_group_split_off_the_training_set_is_counted_where_it_costs_a_given_image(
    tmp_path: Path,
) -> None:
    images = [("training", f"{label}/p{i}_1.jpg", 10 * i + ord(label)) for label in "ab"
              for i in range(60)]  # fmt: skip
    images += [("validation", f"{label}/p{i}_2.jpg", 900 + 10 * i + ord(label)) for label in "ab"
               for i in range(0, 60, 2)]  # fmt: skip
    dataset = ready_made(tmp_path, images, r"/(p\d+)_")
    found = sets_of(dataset)
    lost = [path for path, name in found.items() if name == "left out"]
    assert any(path.startswith("validation/") for path in lost)
    for path in lost:
        other = path.replace("_2", "_1").replace("validation", "training")
        assert path.startswith("training/") or found[other] == "testing"
    assert dataset.left_out == len(lost)
    assert sum(map(len, subsets(dataset).values())) + dataset.left_out == len(images)


def test_a_sample_keeps_rows_together(dataset: Dataset) -> None:
    sample = dataset.training.sample(20, np.random.default_rng(0))
    assert len(sample) == 20 == len({image.relpath for image in sample.images})
    for image, vector, y in zip(sample.images, sample.x, sample.y, strict=True):
        assert vector[0] == number_of(image)
        assert LABELS[y] == image.label


def test_samples_differ_from_draw_to_draw_and_are_seeded(dataset: Dataset) -> None:
    random = np.random.default_rng(0)
    first, second = (dataset.training.sample(20, random) for _ in range(2))
    assert first.images != second.images
    assert dataset.training.sample(20, np.random.default_rng(0)).images == first.images


@pytest.mark.parametrize("size", [-1, 10_000])
def test_a_sample_of_all(dataset: Dataset, size: int) -> None:
    sample = dataset.testing.sample(size, np.random.default_rng(0))
    assert sample.images == dataset.testing.images
    np.testing.assert_array_equal(sample.x, dataset.testing.x)


@pytest.mark.parametrize(("most", "kind"), [(95, InMemory), (94, OnDisk), (0, OnDisk)])
def test_the_vectors_of_many_images_stay_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, kind: type
) -> None:
    monkeypatch.setattr(vectors, "MAX_IN_MEMORY", most * BOTTLENECK.nbytes)
    dataset = assemble(report_of(tmp_path, {"bee": 30, "ant": 40, "cat": 25}), 20, 30)
    for subset in subsets(dataset).values():
        assert type(subset.vectors) is kind


def test_vectors_on_the_disk_are_those_in_memory(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "MAX_IN_MEMORY", 0)
    on_disk = assemble(report_of(tmp_path, {"bee": 30, "ant": 40, "cat": 25}), 20, 30)
    for name, subset in subsets(on_disk).items():
        expected = subsets(dataset)[name]
        assert type(subset.vectors) is not type(expected.vectors)
        assert [image.relpath for image in subset.images] == [i.relpath for i in expected.images]
        np.testing.assert_array_equal(subset.x, expected.x)
        np.testing.assert_array_equal(subset.y, expected.y)
        assert subset.x.dtype == np.float32
        sample = subset.sample(7, np.random.default_rng(0))
        assert len(sample.vectors) == 7
        np.testing.assert_array_equal(sample.x, [[number_of(i)] * 2048 for i in sample.images])


def test_an_empty_set_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "MAX_IN_MEMORY", 0)
    dataset = assemble(report_of(tmp_path, {"ant": 5, "bee": 5}), 0, 50)
    assert len(dataset.validation) == len(dataset.validation.vectors) == 0
    assert dataset.validation.x.shape == (0, 2048)


# Copies of one photo in two sets.


def with_copies(report: BuildReport, copies: dict[str, str]) -> BuildReport:
    """The report if each of ``copies``, by relpath, had the content of the other."""
    key = {image.relpath: image.key for image in report.images}
    images = (replace(i, key=key[copies.get(i.relpath, i.relpath)]) for i in report.images)
    return replace(report, images=tuple(images))


def sets_of(dataset: Dataset) -> dict[str, str]:
    pairs = zip(dataset.everything.images, dataset.set_of.tolist(), strict=True)
    return {image.relpath: name for image, name in pairs}


def relpaths(dataset: Dataset, name: str, label: str) -> list[str]:
    return [image.relpath for image in getattr(dataset, name).images if image.label == label]


@pytest.mark.parametrize("label", ["ant", "bee"], ids=["of its label", "of another label"])
@pytest.mark.parametrize("held_out", ["validation", "testing"])
def test_a_training_copy_of_a_held_out_image_is_left_out(
    tmp_path: Path, held_out: str, label: str
) -> None:
    report = report_of(tmp_path, {"ant": 40, "bee": 30})
    before = assemble(report, 20, 30)
    assert before.left_out == 0
    copy = relpaths(before, "training", "ant")[3]
    original = relpaths(before, held_out, label)[0]
    after = assemble(with_copies(report, {copy: original}), 20, 30)
    assert after.left_out == 1
    assert sets_of(after) == {**sets_of(before), copy: "left out"}  # no other changed its set
    assert len(after.everything) == 70
    assert len(after.training) == len(before.training) - 1
    assert copy not in relpaths(after, "training", "ant")
    row = [image.relpath for image in after.everything.images].index(copy)
    assert after.everything.y[row] == 0
    np.testing.assert_array_equal(
        after.everything.x[row, 0], number_of(after.everything.images[row])
    )
    assert original in relpaths(after, held_out, label)  # it is still measured on


def test_all_training_copies_of_one_image_are_left_out(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"ant": 40, "bee": 30})
    before = assemble(report, 20, 30)
    copies = [*relpaths(before, "training", "ant")[:3], *relpaths(before, "training", "bee")[:2]]
    original = relpaths(before, "testing", "ant")[0]
    after = assemble(with_copies(report, dict.fromkeys(copies, original)), 20, 30)
    assert after.left_out == 5
    assert sets_of(after) == {**sets_of(before), **dict.fromkeys(copies, "left out")}


@pytest.mark.parametrize("name", ["training", "validation", "testing"])
def test_copies_in_one_set_stay_where_they_are(tmp_path: Path, name: str) -> None:
    report = report_of(tmp_path, {"ant": 40, "bee": 30})
    before = assemble(report, 20, 30)
    copies = {relpaths(before, name, "bee")[0]: relpaths(before, name, "bee")[-1]}
    after = assemble(with_copies(report, copies), 20, 30)
    assert after.left_out == 0
    assert sets_of(after) == sets_of(before)


@pytest.mark.parametrize("label", ["ant", "bee"], ids=["of its label", "of another label"])
def test_a_validation_copy_of_a_test_image_is_left_out(tmp_path: Path, label: str) -> None:
    """Which step and strength are best must not be chosen by a test image."""
    report = report_of(tmp_path, {"ant": 40, "bee": 30})
    before = assemble(report, 20, 30)
    copy, original = relpaths(before, "validation", "bee")[0], relpaths(before, "testing", label)[0]
    after = assemble(with_copies(report, {copy: original}), 20, 30)
    assert after.left_out == 1
    assert sets_of(after) == {**sets_of(before), copy: "left out"}
    back = assemble(with_copies(report, {original: copy}), 20, 30)
    assert sets_of(back) == sets_of(after)


def test_the_sets_are_all_that_is_not_left_out(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"ant": 40, "bee": 30})
    before = assemble(report, 20, 30)
    copies = {relpaths(before, "training", "ant")[0]: relpaths(before, "testing", "ant")[0]}
    after = assemble(with_copies(report, copies), 20, 30)
    assert sum(map(len, subsets(after).values())) + after.left_out == len(after.everything) == 70
    for name, subset in subsets(after).items():
        assert {sets_of(after)[image.relpath] for image in subset.images} == {name}


def test_a_label_whose_training_images_are_all_copies_is_an_error_that_names_it(
    tmp_path: Path,
) -> None:
    report = report_of(tmp_path, {"ant": 40, "bee": 10, "cat": 40})
    dataset = assemble(report, 10, 10)
    original = relpaths(dataset, "testing", "bee")[0]
    copies = dict.fromkeys(relpaths(dataset, "training", "bee"), original)
    with pytest.raises(ImageFolderError, match=r"'bee'.*copies of validation or test images"):
        assemble(with_copies(report, copies), 10, 10)
    copies.popitem()
    assert len(relpaths(assemble(with_copies(report, copies), 10, 10), "training", "bee")) == 1


# What belongs together.


def test_groups_share_a_set_and_a_unit(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"ant": 40, "bee": 30})
    dataset = assemble(report, 20, 30, r"(\d)\.jpg$")  # by the last digit, over both labels
    sets: dict[str, set[str]] = {}
    for relpath, name in sets_of(dataset).items():
        sets.setdefault(relpath[-5], set()).add(name)
    assert len(sets) == 10
    assert all(len(names) == 1 for names in sets.values())
    assert len(set(dataset.units.tolist())) == 10
    digits = [image.relpath[-5] for image in dataset.everything.images]
    assert len(set(zip(digits, dataset.units.tolist(), strict=True))) == 10


def test_units_are_chained_by_copies_and_groups(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"ant": 6, "bee": 6})
    names = [image.relpath for image in report.images]
    report = with_copies(report, {names[0]: names[7]})  # links ant/000 with bee/001
    pattern = r"ant/00[01]|bee/00[12]"
    alone, grouped = assemble(report, 0, 0), assemble(report, 0, 0, f"({pattern})")
    assert len(set(alone.units.tolist())) == 11
    assert len(set(grouped.units.tolist())) == 11
    named = assemble(report, 0, 0, r"ant/00[01]()|bee/00[12]()")
    del named
    one = assemble(report, 0, 0, r"(ant|bee)/00[0-2]")
    units = dict(zip(names, one.units.tolist(), strict=True))
    assert len({units[name] for name in names if name[-5] in "012"}) == 1
    assert len(set(units.values())) == 1 + 6


@pytest.mark.parametrize("seed", range(5))
def test_units_are_the_connected_parts_of_contents_and_groups(seed: int) -> None:
    """By SciPy; numbered by the lowest content."""
    random = np.random.default_rng(seed)
    n = 300
    content, group = random.integers(0, 250, n), random.integers(0, (20, 200, 290)[seed % 3], n)
    links = coo_array((np.ones(n), (content, group + n)), (2 * n, 2 * n))
    _, parts = connected_components(links, directed=False)
    lowest = {part: content[parts[content] == part].min() for part in set(parts[content])}
    order = sorted(lowest.values())
    expected = [order.index(lowest[part]) for part in parts[content]]
    keys = [f"{number:03}".encode() for number in content]
    found = _linked(keys, [f"group {number}" for number in group])
    assert found.tolist() == expected


def test_a_long_chain_of_copies_is_one_unit() -> None:
    keys = [f"{i // 2:06}".encode() for i in range(1, 20_001)]
    assert set(_linked(keys, [f"{i // 2}" for i in range(20_000)]).tolist()) == {0}


def test_units_hang_on_contents_and_not_on_names(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"ant": 6, "bee": 6})
    backwards = replace(report, images=report.images[::-1])
    np.testing.assert_array_equal(
        assemble(backwards, 10, 10).units[::-1], assemble(report, 10, 10).units
    )


def test_a_label_of_one_group_is_trained_on_and_not_tested_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = assemble(report_of(tmp_path, {"ant": 20, "bee": 20}), 10, 10, "^bee")
    assert {name for path, name in sets_of(dataset).items() if path[0] == "b"} == {"training"}
    (message,) = [r.getMessage() for r in caplog.records if "tested" in r.getMessage()]
    assert "'bee'" in message
