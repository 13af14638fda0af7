"""retrain.report.page: one page that needs nothing else, and metrics.json with every figure."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottlenecks.builder import BadImage
from retrain.cli import main
from retrain.config import Config, MeasureConfig
from retrain.evaluate import Confusion, LabelScore
from retrain.report.health import Problem, table
from retrain.report.page import html, metrics, write_report
from retrain.report.results import SAMPLES, Measurement, Misclassified, Sample, TrainingResult
from retrain.report.results import Test as Tested
from retrain.report.settings import DATA_HEALTH_FILE, METRICS_FILE, REPORT_FILE
from tests.conftest import COLOURS, Call, Trained, make_dataset, photo, train_colours
from tests.pages import NASTY, Page
from tests.standin import StandIn

PLOTS = ("accuracy.png", "cross_entropy.png", "confusion.png", "calibration.png")
NO_PICTURES = dict.fromkeys((name.removesuffix(".png") for name in PLOTS), b"")


def page(run: Trained) -> str:
    return Path(str(run.config.report_dir), REPORT_FILE).read_text("utf-8")


def with_swapped_labels(root: Path, per_label: int = 60) -> Path:
    """The colour data set with every eighth photo under the next label."""
    colours = list(COLOURS.values())
    for number, label in enumerate(COLOURS):
        (root / label).mkdir(parents=True)
        for i in range(per_label):
            colour = colours[(number + (i % 8 == 0)) % len(colours)]
            photo(colour, 1000 * number + i).save(root / label / f"{label}_{i:03}.jpg")
    return root


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with mistakes, and its report."""
    folder = tmp_path_factory.mktemp("reported")
    with_swapped_labels(folder / "Dataset")
    return train_colours(
        folder, report_dir=str(folder / "report"), testing_percentage=30, calibrate=True
    )


def the_test(result: TrainingResult) -> Tested:
    assert result.test is not None
    return result.test


def test_the_folder_holds_the_page_the_plots_and_the_tables(reported: Trained) -> None:
    names = {path.name for path in Path(str(reported.config.report_dir)).iterdir()}
    assert names == {REPORT_FILE, METRICS_FILE, DATA_HEALTH_FILE, *PLOTS}


def test_metrics_are_the_result_s(reported: Trained) -> None:
    text = Path(str(reported.config.report_dir), METRICS_FILE).read_text("utf-8")
    written = json.loads(text)
    result, test = reported.result, the_test(reported.result)
    assert written["labels"] == list(COLOURS)
    assert written["images"] == result.images
    assert written["settings"]["image_dir"] == reported.config.image_dir
    assert set(written["settings"]) == {field.name for field in dataclasses.fields(Config)}
    assert (written["kept_step"], written["steps"]) == (result.fitted.step, result.fitted.steps)
    assert written["temperature"] == result.temperature != 1
    for name, figure in dataclasses.asdict(test.figures).items():
        assert written["test"][name] == figure
    assert written["test"]["accuracy"]["value"] == test.accuracy
    assert written["test"]["accuracy"]["n"] == test.n
    matrix = np.zeros_like(test.confusion)
    for true, given, count in written["test"]["confusion"]:
        assert count > 0 and not matrix[true, given]
        matrix[true, given] = count
    np.testing.assert_array_equal(matrix, test.confusion)
    assert written["test"]["labels"] == [dataclasses.asdict(score) for score in test.labels]
    assert len(written["test"]["misclassified"]) == len(test.misclassified)
    assert [e["step"] for e in written["evaluations"]] == [e.step for e in reported.evaluations]
    assert sum(written["data_health"].values()) == len(result.problems or ())


def test_the_precision_of_the_network_is_in_both(reported: Trained) -> None:
    settings = dataclasses.asdict(reported.config)
    assert metrics(settings, reported.result)["precision"] is None  # a stand-in has none
    result = dataclasses.replace(reported.result, precision="int8")
    assert metrics(settings, result)["precision"] == "int8"
    assert "The network computed in int8." in html(settings, result, NO_PICTURES)
    assert "The network computed in" not in page(reported)


