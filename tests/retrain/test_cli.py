"""python -m retrain: what a user types and sees."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bottlenecks.cli
import retrain.cli
from retrain import console
from retrain.report import near, results
from retrain.texts import result_text
from retrain.training import fitting, regularisation
from retrain.training.head import usual_l2
from tests.conftest import ROOT, Call, Run, Trained, assert_one_error_line, make_dataset, photo
from tests.standin import StandIn
from tests.tiny import Tiny

# DESIGN.md section 3, word for word.
PUBLISHED = shlex.split(
    "retrain --bottleneck_dir=bottlenecks --how_many_training_steps=1000 --train_batch_size=100 "
    "--model_dir=inception --summaries_dir=training_summaries/basic "
    "--output_graph=retrained_graph.pb --output_labels=retrained_labels.txt "
    "--image_dir=Dataset_Name"
)


def final_accuracy(output: str) -> tuple[float, int]:
    """(percent, N) of the line that retrain.py ended with."""
    (line,) = re.findall(r"^Final test accuracy = (\d+\.\d)% \(N=(\d+)\)$", output, re.MULTILINE)
    return float(line[0]), int(line[1])


def table(output: str) -> list[list[str]]:
    """The columns of each evaluation's row."""
    return [line.split() for line in output.splitlines() if re.match(r"^ +\d+ +\d+\.\d% +\d", line)]


def test_the_published_command_line_twice(run: Run, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Dataset_Name")
    first = run("tests.standin", *PUBLISHED)
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    assert final_accuracy(first.stdout)[0] == 100.0
    assert final_accuracy(first.stdout)[1] >= 3
    steps = [int(columns[0]) for columns in table(first.stdout)]
    assert steps == list(range(50, 1001, 50))
    assert re.search(r"^computed +90\b", first.stdout, re.MULTILINE)
    assert (tmp_path / "retrained_labels.txt").read_text() == "cyan\nmagenta\nyellow\n"
    assert (tmp_path / "bottlenecks").is_dir()
    assert (tmp_path / "training_summaries/basic/train").is_dir()
    graph = (tmp_path / "retrained_graph.pb").read_bytes()
    assert b"final_result" in graph

    second = run("tests.standin", *PUBLISHED)
    assert second.returncode == 0, second.stderr
    assert re.search(r"^computed +0$", second.stdout, re.MULTILINE)
    assert re.search(r"^already cached +90$", second.stdout, re.MULTILINE)
    assert table(second.stdout) == table(first.stdout)
    assert (tmp_path / "retrained_graph.pb").read_bytes() == graph
    files = sorted(path.name for path in tmp_path.iterdir())
    outputs = ["bottlenecks", "retrained_graph.pb", "retrained_labels.txt", "training_summaries"]
    assert files == sorted(["Dataset_Name", *outputs])


def test_the_real_architecture_from_photos_to_labels(
    run: Run, tmp_path: Path, model_dir: Path
) -> None:
    make_dataset(tmp_path / "Dataset_Name", per_label=4)
    (tmp_path / "inception").symlink_to(model_dir)
    trained = run(*PUBLISHED, "--weights", "random")
    assert trained.returncode == 0, trained.stderr
    assert "UNTRAINED" in trained.stderr
    assert "Traceback" not in trained.stderr
    assert final_accuracy(trained.stdout)[1] == 3
    assert len(list((tmp_path / "bottlenecks").glob("inception_v3-*/*.h5"))) == 1

    photos = sorted((tmp_path / "Dataset_Name" / "magenta").iterdir())
    labelled = run("label_image", *photos, "--num_top_predictions=1")
    assert labelled.returncode == 0, labelled.stderr
    assert labelled.stderr == ""
    best = re.findall(r"^(\w+) \(score = [01]\.\d{5}\)$", labelled.stdout, re.MULTILINE)
    assert len(best) == 4
    assert best.count("magenta") >= 2  # those it was trained on


def train_flags(dataset: Path, **flags: object) -> list[str]:
    values = {"image_dir": dataset, "bottleneck_dir": "cache", "how_many_training_steps": 20}
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in {**values, **flags}.items()
    ]


def test_dashes_work_as_well(call: Call, dataset: Path, tmp_path: Path) -> None:
    result = call(
        retrain.cli.main,
        *("--image-dir", dataset, "--how-many-training-steps", "20", "--bottleneck-dir=my-cache"),
        *("--eval-step-interval=20", "--output-graph=a-b_c.pb", "--output_labels", "l-l.txt"),
        extractor=StandIn(),
    )
    assert result.returncode == 0, result.stderr
    assert [columns[0] for columns in table(result.stdout)] == ["20"]
    for name in ("my-cache", "a-b_c.pb", "l-l.txt"):
        assert (tmp_path / name).exists()
    assert "--graph a-b_c.pb --labels l-l.txt" in result.stdout  # how to use it


