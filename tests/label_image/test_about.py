"""python -m label_image --about: what made a classifier, of a file that may be anybody's."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bottlenecks.network.tensorflow import import_tensorflow
from label_image.about import MAX_DEPTH, MAX_LETTERS
from label_image.cli import main
from tests.conftest import COLOURS, Call, Trained, assert_one_error_line


def write(path: Path, about: str | None, labels: Sequence[bytes] = (b"a", b"b")) -> Path:
    """A graph that says ``about`` of itself."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="input")
        if labels:
            tf.constant(list(labels), name="retrain/labels")
        if about is not None:
            tf.constant(about, name="retrain/about")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def row(text: str, name: str) -> str:
    """The value of the row ``name``."""
    (found,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return found[len(name) :].strip()


def test_a_run_s_graph_says_what_made_it(call: Call, trained: Trained) -> None:
    result = call(main, "--about", trained.graph)
    assert (result.returncode, result.stderr) == (0, "")
    images, test = trained.result.images, trained.result.test
    assert test is not None
    assert row(result.stdout, "graph") == str(trained.graph)
    assert row(result.stdout, "format") == "TensorFlow's frozen graph"
    assert row(result.stdout, "program").startswith("retrain 0.")
    assert row(result.stdout, "date") == "2021-01-01T00:00:00Z"  # by SOURCE_DATE_EPOCH
    assert row(result.stdout, "  architecture") == "average pooling"
    assert len(row(result.stdout, "fingerprint")) == 64
    assert row(result.stdout, "images").startswith(f"{images['training']} training, ")
    assert row(result.stdout, "test accuracy").startswith("100.0% (95 % interval ")
    assert row(result.stdout, "test accuracy").endswith(f" to 100.0%, {test.n} images)")
    assert row(result.stdout, "  how_many_training_steps") == "200"
    assert row(result.stdout, "labels") == f"3: {', '.join(COLOURS)}"


def test_it_may_be_json(call: Call, trained: Trained) -> None:
    result = call(main, "--about", trained.graph, "--format=json")
    found = json.loads(result.stdout)
    assert found["graph"] == str(trained.graph)
    assert found["labels"] == list(COLOURS)
    assert found["about"]["flags"] == {"how_many_training_steps": 200}
    assert found["about"]["images"] == trained.result.images


def test_the_file_is_named_in_one_of_three_ways(
    call: Call, trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "retrained_graph.pb").symlink_to(trained.graph)
    (tmp_path / "retrained_labels.txt").write_text("of\nanother\n")  # it is not looked at
    for named in ([], ["retrained_graph.pb"], ["--graph=retrained_graph.pb"]):
        result = call(main, "--about", *named)
        assert row(result.stdout, "graph") == "retrained_graph.pb", result.stderr


BAD_FLAGS = {
    "no file": (["missing.pb"], ["missing.pb does not exist"]),
    "two files": (["a.pb", "b.pb"], ["one file", "a.pb, b.pb"]),
    "two files, one by its flag": (["a.pb", "--graph=b.pb"], ["one file", "a.pb, b.pb"]),
    "no classifier": (["text"], ["text is no TensorFlow graph"]),
    "empty": (["empty"], ["empty is no TensorFlow graph"]),
    "csv": (["a.pb", "--format=csv"], ["--format", "csv"]),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_what_cannot_be_told_is_one_error_line(case: str, call: Call, tmp_path: Path) -> None:
    arguments, mentions = BAD_FLAGS[case]
    (tmp_path / "text").write_text("daisy\nroses\n" * 100)
    (tmp_path / "empty").write_bytes(b"")
    assert_one_error_line(call(main, "--about", *arguments), *mentions)


@pytest.mark.parametrize("labels", [(), (b"a", b"b")])
def test_a_file_of_another_program_says_so(
    call: Call, tmp_path: Path, labels: Sequence[bytes]
) -> None:
    path = write(tmp_path / "other.pb", None, labels)
    result = call(main, "--about", path)
    assert (result.returncode, result.stderr) == (0, "")
    assert row(result.stdout, "program").startswith("another than retrain")
    assert row(result.stdout, "labels").startswith("2: a, b" if labels else "none in it")
    assert json.loads(call(main, "--about", path, "--format=json").stdout)["about"] is None


NO_OBJECT = {
    "text": "made by me",
    "cut": '{"program": "retrain',
    "list": "[1, 2]",
    "number": "5",
    "not a number": '{"test": NaN}',
    "infinite": '{"test": 1e999}',
    "many digits": f'{{"test": {"9" * 5000}}}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a": ' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
    "large": json.dumps({"program": "x" * MAX_LETTERS}),
}


@pytest.mark.parametrize("case", NO_OBJECT)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_what_is_no_object_is_one_error_line(
    case: str, kind: str, call: Call, tmp_path: Path
) -> None:
    path = write(tmp_path / "hostile.pb", NO_OBJECT[case])
    result = call(main, "--about", path, f"--format={kind}")
    assert_one_error_line(result, "hostile.pb", "no JSON object")
    assert result.stdout == ""


STRANGE: list[dict[str, Any]] = [
    {},
    {"test": 5, "images": "many", "network": None, "flags": [1, [2]], "program": {"a": {"b": 1}}},
    {"test": {"accuracy": 1e300, "low": True, "high": 10**4000, "images": {"a": "\x1b[2J"}}},
    {"images": {"training": [1] * 9999, "validation": None, "testing": {"a": "\n"}}},
    {"program": "\x1b[31mred\n\u202e", "\x1b]0;title\x07": "\ud800 \udcff", "date": "x" * 10**5},
    {"flags": {f"--{i}": "\n" for i in range(10_000)}},
    {"x" * 10_000: "y", "": ""},
]


@pytest.mark.parametrize("about", STRANGE, ids=map(str, range(len(STRANGE))))
def test_what_is_strange_is_printed_within_bounds(
    about: dict[str, Any], call: Call, tmp_path: Path
) -> None:
    path = write(tmp_path / "strange.pb", json.dumps(about), [b"\x1b[2J\xff" * 100] * 200)
    result = call(main, "--about", path)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(line.isprintable() for line in result.stdout.split("\n"))
    lines = result.stdout.splitlines()
    assert len(lines) < 210
    assert max(map(len, lines[:-1])) < 5000  # "\n" as two letters, and so on
    assert "and 100 more" in lines[-1]
    as_json = call(main, "--about", path, "--format=json").stdout
    assert all(c.isprintable() or c == "\n" for c in as_json)
    assert json.loads(as_json)["about"] == about


def test_it_imports_no_tensorflow(trained: Trained) -> None:
    code = (
        "import sys, label_image.cli\n"
        f"code = label_image.cli.main(['--about', {str(trained.graph)!r}])\n"
        "print(code, sorted({'tensorflow', 'h5py', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("\n0 []\n"), result.stdout + result.stderr
