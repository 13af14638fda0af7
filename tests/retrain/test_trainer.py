"""retrain.trainer: both stages and the export, in one call."""

import errno
import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.errors import ImageFolderError, OutputError, UsageError
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.store import vectors
from bottlenecks.store.vectors import InMemory, OnDisk
from retrain import learning, trainer
from retrain.config import Config
from retrain.evaluate import Answers, confusion_matrix, figures, most_confused, score, score_labels
from retrain.report.events import EventFile
from retrain.trainer import train
from retrain.training.fitting import find_temperature
from retrain.training.head import usual_l2
from tests.bottlenecks.store.test_listed_cache import catalogues, rot_all
from tests.conftest import COLOURS, Trained, make_dataset, network_of, photo, train_colours
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
    assert trained.result.test.misclassified == ()
    assert trained.result.test.most_confused == ()


def test_the_test_figures_are_those_of_the_head_on_the_test_set(again: Again) -> None:
    run = again(how_many_training_steps=1, learning_rate=1e-6, seed=5)
    testing = run.dataset.testing
    probabilities = run.result.head.predict(testing.x)
    test, labels = run.result.test, run.result.labels
    assert test is not None
    assert test.score == score(probabilities, testing.y)
    assert (test.accuracy, test.n) == (test.score.accuracy, len(testing))
    answers = Answers.of(probabilities, testing.y)
    assert test.figures == figures(answers, seed=5)
    assert list(test.labels) == score_labels(answers, labels)
    np.testing.assert_array_equal(test.confusion, confusion_matrix(answers, len(labels)))


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
    test = run.result.test
    assert test is not None
    assert test.n > 90
    assert abs(test.accuracy - 1 / 3) < 3 * (2 / 9 / test.n) ** 0.5
    assert test.figures.accuracy.low < 1 / 3 < test.figures.accuracy.high
    assert len(test.misclassified) == round((1 - test.accuracy) * test.n)
    assert test.most_confused == tuple(most_confused(test.confusion, run.result.labels))
    assert test.most_confused
    for wrong in test.misclassified:
        assert wrong.predicted != wrong.image.label
        assert wrong.image in run.dataset.testing.images


def test_misclassified_images_come_with_their_guesses_the_most_confident_first(
    tmp_path: Path,
) -> None:
    shuffled_dataset(tmp_path / "Dataset", per_label=20)
    run = train_colours(tmp_path, testing_percentage=50, how_many_training_steps=50)
    testing, labels = run.dataset.testing, run.result.labels
    probabilities = dict(
        zip((i.path for i in testing.images), run.result.head.predict(testing.x), strict=True)
    )
    assert run.result.test is not None
    misclassified = run.result.test.misclassified
    confidences = [wrong.guesses[0][1] for wrong in misclassified]
    assert len(set(confidences)) > 5
    assert confidences == sorted(confidences, reverse=True)
    for wrong in misclassified:
        own = dict(zip(labels, probabilities[wrong.image.path].tolist(), strict=True))
        assert wrong.guesses == tuple(sorted(own.items(), key=lambda guess: -guess[1]))
        assert wrong.predicted == wrong.guesses[0][0]


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
    run = again()
    last, validation = run.evaluations[-1], run.dataset.validation
    expected = score(run.result.head.predict(validation.x), validation.y)
    assert expected.n == len(validation) > 0
    assert last.validation == last.validation_batch == expected


def test_batch_sizes_are_what_is_measured_on(again: Again) -> None:
    run = again(train_batch_size=7, validation_batch_size=3, test_batch_size=4)
    assert {evaluation.train.n for evaluation in run.evaluations} == {7}
    assert {e.validation_batch.n for e in run.evaluations if e.validation_batch} == {3}
    assert run.result.test is not None
    assert run.result.test.n == 4


def test_without_a_test_set(again: Again) -> None:
    run = again(testing_percentage=0)
    assert run.result.test is None
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


