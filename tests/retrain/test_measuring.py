"""retrain.measuring: an exported classifier on photos with labels, as a run tests it."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrain
import retrain.cli
from bottlenecks.errors import BadImageError, GraphError, ImageFolderError, OutputError, UsageError
from bottlenecks.network.tensorflow import import_tensorflow
from retrain.config import MeasureConfig
from retrain.measuring import Choice, MeasureListener, measure
from retrain.report.results import Measurement, TrainingResult
from retrain.report.results import Test as Tested
from tests.conftest import (
    COLOURS,
    ROOT,
    Call,
    Trained,
    assert_one_error_line,
    make_dataset,
    photo,
    train_colours,
)


def measured(run: Trained, **settings: Any) -> Measurement:
    """The classifier of ``run`` on its own photos, or on others."""
    values = {
        "image_dir": run.config.image_dir,
        "graph": run.config.output_graph,
        "labels": run.config.output_labels,
        **settings,
    }
    return measure(MeasureConfig(**values))


def the_test(result: TrainingResult) -> Tested:
    assert result.test is not None
    return result.test


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with mistakes: every fifth photo has the colour of another label."""
    folder = tmp_path_factory.mktemp("unsure")
    colours = list(COLOURS.values())
    for number, label in enumerate(COLOURS):
        (folder / "Dataset" / label).mkdir(parents=True)
        for i in range(40):
            colour = colours[(number + (i % 5 == 0)) % 3]
            photo(colour, 1000 * number + i).save(
                folder / "Dataset" / label / f"{label}_{i:03}.jpg"
            )
    return train_colours(folder, testing_percentage=30, validation_percentage=20)


def assert_agree(one: Tested, other: Tested) -> None:
    assert one.n == other.n
    assert one.accuracy == other.accuracy
    np.testing.assert_array_equal(one.confusion, other.confusion)
    for field in dataclasses.fields(one.figures):
        ours, theirs = getattr(one.figures, field.name), getattr(other.figures, field.name)
        assert dataclasses.astuple(ours) == pytest.approx(dataclasses.astuple(theirs), abs=1e-4)
    assert one.labels == other.labels
    assert {m.image.path for m in one.misclassified} == {m.image.path for m in other.misclassified}


# What it agrees with.


def test_the_test_set_of_a_run_gives_the_figures_of_its_test(unsure: Trained) -> None:
    shares = {"testing_percentage": 30, "validation_percentage": 20}
    found = measured(unsure, set="testing", **shares)
    assert 0.5 < found.test.accuracy < 1
    assert_agree(found.test, the_test(unsure.result))
    assert found.images["testing"] == unsure.result.images["testing"]


@pytest.mark.parametrize("name", ["validation", "training"])
def test_the_other_sets_are_those_of_the_run(unsure: Trained, name: str) -> None:
    found = measured(unsure, set=name, testing_percentage=30, validation_percentage=20)
    subset = getattr(unsure.dataset, name)
    right = unsure.result.head.predict(subset.x).argmax(axis=1) == subset.y
    assert found.test.n == len(subset)
    assert found.test.accuracy == pytest.approx(right.mean())


def test_a_drawn_part_of_the_test_set_is_the_one_of_the_run(tmp_path: Path) -> None:
    flags = {"testing_percentage": 50, "test_batch_size": 7, "seed": 3}
    run = train_colours(tmp_path, how_many_training_steps=3, **flags)
    found = measured(run, set="testing", **flags)
    assert found.test.n == 7
    assert_agree(found.test, the_test(run.result))


def test_copies_and_groups_count_where_they_do_in_a_run(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "Dataset")
    for label in COLOURS:  # ten more of each, with the content of others: many fall into other sets
        for i in range(10):
            shutil.copy(dataset / label / f"{label}_{i:03}.jpg", dataset / label / f"copy_{i}.jpg")
    flags = {"testing_percentage": 30, "validation_percentage": 30, "group_by": r"_0(\d)\d"}
    run = train_colours(tmp_path, how_many_training_steps=20, **flags)
    left_out = 0
    for name in ("testing", "validation", "training"):
        found = measured(run, set=name, **flags)
        assert found.test.n == len(getattr(run.dataset, name))
        left_out += found.images["left_out"]
    assert left_out == run.dataset.left_out > 0
    assert_agree(measured(run, set="testing", **flags).test, the_test(run.result))


