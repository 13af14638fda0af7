"""label_image.classifier: it sees what training saw."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.decode import decode
from bottlenecks.errors import GraphError
from bottlenecks.machine import batch_size
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


def test_labels_that_do_not_match_the_graph(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cyan\nmagenta\n")
    with pytest.raises(GraphError, match=r"gives 3 scores and .*labels\.txt has 2 labels"):
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
def test_a_size_that_the_graph_does_not_take(trained: Trained, size: dict[str, int]) -> None:
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