def test_samples_are_told_of(reported: Trained) -> None:
    settings = dataclasses.asdict(reported.config)
    assert reported.result.samples == {}
    assert metrics(settings, reported.result)["samples"] == {}
    assert "drawn by --seed" not in Page(page(reported)).text
    samples = {name: Sample(1000 + i, 50_000) for i, name in enumerate(SAMPLES)}
    result = dataclasses.replace(reported.result, samples=samples)
    written = metrics(settings, result)["samples"]
    assert written["near leaks"] == {"drawn": 1004, "available": 50_000}
    assert set(written) == set(SAMPLES)
    text = Page(html(settings, result, NO_PICTURES)).text
    assert "near leaks were looked for among 1004 of 50000 held-out images" in text
    assert "each evaluation while training is of 1001 of 50000 validation images" in text


def test_mistakes_that_are_not_listed_are_counted(reported: Trained) -> None:
    settings, test = dataclasses.asdict(reported.config), the_test(reported.result)
    assert test.wrong == len(test.misclassified) > 3
    some = dataclasses.replace(test, misclassified=test.misclassified[:3])
    result = dataclasses.replace(reported.result, test=some)
    written = metrics(settings, result)["test"]
    assert (written["wrong"], len(written["misclassified"])) == (test.wrong, 3)
    text = Page(html(settings, result, NO_PICTURES)).text
    assert f"{test.wrong} of {test.n}, the most confident first, in metrics.json are 3" in text
    assert "in metrics.json are" not in Page(page(reported)).text


def test_the_page_needs_nothing_else(reported: Trained) -> None:
    assert "//" not in re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", page(reported))
    for tag, attributes in Page(page(reported)).elements:
        assert tag not in ("link", "iframe", "object", "base", "form")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", page(reported))


def test_the_page_has_each_label_and_figure(reported: Trained) -> None:
    text, test = Page(page(reported)).text, the_test(reported.result)
    for score in test.labels:
        assert score.label in text
        assert f"{score.f1:.1%}" in text
    accuracy = test.figures.accuracy
    for share in (accuracy.value, accuracy.low, accuracy.high):
        assert f"{share:.1%}" in text
    assert f"{test.n} images" in text


def test_misclassified_photos_are_shown_the_most_confident_first(reported: Trained) -> None:
    shown, test = Page(page(reported)), the_test(reported.result)
    captions = shown.texts["figcaption"][: len(test.misclassified)]
    assert len(captions) > 3
    first_guesses = []
    for caption, wrong in zip(captions, test.misclassified, strict=True):
        assert wrong.image.relpath in caption
        assert f"labelled {wrong.image.label}" in caption
        scores = [float(score) for score in re.findall(r"([0-9.]+)%", caption)]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        first_guesses.append(scores[0])
    assert first_guesses == sorted(first_guesses, reverse=True)
    thumbnails = [i for i in shown.all("img") if str(i["src"]).startswith("data:image/jpeg")]
    assert len(thumbnails) >= len(test.misclassified)
    assert "cannot be read" not in shown.text


def test_a_report_without_a_test_leaves_no_plots_of_an_earlier_one(tmp_path: Path) -> None:
    with_swapped_labels(tmp_path / "Dataset", per_label=10)
    report = tmp_path / "report"
    for percentage, plots in ((20, set(PLOTS)), (0, {"accuracy.png", "cross_entropy.png"})):
        train_colours(
            tmp_path,
            report_dir=str(report),
            testing_percentage=percentage,
            how_many_training_steps=10,
        )
        assert {path.name for path in report.glob("*.png")} == plots


def test_labels_without_a_test_image_come_last(reported: Trained) -> None:
    test = the_test(reported.result)
    scores = (*test.labels, LabelScore("never tested", 0.0, 0.0, 0.0, 0))
    result = dataclasses.replace(reported.result, test=dataclasses.replace(test, labels=scores))
    shown = html(dataclasses.asdict(reported.config), result, NO_PICTURES)
    row = shown.index("<tr><td>never tested</td>")
    assert all(row > shown.index(f"<tr><td>{s.label}</td>") for s in test.labels)
    assert "\N{EN DASH}" in shown[row : shown.index("</tr>", row)]


def test_the_table_of_data_health_is_beside_it(reported: Trained) -> None:
    path = reported.config.data_health_path
    assert path.parent == Path(str(reported.config.report_dir))
    assert reported.result.problems
    assert path.read_text("utf-8") == table(reported.result.problems)
    doubted = [p for p in reported.result.problems if p.kind == "wrong label?"]
    assert f"Wrong label? ({len(doubted)})" in page(reported)