@pytest.mark.parametrize("given", ["recognised", "named"])
def test_of_a_ready_made_split_the_test_set_is_measured(tmp_path: Path, given: str) -> None:
    make_dataset(tmp_path / "Split" / "train", per_label=12)
    for label, colour in COLOURS.items():
        (tmp_path / "Split" / "test" / label).mkdir(parents=True)
        for i in range(4):
            photo(colour, 500 + i).save(tmp_path / "Split" / "test" / label / f"{i}.jpg")
    (tmp_path / "Split" / "test" / "cyan" / "0.jpg").write_bytes(
        (tmp_path / "Split" / "train" / "cyan" / "cyan_000.jpg").read_bytes()
    )
    places = {"image_dir": str(tmp_path / "Split")}
    if given == "named":
        places = {
            "image_dir": str(tmp_path / "Split" / "train"),
            "test_dir": str(tmp_path / "Split" / "test"),
        }
    run = train_colours(tmp_path, how_many_training_steps=20, **places)
    found = measured(run, **places)
    assert found.test.n == 12
    assert_agree(found.test, the_test(run.result))
    assert found.set == "testing"
    # The copy of the test image was not trained on.
    assert measured(run, **places, set="training").test.n == len(run.dataset.training)
    everything = measured(run, **places, set="all")
    assert (everything.test.n, everything.copies) == (48, 1)


@pytest.mark.parametrize("unreadable", [False, True])
def test_all_images_of_a_plain_folder_are_measured(
    trained: Trained, tmp_path: Path, unreadable: bool
) -> None:
    make_dataset(tmp_path / "Other", per_label=3)
    shutil.copy(tmp_path / "Other/cyan/cyan_000.jpg", tmp_path / "Other/magenta/x.jpg")
    bad = tmp_path / "Other" / "cyan" / "bad.jpg"
    if unreadable:
        bad.write_bytes(b"no image")
    found = measured(trained, image_dir=str(tmp_path / "Other"))
    assert (found.test.n, found.copies) == (10, 1)
    assert found.test.accuracy == pytest.approx(0.9)
    assert found.images == {"training": 0, "validation": 0, "testing": 10, "left_out": 0}
    (wrong,) = found.test.misclassified
    assert (wrong.image.label, wrong.predicted) == ("magenta", "cyan")
    assert [one.path for one in found.failed] == [str(bad)] * unreadable


