"""label_image.classifier: it sees what training saw."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks.errors import GraphError, UsageError
from bottlenecks.machine import batch_size
from bottlenecks.photos.decode import decode
from label_image.classifier import Classifier, Result
from tests.conftest import COLOURS, Trained, make_dataset, photo


@pytest.fixture(scope="module")
def classifier(trained: Trained) -> Classifier:
    return Classifier(trained.graph, trained.labels)


def scores_of(results: Iterable[Result], labels: Iterable[str]) -> np.ndarray:
    """(n, C): each result's scores in the order of ``labels``."""
    rows = [{guess.label: guess.score for guess in result.ranking} for result in results]
    return np.array([[row[label] for label in labels] for row in rows])


@pytest.mark.parametrize("input_layer", [None, "Placeholder"])
def test_labelling_gives_what_training_gave(trained: Trained, input_layer: str | None) -> None:
    images = trained.report.images[::3]
    vectors = trained.report.cache.read(image.key for image in images)
    expected = trained.result.head.predict(vectors)
    classifier = Classifier(trained.graph, trained.labels, input_layer=input_layer)
    results = list(classifier.classify(image.path for image in images))
    assert len(results) == 30
    np.testing.assert_allclose(scores_of(results, trained.result.labels), expected, atol=1e-5)
    assert [result.ranking[0].label for result in results] == [image.label for image in images]


def test_a_ranking_has_every_label_best_first_and_adds_up_to_1(
    trained: Trained, classifier: Classifier
) -> None:
    for result in classifier.classify(image.path for image in trained.report.images[:5]):
        scores = [guess.score for guess in result.ranking]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert {guess.label for guess in result.ranking} == set(COLOURS)
        assert result.problem == ""


def test_results_are_in_the_order_of_the_photos_over_many_batches(
    tmp_path: Path, classifier: Classifier
) -> None:
    photos = sorted(make_dataset(tmp_path, per_label=25).rglob("*.jpg"))
    np.random.default_rng(0).shuffle(photos)
    assert len(photos) > 2 * batch_size()
    results = list(classifier.classify(photos))
    assert [result.path for result in results] == [str(path) for path in photos]
    assert [result.ranking[0].label for result in results] == [p.parent.name for p in photos]


def test_bad_photos_among_good_ones(tmp_path: Path, classifier: Classifier) -> None:
    photo(COLOURS["cyan"], 0).save(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").write_bytes(b"<html>not found</html>")
    photo(COLOURS["magenta"], 0).save(tmp_path / "2.png")
    (tmp_path / "3.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:600])
    (tmp_path / "4.jpg").mkdir()
    photo(COLOURS["yellow"], 0).save(tmp_path / "6.gif")
    names = ["0.jpg", "1.jpg", "2.png", "3.jpg", "4.jpg", "5.jpg", "6.gif"]
    results = list(classifier.classify(tmp_path / name for name in names))
    bad = [name for name, result in zip(names, results, strict=True) if result.problem]
    assert bad == ["1.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert "HTML" in results[1].problem
    assert "JPEG" in results[3].problem
    assert [result.ranking for result in results if result.problem] == [()] * 4
    best = [result.ranking[0].label for result in results if result.ranking]
    assert best == ["cyan", "magenta", "yellow"]


def test_only_bad_photos(tmp_path: Path, classifier: Classifier) -> None:
    (result,) = classifier.classify([tmp_path / "missing.jpg"])
    assert "No such file" in result.problem
    assert list(classifier.classify([])) == []


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *[("jpg", "RGB"), ("jpg", "L"), ("jpg", "CMYK"), ("png", "RGBA"), ("png", "P")],
        *[("gif", "P"), ("bmp", "RGB"), ("webp", "RGB")],
    ],
)
def test_formats(tmp_path: Path, classifier: Classifier, suffix: str, mode: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    photo(COLOURS["magenta"], 5).convert(mode).save(path)
    (result,) = classifier.classify([path])
    pixels = decode(path.read_bytes())[np.newaxis]
    found = scores_of([result], classifier.labels)
    np.testing.assert_allclose(found, classifier.scores(pixels), atol=1e-7)
    if mode != "L":
        assert result.ranking[0].label == "magenta"


def test_results_come_before_the_last_photo_is_read(tmp_path: Path, classifier: Classifier) -> None:
    photo(COLOURS["cyan"], 0).save(tmp_path / "cyan.jpg")
    taken = []

    def endless() -> Iterable[Path]:
        while True:
            taken.append(1)
            yield tmp_path / "cyan.jpg"

    assert next(iter(classifier.classify(endless()))).ranking[0].label == "cyan"
    assert len(taken) <= 4 * batch_size()


# what a caller calls a photo


def upright(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def cyan(tmp_path: Path) -> Path:
    path = tmp_path / "cyan.png"
    photo(COLOURS["cyan"], 0).save(path)
    return path


GIVEN: dict[str, Callable[[Path], object]] = {
    "a string": str,
    "a path": lambda path: path,
    "bytes": Path.read_bytes,
    "a bytearray": lambda path: bytearray(path.read_bytes()),
    "a view of bytes": lambda path: memoryview(path.read_bytes()),
    "a picture": Image.open,
    "a picture in memory": lambda path: Image.fromarray(upright(path)),
    "pixels": upright,
    "pixels that may not be written": lambda path: np.broadcast_to(upright(path), (48, 64, 3)),
    "pixels with alpha": lambda path: np.asarray(Image.open(path).convert("RGBA")),
    "a path in an array": lambda path: np.array([str(path)]),
    "one in a list": lambda path: [upright(path)],
    "one in a generator": lambda path: (p for p in [path]),
}


NAMED = {"a string", "a path", "a picture", "a path in an array", "one in a generator"}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_photo_may_be_given_as(kind: str, classifier: Classifier, cyan: Path) -> None:
    (result,) = classifier.classify(GIVEN[kind](cyan))
    (expected,) = classifier.classify([str(cyan)])
    assert result.ranking == expected.ranking
    assert result.path in ("", str(cyan))
    assert bool(result.path) == (kind in NAMED)
    assert (result.label, result.score) == ("cyan", result.ranking[0].score)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1)])