def use_it(trained: Trained, **settings: Any) -> str:
    """The line that says how to use the classifier."""
    text = result_text(dataclasses.replace(trained.config, **settings), trained.result)
    (line,) = [line for line in text.splitlines() if line.startswith("use it  ")]
    return line.removeprefix("use it  ")


@pytest.mark.parametrize(
    "name",
    ["my graph.pb", "it's.pb", "$HOME/`a`;b.pb", 'a"b\\c.pb', "-g.pb", "*.pb", "żółw 日本.pb"],
)
def test_the_line_that_says_how_to_use_it_can_be_copied(trained: Trained, name: str) -> None:
    line = use_it(trained, output_graph=name, output_labels="l.txt", final_tensor_name="a>b")
    words = [word for long in shlex.split(line)[3:] for word in re.split("^(--[a-z]+)=", long)]
    words = [word for word in words if word]
    expected = ["--graph", name, "--labels", "l.txt", "--output_layer", "a>b", "photo.jpg"]
    assert words == expected


@pytest.mark.parametrize("name", ["a\x1b[31m%s b\\n.pb", "a\nb", "\udcff.pb", "\u202ea'b"])
def test_the_line_is_printable_and_still_right_whatever_a_file_is_called(
    trained: Trained, name: str
) -> None:
    line = use_it(trained, output_graph=name, output_labels="l.txt")
    assert line.isprintable()
    script = f"python() {{ printf '%s' \"$4\"; }}; {line}"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert os.fsdecode(shown.stdout) == name


def test_a_tilde_is_the_home_folder_where_the_shell_left_it(
    call: Call, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bash does not replace it in --flag=~/file; model_dir's own default has one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    names = {"bottleneck_dir": "cache", "output_graph": "g.pb", "output_labels": "l.txt"}
    places = {flag: f"~/{name}" for flag, name in names.items()}
    result = call(retrain.cli.main, *train_flags(small_dataset, **places), extractor=StandIn())
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "~").exists()
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == sorted(names.values())


def test_one_row_for_each_evaluation(call: Call, dataset: Path) -> None:
    flags = train_flags(dataset, how_many_training_steps=25, eval_step_interval=10)
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    rows = table(result.stdout)
    assert [columns[0] for columns in rows] == ["10", "20", "25"]
    assert {len(columns) for columns in rows} == {5}  # step, and two figures of two sets
    assert rows[-1][1] == rows[-1][3] == "100.0%"


def test_without_a_test_set(call: Call, dataset: Path, tmp_path: Path) -> None:
    flags = train_flags(dataset, testing_percentage=0)
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert result.returncode == 0
    assert "Final test accuracy" not in result.stdout
    assert "--testing_percentage is 0" in result.stdout
    assert (tmp_path / "retrained_graph.pb").exists()


def test_without_a_validation_set(call: Call, dataset: Path) -> None:
    flags = train_flags(dataset, validation_percentage=0)
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert result.returncode == 0
    assert {len(columns) for columns in table(result.stdout)} == {3}
    assert final_accuracy(result.stdout)[0] == 100.0


def test_misclassified_images_are_listed_when_asked_for(call: Call, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=10)
    for i in range(10):  # cannot be told from yellow: half of both must be wrong
        photo((200, 200, 0), 100 + i).save(dataset / "cyan" / f"cyan_{i:03}.jpg")
    flags = train_flags(dataset, testing_percentage=50)
    result = call(
        retrain.cli.main, *flags, "--print_misclassified_test_images", extractor=StandIn()
    )
    accuracy, n = final_accuracy(result.stdout)
    wrong = round((1 - accuracy / 100) * n)
    listed = re.findall(r"^ *(\S+/(\w+)/\S+\.jpg)  (\w+)$", result.stdout, re.MULTILINE)
    assert "MISCLASSIFIED TEST IMAGES" in result.stdout
    assert len(listed) == wrong > 0
    for path, own, predicted in listed:
        assert Path(path).is_file()
        assert {own, predicted} == {"cyan", "yellow"}

    silent = call(retrain.cli.main, *flags, extractor=StandIn())
    assert "MISCLASSIFIED" not in silent.stdout
    assert final_accuracy(silent.stdout) == (accuracy, n)


# What a run shows beside its accuracy.


@pytest.fixture
def confusing(tmp_path: Path) -> Path:
    """10 images in each of 3 labels, of which cyan cannot be told from yellow."""
    dataset = make_dataset(tmp_path / "Dataset", per_label=10)
    for i in range(10):
        photo((200, 200, 0), 100 + i).save(dataset / "cyan" / f"cyan_{i:03}.jpg")
    return Path("Dataset")