def test_no_image_is_too_few_and_a_label_may_be_missing(trained: Trained, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Other", per_label=1)
    shutil.rmtree(tmp_path / "Other" / "cyan")
    shutil.rmtree(tmp_path / "Other" / "magenta")
    found = measured(trained, image_dir=str(tmp_path / "Other"))
    assert (found.test.accuracy, found.test.n) == (1.0, 1)
    assert found.without_images == ["cyan", "magenta"]
    assert found.labels == ("cyan", "magenta", "yellow")


def test_folders_in_another_spelling_are_matched(trained: Trained, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Other", per_label=2)
    (tmp_path / "Other" / "cyan").rename(tmp_path / "Other" / "__CYAN")
    found = measured(trained, image_dir=str(tmp_path / "Other"))
    assert (found.test.accuracy, found.test.n) == (1.0, 6)


def test_what_a_classifier_says_by_chance_measures_as_chance(
    trained: Trained, tmp_path: Path
) -> None:
    for number, label in enumerate(COLOURS):
        (tmp_path / "Other" / label).mkdir(parents=True)
        for i in range(30):
            colour = list(COLOURS.values())[i % 3]
            photo(colour, 77 * i + number).save(tmp_path / "Other" / label / f"{i}.jpg")
    found = measured(trained, image_dir=str(tmp_path / "Other"))
    assert found.test.accuracy == pytest.approx(1 / 3)


def old_graph(folder: Path, name: str, output: str = "softmax", batch: int | None = 1) -> Path:
    """A graph like retrain.py's, without labels of its own: the darkest channel tells the colour.

    ``output`` is "softmax", or what is no probability.
    """
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, (batch, 299, 299, 3), name="Mul")
        logits = -20 * tf.reduce_mean(pixels, (1, 2))  # red is dark in cyan, and so on
        (tf.nn.softmax if output == "softmax" else tf.identity)(logits, name=name)
    path = folder / "old.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    (folder / "old.txt").write_text("Cyan\nMAGENTA\nyellow \n")
    return path


@pytest.mark.parametrize("batch", [1, 4, None])
def test_graphs_of_the_old_program_are_measured(
    dataset: Path, tmp_path: Path, batch: int | None
) -> None:
    graph = old_graph(tmp_path, "final_result", batch=batch)
    (dataset / "yellow" / "bad.jpg").write_bytes(b"")
    settings = {"image_dir": str(dataset), "graph": str(graph), "labels": str(tmp_path / "old.txt")}
    found = measure(MeasureConfig(**settings, batch_size=3))  # type: ignore[arg-type]
    assert (found.test.accuracy, found.test.n, len(found.failed)) == (1.0, 90, 1)
    assert found.labels == ("Cyan", "MAGENTA", "yellow ")


def test_scores_that_are_no_probabilities_are_refused(dataset: Path, tmp_path: Path) -> None:
    graph = old_graph(tmp_path, "final_result", "logits")
    settings = {"image_dir": str(dataset), "graph": str(graph), "labels": str(tmp_path / "old.txt")}
    with pytest.raises(GraphError, match=r"no probabilities.*--output_layer"):
        measure(MeasureConfig(**settings))  # type: ignore[arg-type]


# What it refuses.


def test_a_label_that_the_classifier_does_not_have_is_an_error(
    trained: Trained, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "Other", per_label=1)
    (tmp_path / "Other" / "cyan").rename(tmp_path / "Other" / "teal")
    with pytest.raises(ImageFolderError, match=r"'teal' of .*its labels are 'cyan', 'magenta'"):
        measured(trained, image_dir=str(tmp_path / "Other"))


def test_strict_stops_at_an_image_that_cannot_be_read(trained: Trained, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Other", per_label=2)
    (tmp_path / "Other" / "cyan" / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"cyan/bad\.jpg.*leave out --strict"):
        measured(trained, image_dir=str(tmp_path / "Other"), strict=True)


def test_images_none_of_which_can_be_read_are_an_error(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "Other" / "cyan").mkdir(parents=True)
    (tmp_path / "Other" / "cyan" / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ImageFolderError, match=r"none of the 1 images .*bad\.jpg \(is no JPEG"):
        measured(trained, image_dir=str(tmp_path / "Other"))


def test_a_set_without_an_image_is_an_error(trained: Trained) -> None:
    with pytest.raises(ImageFolderError, match=r"no image of .* in the testing set.*--set"):
        measured(trained, set="testing", testing_percentage=0)


def test_flags_of_the_split_need_a_set() -> None:
    for flags in ({"testing_percentage": 20}, {"group_by": "x"}, {"set": "all", "group_by": "x"}):
        with pytest.raises(UsageError, match=r"does nothing .*--set testing"):
            MeasureConfig(image_dir="D", **flags)


def test_a_report_among_the_photos_or_over_the_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--report_dir .* is inside --image_dir"):
        MeasureConfig(image_dir="D", report_dir="D/report")
    with pytest.raises(UsageError, match="in the way of --graph"):
        MeasureConfig(image_dir="D", report_dir="r", graph="r/metrics.json")


def test_a_file_of_somebody_else_is_not_replaced(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("mine")
    with pytest.raises(OutputError, match=r"report\.html"):
        measured(trained, report_dir=str(tmp_path / "report"))
    assert (tmp_path / "report" / "report.html").read_text() == "mine"


# What it tells, and how it streams.


class Recorder(MeasureListener):
    """Keeps what `measure` tells, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.choices: list[Choice] = []
        self.done: list[tuple[int, int]] = []

    def chosen(self, choice: Choice) -> None:
        self.told.append("chosen")
        self.choices.append(choice)

    def progress(self, done: int, total: int) -> None:
        self.told.append("progress")
        self.done.append((done, total))

    def measured(self, measurement: Measurement) -> None:
        self.told.append("measured")


def test_it_tells_what_is_measured_then_how_far_it_is_then_the_figures(
    trained: Trained, tmp_path: Path
) -> None:
    recorder = Recorder()
    config = MeasureConfig(
        image_dir=trained.config.image_dir,
        graph=trained.config.output_graph,
        labels=trained.config.output_labels,
        batch_size=20,
        report_dir=str(tmp_path / "report"),
    )
    measure(config, listener=recorder)
    assert recorder.told == ["chosen", *5 * ["progress"], "measured"]
    assert recorder.done == [(20, 90), (40, 90), (60, 90), (80, 90), (90, 90)]
    assert recorder.choices[0].counts == dict.fromkeys(COLOURS, 30)


def test_photos_are_read_as_they_are_needed(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that memory does not grow with the folder."""
    decode, read, ahead = retrain.measuring.decode, [], []  # type: ignore[attr-defined]

    def counting(*given: Any) -> np.ndarray:
        read.append(1)
        pixels: np.ndarray = decode(*given)
        return pixels

    class Watching(MeasureListener):
        def progress(self, done: int, total: int) -> None:
            ahead.append(len(read) - done)

    monkeypatch.setattr("retrain.measuring.decode", counting)
    config = MeasureConfig(
        image_dir=trained.config.image_dir,
        graph=trained.config.output_graph,
        labels=trained.config.output_labels,
        batch_size=4,
    )
    measure(config, listener=Watching())
    assert max(ahead) <= 2 * 4
    assert ahead[-1] == 0


# The command.


def flags_of(run: Trained, *more: str) -> list[str]:
    graph = ["--graph", run.config.output_graph, "--labels", run.config.output_labels]
    return ["--evaluate", *graph, "--image_dir", run.config.image_dir, *more]


def test_the_command_prints_the_figures_of_the_run(
    unsure: Trained, call: Call, tmp_path: Path
) -> None:
    shares = ["--testing_percentage=30", "--validation_percentage=20", "--set=testing"]
    flags = flags_of(unsure, *shares, "--print_misclassified_test_images")
    result = call(retrain.cli.main, *flags)
    assert (result.returncode, result.stderr) == (0, "")
    test = the_test(unsure.result)
    out = result.stdout
    assert f"\nFinal test accuracy = {test.accuracy:.1%} (N={test.n})\n" in out
    assert f"{test.n} images of 3 labels:" in out
    assert "measured        the testing set of" in out
    for wrong in test.misclassified:
        assert f"{wrong.image.path}  {wrong.predicted}" in out
    for part in ("most confused", "calibration error", "bad                   0", "took "):
        assert part in out
    assert list(tmp_path.iterdir()) == []  # no cache, no graph


def test_the_command_says_what_is_special(trained: Trained, call: Call, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Other", per_label=2)
    shutil.rmtree(tmp_path / "Other" / "yellow")
    (tmp_path / "Other" / "cyan" / "bad.jpg").write_bytes(b"no image")
    flags = flags_of(trained, "--image_dir", "Other", "--test_batch_size", "4")
    result = call(retrain.cli.main, *flags, "--report_dir", "report")
    assert result.returncode == 0, result.stderr
    assert "no images of    yellow (the figures are of the others)" in result.stdout
    assert "measured        all images of Other: 4 of 5, drawn" in result.stdout
    assert re.search(r"^yellow +0\.0% +- +- +0$", result.stdout, re.MULTILINE)
    assert "report  report/report.html" in result.stdout
    whole = call(retrain.cli.main, *flags_of(trained, "--image_dir", "Other"))
    assert "bad                   1\n  Other/cyan/bad.jpg: is no JPEG" in whole.stdout


def test_the_command_says_where_a_set_of_a_ready_made_split_is(
    trained: Trained, call: Call, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "Split" / "train", per_label=12)
    make_dataset(tmp_path / "Split" / "val", per_label=2)
    flags = flags_of(trained, "--image_dir", "Split")
    result = call(retrain.cli.main, *flags)
    assert "measured        the testing set of Split, split off\n" in result.stdout, result.stderr
    result = call(retrain.cli.main, *flags, "--set", "validation")
    assert "measured        the validation set of Split, val\n" in result.stdout
    assert "5 images of 3 labels:" in result.stdout
    assert "left out              1 (copy or group in another set)" in result.stdout


def test_the_report_is_of_an_evaluation(unsure: Trained, call: Call, tmp_path: Path) -> None:
    (tmp_path / "Other").mkdir()
    shutil.copytree(unsure.config.image_dir, tmp_path / "Other", dirs_exist_ok=True)
    (tmp_path / "Other" / "cyan" / "bad.jpg").write_bytes(b"no image")
    shutil.rmtree(tmp_path / "Other" / "yellow")
    flags = flags_of(unsure, "--image_dir", "Other", "--report_dir", "report")
    assert call(retrain.cli.main, *flags).returncode == 0
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"report.html", "metrics.json", "confusion.png", "calibration.png"}
    page = (tmp_path / "report" / "report.html").read_text()
    graph = unsure.config.output_graph
    assert f"<title>Evaluation of {graph} on Other \N{EN DASH} retrain</title>" in page
    for heading in ("Confusion", "Labels", "Misclassified test images", "Calibration", "Settings"):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Images that cannot be read</h2>" in page and "bad.jpg" in page
    assert "<b>yellow</b>." in page
    assert "80 images were measured, all of the folder." in page
    for heading in ("Training", "Data health"):
        assert f"<h2>{heading}</h2>" not in page
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"]["n"] == 80
    assert metrics["images"] == {"training": 0, "validation": 0, "testing": 80, "left_out": 0}
    assert (metrics["evaluations"], metrics["data_health"]) == ([], None)
    assert metrics["settings"]["graph"] == graph


def test_the_metrics_have_the_keys_of_a_run(trained: Trained, tmp_path: Path) -> None:
    run = train_colours(tmp_path, how_many_training_steps=2, report_dir=str(tmp_path / "run"))
    measured(run, report_dir=str(tmp_path / "measured"))
    of_run, of_measured = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "measured")
    )
    assert list(of_run) == list(of_measured)
    assert list(of_run["test"]) == list(of_measured["test"])


def test_the_figures_are_printed_though_the_report_fails(
    trained: Trained, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("retrain.report.page.write_report", fail)
    result = call(retrain.cli.main, *flags_of(trained, "--report_dir", "report"))
    assert_one_error_line(result, "cannot make the report: no font", "without --report_dir")
    assert "Final test accuracy = 100.0% (N=90)" in result.stdout


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--how_many_training_steps", "3"], ["--how_many_training_steps does nothing with"]),
        (["--bottleneck_dir", "x", "--tune"], ["--bottleneck_dir", "--tune", "do nothing with"]),
        (["--summaries_dir", "x"], ["--summaries_dir does nothing with --evaluate"]),
        (["--dry_run"], ["--dry_run: not allowed with argument --evaluate"]),
        (["--set", "tests"], ["--set", "testing"]),
        (["--graph", "missing.pb"], ["missing.pb does not exist", "--graph"]),
        (["--input_height", "-1"], ["--input_height must be at least 0"]),
        (["--image_dir", "missing"], ["missing does not exist"]),
    ],
)
def test_a_wrong_turn_is_one_error_line(
    trained: Trained, call: Call, tmp_path: Path, flags: list[str], mentions: list[str]
) -> None:
    result = call(retrain.cli.main, *flags_of(trained, *flags))
    assert_one_error_line(result, *mentions)
    assert list(tmp_path.iterdir()) == []


