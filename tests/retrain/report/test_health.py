"""retrain.report.health: every kind of problem is found where it was planted, and only there."""

import csv
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from bottlenecks.builder import CachedImage
from bottlenecks.errors import ImageFolderError
from bottlenecks.store.vectors import InMemory
from retrain.data.dataset import FEW_IMAGES, Dataset, Subset
from retrain.report import health, near
from retrain.report.health import (
    KINDS,
    Problem,
    count_folds,
    different_images,
    examine,
    out_of_fold,
    steps_for,
    table,
)

SIZE = 64  # numbers of a made-up vector
SETS = ("training", "training", "training", "validation", "testing")


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def made_up(
    x: np.ndarray,
    y: Iterable[int],
    *,
    keys: Mapping[int, bytes] | None = None,
    sets: Mapping[int, str] | None = None,
) -> Dataset:
    """A data set of the vectors ``x`` with labels ``y``; ``keys`` and ``sets`` of some rows."""
    numbers = np.array(list(y), np.int64)
    labels = tuple(f"label {i}" for i in range(numbers.max() + 1))
    keys, sets = keys or {}, sets or {}
    images = []
    for row, number in enumerate(numbers):
        relpath = f"{labels[number]}/{row}.jpg"
        images.append(CachedImage(labels[number], relpath, f"D/{relpath}", keys.get(row, key(row))))
    set_of = np.array([sets.get(row, SETS[row % len(SETS)]) for row in range(len(numbers))])
    return Dataset(labels, Subset(images, InMemory(x.astype(np.float32)), numbers), set_of)


def apart(
    per_label: int, labels: int, distance: float = 6.0, seed: int = 0, size: int = SIZE
) -> np.ndarray:
    """Gaussians whose centres are ``distance`` from the origin, one label after the other."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((labels, size))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
    return np.repeat(centres, per_label, 0) + random.standard_normal((labels * per_label, size))


def of_labels(per_label: int, labels: int) -> np.ndarray:
    return np.repeat(np.arange(labels), per_label)


def examined(folds: int | None, dataset: Dataset) -> list[Problem]:
    """All problems, with as many parts as `retrain.train` would take."""
    return list(examine(dataset, count_folds(different_images(dataset), folds)).problems)


def of_kind(problems: Iterable[Problem], kind: str) -> list[Problem]:
    return [problem for problem in problems if problem.kind == kind]


def rows(problems: Iterable[Problem]) -> list[int]:
    return [int(problem.path.rpartition("/")[2].removesuffix(".jpg")) for problem in problems]


def pairs(problems: Iterable[Problem]) -> set[frozenset[str]]:
    return {frozenset((problem.path, problem.other)) for problem in problems}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, for tests that are not about wrong labels."""
    monkeypatch.setattr(health, "STEPS", 20)


def test_each_copy_is_of_its_kind_and_nothing_else_is_a_copy(quick: None) -> None:
    x = apart(40, 3)
    copies = {1: 0, 50: 10, 24: 20}  # a copy -> its original
    for copy, original in copies.items():
        x[copy] = x[original]
    sets = {0: "training", 1: "training", 10: "training", 50: "testing", 20: "left out"}
    dataset = made_up(
        x,
        of_labels(40, 3),
        keys={copy: key(original) for copy, original in copies.items()},
        sets=sets,
    )
    found = examined(None, dataset)
    by_kind = {kind: of_kind(found, kind) for kind in KINDS}
    assert rows(by_kind["duplicate"]) == [1]
    assert rows(by_kind["label conflict"]) == [50]
    assert rows(by_kind["leak"]) == [24]
    assert by_kind["near leak"] == []
    assert by_kind["few images"] == []
    (conflict,) = by_kind["label conflict"]
    assert (conflict.label, conflict.set) == ("label 1", "testing")
    assert (conflict.other, conflict.other_label) == ("D/label 0/10.jpg", "label 0")
    (leak,) = by_kind["leak"]
    assert {leak.set, leak.other_set} == {"testing", "left out"}


def test_every_copy_but_the_first_is_listed(quick: None) -> None:
    dataset = made_up(apart(30, 2), of_labels(30, 2), keys=dict.fromkeys(range(4), key("same")))
    found = [p for p in examined(None, dataset) if p.other == "D/label 0/0.jpg"]
    assert sorted(rows(found)) == [1, 2, 3]
    assert Counter(problem.kind for problem in found) == {"duplicate": 2, "leak": 1}