def nasty(reported: Trained) -> TrainingResult:
    """The result of ``reported`` with labels and photos whose names are HTML."""
    result, test = reported.result, the_test(reported.result)
    image = dataclasses.replace(
        test.misclassified[0].image, label=NASTY, relpath=f"{NASTY}.jpg", path=f"gone/{NASTY}.jpg"
    )
    problems = [
        Problem(kind, image.path, NASTY, "training", 1.0, *other)
        for kind, other in (
            ("leak", (f"{image.path}2", NASTY, "testing")),
            ("near leak", (f"{image.path}2", NASTY, "testing")),
            ("wrong label?", ("", NASTY)),
            ("outlier", ()),
        )
    ]
    few = Problem("few images", "", NASTY, "", 3)
    return dataclasses.replace(
        result,
        labels=(NASTY, *result.labels[1:]),
        problems=(*problems, few),
        test=dataclasses.replace(
            test,
            misclassified=(Misclassified(image, ((NASTY, 0.5), ("b", 0.3), ("c", 0.2))),),
            labels=(LabelScore(NASTY, 0.5, 0.5, 0.5, 3),),
            most_confused=(Confusion(NASTY, NASTY, 2),),
        ),
    )


def test_names_are_escaped(reported: Trained) -> None:
    config = dataclasses.replace(reported.config, image_dir=NASTY, final_tensor_name="a/b")
    written = html(dataclasses.asdict(config), nasty(reported), NO_PICTURES)
    assert "alert(1)" in written
    assert "<script>alert" not in written
    assert "<b><" not in written
    shown = Page(written)
    assert len(shown.all("script")) == 1
    assert shown.text.count(NASTY) > 10
    assert all(f"{NASTY}" in caption for caption in shown.texts["figcaption"])
    assert all(not name.startswith("on") for _, attributes in shown.elements for name in attributes)


def test_names_are_escaped_in_an_evaluation_too(reported: Trained) -> None:
    test = the_test(nasty(reported))
    unseen = LabelScore(NASTY, 0.0, 0.0, 0.0, 0)
    measurement = Measurement(
        graph=NASTY,
        set="all",
        labels=(NASTY, "b", "c"),
        images=reported.result.images,
        test=dataclasses.replace(test, labels=(*test.labels, unseen)),
        failed=(BadImage(NASTY, f"gone/{NASTY}", NASTY),),
        copies=0,
    )
    config = MeasureConfig(image_dir=NASTY, graph=NASTY)
    written = html(dataclasses.asdict(config), measurement, NO_PICTURES)
    assert "alert(1)" in written
    assert "<script>alert" not in written
    shown = Page(written)
    assert len(shown.all("script")) == 1
    assert shown.text.count(NASTY) > 10


def many_labels(result: TrainingResult, count: int) -> TrainingResult:
    """``result`` as if there were ``count`` labels with few images; of one F1 is lowest."""
    test = the_test(result)
    names = tuple(f"label {i:04}" for i in range(count))
    scores = tuple(LabelScore(name, 0.9, 0.9, 0.9, 3) for name in names)
    lowest = dataclasses.replace(scores[-1], f1=0.1)
    matrix = np.eye(count, dtype=np.int64)
    return dataclasses.replace(
        result,
        labels=names,
        test=dataclasses.replace(test, labels=(*scores[:-1], lowest), confusion=matrix),
        problems=tuple(Problem("few images", "", name, "", 3) for name in names),
    )


def test_of_many_labels_the_page_has_what_a_person_can_look_at(reported: Trained) -> None:
    few, many = (many_labels(reported.result, count) for count in (600, 3000))
    settings = dataclasses.asdict(reported.config)
    pages = [html(settings, result, NO_PICTURES) for result in (few, many)]
    assert len(pages[1]) < len(pages[0]) + 1000
    assert "Shown are the 500 lowest of 3000; metrics.json has all." in pages[1]
    assert "Those of the 3000 labels that are mistaken for each other most" in pages[1]
    assert "label 0099 (3) and 2900 more</p>" in pages[1]
    rows = re.findall(r"<tr><td>(label \d+)</td>", pages[1])
    assert rows == ["label 2999", *(f"label {i:04}" for i in range(499))]