def test_a_flag_of_evaluations_needs_evaluate(call: Call) -> None:
    result = call(retrain.cli.main, "--image_dir", "Dataset", "--graph", "x.pb", "--set", "all")
    assert_one_error_line(result, "--graph, --set do nothing without --evaluate")


def test_flags_of_a_run_at_their_defaults_do_not_disturb(trained: Trained, call: Call) -> None:
    flags = ["--how_many_training_steps", "4000", "--recipe", "adam"]
    assert call(retrain.cli.main, *flags_of(trained, *flags)).returncode == 0


def test_interrupted_it_says_that_nothing_was_written(
    trained: Trained, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr("retrain.engines.engine.Engine.scores", interrupt)
    result = call(retrain.cli.main, *flags_of(trained, "--report_dir", "report"))
    assert result.returncode == 130
    assert result.stderr.strip() == "interrupted; nothing was written"
    assert not Path("report").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_it_soon(trained: Trained, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Other", per_label=400)
    program = [sys.executable, "-m", "retrain", *flags_of(trained, "--image_dir", "Other")]
    with subprocess.Popen(
        [*program, "--batch_size", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == "1200 images of 3 labels:\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert "interrupted; nothing was written" in child.stderr.read()


def test_from_python(trained: Trained, tmp_path: Path) -> None:
    graph, labels = trained.config.output_graph, trained.config.output_labels
    config = retrain.MeasureConfig(
        image_dir=Path(trained.config.image_dir),  # type: ignore[arg-type]
        graph=graph,
        labels=labels,
    )
    found = retrain.measure(config)
    assert isinstance(found, retrain.Measurement)
    assert (found.test.accuracy, found.test.n) == (1.0, 90)


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_real_weights_agree_with_the_test_of_their_run(
    run: Run, tmp_path: Path, real_weights: str
) -> None:
    make_dataset(tmp_path / "Dataset", per_label=8)
    flags = ["--image_dir=Dataset", "--testing_percentage=40", "--validation_percentage=20"]
    weights = [f"--weights={real_weights}", "--model_dir=models", "--how_many_training_steps=5"]
    trained = run("retrain", *flags, *weights, "--report_dir=one")
    assert trained.returncode == 0, trained.stderr
    found = run("retrain", "--evaluate", *flags, "--set=testing", "--report_dir=two")
    assert found.returncode == 0, found.stderr
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text())["test"]
        for name in ("one", "two")
    )
    assert one["confusion"] == two["confusion"]
    assert one["cross_entropy"]["value"] == pytest.approx(two["cross_entropy"]["value"], abs=1e-4)
