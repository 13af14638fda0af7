"""retrain.config: which settings are refused, and what the message names."""

from pathlib import Path
from typing import Any

import pytest

from bottlenecks.errors import OutputError, UsageError
from retrain.config import Config
from tests.conftest import ROOT

BAD_VALUES = [
    *[("how_many_training_steps", value) for value in (-1000, -1, 0)],
    *[("eval_step_interval", value) for value in (-1, 0)],
    *[("train_batch_size", value) for value in (-1, 0)],
    *[("test_batch_size", value) for value in (-2, 0)],
    *[("validation_batch_size", value) for value in (-2, 0)],
    *[(name, v) for name in ("batch_size", "decode_threads") for v in (-1, 0)],
    *[("testing_percentage", value) for value in (-1, 100, 101)],
    *[("validation_percentage", value) for value in (-1, 100, 101)],
    *[("recipe", value) for value in ("nope", "", "Adam")],
    *[("precision", value) for value in ("float16", "")],
    *[("class_balance", value) for value in ("nope", "", True)],
    *[("patience", value) for value in (-1, -1000)],
    *[("data_health_folds", value) for value in (-1, 0, 1)],
    *[("learning_rate", value) for value in (0.0, -0.1, float("nan"), float("inf"))],
    *[("seed", value) for value in (-1, 2**32)],
    *[("architecture", value) for value in ("mobilenet_1.0_224", "Inception_v3", "")],
    *[("final_tensor_name", value) for value in ("", "_result", "fin al", "result:0", "a\nb", "é")],
    *[("final_tensor_name", value) for value in ("Mul", "Placeholder", "DecodeJpeg/contents")],
    *[("final_tensor_name", value) for value in ("pool_3/_reshape", "final_training_ops/x")],
    *[(name, v) for name in ("random_crop", "random_shear") for v in (-1, 101, float("nan"))],
    *[("distortions_per_image", value) for value in (0, 5, 1001)],  # 5: of no distortion
    *[("image_dir", ""), ("bottleneck_dir", ""), ("model_dir", ""), ("weights", "")],
]


def config(**settings: Any) -> Config:
    return Config(**{"image_dir": "Dataset", **settings})


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"--{name}"):
        config(**{name: value})


def test_a_setting_that_there_is_not_is_a_type_error_as_the_docs_say() -> None:
    with pytest.raises(TypeError, match="'bad'"):
        config(bad=1)
    assert "`retrain.Config(bad=1)` a `TypeError`" in (ROOT / "docs" / "python.md").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("how_many_training_steps", 1),
        ("eval_step_interval", 1),
        ("train_batch_size", 1),
        ("test_batch_size", 1),
        ("test_batch_size", -1),
        ("validation_batch_size", -1),
        ("testing_percentage", 0),
        ("validation_percentage", 0),
        ("learning_rate", 1e-9),
        ("learning_rate", None),
        ("patience", 0),
        ("patience", 1),
        *[("class_balance", value) for value in ("none", "weights", "sampling")],
        *[("recipe", value) for value in ("adam", "classic")],
        ("seed", 2**32 - 1),
        ("final_tensor_name", "scores/flowers.v2"),
    ],
)
def test_the_last_good_value_is_taken(name: str, value: object) -> None:
    assert getattr(config(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("intermediate_output_graphs_dir", "graphs"), ("intermediate_store_frequency", 100)],
)
def test_intermediate_graphs_need_a_folder_and_a_frequency(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=r"--intermediate_store_frequency .* go together"):
        config(**{name: value})
    with pytest.raises(UsageError, match="--intermediate_store_frequency must be at least 0"):
        config(intermediate_output_graphs_dir="graphs", intermediate_store_frequency=-1)


@pytest.mark.parametrize(("name", "value"), [("tune", True), ("patience", 10)])
def test_classic_has_nothing_to_tune_and_stops_never(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"--{name} does nothing with --recipe classic"):
        config(recipe="classic", **{name: value})


def test_classic_draws_labels_evenly_and_weighs_none() -> None:
    with pytest.raises(UsageError, match=r"--class_balance .*classic.*Received: weights"):
        config(recipe="classic", class_balance="weights")
    for name in ("none", "sampling"):
        assert config(recipe="classic", class_balance=name).class_balance == name


def test_classic_can_be_calibrated() -> None:
    assert config(recipe="classic", calibrate=True).calibrate


def test_folds_of_data_health_are_for_those_who_look_for_it() -> None:
    with pytest.raises(UsageError, match="--data_health_folds does nothing without --data_health"):
        config(data_health_folds=2)
    assert config(data_health_folds=2, data_health=True).data_health_folds == 2
    assert config(data_health_folds=2, report_dir="report").data_health_folds == 2


