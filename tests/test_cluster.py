"""Several machines: the same rows, cache and summary as of one, whatever happens to them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks import rows
from bottlenecks.builder import BuildReport, Progress, build
from bottlenecks.cluster import crew
from bottlenecks.config import Config
from bottlenecks.errors import BadImageError, CacheError
from bottlenecks.photos.distort import variant_keys
from bottlenecks.variants import Wanted, complete
from tests.clusters import (
    Telling,
    add_node,
    children,
    cluster_of,
    computed,
    kill_node,
    wait_until,
)
from tests.conftest import ROOT, make_dataset
from tests.crashing import (
    AT_CUT,
    MIRRORED,
    assert_finished,
    cached_images,
    expected_at_cut,
    expected_rows,
)
from tests.standin import AtCut, StandIn

pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="needs ray")

BATCH = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(3) as made:
        yield made


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("cluster") / "Dataset", per_label=40)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    (tmp_path / "told").mkdir()
    return tmp_path / "told"


Build = Callable[..., BuildReport]


@pytest.fixture
def run(dataset: Path, cluster: Any, tmp_path: Path, told: Path) -> Build:
    """A build by all nodes, each photo of which takes so many ``seconds``."""

    def run_build(
        seconds: float = 0.0,
        on_progress: Callable[[Progress], None] = lambda _: None,
        extractor: StandIn | None = None,
        **settings: Any,
    ) -> BuildReport:
        config = Config(
            **{
                "image_dir": str(dataset),
                "bottleneck_dir": str(tmp_path / "cache"),
                "model_dir": str(tmp_path / "models"),
                "batch_size": BATCH,
                "cluster": cluster.address,
                **settings,
            }
        )
        extractor = extractor or Telling(told, seconds)
        return build(config, extractor=extractor, on_progress=on_progress)

    return run_build


def assert_as_of_one_machine(report: BuildReport, dataset: Path) -> None:
    expected = expected_rows(dataset)
    assert_finished(report.cache.folder.parent, expected)
    found = report.cache.read(expected)
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-5)


def test_the_rows_and_the_summary_are_those_of_one_machine(
    run: Build, dataset: Path, told: Path
) -> None:
    seen: list[Progress] = []
    report = run(0.02, seen.append)
    assert (report.computed, report.cached, report.copies, report.failed) == (120, 0, 0, ())
    assert len(report.images) == 120
    assert_as_of_one_machine(report, dataset)
    assert len(list(told.iterdir())) == 3  # all took part
    assert set(computed(told).values()) == {1}
    assert max(progress.machines for progress in seen) == 3
    assert (seen[-1].done, seen[-1].total, seen[-1].computed) == (120, 120, 120)
    again = run(cluster=None)
    assert (again.computed, again.cached) == (0, 120)
    assert report.images == again.images


def test_what_one_machine_has_begun_goes_on(run: Build, dataset: Path, told: Path) -> None:
    """Also where no index says which files need not be read."""
    few = make_dataset(told.parent / "few", per_label=10)
    assert run(image_dir=str(few), cluster=None).computed == 30
    shutil.rmtree(told)
    told.mkdir()
    report = run()
    assert (report.computed, report.cached) == (90, 30)
    assert sum(computed(told).values()) == 90
    assert_as_of_one_machine(report, dataset)


def test_a_node_that_is_killed(
    run: Build, cluster: Any, dataset: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "COMMIT_SECONDS", 0.2)
    node = add_node(cluster)
    killed = False

    def kill(progress: Progress) -> None:
        nonlocal killed
        if not killed and progress.machines == 4 and progress.computed >= 30:
            killed = True
            kill_node(node)

    try:
        report = run(0.1, kill)
    finally:
        cluster.remove_node(node)
    assert killed
    assert (report.computed, report.cached, report.failed) == (120, 0, ())
    assert_as_of_one_machine(report, dataset)
    again = [count for count in computed(told).values() if count > 1]
    assert all(count == 2 for count in again)
    assert len(again) <= (crew.AHEAD + 1) * BATCH  # what was in flight


def test_a_node_that_comes_late(
    run: Build, cluster: Any, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.5)
    late: list[Any] = []
    most = 0

    def join(progress: Progress) -> None:
        nonlocal most
        most = max(most, progress.machines)
        if not late and progress.computed >= 10:
            late.append(add_node(cluster))

    try:
        report = run(0.02, join, Telling(told, 0.02, workers=4))
    finally:
        for node in late:
            cluster.remove_node(node)
    assert report.computed == 120
    assert most == 4
    assert len(list(told.iterdir())) == 4


def test_a_worker_that_hangs(
    run: Build, told: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process stands still, and its machine does not know."""
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(crew, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(rows, "COMMIT_SECONDS", 0.2)
    stopped: list[int] = []

    def stop(progress: Progress) -> None:
        workers = [int(path.name) for path in told.iterdir()]
        if not stopped and len(workers) == 3 and progress.computed >= 20:
            stopped.append(workers[0])
            os.kill(workers[0], signal.SIGSTOP)

    try:
        report = run(0.05, stop)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    assert stopped
    assert report.computed == 120
    assert_as_of_one_machine(report, dataset)


def test_copies_and_bad_images(run: Build, dataset: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(dataset, mixed)
    for i in range(20):
        shutil.copy(mixed / "cyan" / f"cyan_{i:03}.jpg", mixed / "yellow" / f"copy_{i}.jpg")
    (mixed / "cyan" / "a.jpg").write_bytes(b"no image")
    (mixed / "cyan" / "b.jpg").write_bytes(b"no image")
    (mixed / "magenta" / "z.jpg").symlink_to("nowhere")
    of_cluster = run(image_dir=str(mixed), bottleneck_dir=str(tmp_path / "cache2"))
    of_one = run(image_dir=str(mixed), cluster=None)
    assert (of_cluster.computed, of_cluster.copies, of_cluster.cached) == (120, 20, 0)
    assert (of_one.computed, of_one.copies, of_one.cached) == (120, 20, 0)
    assert of_cluster.failed == of_one.failed
    assert len(of_one.failed) == 3
    assert of_cluster.images == of_one.images
    bad = [report.cache.folder / "bad_images.csv" for report in (of_cluster, of_one)]
    assert bad[0].read_text() == bad[1].read_text()


def test_strict_stops_and_leaves_no_worker(
    run: Build, dataset: Path, tmp_path: Path, cluster: Any
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(dataset, mixed)
    (mixed / "magenta" / "magenta_020.jpg").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"cannot read the image .*magenta_020.jpg.*--strict"):
        run(0.02, image_dir=str(mixed), strict=True)
    report = run(image_dir=str(mixed))
    assert report.cached > 0
    assert report.computed == 119 - report.cached
    wait_until(lambda: not _workers())


def _workers() -> list[int]:
    """The processes of workers that are alive."""
    return [
        pid
        for pid in children(os.getpid())
        if b"ray::Worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_rows_of_variants_and_of_a_cut(cluster: Any, tmp_path: Path) -> None:
    few = make_dataset(tmp_path / "few", per_label=5)
    images = cached_images(few)
    wanted = [Wanted(image, (image.key, *variant_keys(image.key, MIRRORED, 0))) for image in images]
    config = Config(
        image_dir=str(few),
        bottleneck_dir=str(tmp_path / "cache"),
        batch_size=BATCH,
        cluster=cluster.address,
    )
    complete(config, AtCut(), wanted, MIRRORED)
    assert_finished(tmp_path / "cache", expected_at_cut(few), AT_CUT)
    (few / "cyan" / "cyan_000.jpg").write_bytes(b"another")
    with pytest.raises(CacheError, match=r"cyan_000.jpg was changed while this ran"):
        complete(config, AtCut("other"), wanted, MIRRORED)


def started(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """The command by `--cluster local`, 0.3 s a batch, with a commit after each."""
    script = (
        "import bottlenecks.rows; bottlenecks.rows.COMMIT_SECONDS = 0.0\n"
        "from bottlenecks.cli import main; from bottlenecks.command import as_process\n"
        "from tests.standin import StandIn\n"
        f"as_process(lambda: main({list(flags)!r}, extractor=StandIn(seconds=0.3)))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=open(folder / "errors", "w"),
        start_new_session=True,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_driver_is_stopped_or_killed(
    number: signal.Signals, dataset: Path, tmp_path: Path
) -> None:
    flags = [f"--image_dir={dataset}", "--cluster=local", "--batch_size=4"]
    process = started(tmp_path, *flags)
    wait_until(lambda: list(tmp_path.glob("*/*/*.h5")) or process.poll() is not None)
    own = [process.pid, *children(process.pid)]
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    code = process.wait(30)
    said = (tmp_path / "errors").read_text()
    if number == signal.SIGKILL:
        assert said == ""
    else:
        assert code == 128 + number
        assert said == "\ninterrupted; what was computed is kept, and the same command resumes\n"
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in own))
    config = Config(
        image_dir=str(dataset), bottleneck_dir=str(tmp_path / "bottleneck_cache"), batch_size=4
    )
    report = build(config, extractor=StandIn())
    assert report.cached >= 4
    assert report.cached + report.computed == 120
    assert_as_of_one_machine(report, dataset)