def everything_flags(dataset: Path) -> list[str]:
    return train_flags(
        dataset,
        testing_percentage=40,
        validation_percentage=20,
        how_many_training_steps=200,
        patience=40,
        tune=True,
        calibrate=True,
        data_health=True,
        print_misclassified_test_images=True,
    )


FIGURE = r"^{name} +(\d+\.\d%?)  +(\d+\.\d+%?) to (\d+\.\d+%?) +(\d+)$"


def figure(output: str, name: str) -> tuple[float, float, float, int]:
    """(value, low, high, images) of a row of the test's table; shares in percent."""
    pattern = FIGURE.format(name=name).replace(r"\d%?)", r"\d+%?)")
    (row,) = re.findall(pattern, output, re.MULTILINE)
    value, low, high = (float(column.rstrip("%")) for column in row[:3])
    return value, low, high, int(row[3])


def test_figures_come_with_their_intervals(call: Call, confusing: Path) -> None:
    result = call(
        retrain.cli.main, *train_flags(confusing, testing_percentage=50), extractor=StandIn()
    )
    assert result.returncode == 0, result.stderr
    percent, n = final_accuracy(result.stdout)
    value, low, high, images = figure(result.stdout, "accuracy")
    assert (value, images) == (percent, n)
    assert 0 < low < value < high < 100
    for name in ("mean label accuracy", "cross-entropy", "calibration error"):
        value, low, high, images = figure(result.stdout, name)
        assert low <= value <= high
        assert images == n
    assert "top-5" not in result.stdout  # of 3 labels each is among 5


def test_the_columns_of_the_figures_are_straight(call: Call, dataset: Path) -> None:
    """Also where every test image is right."""
    result = call(retrain.cli.main, *train_flags(dataset), extractor=StandIn())
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if "95 % interval" in line)
    rows = lines[start : lines.index("", start)]
    assert len(rows) == 5
    assert len(set(map(len, rows))) == 1, rows
    assert " 100.0% " in rows[2]


def test_the_top_5_is_shown_where_there_are_more_labels(call: Call, tmp_path: Path) -> None:
    make_dataset(tmp_path / "Dataset", per_label=4)
    for label, colour in enumerate([(9, 9, 9), (90, 0, 0), (250, 250, 250)]):
        (tmp_path / "Dataset" / f"more {label}").mkdir()
        for i in range(4):
            photo(colour, i).save(tmp_path / "Dataset" / f"more {label}" / f"{i}.jpg")
    result = call(retrain.cli.main, *train_flags(Path("Dataset")), extractor=StandIn())
    value, low, high, n = figure(result.stdout, "top-5 accuracy")
    assert low < value == high == 100
    assert n == 6


def test_the_most_confused_labels_are_named(call: Call, confusing: Path) -> None:
    flags = train_flags(confusing, testing_percentage=50)
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    percent, n = final_accuracy(result.stdout)
    found = re.findall(r"^(\w+) taken for (\w+) +(\d+)$", result.stdout, re.MULTILINE)
    assert "\nmost confused\n" in result.stdout
    assert found
    for own, predicted, _ in found:
        assert {own, predicted} == {"cyan", "yellow"}
    assert sum(int(count) for *_, count in found) == round((1 - percent / 100) * n)


def test_the_terminal_shows_the_validation_batch_and_says_so(call: Call, confusing: Path) -> None:
    """Three images are right by thirds; of the whole set half are."""
    flags = train_flags(confusing, validation_percentage=40, eval_step_interval=1)
    found = {}
    for size in (3, 100):
        result = call(
            retrain.cli.main, *flags, "--validation_batch_size", str(size), extractor=StandIn()
        )
        assert result.returncode == 0, result.stderr
        (found[size],) = re.findall(r"^ +training batch +(.+)$", result.stdout, re.MULTILINE)
        shares = re.findall(
            r"^ *\d+ +[\d.]+% +[\d.]+ +([\d.]+)% +[\d.]+$", result.stdout, re.MULTILINE
        )
        assert len(shares) > 3
        assert (set(shares) <= {"0.0", "33.3", "66.7", "100.0"}) == (size == 3)
    assert found == {3: "validation batch", 100: "validation"}


def test_nothing_is_confused_when_all_are_right(call: Call, dataset: Path) -> None:
    result = call(retrain.cli.main, *train_flags(dataset), extractor=StandIn())
    assert final_accuracy(result.stdout)[0] == 100
    assert "confused" not in result.stdout
    assert "taken for" not in result.stdout