def test_near_copies_in_two_sets_are_found_and_in_one_set_are_not(quick: None) -> None:
    x, random = apart(60, 2), np.random.default_rng(1)
    planted = {0: 3, 5: 9, 60: 64, 65: 66, 70: 73}  # row -> its near copy
    for row, copy in planted.items():
        x[copy] = x[row] + 0.05 * random.standard_normal(SIZE)
    dataset = made_up(x, of_labels(60, 2))
    across = {
        frozenset(dataset.everything.images[i].path for i in pair)
        for pair in planted.items()
        if dataset.set_of[pair[0]] != dataset.set_of[pair[1]]
    }
    leaks = of_kind(examined(None, dataset), "near leak")
    assert 0 < len(across) < len(planted)
    assert pairs(leaks) == across
    assert len(leaks) == len(across)
    assert all(problem.set != problem.other_set for problem in leaks)
    assert all(0.99 < problem.score <= 1.0 for problem in leaks)


@pytest.mark.parametrize(("per_label", "labels"), [(3, 2), (6, 2), (5, 10), (100, 3)])
@pytest.mark.parametrize("distance", [0.0, 6.0, 12.0])
def test_unrelated_images_are_no_near_leak(
    quick: None, per_label: int, labels: int, distance: float
) -> None:
    for seed in range(3):
        x = apart(per_label, labels, distance, seed)
        dataset = made_up(x, of_labels(per_label, labels))
        found = examined(2, dataset)
        assert of_kind(found, "near leak") == []


@pytest.mark.parametrize("per_label", [4, 8])
def test_near_copies_are_found_in_labels_with_few_images(quick: None, per_label: int) -> None:
    x = apart(per_label, 5, distance=12.0)
    x[2] = x[3] + 0.05 * np.random.default_rng(1).standard_normal(SIZE)
    dataset = made_up(x, of_labels(per_label, 5))
    leaks = of_kind(examined(2, dataset), "near leak")
    assert pairs(leaks) == {frozenset(("D/label 0/2.jpg", "D/label 0/3.jpg"))}


def test_in_a_tiny_folder_what_is_only_nearer_than_the_rest_is_no_near_leak(quick: None) -> None:
    """Of 8 photos of two labels, two share something: at a cosine of 0.8 that is all."""
    x, random = apart(4, 2, distance=0.0), np.random.default_rng(1)
    x[3] = x[2] + 0.7 * random.standard_normal(SIZE)
    leaks = []
    for part in (1.0, 0.3):
        x[3] = x[2] + part * (x[3] - x[2])
        dataset = made_up(x, of_labels(4, 2))
        found = of_kind(examined(2, dataset), "near leak")
        leaks.append(pairs(found))
    assert leaks == [set(), {frozenset(("D/label 0/2.jpg", "D/label 0/3.jpg"))}]


@pytest.mark.parametrize("frames", [12, 30, 50])
def test_each_held_out_frame_of_a_scene_is_a_near_leak(quick: None, frames: int) -> None:
    """Each has more than ten others that are as near, and they may be most of their label."""
    x, random = apart(60, 3), np.random.default_rng(1)
    x[:frames] = x[0] + 0.3 * random.standard_normal((frames, SIZE))
    dataset = made_up(x, of_labels(60, 3))
    leaks = of_kind(examined(None, dataset), "near leak")
    held_out = {row for row in range(frames) if dataset.set_of[row] != "training"}
    assert set(rows(leaks)) <= held_out
    in_a_pair = {name.rpartition("/")[2] for pair in pairs(leaks) for name in pair}
    assert {f"{row}.jpg" for row in held_out} <= in_a_pair
    assert len(leaks) <= len(held_out)  # the nearest of each, not every pair
    assert all(problem.set != problem.other_set for problem in leaks)


