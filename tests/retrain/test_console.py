"""What a run prints: what a person reads."""

import dataclasses
import os
import platform
import re
import sys
from pathlib import Path

import pytest

from bottlenecks import machine, speeds
from bottlenecks.builder import BuildReport, CachedImage
from bottlenecks.network.engines import with_openvino
from bottlenecks.progress import ProgressBar
from bottlenecks.store.cache import Cache
from retrain.config import Config
from retrain.console import Console
from retrain.evaluate import Score
from retrain.training.fitting import Evaluation

SCORE = Score(0.5, 1.0, 8)


def console(**settings: object) -> Console:
    config = Config(**{"image_dir": "Dataset", **settings})  # type: ignore[arg-type]
    return Console(
        config,
        ProgressBar("a", "b"),
        ProgressBar("c", "d", only_in_terminal=True),
        ProgressBar("e", "f"),
    )


def rows_shown(capsys: pytest.CaptureFixture[str]) -> list[int]:
    out = capsys.readouterr().out
    return [int(row) for row in re.findall(r"^ *(\d+)   ", out, re.MULTILINE)]


@pytest.mark.parametrize(
    ("steps", "interval", "rows"),
    [(4000, 10, 20), (1000, 10, 20), (1000, 100, 10), (30, 10, 3), (35, 10, 4), (999, 7, 18)],
)
def test_at_most_about_twenty_rows_and_the_last_step_among_them(
    capsys: pytest.CaptureFixture[str], steps: int, interval: int, rows: int
) -> None:
    shows = console(how_many_training_steps=steps, eval_step_interval=interval)
    every = [*range(interval, steps, interval), steps]
    for step in every:
        shows.evaluated(Evaluation(step, SCORE, SCORE, SCORE))
    shown = rows_shown(capsys)
    assert len(shown) == rows
    assert shown[-1] == steps
    shows = console(
        how_many_training_steps=steps, eval_step_interval=interval, print_every_evaluation=True
    )
    for step in every:
        shows.evaluated(Evaluation(step, SCORE, SCORE, SCORE))
    assert rows_shown(capsys) == every


def test_a_fine_tuning_that_goes_on_has_its_heading_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shows = console(fine_tune_from="mixed7")
    for epoch in (3, 4):
        shows.tuning(10 * epoch, 80)
        shows.tuned(Evaluation(10 * epoch, SCORE, SCORE), epoch)
    out = capsys.readouterr().out
    assert out.count("Fine-tuning all behind mixed7") == 1
    assert out.index(" epoch   accuracy") < out.index("     3 ") < out.index("     4 ")


def report(
    folder: Path, computed: int, images_per_second: float = 20.0, network: str = "float32"
) -> BuildReport:
    cache = Cache(folder / "cache", "ab" * 32)
    image = CachedImage("ant", "ant/1.jpg", "D/ant/1.jpg", bytes(32))
    counts = (computed, 0, 0)
    return BuildReport(
        cache, (image,), *counts, (), images_per_second, 0, (), network=f"{network}, by TensorFlow"
    )


