"""python -m label_image: what a user types and sees."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from label_image import cli
from label_image.cli import main
from retrain.export.frozen_graph import write_pair
from retrain.export.graph import graph_bytes
from retrain.training.head import Head
from tests.conftest import COLOURS, Call, Trained, assert_one_error_line, photo
from tests.standin import StandIn

LINE = re.compile(r"^(\w+) \(score = ([01]\.\d{5})\)$")


@pytest.fixture
def files(trained: Trained) -> list[str]:
    return [f"--graph={trained.graph}", f"--labels={trained.labels}"]


def test_one_photo(call: Call, files: list[str], photos: list[Path]) -> None:
    result = call(main, photos[1], *files)
    assert (result.returncode, result.stderr) == (0, "")
    matches = [LINE.match(line) for line in result.stdout.splitlines()]
    found = [(match[1], float(match[2])) for match in matches if match]
    assert len(found) == len(matches) == 3
    assert found[0][0] == "magenta"
    assert found == sorted(found, key=lambda guess: -guess[1])
    assert sum(score for _, score in found) == pytest.approx(1, abs=2e-5)


def test_image_is_the_same_as_a_photo(call: Call, files: list[str], photos: list[Path]) -> None:
    by_flag = call(main, "--image", photos[1], *files)
    assert by_flag.returncode == 0
    assert by_flag.stdout == call(main, photos[1], *files).stdout


def test_a_missing_photo_does_not_keep_the_others_from_being_labelled(
    call: Call, files: list[str], photos: list[Path]
) -> None:
    result = call(main, photos[0], "missing.jpg", photos[1], *files, "--num_top_predictions=1")
    assert result.returncode == 2
    assert [line for line in result.stdout.splitlines() if LINE.match(line)][1:] != []
    assert result.stderr.startswith("error: missing.jpg: ")
    assert len(result.stderr.splitlines()) == 1


def matched(line: str) -> re.Match[str]:
    found = LINE.match(line)
    assert found is not None, line
    return found


def test_several_photos_are_named(call: Call, files: list[str], photos: list[Path]) -> None:
    result = call(main, *photos, *files, "--num_top_predictions", "1")
    lines = result.stdout.splitlines()
    assert lines[::3] == list(map(str, photos))
    assert [matched(line)[1] for line in lines[1::3]] == list(COLOURS)
    assert lines[2::3] == [""] * 2  # between them


def test_a_folder_stands_for_its_photos(call: Call, files: list[str], photos: list[Path]) -> None:
    (photos[0].parent / "notes.txt").write_text("no photo")
    of_folder = call(main, photos[0].parent, *files)
    assert of_folder.returncode == 0
    assert of_folder.stdout == call(main, *photos, *files).stdout


@pytest.mark.parametrize(("top", "lines"), [(1, 1), (2, 2), (5, 3)])
def test_num_top_predictions(
    call: Call, files: list[str], photos: list[Path], top: int, lines: int
) -> None:
    result = call(main, photos[0], *files, f"--num_top_predictions={top}")
    assert len(result.stdout.splitlines()) == lines


def test_json(call: Call, files: list[str], photos: list[Path]) -> None:
    result = call(main, *photos, *files, "--format=json", "--num-top-predictions=2")
    found = json.loads(result.stdout)
    assert [entry["image"] for entry in found] == list(map(str, photos))
    assert [entry["labels"][0]["label"] for entry in found] == list(COLOURS)
    for entry in found:
        scores = [guess["score"] for guess in entry["labels"]]
        assert 1 >= scores[0] >= scores[1] >= 0
        assert len(scores) == 2


def test_csv(call: Call, files: list[str], photos: list[Path]) -> None:
    awkward = photos[0].with_name('one, "two".jpg')
    photos[0].rename(awkward)
    result = call(main, awkward, photos[1], *files, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert {row["image"] for row in rows} == {str(awkward), str(photos[1])}
    assert [row["label"] for row in rows if row["rank"] == "1"] == ["cyan", "magenta"]
    assert sum(float(row["score"]) for row in rows) == pytest.approx(2, abs=1e-5)


def test_a_bad_photo_among_good_ones(call: Call, files: list[str], photos: list[Path]) -> None:
    photos[1].write_bytes(b"no photo")
    result = call(main, *photos, *files)
    assert_one_error_line(result, "magenta.jpg", "is no JPEG")
    named = [line for line in result.stdout.splitlines() if line.endswith(".jpg")]
    assert named == [str(photos[0]), str(photos[2])]
    assert result.stdout.count("(score = ") == 6


def test_a_bad_photo_in_json_and_csv(call: Call, files: list[str], photos: list[Path]) -> None:
    photos[1].write_bytes(b"")
    result = call(main, *photos, *files, "--format=json")
    assert_one_error_line(result, "magenta.jpg", "empty")
    good, bad, _ = json.loads(result.stdout)
    assert (set(good), set(bad)) == ({"image", "labels"}, {"image", "error"})
    assert "empty" in bad["error"]
    as_csv = call(main, *photos, *files, "--format=csv")
    assert as_csv.returncode == 2
    assert len(as_csv.stdout.splitlines()) == 1 + 6


def test_a_name_that_would_break_the_line(call: Call, files: list[str], photos: list[Path]) -> None:
    odd = photos[0].with_name("a\nb.jpg")
    photos[0].rename(odd)
    result = call(main, odd, photos[1], *files)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == str(photos[0].with_name(r"a\nb.jpg"))


@pytest.mark.parametrize("kind", ["text", "csv", "json"])
def test_labels_cannot_command_the_terminal(
    call: Call, tmp_path: Path, photos: list[Path], kind: str
) -> None:
    labels = ["cyan\x1b[2J\x9b31m", "magenta\u202e\x7f", "żółty"]
    head = Head(np.zeros((2048, 3), np.float32), np.zeros(3, np.float32))
    write_pair(
        tmp_path / "graph.pb",
        graph_bytes(StandIn().frozen, head, labels),
        tmp_path / "labels.txt",
        labels,
    )
    files = ["--graph=graph.pb", "--labels=labels.txt", f"--format={kind}"]
    result = call(main, photos[0], *files)
    assert result.returncode == 0
    assert all(c.isprintable() or c == "\n" for c in result.stdout)
    if kind == "json":
        (found,) = json.loads(result.stdout)
        assert [guess["label"] for guess in found["labels"]] == labels  # lossless
    else:
        assert r"cyan\x1b[2J\x9b31m" in result.stdout
        assert r"magenta\u202e\x7f" in result.stdout
    assert "żółty" in result.stdout
    (tmp_path / "labels.txt").write_text("\x1b[2J\na\nb\n")
    assert_one_error_line(call(main, photos[0], *files), r"line 1 is '\x1b[2J'")


def test_input_and_output_layer(call: Call, files: list[str], photos: list[Path]) -> None:
    usual = call(main, photos[0], *files)
    for flags in (
        ["--input_layer=Placeholder", "--output_layer=final_result"],
        ["--input_layer=Placeholder", "--input_mean=0", "--input_std=255"],
        ["--input_layer=Mul:0", "--input_mean=127.5", "--input_std=127.5"],
        ["--input_height=299", "--input_width=299"],
    ):
        result = call(main, photos[0], *files, *flags)
        assert result.returncode == 0, result.stderr
        assert result.stdout.split()[0] == usual.stdout.split()[0] == "cyan"
        found = [float(matched(line)[2]) for line in result.stdout.splitlines()]
        expected = [float(matched(line)[2]) for line in usual.stdout.splitlines()]
        assert found == pytest.approx(expected, abs=2e-5)


BAD_FLAGS = {
    "no such photo": (["missing.jpg"], ["missing.jpg", "no photo or folder"]),
    "no photo": ([], ["photo"]),
    "empty folder": (["empty"], ["empty", "no images"]),
    "no graph": (["p.jpg", "--graph=missing.pb"], ["missing.pb", "does not exist"]),
    "graph is text": (["p.jpg", "--graph=labels.txt"], ["labels.txt", "--graph"]),
    "graph is a folder": (["p.jpg", "--graph=empty"], ["empty", "--graph"]),
    "no labels": (["p.jpg", "--labels=missing.txt"], ["missing.txt", "--labels"]),
    "labels of another graph": (["p.jpg", "--labels=labels.txt"], ["has 2 labels, the graph 3"]),
    "input layer": (["p.jpg", "--input_layer=nope"], ["nope", "Placeholder", "--input_layer"]),
    "input is no image": (["p.jpg", "--input_layer=final_result"], ["--input_layer"]),
    "input is bytes": (["p.jpg", "--input_layer=DecodeJpeg/contents"], ["--input_layer"]),
    "output layer": (["p.jpg", "--output_layer=nope"], ["nope", "final_result", "--output_layer"]),
    "output before input": (["p.jpg", "--output_layer=Placeholder"], ["--output_layer"]),
    "output is pixels": (
        ["p.jpg", "--input_layer=Placeholder", "--output_layer=Mul"],
        ["scores for 3 labels"],
    ),
    "size": (["p.jpg", "--input_height=224"], ["299", "--input_height"]),
    "negative size": (["p.jpg", "--input_width=-1"], ["--input_width", "-1"]),
    "huge size": (["p.jpg", "--input_width=100000"], ["--input_width"]),
    "no predictions": (["p.jpg", "--num_top_predictions=0"], ["--num_top_predictions"]),
    "deviation nan": (["p.jpg", "--input_std=nan"], ["--input_std"]),
    "mean inf": (["p.jpg", "--input_mean=inf"], ["--input_mean"]),
    "format": (["p.jpg", "--format=xml"], ["--format", "xml"]),
    "unknown flag": (["p.jpg", "--num_top_prediction=3"], ["--num_top_predictions?"]),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_a_bad_input_is_one_error_line(
    case: str, call: Call, files: list[str], tmp_path: Path
) -> None:
    arguments, mentions = BAD_FLAGS[case]
    photo(COLOURS["cyan"], 0).save(tmp_path / "p.jpg")
    (tmp_path / "labels.txt").write_text("cyan\nmagenta\n")
    (tmp_path / "empty").mkdir()
    result = call(main, *files, *arguments)
    assert_one_error_line(result, *mentions)
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_help_is_quick() -> None:
    """It imports neither TensorFlow nor h5py."""
    code = (
        "import sys, label_image.cli\n"
        "try: label_image.cli.main(['--help'])\n"
        "except SystemExit as stop: code = stop.code\n"
        "print('loaded', code, sorted({'tensorflow', 'h5py', 'keras', 'sklearn'} & set("
        "sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("loaded 0 []\n"), result.stdout + result.stderr
    for flag in ("--image", "--graph", "--labels", "--num_top_predictions", "--format"):
        assert flag in result.stdout


def test_a_usage_error_needs_no_tensorflow() -> None:
    code = (
        "import sys, label_image.cli\n"
        "code = label_image.cli.main(['missing.jpg'])\n"
        "print(code, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "2 False\n"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *[(name, f"format {name}") for name in ("json", "csv", "text")],
        *[(name, "format") for name in ("output_format", "as_json", "output", "out", "formats")],
        *[(name, "image") for name in ("input", "images", "image-dir", "folder")],
        *[("size", "input_height"), ("top-k", "num_top_predictions"), ("model", "graph")],
    ],
)
def test_an_unknown_flag_is_answered_with_what_was_meant(
    call: Call, given: str, meant: str
) -> None:
    assert_one_error_line(call(main, f"--{given}", "x"), f"; did you mean --{meant}? (")


@pytest.mark.parametrize("to_a_file", [True, False])
def test_a_bar_shows_on_stderr_when_the_labels_go_to_a_file(
    call: Call,
    files: list[str],
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    to_a_file: bool,
) -> None:
    """As pytest's own capturing is a file; a terminal would show labels and bar in each other."""
    monkeypatch.setattr(cli, "BAR_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: not to_a_file, raising=False)
    result = call(main, *photos, *files)
    assert ("photos" in result.stderr) == to_a_file
    assert len([line for line in result.stdout.splitlines() if LINE.match(line)]) == 9
    assert "photos:" not in call(main, photos[0], *files).stderr  # one is no matter of waiting
