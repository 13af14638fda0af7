"""The same photos give the same classifier wherever they lie, and no secret gets out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bottlenecks.cli import main as bottlenecks_main
from bottlenecks.forks import PerProcess
from bottlenecks.photos.places import store
from label_image import Classifier
from label_image.cli import main as label_image_main
from retrain.cli import main as retrain_main
from tests.conftest import (
    ROOT,
    Call,
    Trained,
    assert_one_error_line,
    make_dataset,
    network_of,
    train_colours,
)
from tests.places import Faults, WebServer, faults, in_memory, tar_of, web_server, zip_of
from tests.standin import StandIn

__all__ = ["faults"]  # a fixture


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    with web_server(tmp_path) as server:
        yield server


def places(folder: Path, tmp_path: Path) -> Iterator[str]:
    yield str(zip_of(folder, tmp_path / "photos.zip"))
    yield str(tar_of(folder, tmp_path / "photos.tar"))
    pytest.importorskip("fsspec", reason="needs fsspec")
    yield in_memory(folder, "photos")


def test_the_graph_is_the_same(trained: Trained, tmp_path: Path) -> None:
    for i, place in enumerate(places(Path(trained.config.image_dir), tmp_path)):
        folder = tmp_path / str(i)
        folder.mkdir()
        found = train_colours(folder, image_dir=place, report_dir=str(folder / "report"))
        assert network_of(found.graph) == network_of(trained.graph)
        assert [image.relpath for image in found.report.images] == [
            image.relpath for image in trained.report.images
        ]


def test_variants_come_from_there_too(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "Dataset", 12)
    own = train_colours(tmp_path, flip_left_right=True)
    for place in places(folder, tmp_path):
        shutil.rmtree(tmp_path / "cache")
        found = train_colours(tmp_path, image_dir=place, flip_left_right=True)
        assert network_of(found.graph) == network_of(own.graph)


def test_an_evaluation_is_the_same(trained: Trained, tmp_path: Path, call: Call) -> None:
    line = ("--evaluate", "--graph", trained.graph, "--labels", trained.labels, "--image_dir")
    own = call(retrain_main, *line, trained.config.image_dir)
    assert own.returncode == 0
    for place in places(Path(trained.config.image_dir), tmp_path):
        found = call(retrain_main, *line, place, "--set", "all")
        assert found.returncode == 0, found.stderr
        assert figures(found.stdout) == figures(own.stdout)


def figures(output: str) -> list[str]:
    """What is said of the photos, but for where they lie and how long it took."""
    others = ("took ", "measured ")
    return [line for line in output.splitlines() if not line.startswith(others)]


def test_they_are_labelled_there(trained: Trained, tmp_path: Path, call: Call) -> None:
    folder = make_dataset(tmp_path / "new", 1)
    files = ("--graph", trained.graph, "--labels", trained.labels, "--num_top_predictions=1")
    own = call(label_image_main, folder, *files)
    for place in places(folder, tmp_path):
        found = call(label_image_main, place, *files)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.replace(place, str(folder)) == own.stdout
        one = call(label_image_main, f"{place}/magenta/magenta_000.jpg", *files)
        assert one.stdout.startswith("magenta")
        missing = call(label_image_main, f"{place}/magenta/missing.jpg", *files)
        assert missing.returncode == 2
        assert missing.stderr.startswith(f"error: {place}/magenta/missing.jpg: ")
        assert len(missing.stderr.splitlines()) == 1
        (result,) = Classifier(trained.graph).classify(f"{place}/cyan")
        assert (result.path, result.label) == (f"{place}/cyan/cyan_000.jpg", "cyan")


def test_a_signed_address_is_read_and_not_shown(
    trained: Trained, tmp_path: Path, call: Call, server: WebServer
) -> None:
    folder = make_dataset(tmp_path / "new", 1)
    server.pages["/signed.jpg?key=secret"] = (folder / "cyan" / "cyan_000.jpg").read_bytes()
    files = ("--graph", trained.graph, "--labels", trained.labels)
    signed = f"{server.address}/signed.jpg?key=secret"
    for form in ("text", "csv", "json"):
        options = (*files, "--format", form, "--show", tmp_path / "sheet.html")
        result = call(label_image_main, signed, signed, *options)
        assert (result.returncode, result.stderr) == (0, "")
        assert "secret" not in result.stdout
        assert f"{server.address}/signed.jpg" in result.stdout
        sheet = (tmp_path / "sheet.html").read_text()
        assert "secret" not in sheet
        assert sheet.count("data:image/jpeg") == 2
    refused = signed.replace("://", "://me:secret@").replace("?key=secret", "")
    result = call(label_image_main, refused, *files)
    assert result.returncode == 2
    assert "password" in result.stderr
    assert "secret" not in result.stderr
    failed = call(label_image_main, signed.replace("signed", "other"), *files)
    assert "secret" not in failed.stderr
    assert "it is not there" in failed.stderr


def test_a_folder_on_a_web_server_is_labelled(
    trained: Trained, tmp_path: Path, call: Call, server: WebServer
) -> None:
    make_dataset(tmp_path / "new", 1)
    files = ("--graph", trained.graph, "--labels", trained.labels, "--num_top_predictions=1")
    for end in ("", "/"):
        result = call(label_image_main, f"{server.address}/new{end}", *files)
        assert (result.returncode, result.stderr) == (0, "")
        assert f"{server.address}/new/cyan/cyan_000.jpg\ncyan" in result.stdout


def test_the_user_is_not_in_a_report(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec")
    place = in_memory(make_dataset(tmp_path / "Dataset", 5), "secret@photos")
    trained = train_colours(tmp_path, image_dir=place, report_dir=str(tmp_path / "report"))
    assert trained.result.test
    for path in [*(tmp_path / "report").iterdir(), *(tmp_path / "cache").rglob("*"), trained.graph]:
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["settings"]["image_dir"] == "memory://photos"


@pytest.mark.parametrize("flag", ["export_hdf5", "export_npz"])
def test_no_output_replaces_the_archive(
    small_dataset: Path, tmp_path: Path, call: Call, flag: str
) -> None:
    archive = zip_of(small_dataset, tmp_path / "photos.zip")
    before = archive.read_bytes()
    for folder in (archive, archive / "cyan"):
        line = ("--image_dir", folder, f"--{flag}", archive)
        result = call(bottlenecks_main, *line, extractor=StandIn())
        assert_one_error_line(result, f"--{flag}", "in the way of --image_dir")
    assert archive.read_bytes() == before


@pytest.mark.parametrize("command", [bottlenecks_main, retrain_main])
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing://bucket/photos", "nothing here knows"),
        ("https://me:secret@host/photos/", "password"),
        ("memory://nothing-there", "does not exist"),
    ],
)
def test_one_line_for_what_cannot_be_read(
    call: Call, command: Callable[..., int], address: str, message: str
) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec")
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    result = call(command, "--image_dir", address)
    assert_one_error_line(result, message)
    assert "secret" not in result.stderr


@pytest.mark.parametrize("command", ["bottlenecks", "retrain", "label_image"])
def test_without_fsspec_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, call: Call, command: str, trained: Trained
) -> None:
    monkeypatch.setattr(store, "_stores", PerProcess(store._Stores))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    mains = {"bottlenecks": bottlenecks_main, "retrain": retrain_main}
    if command in mains:
        result = call(mains[command], "--image_dir", "s3://bucket/photos")
    else:
        files = ("--graph", trained.graph, "--labels", trained.labels)
        result = call(label_image_main, "s3://bucket/photos", *files)
    assert_one_error_line(result, "pip install fsspec s3fs")


def test_local_photos_need_no_fsspec(small_dataset: Path) -> None:
    program = (
        "import sys\n"
        "import label_image\n"
        "assert not {'fsspec', 'h5py', 'sklearn'} & set(sys.modules)\n"
        "from bottlenecks.cli import main\n"
        "from tests.standin import StandIn\n"
        "assert main(sys.argv[1:], extractor=StandIn()) == 0\n"
        "loaded = {'fsspec', 'aiohttp', 'zipfile', 'tarfile'} & set(sys.modules)\n"
        "print(sorted(name for name in loaded if name in ('fsspec', 'aiohttp')))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, f"--image_dir={small_dataset}"],
        cwd=small_dataset.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.stdout.endswith("[]\n"), result.stdout + result.stderr


@pytest.mark.parametrize("hangs_at", [("GET", "/"), ("HEAD", ".jpg"), ("GET", ".jpg")])
def test_ctrl_c_works_at_once_where_a_server_hangs(
    tmp_path: Path, server: WebServer, hangs_at: tuple[str, str]
) -> None:
    """While it lists, asks for versions, and reads."""
    make_dataset(tmp_path / "Dataset", 4)
    server.hangs_at = hangs_at
    process = subprocess.Popen(
        [*LINE, f"--image_dir={server.address}/Dataset"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not [path for method, path in server.requests if is_at(hangs_at, method, path)]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.startswith("\ninterrupted")
    assert "Traceback" not in error


LINE = (sys.executable, "-m", "tests.standin", "bottlenecks")


def is_at(hangs_at: tuple[str, str], method: str, path: str) -> bool:
    return method == hangs_at[0] and path.endswith(hangs_at[1])


def test_a_store_that_fails_now_and_then_is_labelled(
    faults: type[Faults], trained: Trained, tmp_path: Path
) -> None:
    place = in_memory(make_dataset(tmp_path / "new", 3), "new", "faulty")
    faults.each = 5
    results = list(Classifier(trained.graph).classify(f"{place}/"))
    assert [result.label for result in results] == ["cyan"] * 3 + ["magenta"] * 3 + ["yellow"] * 3
