"""python -m bottlenecks, as a user runs it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bottlenecks.cli import label_lines
from bottlenecks.store.cache import Cache
from tests.conftest import COLOURS, ROOT, Run, assert_one_error_line, make_dataset
from tests.standin import StandIn

STANDIN = ("tests.standin", "bottlenecks")


def figure(result: subprocess.CompletedProcess[str], what: str) -> int:
    """The number after ``what`` in the printed summary of a run that succeeded."""
    assert result.returncode == 0, result.stderr
    found = re.search(rf"^{what}\s+(\d+)", result.stdout, re.MULTILINE)
    assert found, result.stdout
    return int(found[1])


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_first_and_the_second_run(run: Run, small_dataset: Path, tmp_path: Path) -> None:
    first = run(*STANDIN, "--image_dir", "Dataset")
    assert (figure(first, "computed"), figure(first, "already cached")) == (12, 0)
    assert first.stderr == ""
    for label in COLOURS:
        assert re.search(rf"{label}\s+4\b", first.stdout)
    assert "bottleneck_cache" in first.stdout  # the default folder, in the working directory
    assert sorted(os.listdir(tmp_path)) == ["Dataset", "bottleneck_cache"]
    second = run(*STANDIN, "--image-dir=Dataset")
    assert (figure(second, "computed"), figure(second, "already cached")) == (0, 12)
    assert "Nothing to compute" in second.stdout


def test_of_many_labels_those_with_the_fewest_images_are_listed() -> None:
    counts = {f"label {i:04}": 5 + i % 3 for i in range(3000)} | {"rare": 4}
    first, *listed, more = label_lines(counts)
    assert first == f"{sum(counts.values())} images of 3001 labels:"
    assert [line.split()[-1] for line in listed] == ["4"] + ["5"] * 29
    assert listed[0].startswith("  rare ")
    assert more == "  ... and 2971 more labels, with 5 to 7 images each"


def test_of_few_labels_all_are_listed_in_their_order() -> None:
    counts = {f"label {i}": 40 - i for i in range(30)}
    assert [line.split()[1] for line in label_lines(counts)[1:]] == [str(i) for i in range(30)]


def test_bad_images_are_in_the_summary(run: Run, small_dataset: Path) -> None:
    for i in range(12):
        (small_dataset / "cyan" / f"bad_{i:02}.jpg").write_text("<html>")
    (small_dataset / "yellow" / "strange\n\x1b[31m.jpg").touch()
    (small_dataset / "LICENSE.txt").touch()
    (small_dataset / "empty").mkdir()
    result = run(*STANDIN, "--image_dir", "Dataset")
    assert (figure(result, "computed"), figure(result, "bad")) == (12, 13)
    assert figure(result, "passed over") == 1
    assert re.search(r"bad_00\.jpg: .*HTML", result.stdout)
    assert "3 more" in result.stdout
    assert "bad_images.csv" in result.stdout
    assert re.search(r"no images in\s+empty", result.stdout)
    assert "\x1b" not in result.stdout
    assert figure(run(*STANDIN, "--image_dir", "Dataset"), "bad") == 13


def test_a_damaged_cache_is_healed_with_exit_code_0(run: Run, small_dataset: Path) -> None:
    run(*STANDIN, "--image_dir", "Dataset")
    (path,) = (small_dataset.parent / "bottleneck_cache").glob("*/*.h5")
    path.write_bytes(path.read_bytes()[:-1])
    result = run(*STANDIN, "--image_dir", "Dataset")
    assert figure(result, "computed") == 12
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["warning"]
    assert path.name in result.stderr


def no_folder(root: Path) -> list[str]:
    return ["--image_dir", "nowhere"]


def a_file(root: Path) -> list[str]:
    (root / "a.jpg").touch()
    return ["--image_dir", "a.jpg"]


def an_empty_folder(root: Path) -> list[str]:
    (root / "empty").mkdir()
    return ["--image_dir", "empty"]


def no_labels(root: Path) -> list[str]:
    return ["--image_dir", "Dataset/cyan"]


def one_label_twice(root: Path) -> list[str]:
    make_dataset(root / "more", per_label=1)
    os.rename(root / "more" / "cyan", root / "Dataset" / "Cyan_")
    return ["--image_dir", "Dataset"]


def a_label_of_bad_images(root: Path) -> list[str]:
    (root / "Dataset" / "broken").mkdir()
    (root / "Dataset" / "broken" / "a.jpg").write_text("text")
    return ["--image_dir", "Dataset"]


def strict(root: Path) -> list[str]:
    (root / "Dataset" / "cyan" / "a.jpg").write_text("text")
    return ["--image_dir", "Dataset", "--strict"]


def a_file_for_the_cache(root: Path) -> list[str]:
    (root / "taken").touch()
    return ["--image_dir", "Dataset", "--bottleneck_dir", "taken"]


def below_a_file(root: Path) -> list[str]:
    (root / "taken").touch()
    return ["--image_dir", "Dataset", "--bottleneck_dir", "taken/cache"]


Given = list[str] | Callable[[Path], list[str]]

BAD_INPUT: list[tuple[Given, list[str]]] = [
    ([], ["--image_dir"]),
    (["--image_dir"], ["--image_dir"]),
    (["--image_dir", ""], ["--image_dir"]),
    (["--image_dri", "Dataset"], ["--image_dri", "--image_dir"]),
    (["--image_dir", "Dataset", "--batch_size", "0"], ["--batch_size", "0"]),
    (["--image_dir", "Dataset", "--batch_size", "many"], ["--batch_size", "many"]),
    (["--image_dir", "Dataset", "--precision", "float16"], ["float16", "bfloat16"]),
    (["--image_dir", "Dataset", "stray"], ["stray"]),
    (no_folder, ["nowhere", "exist"]),
    (a_file, ["a.jpg", "file"]),
    (an_empty_folder, ["empty", "no images"]),
    (no_labels, ["Dataset/cyan", "sub-folders"]),
    (one_label_twice, ["'cyan'", "'Cyan_'"]),
    (a_label_of_bad_images, ["'broken'", "a.jpg"]),
    (strict, ["a.jpg", "--strict"]),
    (a_file_for_the_cache, ["--bottleneck_dir", "taken"]),
    (below_a_file, ["--bottleneck_dir", "taken"]),
]


@pytest.mark.parametrize(("arguments", "mentions"), BAD_INPUT)
def test_bad_input_is_one_line(
    run: Run, small_dataset: Path, tmp_path: Path, arguments: Given, mentions: list[str]
) -> None:
    given = arguments(tmp_path) if callable(arguments) else arguments
    before = files_below(tmp_path)
    result = run(*STANDIN, *given)
    assert_one_error_line(result, *mentions)
    assert result.stdout == ""
    if arguments not in (a_label_of_bad_images, strict):  # these are found while computing
        assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "mention"), [("missing.h5", "no weights file"), ("text.h5", "HDF5")]
)
def test_a_bad_weights_file_is_one_line_and_makes_nothing(
    run: Run, small_dataset: Path, tmp_path: Path, name: str, mention: str
) -> None:
    (tmp_path / "text.h5").write_text("not weights")
    before = files_below(tmp_path)
    result = run("bottlenecks", "--image_dir", "Dataset", "--weights", name, "--model_dir", "m")
    assert_one_error_line(result, name, mention)
    assert files_below(tmp_path) == before


def test_help_imports_no_tensorflow(run: Run) -> None:
    program = (
        "import sys\nfrom bottlenecks.cli import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print(*sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert "--image_dir" in result.stdout
    modules = set(result.stderr.split())
    assert "bottlenecks.cli" in modules
    assert not modules & {"tensorflow", "keras", "h5py", "numpy", "PIL"}


def test_help_tells_flags_and_defaults(run: Run) -> None:
    result = run("bottlenecks", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for mention in ("--image_dir", "--weights", "--precision", "--strict", "bottleneck_cache"):
        assert mention in result.stdout


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interrupted_run_keeps_its_rows_and_the_same_command_resumes(
    run: Run, dataset: Path, tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    flags = ["--image_dir", "Dataset", "--batch_size", "10"]
    with subprocess.Popen(
        [sys.executable, "-m", *STANDIN, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STANDIN_SECONDS": "0.3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        for i in (1, 2, 3):
            assert process.stdout.readline() == f"batch {i}\n"
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "same command resumes" in err
    assert "Traceback" not in err
    assert "computed" not in out
    cache = Cache(tmp_path / "bottleneck_cache", StandIn().fingerprint)
    cache.load()
    kept = len(cache)
    assert kept in (20, 30)  # the third batch may have been done
    assert not list(cache.folder.glob(".*.partial"))
    result = run(*STANDIN, *flags)
    assert (figure(result, "computed"), figure(result, "already cached")) == (90 - kept, kept)


def test_a_second_run_waits_for_the_first(run: Run, small_dataset: Path, tmp_path: Path) -> None:
    flags = ["--image_dir", "Dataset", "--batch_size", "6"]
    with subprocess.Popen(
        [sys.executable, "-m", *STANDIN, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STANDIN_SECONDS": "0.8"},
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "batch 1\n"
        second = run(*STANDIN, *flags)
        first.communicate(timeout=60)
    assert first.returncode == 0
    assert (figure(second, "computed"), figure(second, "already cached")) == (0, 12)
    assert second.stderr.count("waiting") == 1
    assert len(list(tmp_path.glob("bottleneck_cache/*/*.h5"))) == 1


def test_the_real_network_in_a_folder_that_has_a_data_folder_named_bottlenecks(
    run: Run, tmp_path: Path, model_dir: Path
) -> None:
    """The published command line makes such a folder; it must not be taken for the package."""
    make_dataset(tmp_path / "Dataset", per_label=2)
    (tmp_path / "bottlenecks").mkdir()
    command = (
        *("bottlenecks", "--bottleneck_dir=bottlenecks", "--image_dir=Dataset"),
        *("--weights=random", f"--model_dir={model_dir}"),
    )
    first = run(*command)
    assert figure(first, "computed") == 6
    assert "UNTRAINED" in first.stderr
    assert all(line.startswith("warning: ") for line in first.stderr.splitlines()), first.stderr
    assert len(list(tmp_path.glob("bottlenecks/inception_v3-*/*.h5"))) == 1
    assert len(list(model_dir.glob("inception_v3-*.pb"))) == 1
    second = run(*command)
    assert (figure(second, "computed"), figure(second, "already cached")) == (0, 6)