def test_grey_pixels(classifier: Classifier, cyan: Path, shape: tuple[int, ...]) -> None:
    grey = Image.open(cyan).convert("L")
    grey.save(cyan.with_name("grey.png"))
    (expected,) = classifier.classify(cyan.with_name("grey.png"))
    (result,) = classifier.classify(np.asarray(grey).reshape(shape))
    assert result.ranking == expected.ranking


def test_several_of_all_kinds_in_one_list(classifier: Classifier, cyan: Path) -> None:
    folder = cyan.parent / "folder"
    folder.mkdir()
    for label in ("magenta", "yellow"):
        photo(COLOURS[label], 0).save(folder / f"{label}.jpg")
    both = np.stack([np.asarray(photo(COLOURS[label], 1)) for label in ("yellow", "cyan")])
    given = [cyan, folder, both, b"no photo", photo(COLOURS["magenta"], 2), str(cyan) + "?"]
    results = list(classifier.classify(given))
    labels = ["cyan", "magenta", "yellow", "yellow", "cyan", "", "magenta", ""]
    assert [result.label for result in results] == labels
    assert [bool(result.problem) for result in results] == [not label for label in labels]
    files = [str(cyan), str(folder / "magenta.jpg"), str(folder / "yellow.jpg")]
    assert [result.path for result in results] == [*files, "", "", "", "", f"{cyan}?"]


def test_a_folder_is_classified_as_its_images(tmp_path: Path, classifier: Classifier) -> None:
    folder = make_dataset(tmp_path / "photos", per_label=3)
    (folder / "cyan" / "notes.txt").write_text("no photo")
    results = list(classifier.classify(str(folder)))
    assert [result.path for result in results] == sorted(map(str, folder.rglob("*.jpg")))
    assert [result.label for result in results] == [Path(r.path).parent.name for r in results]


def test_what_cannot_be_read_has_a_problem_and_no_label(
    tmp_path: Path, classifier: Classifier
) -> None:
    cyan = photo(COLOURS["cyan"], 0)
    cyan.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "missing.jpg", "", "a\0b", b"", Image.open(tmp_path / "cut.png")]
    results = list(classifier.classify([*given, tmp_path / "empty", cyan]))
    assert all(result.problem for result in results[:-1])
    assert {(r.ranking, r.label, r.score) for r in results[:-1]} == {((), "", 0.0)}
    assert "without images" in results[-2].problem
    assert results[-1].label == "cyan"


