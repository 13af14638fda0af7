"""The README is true: its commands run, its Python runs, every flag is in it and no other."""

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import bottlenecks.cli
import bottlenecks.config
import label_image.cli
import label_image.config
import retrain.cli
import retrain.config
from tests.conftest import ROOT, make_dataset
from tests.standin import StandIn
from tests.tiny import Tiny

README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"(<!-- needs a network -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
CONFIGS = (
    bottlenecks.config.Config,
    retrain.config.Config,
    retrain.config.MeasureConfig,
    label_image.config.Config,
)


def blocks(language: str) -> list[str]:
    """The code blocks of ``language`` that need no network."""
    return [
        text for network, found, text in BLOCK.findall(README) if found == language and not network
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that the README's commands name."""
    make_dataset(tmp_path / "Dataset")
    (tmp_path / "Dataset_Name").symlink_to("Dataset")
    shutil.copytree(tmp_path / "Dataset" / "cyan", tmp_path / "photos")
    for name in ("photo.jpg", "another.jpg"):
        shutil.copy(tmp_path / "photos" / "cyan_000.jpg", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for module in ("bottlenecks.builder", "retrain.trainer"):
        monkeypatch.setattr(f"{module}.extractor_for", lambda *_: StandIn())
    return tmp_path


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(blocks("")).splitlines()
    commands = [line for line in lines if line.startswith("python -m ")]
    assert len(commands) >= 8
    # Stage one and two come first, because the others use what they make.
    order = {"retrain": 0, "bottlenecks": 1, "label_image": 2}
    for command in sorted(commands, key=lambda line: order[line.split()[2]]):
        name, *arguments = shlex.split(command)[2:]
        extractor = Tiny() if "--fine_tune_from" in command else StandIn()  # it can be cut
        options = {} if name == "label_image" else {"extractor": extractor}
        main = {"retrain": retrain, "bottlenecks": bottlenecks, "label_image": label_image}[name]
        assert main.cli.main(arguments, **options) == 0, (command, capsys.readouterr().err)
    assert "cyan (score = " in capsys.readouterr().out


def test_the_python_runs(folder: Path) -> None:
    assert (
        bottlenecks.cli.main(
            ["--image_dir=Dataset", "--export_hdf5=flowers.h5"], extractor=StandIn()
        )
        == 0
    )
    assert (
        retrain.cli.main(["--image_dir=Dataset", "--saved_model_dir=saved"], extractor=StandIn())
        == 0
    )
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["vectors"].shape == (90, 2048)
    assert names["result"].test.accuracy == 1.0
    assert names["photo"].ranking[0].label == "cyan"
    assert names["classifier"].classes_.tolist() == [0, 1, 2]


def test_every_flag_is_explained_with_its_default() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `--")]
    explained = {flag: row for row in rows for flag in re.findall(r"`--(\w+)`", row.split("|")[1])}
    for config in CONFIGS:
        for field in dataclasses.fields(config):
            row = explained[field.name]
            if field.default not in (None, False, dataclasses.MISSING):
                assert f"{field.default}" in row.split("|")[2], row
    actions = {"list", "verify", "prune", "yes", "export_hdf5", "export_npz", "image"}
    actions |= {"dry_run", "evaluate", "show_distortions", "summary", "about"}
    fields = {field.name for config in CONFIGS for field in dataclasses.fields(config)}
    assert set(explained) == actions | {name for name in fields if name in explained}


def test_the_makefile_has_what_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_make_bottlenecks_asks_for_the_image_folder() -> None:
    """Also though there is a folder called bottlenecks."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    result = subprocess.run(
        ["make", "bottlenecks"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "there is no folder Dataset; name yours: make bottlenecks IMAGE_DIR=" in result.stderr