def test_what_was_kept_tuned_and_calibrated_is_shown(call: Call, confusing: Path) -> None:
    result = call(retrain.cli.main, *everything_flags(confusing), extractor=StandIn())
    assert result.returncode == 0, result.stderr
    out = result.stdout
    trials = re.findall(r"^ +([\d.]+) +(\d+\.\d{4})(   taken)?$", out, re.MULTILINE)
    assert float(trials[8][0]) == pytest.approx(usual_l2(3, 14), rel=0.01)
    assert len(trials) == 17
    (taken,) = [loss for _, loss, mark in trials if mark]
    assert float(taken) <= 1.1 * min(float(loss) for _, loss, _ in trials)
    (stopped,) = re.findall(
        r"^Stopped: (\d+) steps have not lowered the validation loss\.$", out, re.MULTILINE
    )
    losses = {int(columns[0]): float(columns[4]) for columns in table(out)}
    last = max(losses)
    assert int(stopped) == 40 and last < 200
    assert min(losses, key=losses.__getitem__) == last - 40
    (temperature,) = re.findall(r"^Calibrated: logits divided by (\S+)\.$", out, re.MULTILINE)
    assert 0.05 <= float(temperature) <= 20


def test_what_is_of_a_sample_is_said_to_be(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "Dataset", per_label=30)
    for i in range(30):  # cannot be told from yellow
        photo((200, 200, 0), 100 + i).save(dataset / "cyan" / f"cyan_{i:03}.jpg")
    monkeypatch.setattr(fitting, "MAX_VALIDATION", 5)
    monkeypatch.setattr(console, "MAX_VALIDATION", 5)
    monkeypatch.setattr(fitting, "MAX_CALIBRATION", 6)
    monkeypatch.setattr(regularisation, "QUICK_CELLS", 3 * 16**2)
    monkeypatch.setattr(near, "MOST_PAIRS", 7 * 90)
    monkeypatch.setattr(results, "MOST_LISTED", 2)
    shares = {"testing_percentage": 40, "validation_percentage": 20, "test_batch_size": 25}
    flags = train_flags(dataset, calibrate=True, report_dir="report", **shares)
    flags.append("--print_misclassified_test_images")
    out = call(retrain.cli.main, *flags, extractor=StandIn()).stdout
    sizes = re.search(
        r"^Training on (\d+) .* on 5 of (\d+), testing on (\d+)\.$", out, re.MULTILINE
    )
    assert sizes is not None
    training, validation, testing = map(int, sizes.groups())
    for line in (
        rf"^Calibrated: logits divided by \S+, by 6 of {validation} validation images\.$",
        rf"^ +near leaks of 7 of {validation + testing} held-out images$",
        r"^\.\.\. and \d+ more, given with less confidence$",
    ):
        assert re.search(line, out, re.MULTILINE), (line, out)
    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert written["samples"] == {
        "regularisation": {"drawn": 16, "available": training},
        "validation": {"drawn": 5, "available": validation},
        "calibration": {"drawn": 6, "available": validation},
        "test": {"drawn": 25, "available": testing},
        "near leaks": {"drawn": 7, "available": validation + testing},
    }
    assert len(written["test"]["misclassified"]) == 2 < written["test"]["wrong"]


def test_what_was_not_done_is_not_shown(call: Call, dataset: Path) -> None:
    flags = train_flags(dataset, eval_step_interval=20)
    out = call(retrain.cli.main, *flags, extractor=StandIn()).stdout
    for word in ("Kept", "Stopped", "Calibrated", "taken", "data health", "Left out"):
        assert word not in out


def test_classic_runs(call: Call, dataset: Path, tmp_path: Path) -> None:
    flags = train_flags(dataset, recipe="classic", class_balance="sampling", calibrate=True)
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert result.returncode == 0, result.stderr
    assert final_accuracy(result.stdout)[0] > 80
    assert "Kept" not in result.stdout
    assert "Calibrated" in result.stdout
    assert (tmp_path / "retrained_graph.pb").exists()


def test_data_health_is_counted_and_listed(call: Call, dataset: Path, tmp_path: Path) -> None:
    (dataset / "cyan" / "again.jpg").write_bytes((dataset / "cyan" / "cyan_000.jpg").read_bytes())
    (dataset / "yellow" / "c.jpg").write_bytes((dataset / "cyan" / "cyan_001.jpg").read_bytes())
    result = call(retrain.cli.main, *train_flags(dataset, data_health=True), extractor=StandIn())
    assert result.returncode == 0, result.stderr
    counts = {
        kind: int(count)
        for count, kind in re.findall(r"^ +(\d+)  ([a-z ?]+): ", result.stdout, re.MULTILINE)
    }
    assert counts["label conflict"] == 1
    assert counts.get("duplicate", 0) + counts.get("leak", 0) == 1
    assert "  listed in data_health.csv\n" in result.stdout
    rows = (tmp_path / "data_health.csv").read_text().splitlines()[1:]
    kinds = [row.split(",")[0] for row in rows]
    assert counts == {kind: kinds.count(kind) for kind in set(kinds)}