def test_of_many_labels_metrics_have_all(reported: Trained) -> None:
    written = metrics({}, many_labels(reported.result, 3000))
    assert len(written["test"]["labels"]) == 3000
    assert written["test"]["confusion"] == [(i, i, 1) for i in range(3000)]
    assert len(json.dumps(written)) < 2_000_000  # it has no row of 3000 for each label


def test_a_photo_that_is_gone_does_not_stop_the_report(reported: Trained, tmp_path: Path) -> None:
    config = dataclasses.replace(reported.config, report_dir=str(tmp_path / "report"))
    write_report(str(config.report_dir), dataclasses.asdict(config), nasty(reported))
    shown = Page((tmp_path / "report" / REPORT_FILE).read_text("utf-8"))
    assert shown.text.count("cannot be read") == 6  # one photo, and two of the near leak
    assert not [i for i in shown.all("img") if str(i["src"]).startswith("data:image/jpeg")]


def test_a_photo_that_became_something_else_is_not_shown(reported: Trained, tmp_path: Path) -> None:
    image = the_test(reported.result).misclassified[0].image
    for content in (b"no image", b""):
        (tmp_path / "x.jpg").write_bytes(content)
        gone = Misclassified(
            dataclasses.replace(image, path=str(tmp_path / "x.jpg")), (("a", 1.0),)
        )
        test = dataclasses.replace(the_test(reported.result), misclassified=(gone,))
        result = dataclasses.replace(reported.result, test=test, problems=None)
        assert "cannot be read" in html(dataclasses.asdict(reported.config), result, NO_PICTURES)