@pytest.mark.parametrize(
    ("settings", "computed", "has_bfloat16", "known", "hint"),
    [
        ({}, 501, True, None, "would have taken about half the time"),
        ({}, 1000, True, 50.0, "would have taken about 30 s less"),
        ({}, 1000, True, 15.0, ""),
        ({}, 500, True, None, ""),
        ({}, 501, False, None, ""),
        ({"precision": "bfloat16"}, 501, True, None, ""),
    ],
    ids=["unknown", "known", "slower here", "few", "no bfloat16", "was it"],
)
def test_a_hint_that_bfloat16_is_faster(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    computed: int,
    has_bfloat16: bool,
    known: float | None,
    hint: str,
) -> None:
    monkeypatch.setattr(machine, "cpu_has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(machine, "most_of_int8", lambda: 0)
    if known:
        speeds.remember(tmp_path, "bfloat16", known)
    shows = console(model_dir=str(tmp_path))
    shows.built(report(tmp_path, computed, network=settings.get("precision", "float32")))
    printed = shows.hint
    assert (hint in printed and "--precision bfloat16" in printed) if hint else printed == ""


@pytest.mark.parametrize(
    ("is_installed", "most", "hint"),
    [
        (True, 64, "--precision int8 would have taken about half the time for stage one, after"),
        (False, 64, "pip install openvino makes stage one faster"),
        (True, 0, ""),
        (False, 0, ""),
    ],
)
def test_a_hint_that_8_bits_or_another_engine_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool, most: int, hint: str
) -> None:
    monkeypatch.setattr(machine, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(machine, "most_of_int8", lambda: most)
    monkeypatch.setattr(with_openvino, "is_installed", lambda: is_installed)
    shows = console(model_dir=str(tmp_path))
    shows.built(report(tmp_path, 501))
    assert hint in shows.hint if hint else shows.hint == ""


def test_a_speed_is_remembered_for_each_precision_of_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new"
    assert speeds.remembered(folder, "float32") is None
    speeds.remember(folder, "float32", 15.0)
    speeds.remember(folder, "bfloat16", 28.123)
    speeds.remember(folder, "float32", 16.0)
    assert speeds.remembered(folder, "float32") == 16.0
    assert speeds.remembered(folder, "bfloat16") == 28.12
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert speeds.remembered(folder, "float32") is None


@pytest.mark.parametrize(
    "content",
    [
        *('{"NAME": {"float32": "fast"}}', '{"NAME": {"float32": -1}}', '{"NAME": {}}'),
        *('{"another": {"float32": 1}}', '{"NAME": {"float32": null}}'),
        *('{"NAME": {"float32": 1e-310}}', '{"NAME": {"float32": true}}'),
        '{"NAME": {"float32": 1' + "0" * 400 + "}}",
    ],
)
def test_a_file_of_speeds_that_lies_is_no_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "NAME")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (tmp_path / speeds.SPEEDS_FILE).write_text(content.replace("NAME", "NAME 2"))
    assert speeds.remembered(tmp_path, "float32") is None
    speeds.remember(tmp_path, "float32", 3.0)
    assert speeds.remembered(tmp_path, "float32") == 3.0


@pytest.mark.parametrize(
    "content",
    [
        *("", "notes", "[]", "{", "{}", '{"x": 1}', '{"NAME": 3}', '{"NAME": {"fast": 1}}'),
        '{"NAME": {"float32": 1}, "version": 2}',
    ],
)
def test_somebody_else_s_file_of_speeds_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "NAME")
    path = tmp_path / speeds.SPEEDS_FILE
    path.write_text(content)
    speeds.remember(tmp_path, "float32", 3.0)
    assert path.read_text() == content
    path.unlink()
    path.symlink_to("missing")
    speeds.remember(tmp_path, "float32", 3.0)
    assert path.is_symlink() and not path.exists()


def test_the_bar_of_the_steps_is_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for in_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: in_terminal, raising=False)  # noqa: B023
        with ProgressBar("training", "steps", only_in_terminal=True) as bar:
            for step in range(1, 4):
                bar(step, 3)
        assert ("training" in capsys.readouterr().err) == in_terminal


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            {"training": "train", "validation": "val"},
            ["split           training train, validation val, testing split off"],
        ),
        (
            {"training": "D", "testing": "T"},
            ["training D, validation split off, testing T"],
        ),
        (
            {"training": "a", "validation": "b", "testing": "c"},
            ["training a, validation b, testing c"],
        ),
    ],
)
def test_a_ready_made_split_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: dict[str, str], said: list[str]
) -> None:
    console().built(dataclasses.replace(report(tmp_path, 3), sets=sets))
    out = capsys.readouterr().out
    assert all(text in out for text in said)
    assert ("split off" in out) == (len(sets) < 3)
    assert max(len(line) for line in out.splitlines() if not line.startswith("cache")) <= 80