def test_left_out_copies_are_told_of(call: Call, dataset: Path) -> None:
    for path in list(dataset.rglob("*.jpg")):
        (dataset / "magenta" / f"copy of {path.name}").write_bytes(path.read_bytes())
    result = call(retrain.cli.main, *train_flags(dataset), extractor=StandIn())
    assert result.returncode == 0, result.stderr
    (count,) = re.findall(
        r"^Left out: (\d+) copies of images in another set\.$",
        result.stdout,
        re.MULTILINE,
    )
    sizes = re.search(r"^Training on (\d+) images, validating on (\d+), testing on (\d+)\.$",
                      result.stdout, re.MULTILINE)  # fmt: skip
    assert sizes is not None
    assert int(count) > 5
    assert sum(map(int, sizes.groups())) + int(count) == 180


def test_each_line_fits_80_columns(call: Call, confusing: Path) -> None:
    """With all that a run can show, and the numbers of a long one."""
    result = call(
        retrain.cli.main, *everything_flags(confusing), "--report_dir=report", extractor=StandIn()
    )
    assert result.returncode == 0, result.stderr
    for word in ("MISCLASSIFIED", "taken for", "Calibrated", "data health", "report.html"):
        assert word in result.stdout
    lines = result.stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_step_before_the_last_that_was_kept_is_named(trained: Trained) -> None:
    assert "Kept" not in result_text(trained.config, trained.result)
    fitted = dataclasses.replace(trained.result.fitted, step=123_456)
    result = dataclasses.replace(trained.result, fitted=dataclasses.replace(fitted, steps=200_000))
    text = result_text(trained.config, result)
    (line,) = [line for line in text.splitlines() if line.startswith("Kept")]
    assert "step 123456" in line and "validation" in line
    assert len(line) <= 80


def test_an_unreadable_image_is_skipped_and_reported(
    call: Call, dataset: Path, tmp_path: Path
) -> None:
    bad = dataset / "cyan" / "cyan_007.jpg"
    bad.write_bytes(b"<html>not found</html>")
    result = call(retrain.cli.main, *train_flags(dataset), extractor=StandIn())
    assert result.returncode == 0
    assert re.search(r"^bad +1$", result.stdout, re.MULTILINE)
    assert str(bad) in result.stdout
    assert "HTML" in result.stdout
    assert "89 images of 3 labels" in result.stdout
    assert (tmp_path / "retrained_graph.pb").exists()


def test_few_images_are_warned_of(call: Call, small_dataset: Path) -> None:
    result = call(retrain.cli.main, *train_flags(small_dataset), extractor=StandIn())
    assert result.returncode == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "3 labels" in warnings[0] and "'cyan' has 4" in warnings[0]


def test_strict_stops_at_an_unreadable_image(call: Call, dataset: Path, tmp_path: Path) -> None:
    (dataset / "cyan" / "cyan_007.jpg").write_bytes(b"")
    flags = train_flags(dataset)
    result = call(retrain.cli.main, *flags, "--strict", extractor=StandIn())
    assert_one_error_line(result, "cyan_007.jpg", "--strict")
    assert not (tmp_path / "retrained_graph.pb").exists()


def test_label_image_is_shown_the_other_output_name(call: Call, dataset: Path) -> None:
    flags = train_flags(dataset, final_tensor_name="scores")
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert "--output_layer scores" in result.stdout


# What is wrong with a data set or a command line: (how to break it, flags, what the error names).
def _no_folder(dataset: Path) -> None:
    dataset.rename(dataset.with_name("elsewhere"))


def _empty_folder(dataset: Path) -> None:
    _no_folder(dataset)
    dataset.mkdir()


def _one_label(dataset: Path) -> None:
    for label in ("magenta", "yellow"):
        (dataset / label).rename(dataset.with_name(label))


def _label_with_one_image(dataset: Path) -> None:
    for i in (1, 2, 3):
        (dataset / "magenta" / f"magenta_{i:03}.jpg").unlink()


def _file(dataset: Path) -> None:
    _no_folder(dataset)
    dataset.write_bytes(b"no folder")


def _images_directly_in_it(dataset: Path) -> None:
    _empty_folder(dataset)
    photo((1, 2, 3), 0).save(dataset / "a.jpg")


def _nothing(dataset: Path) -> None:
    (dataset.parent / "file").write_bytes(b"in the way")
    (dataset.parent / "weights.h5").write_text("some text, long enough for a header")