def test_the_search_in_fewer_numbers_finds_what_the_exact_one_does(quick: None) -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((400, 512)) + 3 * random.standard_normal((4, 512)).repeat(100, 0)
    for row in range(0, 400, 4):  # from near to far
        x[row + 3] = x[row] + (0.1 + row / 400) * random.standard_normal(512)
    dataset = made_up(x, of_labels(100, 4))
    found = pairs(of_kind(examined(None, dataset), "near leak"))

    z = x.astype(np.float32) - x.astype(np.float32).mean(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    distances = np.sqrt(np.maximum(2 - 2 * z @ z.T, 0))
    np.fill_diagonal(distances, np.inf)
    limits = near.NEAR * np.sort(distances, axis=1)[:, 9]
    expected = {
        frozenset((dataset.everything.images[i].path, dataset.everything.images[j].path))
        for i, j in np.argwhere(distances <= limits[:, None])
        if dataset.set_of[i] != "training" and dataset.set_of[i] != dataset.set_of[j]
    }
    assert len(expected) > 20
    assert found == expected


@pytest.mark.parametrize("columns", [20, 640, 1343, 1344, 1345, 5000])
def test_the_largest_of_many_are_those_of_a_whole_sort(columns: int) -> None:
    values = np.random.default_rng(columns).standard_normal((30, columns)).astype(np.float32)
    found = np.sort(near.largest(values, 20), axis=1)
    np.testing.assert_array_equal(found, np.sort(np.argsort(-values, axis=1)[:, :20], axis=1))


def flipped(share: float) -> tuple[Dataset, set[int]]:
    """600 images of 3 labels, a ``share`` of which got another label.

    Of as many numbers as real ones: with fewer, the usual penalty makes a model less sure.
    """
    random = np.random.default_rng(3)
    x, y = apart(200, 3, distance=9.0, size=2048), of_labels(200, 3)
    wrong = random.choice(len(y), round(share * len(y)), replace=False)
    y[wrong] = (y[wrong] + random.integers(1, 3, len(wrong))) % 3
    return made_up(x, y), set(wrong.tolist())


def test_wrong_labels_come_first() -> None:
    dataset, wrong = flipped(0.05)
    found = of_kind(examined(None, dataset), "wrong label?")
    first = set(rows(found)[: len(wrong)])
    assert len(first & wrong) >= 0.8 * len(wrong)
    assert len(wrong - set(rows(found))) <= 0.1 * len(wrong)
    assert [problem.score for problem in found] == sorted(problem.score for problem in found)
    assert all(problem.other_label != problem.label for problem in found)


def test_the_label_that_was_changed_is_suggested() -> None:
    dataset, wrong = flipped(0.05)
    found = of_kind(examined(None, dataset), "wrong label?")
    right = [p for p in found if p.other_label == f"label {rows([p])[0] // 200}"]
    assert len(right) >= 0.9 * len(wrong)


def test_right_labels_are_hardly_doubted() -> None:
    dataset, _ = flipped(0.0)
    assert len(of_kind(examined(None, dataset), "wrong label?")) <= 0.03 * 600


@pytest.mark.parametrize("folds", [2, 5])
def test_an_image_s_own_model_has_seen_neither_it_nor_a_copy(
    monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    keys = {row: key("same") for row in (3, 4, 5, 33)} | {10: key("twice"), 11: key("twice")}
    x = np.arange(60.0)[:, None].repeat(4, 1)  # the vector is the row's number
    dataset = made_up(x, of_labels(30, 2), keys=keys)
    seen: list[np.ndarray] = []

    class Model:
        """Stands in for `Fit` and the `Head` that it gives."""

        def __init__(self, vectors: InMemory, y: np.ndarray, *_: object, **__: object) -> None:
            assert set(y) == {0, 1}
            seen.append(vectors.take(np.arange(len(vectors)))[:, 0].astype(int))

        def step(self) -> None:
            pass

        def model(self) -> "Model":
            return self

        def predict_all(self, vectors: InMemory) -> np.ndarray:
            predicted = vectors.take(np.arange(len(vectors)))[:, 0].astype(int)
            images = dataset.everything.images
            known = {images[row].key for row in seen[-1]}
            assert not known & {images[row].key for row in predicted}
            asked.extend(predicted)
            return np.full((len(vectors), 2), 0.5)

    asked: list[int] = []
    monkeypatch.setattr(health, "Fit", Model)
    out_of_fold(dataset, folds, 0)
    assert len(seen) == folds
    assert sorted(asked) == list(range(60))


def test_a_label_whose_photos_share_a_fold_is_not_judged_and_spoils_no_other(quick: None) -> None:
    """All three photos of a label are also in another one, which decides on their fold."""
    x = apart(30, 3)
    y = np.concatenate([of_labels(30, 2), np.full(30, 2)])[:63]
    x = x[:63]
    keys = {row: key(f"twin {row - 60}") for row in (60, 61, 62)}
    keys |= {row: key(f"twin {row}") for row in (0, 1, 2)}
    dataset = made_up(x, y, keys=keys)
    dataset = dataclasses.replace(
        dataset, groups=[f"g{row % 30}" for row in range(30)] * 2 + ["g0"] * 3
    )
    model = out_of_fold(dataset, 5, 0)
    assert np.isnan(model.own[60:]).all()
    assert np.isfinite(model.own[:60]).all()
    few = of_kind(examined(None, dataset), "few images")
    assert [(problem.label, problem.score) for problem in few] == [("label 2", 1)]
    found = of_kind(examined(None, dataset), "wrong label?")
    assert not set(rows(found)) & {60, 61, 62}


def test_outliers_are_the_far_ones_and_the_farthest_comes_first(quick: None) -> None:
    x = apart(80, 2)
    for row, distance in ((5, 3.0), (100, 6.0), (17, 4.5)):
        x[row] += distance * np.random.default_rng(row).choice([-1.0, 1.0], SIZE)
    found = of_kind(examined(None, made_up(x, of_labels(80, 2))), "outlier")
    assert rows(found)[:3] == [100, 17, 5]
    assert len(found) <= 8
    assert all(problem.score >= health.FAR for problem in found)


def test_images_that_are_all_as_far_are_no_outliers(quick: None) -> None:
    x = np.zeros((40, 4))
    x[:20, 0] = x[20:, 1] = np.tile([-1.0, 1.0], 10)
    assert of_kind(examined(None, made_up(x, of_labels(20, 2))), "outlier") == []


def test_labels_with_few_images(quick: None) -> None:
    y = np.concatenate([np.full(FEW_IMAGES, 0), np.full(FEW_IMAGES - 1, 1), np.full(5, 2)])
    x = np.random.default_rng(0).standard_normal((len(y), SIZE))
    few = of_kind(examined(None, made_up(x, y)), "few images")
    assert [(p.label, p.score) for p in few] == [("label 1", FEW_IMAGES - 1), ("label 2", 5)]


def test_problems_are_in_the_order_of_the_kinds() -> None:
    dataset, _ = flipped(0.05)
    kinds = [list(KINDS).index(problem.kind) for problem in examined(None, dataset)]
    assert kinds == sorted(kinds)


def test_the_same_seed_gives_the_same_table() -> None:
    tables = [table(examine(flipped(0.05)[0], 5, seed=4).problems) for _ in range(2)]
    assert tables[0] == tables[1]
    assert tables[0].count("\n") > 20


def test_the_table_is_csv() -> None:
    names = ('a,"b"\n.jpg', "\udcff.jpg", "蒲公英.jpg", "=1+1.jpg")
    problems = [Problem("leak", name, "daisy", "testing", 1.0, "o.jpg") for name in names]
    text = table(problems)
    read = list(csv.DictReader(io.StringIO(text)))
    assert [row["path"] for row in read] == ['a,"b"\\n.jpg', "\\xff.jpg", "蒲公英.jpg", "=1+1.jpg"]
    assert read[0] == {
        "kind": "leak",
        "path": 'a,"b"\\n.jpg',
        "label": "daisy",
        "set": "testing",
        "score": "1.0000",
        "other": "o.jpg",
        "other_label": "",
        "other_set": "",
    }
    text.encode()


def test_the_table_of_no_problems_is_its_header() -> None:
    assert table([]).splitlines() == ["kind,path,label,set,score,other,other_label,other_set"]


def test_too_few_images_for_the_folds() -> None:
    assert count_folds({"daisy": 5, "roses": 9}, 5) == 5
    with pytest.raises(ImageFolderError, match=r"'roses' has 4 images, fewer than the 5 parts"):
        count_folds({"daisy": 5, "roses": 4}, 5)
    with pytest.raises(ImageFolderError, match=r"'label 1' has 2 images.*--data_health_folds"):
        examined(3, made_up(apart(4, 2), [0, 0, 0, 0, 0, 0, 1, 1]))


@pytest.mark.parametrize(("smallest", "folds"), [(2, 2), (3, 3), (5, 5), (100, 5)])
def test_unless_asked_for_there_are_as_many_folds_as_images_allow(
    smallest: int, folds: int
) -> None:
    assert count_folds({"daisy": 200, "roses": smallest}, None) == folds


def test_a_label_of_one_photo_alone_does_not_decide_on_the_folds() -> None:
    """It cannot be judged by models that have not seen it, and is listed for that."""
    assert count_folds({"daisy": 5, "roses": 1}, None) == 5
    assert count_folds({"daisy": 1, "roses": 1}, None) == 5
    with pytest.raises(ImageFolderError, match=r"'roses' has 1 images, fewer than the 2 parts"):
        count_folds({"daisy": 5, "roses": 1}, 2)


def test_labels_of_few_images_have_no_outliers() -> None:
    """Three numbers have no spread to speak of."""
    x = apart(9, 2)
    x[0] *= 20
    found = examined(None, made_up(x, of_labels(9, 2)))
    assert of_kind(found, "outlier") == []
    x = apart(10, 2)
    x[0] *= 20
    assert rows(of_kind(examined(None, made_up(x, of_labels(10, 2))), "outlier")) == [0]


def test_in_small_labels_near_photos_are_near_without_what_the_label_shares(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "SAME_SCENE", 2.0)
    leaks = {}
    for per_label in (12, 30):
        x = apart(per_label, 2)
        x[3] = x[2] + 0.05 * np.random.default_rng(1).standard_normal(SIZE)
        dataset = made_up(x, of_labels(per_label, 2))
        for limit in (0.7, 1.01):
            monkeypatch.setattr(near, "NEAR_IN_LABEL", limit)
            found = of_kind(examined(None, dataset), "near leak")
            leaks[per_label, limit] = [p.path for p in found if p.path[-5] in "23"]
    assert leaks[12, 0.7] and leaks[30, 0.7] == leaks[30, 1.01] != []
    assert leaks[12, 1.01] == []


def test_a_series_under_two_labels_is_found(quick: None) -> None:
    """Trained on under one label and tested under another, it is as much of a leak."""
    random = np.random.default_rng(0)
    x = apart(60, 3, distance=6.0)
    scene = x[0] + 4 * random.standard_normal(SIZE)
    frames = scene + 0.6 * random.standard_normal((24, SIZE))
    y = [*of_labels(60, 3), *([0] * 20), *([1] * 4)]
    sets = {180 + i: "training" for i in range(20)} | {200 + i: "testing" for i in range(4)}
    dataset = made_up(np.concatenate([x, frames]), y, sets=sets)
    leaks = of_kind(examined(None, dataset), "near leak")
    assert {problem.path for problem in leaks} == {f"D/label 1/{200 + i}.jpg" for i in range(4)}


@pytest.mark.parametrize(
    ("labels", "images", "expected"),
    [
        (5, 600, 1000),
        (500, 4_000, 1000),
        (1000, 4_000, 500),
        (3000, 12_000, 240),  # twice through all
        (3000, 1_000_000, 1000),
    ],
)
def test_many_labels_are_learned_in_fewer_steps(labels: int, images: int, expected: int) -> None:
    assert steps_for(labels, images) == expected


def test_wrong_labels_among_many_labels_are_found_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "_USUAL_LABELS", 5)
    random = np.random.default_rng(0)
    y = np.arange(300) % 30
    x = random.normal(0, 1, (30, 64))[y] + random.normal(0, 0.3, (300, 64))
    wrong = [3, 77, 151]
    labelled = y.copy()
    labelled[wrong] = (y[wrong] + 7) % 30
    assert steps_for(30, 240) < 200
    model = out_of_fold(made_up(x.astype(np.float32), labelled), 5, 0)
    suspicious = np.flatnonzero(model.own < health.UNLIKELY * model.confidence)
    assert suspicious.tolist() == wrong
    np.testing.assert_array_equal(model.guess[wrong], y[wrong])
