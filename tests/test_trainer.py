"""retrain.trainer: both stages and the export, in one call."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.errors import ImageFolderError, OutputError
from bottlenecks.vectors import InMemory, OnDisk
from retrain import dataset as dataset_module
from retrain.config import Config
from retrain.evaluate import score, score_labels
from retrain.trainer import train
from tests.conftest import COLOURS, Trained, make_dataset, photo, train_colours
from tests.standin import StandIn

Again = Callable[..., Trained]


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Again:
    """Trains on one data set with other settings, quickly, its vectors cached."""
    folder = tmp_path_factory.mktemp("again")
    return lambda **settings: train_colours(
        folder, **{"how_many_training_steps": 30, "testing_percentage": 20, **settings}
    )


def test_it_learns_the_colours(trained: Trained) -> None:
    assert trained.result.labels == tuple(sorted(COLOURS))
    assert trained.result.test is not None
    assert trained.result.test.accuracy == 1.0
    assert trained.result.test.n == len(trained.dataset.testing) > 0
    assert trained.result.misclassified == ()


def test_the_test_figures_are_those_of_the_head_on_the_test_set(again: Again) -> None:
    run = again(how_many_training_steps=1, learning_rate=1e-6, seed=5)
    testing = run.dataset.testing
    probabilities = run.result.head.predict(testing.x)
    assert run.result.test == score(probabilities, testing.y)
    labels = run.result.labels
    assert list(run.result.test_labels) == score_labels(probabilities, testing.y, labels)


def shuffled_dataset(root: Path, per_label: int) -> Path:
    """The colour data set with its photos dealt out to the labels by chance."""
    photos = [photo(colour, i) for colour in COLOURS.values() for i in range(per_label)]
    random.Random(0).shuffle(photos)
    for i, image in enumerate(photos):
        folder = root / list(COLOURS)[i % len(COLOURS)]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i:03}.jpg", quality=90)
    return root


def test_shuffled_labels_score_like_chance(tmp_path: Path) -> None:
    shuffled_dataset(tmp_path / "Dataset", per_label=80)
    run = train_colours(tmp_path, testing_percentage=50, how_many_training_steps=100)
    assert run.result.test is not None
    deviation = (2 / 9 / run.result.test.n) ** 0.5
    assert run.result.test.n > 90
    assert abs(run.result.test.accuracy - 1 / 3) < 3 * deviation
    assert len(run.result.misclassified) == round(
        (1 - run.result.test.accuracy) * run.result.test.n
    )
    for wrong in run.result.misclassified:
        assert wrong.predicted != wrong.image.label
        assert wrong.image in run.dataset.testing.images


def test_the_files_are_the_result(trained: Trained) -> None:
    assert trained.labels.read_bytes() == b"cyan\nmagenta\nyellow\n"
    assert trained.result.head.weights.tobytes() in trained.graph.read_bytes()
    assert trained.result.head.bias.tobytes() in trained.graph.read_bytes()


def test_a_second_run_computes_nothing(again: Again) -> None:
    again()
    second = again()
    assert (second.report.computed, second.report.cached) == (0, 90)


def test_the_same_seed_gives_the_same_graph_and_another_seed_another(again: Again) -> None:
    graphs = [again(seed=seed).graph.read_bytes() for seed in (1, 1, 2)]
    assert graphs[0] == graphs[1] != graphs[2]


def test_a_data_set_that_was_moved_gives_the_same_graph(again: Again, tmp_path: Path) -> None:
    moved = train_colours(tmp_path, how_many_training_steps=30, testing_percentage=20)
    assert moved.graph.read_bytes() == again().graph.read_bytes()


def test_evaluations_are_at_each_interval_and_at_the_end(again: Again) -> None:
    run = again(how_many_training_steps=25, eval_step_interval=10)
    assert [evaluation.step for evaluation in run.evaluations] == [10, 20, 25]
    assert [e.step for e in again(eval_step_interval=15).evaluations] == [15, 30]


def test_validation_is_of_the_head_as_it_is(again: Again) -> None:
    run = again(validation_batch_size=-1)
    last, validation = run.evaluations[-1], run.dataset.validation
    assert last.validation is not None
    assert last.validation.n == len(validation)
    expected = score(run.result.head.predict(validation.x), validation.y)
    assert last.validation == expected


def test_batch_sizes_are_what_is_measured_on(again: Again) -> None:
    run = again(train_batch_size=7, validation_batch_size=3, test_batch_size=4)
    assert {evaluation.train.n for evaluation in run.evaluations} == {7}
    assert {evaluation.validation.n for evaluation in run.evaluations if evaluation.validation} == {
        3
    }
    assert run.result.test is not None
    assert run.result.test.n == 4


def test_without_a_test_set(again: Again) -> None:
    run = again(testing_percentage=0)
    assert run.result.test is None
    assert run.result.test_labels == run.result.misclassified == ()
    assert len(run.dataset.testing) == 0
    assert all(evaluation.validation for evaluation in run.evaluations)


def test_without_a_validation_set(again: Again) -> None:
    run = again(validation_percentage=0)
    assert [evaluation.validation for evaluation in run.evaluations] == [None] * 3
    assert run.result.test is not None
    assert run.result.test.accuracy == 1.0


def test_an_unreadable_image_is_left_out(tmp_path: Path) -> None:
    make_dataset(tmp_path / "Dataset", per_label=6)
    (tmp_path / "Dataset" / "cyan" / "cyan_000.jpg").write_bytes(b"no image")
    run = train_colours(tmp_path, how_many_training_steps=5)
    assert [bad.path for bad in run.report.failed] == [
        str(tmp_path / "Dataset" / "cyan" / "cyan_000.jpg")
    ]
    sets = (run.dataset.training, run.dataset.validation, run.dataset.testing)
    assert sum(map(len, sets)) == 17


def test_readable_images_are_counted_again_after_stage_one(tmp_path: Path) -> None:
    make_dataset(tmp_path / "Dataset", per_label=4)
    for i in (0, 1):
        (tmp_path / "Dataset" / "cyan" / f"cyan_{i:03}.jpg").write_bytes(b"no image")
    with pytest.raises(ImageFolderError, match="'cyan' has 2 readable"):
        train_colours(tmp_path)
    assert not (tmp_path / "graph.pb").exists()
    assert not (tmp_path / "labels.txt").exists()


def test_bad_outputs_are_found_before_the_network_runs(small_dataset: Path, tmp_path: Path) -> None:
    extractor = StandIn()
    config = Config(image_dir=str(small_dataset), bottleneck_dir=str(tmp_path / "cache"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        train(replace(config, output_graph=str(tmp_path / "folder")), extractor=extractor)
    assert extractor.batches == []
    assert not (tmp_path / "cache").exists()


def test_the_head_does_not_see_validation_or_test_images(again: Again) -> None:
    """Only training images decide: another content of the others leaves the head as it is."""
    run = again(seed=9)
    others = [*run.dataset.validation.images, *run.dataset.testing.images]
    photos = {Path(image.path): Path(image.path).read_bytes() for image in others}
    try:
        for i, path in enumerate(photos):
            photo((10, 10, 10), i).save(path)
        changed = again(seed=9)
    finally:
        for path, data in photos.items():
            path.write_bytes(data)
    assert changed.report.computed == len(others)
    np.testing.assert_array_equal(changed.result.head.weights, run.result.head.weights)


def test_vectors_on_the_disk_give_the_same_graph_byte_for_byte(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches that do not divide the images, so that epochs overlap."""
    settings = {"seed": 4, "train_batch_size": 17, "how_many_training_steps": 40}
    runs = {}
    for most, kind in ((90, InMemory), (0, OnDisk)):
        monkeypatch.setattr(dataset_module, "MAX_IN_MEMORY", most)
        run = again(**settings)
        assert type(run.dataset.training.vectors) is type(run.dataset.testing.vectors) is kind
        head = run.result.head
        runs[kind] = (
            head.weights.tobytes(),
            head.bias.tobytes(),
            run.graph.read_bytes(),
            run.evaluations,
            run.result.test,
            run.result.test_labels,
        )
    assert runs[InMemory] == runs[OnDisk]