BAD_INPUTS: dict[str, tuple[Callable[[Path], object], dict[str, object], list[str]]] = {
    "no folder": (_no_folder, {}, ["Dataset", "does not exist"]),
    "empty folder": (_empty_folder, {}, ["no images"]),
    "one label": (_one_label, {}, ["'cyan'", "two"]),
    "one image": (_label_with_one_image, {}, ["'magenta'", "1 "]),
    "a file": (_file, {}, ["is a file"]),
    "images directly in it": (_images_directly_in_it, {}, ["sub-folders"]),
    "percentages": (
        _nothing,
        {"testing_percentage": 50, "validation_percentage": 50},
        ["--testing_percentage", "--validation_percentage"],
    ),
    "negative steps": (
        _nothing,
        {"how_many_training_steps": -5},
        ["--how_many_training_steps", "-5"],
    ),
    "steps in words": (
        _nothing,
        {"how_many_training_steps": "many"},
        ["--how_many_training_steps", "many"],
    ),
    "recipe": (_nothing, {"recipe": "nope"}, ["--recipe", "nope", "adam", "classic"]),
    "class balance": (
        _nothing,
        {"class_balance": "nope"},
        ["--class_balance", "nope", "none", "weights", "sampling"],
    ),
    "patience": (_nothing, {"patience": -1}, ["--patience", "at least 0", "-1"]),
    "patience in words": (_nothing, {"patience": "much"}, ["--patience", "much"]),
    "calibrating on nothing": (
        _nothing,
        {"calibrate": True, "validation_percentage": 0},
        ["--calibrate", "--validation_percentage"],
    ),
    "patience with nothing": (
        _nothing,
        {"patience": 10, "validation_percentage": 0},
        ["--patience", "--validation_percentage"],
    ),
    "classic and tune": (_nothing, {"recipe": "classic", "tune": True}, ["--tune", "classic"]),
    "classic and patience": (
        _nothing,
        {"recipe": "classic", "patience": 10},
        ["--patience", "classic"],
    ),
    "classic and weights": (
        _nothing,
        {"recipe": "classic", "class_balance": "weights"},
        ["--class_balance", "classic", "weights"],
    ),
    "one fold": (_nothing, {"data_health_folds": 1}, ["--data_health_folds", "at least 2", "1"]),
    "fewer images than folds": (
        _nothing,
        {"data_health": True, "data_health_folds": 5},
        ["'cyan'", "4 images", "5 parts", "--data_health_folds"],
    ),
    "fewer images than folds of a report": (
        _nothing,
        {"report_dir": "report", "data_health_folds": 5},
        ["'cyan'", "4 images", "--data_health_folds"],
    ),
    "report among the photos": (
        _nothing,
        {"report_dir": "Dataset/cyan"},
        ["--report_dir", "inside --image_dir"],
    ),
    "report in a file": (
        _nothing,
        {"report_dir": "file", "data_health_folds": 2},
        ["--report_dir", "is a file"],
    ),
    "report below a file": (
        _nothing,
        {"report_dir": "file/report", "data_health_folds": 2},
        ["--report_dir", "is a file"],
    ),
    "summaries below a file": (
        _nothing,
        {"summaries_dir": "file/summaries"},
        ["--summaries_dir", "is a file"],
    ),
    "graph in the way of the report": (
        _nothing,
        {"output_graph": "out", "report_dir": "out/report", "data_health_folds": 2},
        ["--output_graph", "--report_dir"],
    ),
    "nan": (_nothing, {"learning_rate": "nan"}, ["--learning_rate", "nan"]),
    "architecture": (
        _nothing,
        {"architecture": "mobilenet_1.0_224"},
        ["--architecture", "inception_v3", "mobilenet_1.0_224"],
    ),
    "saved model in a file": (_nothing, {"saved_model_dir": "file"}, ["--saved_model_dir"]),
    "saved model among photos": (
        _nothing,
        {"saved_model_dir": "Dataset"},
        ["--saved_model_dir", "not empty"],
    ),
    "graph in the way of the saved model": (
        _nothing,
        {"output_graph": "saved", "saved_model_dir": "saved"},
        ["--output_graph", "--saved_model_dir"],
    ),
    "intermediate graphs in a file": (
        _nothing,
        {"intermediate_output_graphs_dir": "file", "intermediate_store_frequency": 1},
        ["--intermediate_output_graphs_dir", "is a file"],
    ),
    "unknown flag": (_nothing, {"how_many_trainin_steps": 5}, ["--how_many_training_steps?"]),
    "graph below a file": (_nothing, {"output_graph": "file/graph.pb"}, ["--output_graph"]),
    "graph is a folder": (_nothing, {"output_graph": "Dataset"}, ["--output_graph", "folder"]),
    "labels below a file": (_nothing, {"output_labels": "file/labels"}, ["--output_labels"]),
    "summaries in a file": (_nothing, {"summaries_dir": "file"}, ["--summaries_dir"]),
    "cache in a file": (_nothing, {"bottleneck_dir": "file"}, ["--bottleneck_dir"]),
    "models in a file": (_nothing, {"model_dir": "file"}, ["--model_dir"]),
    "no weights": (_nothing, {"weights": "missing.h5"}, ["missing.h5", "--weights"]),
    "weights are text": (_nothing, {"weights": "weights.h5"}, ["weights.h5", "not HDF5"]),
    "weights are a folder": (_nothing, {"weights": "Dataset"}, ["--weights"]),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_a_bad_input_is_one_error_line_and_makes_nothing(
    case: str, call: Call, small_dataset: Path, tmp_path: Path
) -> None:
    damage, flags, mentions = BAD_INPUTS[case]
    damage(small_dataset)
    before = sorted(tmp_path.rglob("*"))
    # Without a stand-in: it must not even come to loading the network.
    flags = {"model_dir": "models", **flags}
    result = call(retrain.cli.main, *train_flags(Path("Dataset"), **flags))
    assert_one_error_line(result, *mentions)
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_of_the_real_command(run: Run, tmp_path: Path) -> None:
    result = run("retrain", "--image_dir", "missing")
    assert_one_error_line(result, "missing", "does not exist")
    assert list(tmp_path.iterdir()) == []
    assert_one_error_line(run("retrain"), "--image_dir")


def test_stage_one_s_cache_is_stage_two_s(call: Call, dataset: Path) -> None:
    flags = [f"--image_dir={dataset}", "--bottleneck_dir=cache"]
    assert call(bottlenecks.cli.main, *flags, extractor=StandIn()).returncode == 0
    extractor = StandIn()
    result = call(retrain.cli.main, *train_flags(dataset), extractor=extractor)
    assert result.returncode == 0
    assert extractor.batches == []


def test_help_is_quick() -> None:
    """It imports neither TensorFlow nor h5py, and shows each flag."""
    code = (
        "import sys, retrain.cli\n"
        "try: retrain.cli.main(['--help'])\n"
        "except SystemExit as stop: code = stop.code\n"
        "print('loaded', code, sorted({'tensorflow', 'h5py', 'keras', 'sklearn'} & set("
        "sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("loaded 0 []\n"), result.stdout + result.stderr
    for argument in PUBLISHED[1:]:
        assert argument.split("=")[0] in result.stdout


# What a run would do, and the versions.


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    call: Call, dataset: Path, tmp_path: Path
) -> None:
    before = files_below(tmp_path)
    flags = ["--image_dir", dataset, "--how_many_training_steps", "50", "--model_dir", "models"]
    result = call(retrain.cli.main, *flags, "--dry_run", extractor=StandIn())
    assert (result.returncode, result.stderr) == (0, "")
    assert files_below(tmp_path) == before
    out = result.stdout
    assert "90 images of 3 labels:" in out and re.search(r"^  cyan +30$", out, re.MULTILINE)
    assert "90 bottlenecks are missing and take about" in out
    assert "50 training steps, then retrained_graph.pb and retrained_labels.txt." in out
    sets = re.search(r"Would train on (\d+), validate on (\d+) and test on (\d+) of them", out)
    assert sets is not None
    real = call(retrain.cli.main, *flags, extractor=StandIn())
    of = "Training on {} images, validating on {}, testing on {}."
    assert of.format(*sets.groups()) in real.stdout
    before = files_below(tmp_path)
    (dataset / "cyan" / "new.jpg").write_bytes((dataset / "cyan" / "cyan_000.jpg").read_bytes())
    photo((0, 200, 0), 999).save(dataset / "cyan" / "newer.jpg")
    again = call(retrain.cli.main, *flags, "--dry_run", extractor=StandIn())
    assert "1 bottlenecks are missing" in again.stdout  # the other one is a copy
    assert set(files_below(tmp_path)) - set(before) == {
        dataset / "cyan" / "new.jpg",
        dataset / "cyan" / "newer.jpg",
    }


def test_a_dry_run_counts_what_distortions_and_fine_tuning_add(
    call: Call, small_dataset: Path, tmp_path: Path
) -> None:
    flags = ["--image_dir", small_dataset, "--model_dir", "models", "--random_crop=9"]
    flags += ["--fine_tune_from", "mixed7", "--distortions_per_image", "3"]
    before = files_below(tmp_path)
    result = call(retrain.cli.main, *flags, "--dry_run", extractor=Tiny())
    assert result.returncode == 0
    assert files_below(tmp_path) == before
    found = re.search(r"Would train on (\d+)", result.stdout)
    assert found is not None
    variants = 3 * int(found[1])
    lines = result.stdout.splitlines()
    for beginning in (
        "12 bottlenecks are missing and take about ",
        f"{variants} bottlenecks of variants, ",
        f"{12 + variants} rows of mixed7, ",
        "4000 training steps, 8 epochs of fine-tuning behind mixed7 (how long they take is ",
    ):
        assert sum(line.startswith(beginning) for line in lines) == 1, result.stdout


@pytest.mark.parametrize("flags", [["--dry_run"], ["--how_many_training_steps", "5"]])
def test_no_room_for_variants_is_one_error_line(
    call: Call, small_dataset: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    own = ["--image_dir", small_dataset, "--model_dir", "models", "--random_crop=9", *flags]
    result = call(retrain.cli.main, *own, extractor=Tiny())
    assert_one_error_line(result, "rows of bottleneck", "MB free", "--distortions_per_image")


def test_a_dry_run_downloads_no_weights(call: Call, dataset: Path, tmp_path: Path) -> None:
    result = call(retrain.cli.main, "--image_dir", dataset, "--model_dir", "models", "--dry_run")
    assert result.returncode == 0
    assert "the ImageNet weights would be downloaded first" in result.stdout
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("flags", [["--output_graph", "Dataset"], ["--group_by", "nothing"]])
def test_a_dry_run_finds_what_a_run_would_refuse(
    call: Call, dataset: Path, flags: list[str]
) -> None:
    result = call(retrain.cli.main, "--image_dir", dataset, *flags, "--dry_run")
    assert_one_error_line(result, flags[0])


@pytest.mark.parametrize("command", ["retrain", "bottlenecks", "label_image"])
def test_the_versions_without_importing_what_they_are_of(command: str) -> None:
    code = (
        f"import sys, {command}.cli as cli\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit as stop: print(stop.code)\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules, 'numpy' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    version, code_, imported = result.stdout.splitlines()
    expected = rf"retrain {re.escape(retrain.__version__)} \(TensorFlow \d+\.\S+, Keras \d+\.\S+, "
    assert re.match(expected, version)
    assert (code_, imported) == ("0", "False False False")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *[(name, "how_many_training_steps") for name in ("steps", "epochs", "training_steps")],
        ("lr", "learning_rate"),
        ("data_dir", "image_dir"),
        ("val_dir", "validation_dir"),
        ("output", "output_graph"),
        ("how_many_training_step", "how_many_training_steps"),
        ("tunee", "tune"),
        ("bfloat16", "precision bfloat16"),
        ("classic", "recipe classic"),
    ],
)
def test_an_unknown_flag_is_answered_with_what_was_meant(
    call: Call, given: str, meant: str
) -> None:
    result = call(retrain.cli.main, "--image_dir", "Dataset", f"--{given}", "3")
    assert_one_error_line(result, f"unknown argument --{given}", f"did you mean --{meant}?")


def test_the_help_reads_in_groups_the_few_that_most_people_need_first(
    call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        retrain.cli.main(["--help"])
    text = capsys.readouterr().out
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles[:2] == ["options", "what most people need"]
    assert len(titles) == len(set(titles)) >= 8
    first = text.split("what most people need:")[1].split("\n\n")[0]
    flags = re.findall(r"^  (--\w+)", first, re.MULTILINE)
    assert flags[0] == "--image_dir" and "--how_many_training_steps" in flags
    assert len(flags) <= 8
    assert max(map(len, text.splitlines())) <= 80


def test_a_ready_made_split_from_its_folders_to_the_graph(
    call: Call, dataset: Path, tmp_path: Path
) -> None:
    for label in ("cyan", "magenta", "yellow"):
        held_out = tmp_path / "Split" / "validation" / label
        held_out.mkdir(parents=True)
        for path in sorted((dataset / label).iterdir())[:6]:
            path.rename(held_out / path.name)
    dataset.rename(tmp_path / "Split" / "train")
    flags = ["--how_many_training_steps", "60", "--report_dir", "report"]
    result = call(retrain.cli.main, "--image_dir", "Split", *flags, extractor=StandIn())
    assert result.returncode == 0, result.stderr
    assert (
        "split           training train, validation validation, testing split off" in result.stdout
    )
    assert "validating on 18," in result.stdout
    assert (tmp_path / "retrained_labels.txt").read_text() == "cyan\nmagenta\nyellow\n"
    assert (tmp_path / "report" / "report.html").exists()
    # The same, named: where the training images and their test fall does not hang on it.
    named = ["--image_dir", "Split/train", "--validation_dir", "Split/validation"]
    again = call(retrain.cli.main, *named, *flags, extractor=StandIn())
    assert again.returncode == 0, again.stderr
    assert "Nothing to compute" in again.stdout
    sets = re.findall(r"^Training on .*$", result.stdout + again.stdout, re.MULTILINE)
    assert len(sets) == 2 and sets[0] == sets[1]
    assert table(again.stdout) == table(result.stdout)