def test_a_picture_is_turned_upright_and_its_transparency_is_white(
    tmp_path: Path, classifier: Classifier
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = photo(COLOURS["yellow"], 0)
    turned.paste((0, 0, 0), (0, 0, 20, 20))
    clear = turned.convert("RGBA")
    clear.putalpha(100)
    turned.save(tmp_path / "turned.png", exif=exif)
    clear.save(tmp_path / "clear.png")
    for name in ("turned.png", "clear.png"):
        with Image.open(tmp_path / name) as picture:
            (result,) = classifier.classify(picture)
            corner = picture.getpixel((0, 0))
            assert isinstance(corner, tuple)
            assert corner[:3] == (0, 0, 0)  # it is open, and as it was
        (expected,) = classifier.classify(tmp_path / name)
        assert result.ranking == expected.ranking


@pytest.mark.parametrize(
    ("given", "received"),
    [
        *[(5, "int"), (None, "NoneType"), (open, "builtin_function_or_method")],
        *[(BytesIO(b"a"), "BytesIO; give what its read"), ([["a.jpg"]], "list"), ([5], "int")],
        (np.zeros((48, 64, 3), np.float32), r"float32 \(48, 64, 3\)"),
        (np.zeros((48, 64, 2), np.uint8), r"uint8 \(48, 64, 2\)"),
        (np.zeros(7, np.uint8), r"uint8 \(7,\)"),
        ([np.zeros((0, 4, 3), np.uint8)], r"\(0, 4, 3\)"),
    ],
)
def test_what_is_no_photo(classifier: Classifier, given: object, received: str) -> None:
    with pytest.raises(UsageError, match=f"Received: .*{received}"):
        list(classifier.classify(given))


def test_what_is_no_photo_is_refused_when_it_is_given(classifier: Classifier) -> None:
    with pytest.raises(UsageError, match="a path, a folder, the bytes"):
        classifier.classify(5)


def test_pixels_may_change_once_they_are_given(classifier: Classifier) -> None:
    """As those of a camera do, whose every picture is in the same memory."""
    frame = np.zeros((48, 64, 3), np.uint8)

    def camera() -> Iterator[np.ndarray]:
        for label in 7 * list(COLOURS):
            frame[:] = COLOURS[label]
            yield frame

    assert [result.label for result in classifier.classify(camera())] == 7 * list(COLOURS)


def test_threads_share_a_classifier(tmp_path: Path, classifier: Classifier) -> None:
    folder = make_dataset(tmp_path / "photos", per_label=7)
    paths = sorted(folder.rglob("*.jpg"))
    pixels = np.stack([decode(path.read_bytes()) for path in paths])
    expected, scores = list(classifier.classify(paths)), classifier.scores(pixels)
    at_once = threading.Barrier(6)

    def work(i: int) -> tuple[list[Result], np.ndarray]:
        at_once.wait(60)
        order = slice(None, None, 1 if i % 2 else -1)
        return list(classifier.classify(paths[order]))[order], classifier.scores(pixels)

    with ThreadPoolExecutor(6) as pool:
        for found, found_scores in pool.map(work, range(6)):
            assert [(r.path, r.label) for r in found] == [(r.path, r.label) for r in expected]
            np.testing.assert_allclose(
                scores_of(found, classifier.labels),
                scores_of(expected, classifier.labels),
                atol=1e-6,
            )
            np.testing.assert_allclose(found_scores, scores, atol=1e-6)


# graph and settings


def test_labels_that_do_not_match_the_graph(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cyan\nmagenta\n")
    with pytest.raises(GraphError, match=r"labels\.txt .* has 2 labels, the graph 3"):
        Classifier(trained.graph, tmp_path / "labels.txt")


def test_mean_and_deviation_are_what_is_fed(trained: Trained, classifier: Classifier) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), np.uint8)
    unit = Classifier(
        trained.graph, trained.labels, input_layer="Placeholder", input_mean=0, input_std=255
    )
    np.testing.assert_allclose(unit.scores(pixels), classifier.scores(pixels), atol=1e-5)
    shifted = Classifier(trained.graph, trained.labels, input_mean=137.5, input_std=127.5)
    dark = pixels // 2
    np.testing.assert_allclose(shifted.scores(dark + 10), classifier.scores(dark), atol=1e-5)
    assert not np.allclose(shifted.scores(dark), classifier.scores(dark), atol=1e-5)


@pytest.mark.parametrize("size", [{"input_height": 224}, {"input_width": 300}])
def test_a_size_that_the_graph_does_not_take(trained: Trained, size: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="299 x 299"):
        Classifier(trained.graph, trained.labels, **size)


def test_the_size_that_the_graph_takes_may_be_said(trained: Trained) -> None:
    classifier = Classifier(trained.graph, trained.labels, input_height=299, input_width=299)
    (result,) = classifier.classify([trained.report.images[0].path])
    assert result.ranking[0].label == trained.report.images[0].label


def test_importing_the_classifier_imports_neither_h5py_nor_scikit_learn() -> None:
    """Nor TensorFlow, which brings h5py with it, until a classifier is made."""
    code = (
        "import sys, label_image\n"
        "label_image.Classifier, label_image.Guess, label_image.Result\n"
        "print(sorted({'h5py', 'sklearn', 'tensorflow', 'label_image.classifier'} & set("
        "sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "['label_image.classifier']\n", result.stderr


def test_no_pixels_have_no_scores(classifier: Classifier) -> None:
    assert classifier.scores(np.empty((0, 299, 299, 3), np.uint8)).shape == (0, len(COLOURS))
