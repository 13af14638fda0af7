"""No output over an input, another output, or what is somebody else's."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

import bottlenecks.cli
import retrain.cli
from bottlenecks import atomic, outputs
from bottlenecks.errors import OutputError
from bottlenecks.settings import Output
from retrain.report.settings import MARKERS, REPORT_FILE
from tests.conftest import Call, assert_one_error_line
from tests.standin import StandIn


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_below(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


COMMANDS: dict[str, tuple[Callable[..., int], str]] = {
    "bottlenecks": (bottlenecks.cli.main, "export_hdf5"),
    "graph": (retrain.cli.main, "output_graph"),
    "labels": (retrain.cli.main, "output_labels"),
}
INPUTS = {
    "weights": "w.h5",
    "weights by a link": "link.h5",
    "weights by another way": "./Dataset/../w.h5",
    "photo": "Dataset/cyan/cyan_000.jpg",
    "photo by a link": "photo_link",
    "a name like a photo's": "Dataset/cyan/new.jpg",
    "named as the network": f"models/inception_v3-{'a' * 12}-{'b' * 64}.pb",
    "downloaded weights": "models/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "of the cache": f"cache/inception_v3-{'c' * 12}/model.json",
    "new in the cache": f"cache/inception_v3-{'c' * 12}/graph.pb",
}


@pytest.mark.parametrize("place", INPUTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_output_is_an_input(
    small_dataset: Path, tmp_path: Path, call: Call, command: str, place: str
) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["kept"] = 1
    (tmp_path / "link.h5").symlink_to("w.h5")
    (tmp_path / "photo_link").symlink_to("Dataset/cyan/cyan_000.jpg")
    for folder in (f"cache/inception_v3-{'c' * 12}", "models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cache" / f"inception_v3-{'c' * 12}" / "model.json").write_text("{}")
    before = files_below(tmp_path)
    main, flag = COMMANDS[command]
    stand_in = StandIn()
    result = call(
        main,
        *("--image_dir=Dataset", "--weights=w.h5", "--bottleneck_dir=cache", "--model_dir=models"),
        f"--{flag}={INPUTS[place]}",
        extractor=stand_in,
    )
    assert_one_error_line(result, f"--{flag}", Path(INPUTS[place]).name.replace("link.h5", "w.h5"))
    assert stand_in.batches == []
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("other", ["e.out", "./e.out", "x/../e.out", "link"])
def test_two_outputs_are_two_files(
    small_dataset: Path, tmp_path: Path, call: Call, other: str
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("e.out")
    for main, flags in (
        (bottlenecks.cli.main, ("export_hdf5", "export_npz")),
        (retrain.cli.main, ("output_graph", "output_labels")),
    ):
        stand_in = StandIn()
        arguments = ["--image_dir=Dataset", f"--{flags[0]}=e.out", f"--{flags[1]}={other}"]
        result = call(main, *arguments, extractor=stand_in)
        assert_one_error_line(result, f"--{flags[0]}", f"--{flags[1]}")
        assert stand_in.batches == []


def test_the_table_of_groups_is_no_output(small_dataset: Path, tmp_path: Path, call: Call) -> None:
    text = "path,group\ncyan/cyan_000.jpg,a\n"
    (tmp_path / "groups.csv").write_text(text)
    arguments = ["--image_dir=Dataset", "--group_by=groups.csv", "--output_labels=./groups.csv"]
    result = call(retrain.cli.main, *arguments, extractor=StandIn())
    assert_one_error_line(result, "--output_labels", "--group_by")
    assert (tmp_path / "groups.csv").read_text() == text


def test_a_tilde_is_the_home_folder(
    small_dataset: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    arguments = ["--image_dir=Dataset", "--export_hdf5=~/x.h5", "--bottleneck_dir=cache"]
    assert call(bottlenecks.cli.main, *arguments, extractor=StandIn()).returncode == 0
    assert (tmp_path / "home" / "x.h5").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("name", MARKERS)
def test_a_report_replaces_no_file_of_another(
    dataset: Path, tmp_path: Path, call: Call, name: str
) -> None:
    """Nor removes one: a run without a test has no confusion.png."""
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nyours")
    flags = ["--image_dir=Dataset", "--report_dir=.", "--testing_percentage=0"]
    stand_in = StandIn()
    result = call(retrain.cli.main, *flags, extractor=stand_in)
    assert_one_error_line(result, "--report_dir", name)
    assert stand_in.batches == []
    assert (tmp_path / name).read_bytes() == b"\x89PNG\r\n\x1a\nyours"
    assert not (tmp_path / "retrained_graph.pb").exists()


def test_a_table_of_data_health_replaces_no_table_of_another(
    dataset: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "data_health.csv").write_text("yours,kind,path\n")
    flags = ["--image_dir=Dataset", "--data_health"]
    assert_one_error_line(call(retrain.cli.main, *flags, extractor=StandIn()), "data_health.csv")
    assert (tmp_path / "data_health.csv").read_text() == "yours,kind,path\n"


def test_a_report_replaces_an_earlier_one(dataset: Path, tmp_path: Path, call: Call) -> None:
    flags = ["--image_dir=Dataset", "--report_dir=report", "--how_many_training_steps=20"]
    assert call(retrain.cli.main, *flags, extractor=StandIn()).returncode == 0
    made = {REPORT_FILE, *MARKERS} - {"fine_tuning_accuracy.png", "fine_tuning_cross_entropy.png"}
    assert set(names_in(tmp_path / "report")) == made
    for name in made - {REPORT_FILE}:
        assert MARKERS[name] in (tmp_path / "report" / name).read_bytes()[:4096]
    flags.append("--testing_percentage=0")
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert result.returncode == 0, result.stderr
    gone = {"confusion.png", "calibration.png"}
    assert set(names_in(tmp_path / "report")) == made - gone


def test_an_evaluation_does_not_replace_the_report_of_a_run(dataset: Path, call: Call) -> None:
    flags = ["--image_dir=Dataset", "--report_dir=report"]
    run = [*flags, "--how_many_training_steps=20"]
    assert call(retrain.cli.main, *run, extractor=StandIn()).returncode == 0
    before = (dataset.parent / "report" / REPORT_FILE).read_bytes()
    assert_one_error_line(call(retrain.cli.main, "--evaluate", *flags), "--report_dir", REPORT_FILE)
    assert (dataset.parent / "report" / REPORT_FILE).read_bytes() == before
    elsewhere = ["--image_dir=Dataset", "--report_dir=evaluation"]
    for _ in range(2):
        assert call(retrain.cli.main, "--evaluate", *elsewhere).returncode == 0
    result = call(retrain.cli.main, *elsewhere, extractor=StandIn())
    assert_one_error_line(result, "--report_dir", REPORT_FILE)


def test_outputs_may_lie_beside_the_photos(dataset: Path, call: Call) -> None:
    """As for those who work in the folder of their photos."""
    flags = [f"--image_dir={dataset}", f"--output_graph={dataset}/graph.pb", "--output_labels"]
    flags += [f"{dataset}/labels.txt", "--how_many_training_steps=20"]
    for _ in range(2):
        result = call(retrain.cli.main, *flags, extractor=StandIn())
        assert result.returncode == 0, result.stderr
    assert {"graph.pb", "labels.txt"} < set(names_in(dataset))


@pytest.mark.parametrize("name", ["output_graph", "output_labels"])
def test_an_output_link_into_a_missing_folder_makes_it(
    dataset: Path, tmp_path: Path, call: Call, name: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "out")
    flags = ["--image_dir=Dataset", f"--{name}=link", "--how_many_training_steps=20"]
    result = call(retrain.cli.main, *flags, extractor=StandIn())
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "link").is_symlink() and (tmp_path / "missing" / "out").stat().st_size


def test_a_link_into_a_missing_folder_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file" / "graph.pb")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        outputs.check_file_place(tmp_path / "link", "output_graph")
    (tmp_path / "good").symlink_to(tmp_path / "new.pb")
    outputs.check_file_place(tmp_path / "good", "output_graph")
    atomic.write_bytes(tmp_path / "good", b"graph")
    assert (tmp_path / "new.pb").read_bytes() == b"graph"


def test_check_place_passes_and_makes_nothing(tmp_path: Path) -> None:
    outputs.check_place(tmp_path / "a", "output_graph")
    outputs.check_place(tmp_path / "new" / "deeper" / "a", "output_graph")
    assert names_in(tmp_path) == []


def test_check_place_takes_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    outputs.check_place("a", "output_graph")
    with pytest.raises(OutputError):
        outputs.check_place("file/a", "output_graph")


@pytest.mark.parametrize("below", ["a", "new/a"])
def test_check_place_refuses_a_place_below_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"--output_graph .*file") as caught:
        outputs.check_place(tmp_path / "file" / below, "output_graph")
    assert str(tmp_path / "file" / below) in str(caught.value)


def test_check_place_refuses_a_folder_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may all
    with pytest.raises(OutputError, match="permission"):
        outputs.check_place(tmp_path / "new" / "a", "output_graph")


def test_no_output_lies_anywhere_in_a_folder_of_the_cache(tmp_path: Path) -> None:
    place = tmp_path / "cache" / f"inception_v3-{'a' * 12}" / "deep" / "er" / "graph.pb"
    with pytest.raises(OutputError, match="in a folder of the cache"):
        outputs.check_writable([Output("output_graph", place)])