@pytest.mark.parametrize(
    "settings",
    [
        {"data_health": True, "data_health_folds": 5},
        {"report_dir": "report", "data_health_folds": 5},
    ],
    ids=str,
)
def test_folds_are_counted_before_training_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """By the images that can be read, which stage one finds out."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "Dataset", per_label=5)
    (tmp_path / "Dataset" / "cyan" / "cyan_000.jpg").write_bytes(b"no image")
    for step in ("search", "fit_head"):
        monkeypatch.setattr(learning, step, lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(ImageFolderError, match=r"'cyan' has 4 images.*--data_health_folds"):
        train_colours(tmp_path, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset", "cache"]


def test_the_strength_that_was_found_is_trained_with(again: Again) -> None:
    usual = usual_l2(3, again().result.images["training"])
    for tune, trials in ((False, 7), (True, 17)):
        result = again(tune=tune, seed=8).result
        assert result.search is not None
        assert len(result.search.trials) == trials
        assert result.fitted.l2 == result.search.l2 < usual  # the colours are easily told apart
    assert again(seed=8, recipe="classic").result.search is None


def test_a_worker_that_does_not_write_does_not_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "is_chief", lambda _: False)
    monkeypatch.setattr(trainer, "test_model", lambda *_: pytest.fail("it tests"))
    helped = train_colours(tmp_path, how_many_training_steps=5)
    assert helped.result.test is None
    assert helped.result.fitted.steps == 5
    assert not helped.graph.exists()


# What is trained is not lost.


@pytest.mark.parametrize(
    "what",
    ["retrain.trainer.examine", "retrain.report.page.write_report", "retrain.trainer.test_model"],
)
@pytest.mark.parametrize("stop_by", [RuntimeError, KeyboardInterrupt])
def test_whatever_stops_data_health_or_report_the_graph_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, stop_by: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise stop_by("no font")

    monkeypatch.setattr(what, fail)
    with pytest.raises((RuntimeError, OutputError, KeyboardInterrupt)) as caught:
        train_colours(tmp_path, report_dir=str(tmp_path / "report"), how_many_training_steps=20)
    graph, labels = network_of(tmp_path / "graph.pb"), (tmp_path / "labels.txt").read_text()
    assert labels == "cyan\nmagenta\nyellow\n"
    if stop_by is KeyboardInterrupt:
        assert caught.value.__notes__ == [
            "the graph and the labels are written, what comes after them is not"
        ]
    elif what.endswith("write_report"):
        assert isinstance(caught.value, OutputError)
        assert "no font" in str(caught.value) and "--report_dir" in str(caught.value)
    monkeypatch.undo()
    assert network_of(train_colours(tmp_path, how_many_training_steps=20).graph) == graph


def test_event_files_that_cannot_be_written_to_their_end_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk."""

    def broken(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EventFile, "add", broken)
    summaries, report = tmp_path / "events", tmp_path / "report"
    with pytest.raises(OutputError, match=r"--summaries_dir .*all else is done"):
        train_colours(
            tmp_path,
            summaries_dir=str(summaries),
            report_dir=str(report),
            how_many_training_steps=20,
        )
    assert (tmp_path / "graph.pb").exists() and (report / "report.html").exists()


