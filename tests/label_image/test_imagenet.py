"""python -m label_image --imagenet: the network's own labels, its downloads, and their failures."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from label_image.cli import main
from retrain import imagenet
from tests.conftest import ROOT, Call, assert_one_error_line
from tests.serving import at_a_dead_port
from tests.top import LABELS, Published, files_in, published


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``--model_dir`` for all tests; the first of them fills it."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def servers(weights_with_top: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    with published(weights_with_top.read_bytes(), monkeypatch) as servers:
        yield servers


@pytest.fixture
def flags(servers: Published, models: Path) -> list[str]:
    return ["--imagenet", f"--model_dir={models}"]


def test_the_second_run_neither_downloads_nor_builds(
    call: Call,
    flags: list[str],
    photos: list[Path],
    servers: Published,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does a classifier of one's own in the folder matter."""
    first = call(main, photos[0], *flags)
    assert (first.returncode, first.stderr) == (0, "")
    assert sorted(line.split(" (score")[0] for line in first.stdout.splitlines()) == sorted(LABELS)
    assert (servers.index.requests, servers.weights.requests) == (1, 1)
    kept = files_in(models)
    assert {Path(name).suffix for name in kept} == {".h5", ".json", ".pb", ".txt"}
    monkeypatch.delattr(imagenet, "keras_model")
    Path("retrained_labels.txt").write_text("daisy\nroses\n")
    Path("retrained_graph.pb").write_text("of another network")
    second = call(main, photos[0], *flags)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert (servers.index.requests, servers.weights.requests) == (1, 1)
    assert files_in(models) == kept


def test_folders_and_every_format(call: Call, flags: list[str], photos: list[Path]) -> None:
    as_text = call(main, "photos", *flags, "--num_top_predictions=1").stdout.splitlines()
    assert as_text[::3] == [str(Path("photos", path.name)) for path in photos]
    assert {line.split(" (score = ")[0] for line in as_text[1::3]} <= set(LABELS)
    rows = list(csv.DictReader(io.StringIO(call(main, "photos", *flags, "--format=csv").stdout)))
    found = json.loads(call(main, "photos", *flags, "--format=json").stdout)
    assert len(rows) == 3 * len(LABELS)
    for i, entry in enumerate(found):
        of_photo = rows[i * len(LABELS) : (i + 1) * len(LABELS)]
        assert [row["label"] for row in of_photo] == [x["label"] for x in entry["labels"]]
        assert sorted(x["label"] for x in entry["labels"]) == sorted(LABELS)  # each once
        assert sum(x["score"] for x in entry["labels"]) == pytest.approx(1, abs=1e-5)


def test_weights_and_labels_of_ones_own_need_no_network(
    call: Call,
    weights_with_top: Path,
    photos: list[Path],
    servers: Published,
    models: Path,
    tmp_path: Path,
) -> None:
    """And once the graph is made, nothing is imported that makes one or trains."""
    (tmp_path / "mine.txt").write_text("\n".join(LABELS))
    files = [f"--weights={weights_with_top}", "--labels=mine.txt", f"--model_dir={models}"]
    first = call(main, photos[0], "--imagenet", *files)
    assert sorted(line.split()[0] for line in first.stdout.splitlines()) == sorted(LABELS)
    assert (servers.index.requests, servers.weights.requests) == (0, 0)
    program = (
        "import sys; from label_image.cli import main; code = main(sys.argv[1:]); "
        "makes = {"
        "'retrain.training.head', 'retrain.export.graph', 'bottlenecks.store.shard'}; "
        "print(code, makes & set(sys.modules) or 'none')"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(photos[0]), "--imagenet", *files],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert second.stdout == f"{first.stdout}0 none\n", second.stderr


def broken(servers: Published, monkeypatch: pytest.MonkeyPatch, which: str, how: str) -> str:
    """Break the server of a file; returns what the error is to mention."""
    server = {"WEIGHTS": servers.weights, "CLASS_INDEX": servers.index}[which]
    if how == "wrong hash":
        server.content = server.content[:-1] + b"x"
        return "what came has MD5"
    if how == "cut off":
        server.content = server.content[:100]
        return "cut after 100 of"
    if how == "not there":
        server.status, server.content, server.declared = 404, b"", 0
        return "Not Found"
    dead = at_a_dead_port(getattr(imagenet, which).name)
    monkeypatch.setattr(imagenet, which, dead)
    return "refused"


@pytest.mark.parametrize("how", ["wrong hash", "cut off", "not there", "unreachable"])
@pytest.mark.parametrize("which", ["WEIGHTS", "CLASS_INDEX"])
def test_a_download_that_fails_is_one_line(
    call: Call,
    servers: Published,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    how: str,
) -> None:
    mention = broken(servers, monkeypatch, which, how)
    file = getattr(imagenet, which)
    result = call(main, photos[0], "--imagenet", "--model_dir=m")
    assert_one_error_line(result, mention, file.url, file.md5, str(Path("m", file.name)))
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    there = files_in(tmp_path / "m")
    assert there == ({imagenet.CLASS_INDEX.name} if which == "WEIGHTS" else set())


BAD_FLAGS = {
    "a graph": (["--imagenet", "--graph=g.pb"], ["--graph", "--imagenet"]),
    "another input": (["--imagenet", "--input_layer=Mul"], ["--input_layer", "--imagenet"]),
    "weights of a graph": (["--weights=w.h5"], ["--weights", "--imagenet"]),
    "a folder for nothing": (["--model_dir=m"], ["--model_dir", "--imagenet"]),
    "untrained": (["--imagenet", "--weights=random"], ["--weights", "random", "no labels"]),
    "no weights": (
        ["--imagenet", "--weights=missing.h5"],
        ["no weights file missing.h5", "takes imagenet, or the path"],
    ),
    "weights are text": (["--imagenet", "--weights=labels.txt"], ["labels.txt", "not HDF5"]),
    "no labels": (["--imagenet", "--labels=missing.txt"], ["missing.txt", "--labels"]),
    "a file for a folder": (["--imagenet", "--model_dir=labels.txt"], ["--model_dir", "a file"]),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_a_bad_input_is_one_error_line_and_downloads_nothing(
    case: str, call: Call, servers: Published, photos: list[Path], tmp_path: Path
) -> None:
    arguments, mentions = BAD_FLAGS[case]
    (tmp_path / "labels.txt").write_text("cyan\nmagenta\n")
    result = call(main, photos[0], *arguments)
    assert_one_error_line(result, *mentions)
    assert result.stdout == ""
    assert (servers.index.requests, servers.weights.requests) == (0, 0)


def test_labels_of_another_number_are_one_error_line(
    call: Call, flags: list[str], photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("cyan\nmagenta\n")
    result = call(main, photos[0], *flags, "--labels=labels.txt")
    assert_one_error_line(result, "5 outputs", "2 labels", "--labels")


def test_a_bar_shows_the_download(
    call: Call, servers: Published, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(imagenet, "keras_model", stop)  # behind the download
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = call(main, photos[0], "--imagenet", "--model_dir=m")
    assert result.returncode == 130
    assert "weights: " in result.stderr
    assert "M/88.2M [" in result.stderr  # what the server said