def test_names_that_are_not_utf_8_are_escaped(reported: Trained, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n.jpg")
    config = dataclasses.replace(
        reported.config, report_dir=str(tmp_path / "report"), image_dir=f"D/{name}"
    )
    wrong = the_test(reported.result).misclassified[0]
    image = dataclasses.replace(wrong.image, relpath=f"cyan/{name}", path=f"D/cyan/{name}")
    test = dataclasses.replace(
        the_test(reported.result), misclassified=(dataclasses.replace(wrong, image=image),)
    )
    write_report(
        str(config.report_dir),
        dataclasses.asdict(config),
        dataclasses.replace(reported.result, test=test),
    )
    written = (tmp_path / "report" / REPORT_FILE).read_text("utf-8")
    assert "cyan/\\xff\\n.jpg" in Page(written).text
    figures = json.loads((tmp_path / "report" / METRICS_FILE).read_text("utf-8"))
    assert figures["settings"]["image_dir"] == "D/\\xff\n.jpg"


def test_the_same_run_gives_the_same_bytes(reported: Trained, tmp_path: Path) -> None:
    folder = Path(str(reported.config.report_dir))
    config = dataclasses.replace(reported.config, report_dir=str(tmp_path))
    write_report(tmp_path, dataclasses.asdict(config), reported.result)
    for name in PLOTS:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    written = (tmp_path / REPORT_FILE).read_text().replace(str(tmp_path), str(folder))
    assert written == page(reported)


def test_a_later_run_overwrites_the_report_and_leaves_other_files(
    reported: Trained, tmp_path: Path
) -> None:
    for name in (REPORT_FILE, METRICS_FILE, "confusion.png", "notes.txt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "photos").mkdir()
    write_report(tmp_path, dataclasses.asdict(reported.config), reported.result)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {REPORT_FILE, METRICS_FILE, *PLOTS, "notes.txt", "photos"}
    changed = {
        n for n in names if (tmp_path / n).is_file() and (tmp_path / n).read_bytes() != b"old"
    }
    assert changed == {REPORT_FILE, METRICS_FILE, *PLOTS}


def test_without_a_test_set(tmp_path: Path) -> None:
    run = train_colours(
        tmp_path,
        report_dir=str(tmp_path / "a" / "report"),
        testing_percentage=0,
        how_many_training_steps=20,
    )
    shown = Page(page(run))
    assert "There was no test" in shown.text
    assert "Data health" in shown.text
    assert metrics(dataclasses.asdict(run.config), run.result)["test"] is None
    names = {path.name for path in (tmp_path / "a" / "report").iterdir()}
    assert names == {REPORT_FILE, METRICS_FILE, DATA_HEALTH_FILE, *PLOTS[:2]}


def test_data_health_alone_writes_its_table_to_the_working_folder(
    call: Call, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "Dataset", per_label=8)
    shutil.copy(tmp_path / "Dataset/cyan/cyan_000.jpg", tmp_path / "Dataset/yellow/copy.jpg")
    flags = ("--how_many_training_steps", 5, "--data_health", "--bottleneck_dir", "cache")
    result = call(main, "--image_dir", "Dataset", *flags, extractor=StandIn())
    assert result.returncode == 0, result.stderr
    assert {p.name for p in tmp_path.iterdir() if p.suffix in (".csv", ".html", ".json")} == {
        DATA_HEALTH_FILE
    }
    with open(tmp_path / DATA_HEALTH_FILE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    (conflict,) = [row for row in rows if row["kind"] == "label conflict"]
    assert {Path(conflict["path"]).name, Path(conflict["other"]).name} == {
        "cyan_000.jpg",
        "copy.jpg",
    }


Browser = Callable[..., str]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """Runs a headless Chromium, with a profile of its own."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    if not any(found):
        pytest.skip("there is no Chromium on PATH")
    profile = tmp_path_factory.mktemp("profile")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")

    def browse(path: Path, *more: str) -> str:
        command = [next(filter(None, found)), *options, f"--user-data-dir={profile}", *more]
        result = subprocess.run(
            [*command, path.as_uri()], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return browse


def after(path: Path, reported: Trained, script: str) -> Path:
    """A copy of the page at ``path`` that does ``script`` at its end."""
    path.write_text(page(reported).replace("</body>", f"<script>{script}</script></body>"))
    return path


def test_a_click_on_a_heading_sorts_the_table(
    browser: Browser, reported: Trained, tmp_path: Path
) -> None:
    script = """
        const orders = [], heads = document.querySelectorAll(".sortable th");
        for (const column of [0, 0, 3, 3, 4]) {
          heads[column].click();
          const rows = [...document.querySelector(".sortable").tBodies[0].rows];
          orders.push(rows.map(row => row.cells[0].textContent));
        }
        document.title = JSON.stringify(orders);
    """
    dom = browser(after(tmp_path / "clicked.html", reported, script), "--dump-dom")
    (title,) = re.findall("<title>(.*?)</title>", dom)
    f1 = {score.label: score.f1 for score in the_test(reported.result).labels}
    support = {score.label: score.support for score in the_test(reported.result).labels}
    assert len(set(f1.values())) > 1
    up, down, f1_up, f1_down, by_support = json.loads(title)
    assert [up, down] == [sorted(COLOURS), sorted(COLOURS, reverse=True)]
    assert [f1[label] for label in f1_up] == sorted(f1.values())
    assert f1_down == f1_up[::-1]
    assert [support[label] for label in by_support] == sorted(support.values())


def test_the_page_is_no_wider_than_the_screen(
    browser: Browser, reported: Trained, tmp_path: Path
) -> None:
    """In frames, as a window of Chromium has 500 pixels at least."""
    widths = (360, 390, 1200)
    after(
        tmp_path / "inner.html",
        reported,
        "parent.postMessage([innerWidth, document.documentElement.scrollWidth], '*');",
    )
    frames = (f'<iframe src="inner.html" style="width: {w}px; border: 0"></iframe>' for w in widths)
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<title></title><script>onmessage = event => document.title += event.data + ';'</script>"
        + "".join(frames)
    )
    (title,) = re.findall("<title>(.*?)</title>", browser(outer, "--dump-dom"))
    found = sorted(tuple(map(int, pair.split(","))) for pair in title.split(";") if pair)
    assert [width for width, _ in found] == [*widths]
    assert all(page_width <= width for width, page_width in found)


def test_the_page_can_be_seen(browser: Browser, reported: Trained, tmp_path: Path) -> None:
    from PIL import Image

    shot = tmp_path / "shot.png"
    path = Path(str(reported.config.report_dir), REPORT_FILE)
    browser(path, f"--screenshot={shot}", "--window-size=1200,2000")
    with Image.open(shot) as image:
        assert image.size == (1200, 2000)
        assert np.asarray(image.convert("L")).std() > 20