def test_the_strength_is_searched_with_the_balance_that_is_trained_with(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def remember(*_: object, **settings: object) -> None:
        given.append(settings)

    monkeypatch.setattr(learning, "search", remember)
    again(class_balance="weights", tune=True, seed=3)
    assert given == [{"thorough": True, "class_balance": "weights", "seed": 3}]


def test_interrupted_while_training_there_is_no_graph_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "fit_head", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        train_colours(tmp_path)
    assert caught.value.__notes__ == [
        "no graph was written; the bottlenecks are kept for the next run"
    ]
    assert not (tmp_path / "graph.pb").exists()
    monkeypatch.undo()
    assert train_colours(tmp_path, how_many_training_steps=5).report.computed == 0


# Photos that belong together, and splits that somebody else has made.


def test_groups_share_a_set_in_training_too(tmp_path: Path) -> None:
    run = train_colours(tmp_path, group_by=r"_(\d\d)\d\.jpg", how_many_training_steps=5)
    groups = {
        name: {image.relpath[-7:-5] for image in getattr(run.dataset, name).images}
        for name in ("training", "validation", "testing")
    }
    assert sorted(g for found in groups.values() for g in found) == ["00", "01", "02"]


@pytest.mark.parametrize(
    ("settings", "mention"),
    [({"group_by": "none"}, "no two photos"), ({"group_by": "("}, "regular expression")],
)
def test_a_grouping_that_cannot_be_meant_is_found_before_anything_is_computed(
    tmp_path: Path, settings: dict[str, str], mention: str
) -> None:
    with pytest.raises(UsageError, match=mention):
        train_colours(tmp_path, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset"]


def test_sets_without_labels_are_an_error_before_anything_is_computed(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        (tmp_path / "Dataset" / name).mkdir(parents=True)
        photo((200, 0, 0), 1).save(tmp_path / "Dataset" / name / "a.jpg")
    with pytest.raises(ImageFolderError, match="looks like a ready-made split"):
        train_colours(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset"]


def test_calibration_divides_the_exported_logits(again: Again) -> None:
    run, plain = again(calibrate=True), again()
    temperature = run.result.temperature
    assert temperature == find_temperature(plain.result.head, plain.dataset.validation) != 1
    assert plain.result.temperature == 1
    expected = plain.result.head.at_temperature(temperature)
    np.testing.assert_array_equal(run.result.head.weights, expected.weights)
    np.testing.assert_array_equal(run.result.head.bias, expected.bias)


def test_images_are_counted_by_their_sets(again: Again) -> None:
    run = again()
    assert run.result.images == {
        "training": len(run.dataset.training),
        "validation": len(run.dataset.validation),
        "testing": len(run.dataset.testing),
        "left_out": 0,
    }
    assert sum(run.result.images.values()) == 90


def test_bad_outputs_are_found_before_the_network_runs(small_dataset: Path, tmp_path: Path) -> None:
    extractor = StandIn()
    config = Config(image_dir=str(small_dataset), bottleneck_dir=str(tmp_path / "cache"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        train(replace(config, output_graph=str(tmp_path / "folder")), extractor=extractor)
    assert extractor.batches == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("names", "settings", "grey"),
    [
        (["testing"], {}, 10),
        (["validation", "testing"], {"eval_step_interval": 30}, 11),  # nothing to choose from
        (["validation", "testing"], {"recipe": "classic"}, 12),  # it keeps the last step
    ],
    ids=["test", "one evaluation", "classic"],
)
def test_the_head_does_not_see_validation_or_test_images(
    again: Again, names: list[str], settings: dict[str, object], grey: int
) -> None:
    """Only training images decide: another content of the others leaves the head as it is.

    But for the step that is kept, which the validation images decide.
    """
    run = again(seed=9, **settings)
    others = [image for name in names for image in getattr(run.dataset, name).images]
    photos = {Path(image.path): Path(image.path).read_bytes() for image in others}
    try:
        for i, path in enumerate(photos):
            photo((grey, grey, grey), i).save(path)
        changed = again(seed=9, **settings)
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
        monkeypatch.setattr(vectors, "MAX_IN_MEMORY", most * BOTTLENECK.nbytes)
        run = again(**settings)
        assert type(run.dataset.training.vectors) is type(run.dataset.testing.vectors) is kind
        head, test = run.result.head, run.result.test
        assert test is not None
        runs[kind] = (
            head.weights.tobytes(),
            head.bias.tobytes(),
            run.graph.read_bytes(),
            run.evaluations,
            asdict(test) | {"confusion": test.confusion.tolist()},
        )
    assert runs[InMemory] == runs[OnDisk]


def test_copies_do_not_fill_a_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight files of a label that show four photos are too few for five folds."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "Dataset", per_label=4)
    for path in sorted((tmp_path / "Dataset").glob("*/*")):
        (path.parent / f"copy of {path.name}").write_bytes(path.read_bytes())
    with pytest.raises(ImageFolderError, match="has 4 images, fewer than the 5 parts"):
        train_colours(tmp_path, data_health=True, data_health_folds=5)
    assert not (tmp_path / "graph.pb").exists()


@pytest.mark.parametrize("most_in_memory", [2**30, 0])
def test_a_cache_that_turns_out_to_be_damaged_is_healed_in_the_same_run(
    tmp_path: Path,
    most_in_memory: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_dataset(tmp_path / "Dataset", per_label=10)
    first = train_colours(tmp_path, how_many_training_steps=10)
    for _ in range(2):  # a shard as young as its reading has no catalogue
        time.sleep(0.05)
        train_colours(tmp_path, how_many_training_steps=10)
    assert len(catalogues(tmp_path)) == 1
    rot_all(tmp_path)
    monkeypatch.setattr(vectors, "MAX_IN_MEMORY", most_in_memory)
    caplog.clear()
    again = train_colours(tmp_path, how_many_training_steps=10)
    warnings = [record.getMessage() for record in caplog.records]
    assert ["is damaged" in warning for warning in warnings] == [True, False]  # and of few images
    assert again.dataset.everything.x.tobytes() == first.dataset.everything.x.tobytes()
    assert again.labels.read_bytes() == first.labels.read_bytes()
    assert len(list(tmp_path.rglob("*.damaged"))) == 1