def test_a_report_looks_at_the_data_s_health_too() -> None:
    assert not config().checks_data_health
    assert config(data_health=True).checks_data_health
    assert config(data_health=True).data_health_path == Path("data_health.csv")
    assert config(report_dir="report").checks_data_health
    assert config(report_dir="report").data_health_path == Path("report/data_health.csv")


@pytest.mark.parametrize(("testing", "validation"), [(50, 50), (99, 1), (60, 70)])
def test_percentages_must_leave_images_to_train_on(testing: int, validation: int) -> None:
    with pytest.raises(UsageError, match="--testing_percentage and --validation_percentage"):
        config(testing_percentage=testing, validation_percentage=validation)


def test_percentages_that_leave_one_percent_are_taken() -> None:
    assert config(testing_percentage=49, validation_percentage=50).testing_percentage == 49


@pytest.mark.parametrize("labels", ["out.pb", "./out.pb", "folder/../out.pb"])
def test_graph_and_labels_cannot_be_one_file(labels: str) -> None:
    with pytest.raises(UsageError, match=r"--output_graph .* in the way of --output_labels"):
        config(output_graph="out.pb", output_labels=labels)


def test_an_error_says_what_was_received() -> None:
    with pytest.raises(UsageError, match=r"at least 1.*Received: -1000"):
        config(how_many_training_steps=-1000)


@pytest.mark.parametrize("name", ["output_graph", "output_labels"])
def test_an_output_file_where_a_folder_is(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"--{name}.* is a folder"):
        config(**{name: str(tmp_path)}).check_outputs()


@pytest.mark.parametrize("name", ["output_graph", "output_labels", "summaries_dir", "report_dir"])
def test_an_output_below_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=f"--{name}.*file is a file"):
        config(**{name: str(tmp_path / "file" / "below" / "out")}).check_outputs()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["summaries_dir", "report_dir"])
def test_an_output_folder_where_a_file_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=f"--{name}.*is a file"):
        config(**{name: str(tmp_path / "file")}).check_outputs()


REPORT_FILES = ["data_health.csv", "report.html", "metrics.json", "accuracy.png", "confusion.png"]


@pytest.mark.parametrize("name", REPORT_FILES)
def test_a_folder_where_a_file_of_the_report_goes(name: str, tmp_path: Path) -> None:
    (tmp_path / "report" / name).mkdir(parents=True)
    with pytest.raises(OutputError, match=rf"--report_dir .*{name} is a folder"):
        config(report_dir=str(tmp_path / "report")).check_outputs()


def test_a_folder_where_the_table_of_data_health_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_health.csv").mkdir()
    with pytest.raises(OutputError, match=r"--data_health .*data_health.csv is a folder"):
        config(data_health=True).check_outputs()


@pytest.mark.parametrize("name", REPORT_FILES)
@pytest.mark.parametrize("output", ["output_graph", "output_labels"])
def test_the_report_does_not_overwrite_the_graph_or_its_labels(output: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--{output} .*{name} is in the way of --report_dir"):
        config(report_dir="report", **{output: f"report/{name}"})


@pytest.mark.parametrize("name", ["image_dir", "validation_dir", "test_dir"])
@pytest.mark.parametrize("report", ["{}/report", "{}/a/../b/report", "link/report"])
def test_no_report_goes_where_the_next_run_would_take_its_plots_for_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, report: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(name)
    folders = {other: other for other in ("image_dir", "validation_dir", "test_dir")}
    with pytest.raises(UsageError, match=rf"--report_dir .* is inside --{name}, where"):
        config(**folders, report_dir=report.format(name))
    assert config(**folders, report_dir=f"{name}_report").report_dir == f"{name}_report"


def test_the_table_of_data_health_does_not_overwrite_the_graph() -> None:
    with pytest.raises(UsageError, match=r"--output_graph .* is in the way of --data_health"):
        config(data_health=True, output_graph="data_health.csv")
    assert config(output_graph="data_health.csv").output_graph == "data_health.csv"


@pytest.mark.parametrize(
    "outputs",
    [
        {"output_graph": "out", "summaries_dir": "out"},
        {"output_graph": "out", "output_labels": "out/labels.txt"},
        {"output_labels": "out", "bottleneck_dir": "out"},
        {"output_graph": "out", "model_dir": "out/models"},
        {"output_graph": "out", "report_dir": "out"},
        {"output_labels": "out", "report_dir": "out/report"},
    ],
)
def test_outputs_in_each_other_s_way(
    outputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not found only after the training, when the file is written where a folder was made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, OutputError), match=f"--{next(iter(outputs))}"):
        config(**outputs).check_outputs()


def test_good_outputs_pass_and_nothing_is_made(tmp_path: Path) -> None:
    config(
        output_graph=str(tmp_path / "a" / "graph.pb"),
        output_labels=str(tmp_path / "b" / "labels.txt"),
        summaries_dir=str(tmp_path / "c"),
        report_dir=str(tmp_path / "d"),
    ).check_outputs()
    assert list(tmp_path.iterdir()) == []
