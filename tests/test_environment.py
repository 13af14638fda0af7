"""Homes and temporary folders in every state, and users that nobody knows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, assert_one_error_line

VARIABLES = ("TMPDIR", "HOME", "KERAS_HOME")
STATES = ("unset", "empty", "missing", "a file", "not writable")
STRANGER = 65432  # a user without an entry
TRAIN = ("tests.standin", "retrain", "--image_dir=Dataset", "--how_many_training_steps=2")


def environment(state: str, folder: Path) -> dict[str, str]:
    """The environment with `VARIABLES` in ``state``."""
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    (folder / "file").touch()
    values = {
        "empty": "",
        "missing": str(folder / "missing" / "folder"),
        "a file": str(folder / "file"),
        "not writable": "/proc",  # for root neither
    }
    return env | (dict.fromkeys(VARIABLES, values[state]) if state in values else {})


def call(
    folder: Path, env: dict[str, str], *arguments: str, before: str = "pass"
) -> subprocess.CompletedProcess[str]:
    """``python -m`` with ``arguments`` in ``folder``, after the statement ``before``."""
    program = f"import os, runpy, sys; {before}; "
    program += "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def call_as_a_stranger(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As somebody without a home and without an entry, which is how a container runs many a job."""
    before = f"os.getuid = lambda: {STRANGER}"
    return call(folder, environment("unset", folder), *arguments, before=before)


@pytest.mark.parametrize("state", STATES)
def test_a_run_needs_no_home_and_no_temporary_folder(small_dataset: Path, state: str) -> None:
    """The graph is made with TensorFlow, which imports Keras."""
    folder = small_dataset.parent
    result = call(folder, environment(state, folder), *TRAIN, "--model_dir=models")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert (folder / "retrained_graph.pb").exists()
    assert not (folder / "~").exists()


@pytest.mark.parametrize("content", ["[]", '{"floatx": "float12"}'])
def test_a_configuration_that_keras_refuses_is_an_error(small_dataset: Path, content: str) -> None:
    folder = small_dataset.parent
    (folder / "keras.json").write_text(content)
    result = call(folder, {**os.environ, "KERAS_HOME": str(folder)}, *TRAIN)
    assert_one_error_line(result, "TensorFlow", "keras.json")


@pytest.mark.parametrize("command", ["retrain", "bottlenecks"])
def test_without_a_home_the_folder_of_the_models_is_to_be_named(
    small_dataset: Path, command: str
) -> None:
    folder = small_dataset.parent
    arguments = (command, "--image_dir=Dataset", "--weights=random")
    assert_one_error_line(call_as_a_stranger(folder, *arguments), "--model_dir", "HOME")
    assert set(os.listdir(folder)) == {"Dataset", "file"}


def test_without_a_home_all_goes_once_it_is_named(small_dataset: Path) -> None:
    folder = small_dataset.parent
    result = call_as_a_stranger(folder, *TRAIN, "--model_dir=models")
    assert result.returncode == 0, result.stderr
    assert (folder / "retrained_graph.pb").exists()
    assert not (folder / "~").exists()
