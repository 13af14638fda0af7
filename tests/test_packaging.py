"""The wheel and the editable install, also where data folders have the packages' names."""

import ast
import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import bottlenecks
import retrain
from tests.conftest import ROOT, photo

PACKAGES = ("bottlenecks", "retrain", "label_image")
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", *PACKAGES)

pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config


def succeed(*command: str | Path, **environment: str) -> None:
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="setuptools, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:  # a copy, because setuptools leaves a build folder beside them
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    succeed(*pip, "wheel", *options, "--wheel-dir", folder / "dist", folder)
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed to."""
    target = tmp_path_factory.mktemp("target")
    succeed(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel)
    return target


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data folders that are named as the packages."""
    folder = tmp_path_factory.mktemp("trap")
    for name in PACKAGES:
        (folder / name / "daisy").mkdir(parents=True)
        photo((200, 200, 0), 0).save(folder / name / "daisy.jpg")
        photo((200, 200, 0), 1).save(folder / name / "daisy" / "1.jpg")
    return folder


def in_trap(trap: Path, path: Path | None, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=trap, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_s_package_wins_over_a_data_folder(
    package: str, trap: Path, installed: Path
) -> None:
    shown = in_trap(trap, installed, "-m", package, "--help")
    assert shown.startswith(f"usage: python -m {package} ")
    code = f"import {package}.cli; print({package}.cli.__file__)"
    file = in_trap(trap, installed, "-c", code).strip()
    assert file == str(installed / package / "cli.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_installed_package_wins_over_a_data_folder(package: str, trap: Path) -> None:
    shown = in_trap(trap, None, "-m", package, "--help")
    assert shown.startswith(f"usage: python -m {package} ")


def test_the_wheel_holds_the_packages_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (license_file,) = [name for name in names if name.endswith("/LICENSE")]
        assert ".dist-info/" in license_file
        assert archive.read(license_file) == (ROOT / "LICENSE").read_bytes()
    for package in PACKAGES:
        folder = ROOT / package
        sources = {
            path.relative_to(ROOT).as_posix()
            for pattern in ("*.py", "*.jinja", "py.typed")
            for path in folder.rglob(pattern)
        }
        assert sources == {name for name in names if name.startswith(f"{package}/")}
    assert {"retrain/report/report.html.jinja", "bottlenecks/photos/parts.html.jinja"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)


def test_the_wheel_s_metadata_is_setup_cfg_s(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    config = setup_cfg()
    assert metadata["Name"] == config["metadata"]["name"]
    assert metadata["Version"] == bottlenecks.__version__ == retrain.__version__
    assert metadata["Requires-Python"] == config["options"]["python_requires"]
    required = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    names = {line.split(">")[0].split("<")[0].strip() for line in required}
    assert names == {
        *("tensorflow", "numpy", "h5py", "pillow", "scikit-learn", "tqdm"),
        *("scipy", "threadpoolctl", "matplotlib", "jinja2", "ml-dtypes", "protobuf"),
        "tensorboard",
    }


def test_a_report_can_be_made_where_it_is_installed(trap: Path, installed: Path) -> None:
    code = (
        "import importlib.resources\n"
        "folder = importlib.resources.files('retrain.report')\n"
        "(template,) = [file for file in folder.iterdir() if file.name.endswith('.jinja')]\n"
        "print(template)\n"
        "print(len(template.read_text('utf-8')))\n"
    )
    path, length = in_trap(trap, installed, "-c", code).splitlines()
    assert Path(path).parent == installed / "retrain" / "report"
    assert int(length) > 1000


@pytest.mark.parametrize("package", PACKAGES)
def test_the_sources_are_of_the_oldest_python_that_is_promised(package: str) -> None:
    oldest = setup_cfg()["options"]["python_requires"].removeprefix(">=")
    major, minor = map(int, oldest.split("."))
    assert sys.version_info >= (major, minor)
    for path in (ROOT / package).rglob("*.py"):
        ast.parse(path.read_text("utf-8"), feature_version=(major, minor))


def test_console_scripts_are_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = dict(line.split(" = ") for line in lines)
    assert set(scripts) == set(PACKAGES)
    for name, value in scripts.items():
        command = importlib.metadata.EntryPoint(name, value, "console_scripts").load()
        assert command.__module__ == f"{name}.cli"
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as stop:
            command()
        assert stop.value.code == 0
