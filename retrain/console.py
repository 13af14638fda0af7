"""How a training run, and an evaluation, show in the terminal."""

import time
from pathlib import Path

from bottlenecks import machine, speeds
from bottlenecks.builder import BuildReport, Progress
from bottlenecks.cli import summary
from bottlenecks.errors import shown
from bottlenecks.network.engines import with_openvino
from bottlenecks.progress import ProgressBar
from bottlenecks.row_spec import BOTTLENECK
from retrain.config import Config, MeasureConfig
from retrain.data.dataset import Dataset
from retrain.listener import Listener
from retrain.measuring import Choice, MeasureListener
from retrain.report.results import Loss, Measurement, TrainingResult
from retrain.report.settings import REPORT_FILE
from retrain.texts import (
    choice_text,
    columns,
    duration,
    loss_text,
    measurement_text,
    megabytes,
    more_of,
    problems_lines,
    ready_made,
    result_text,
)
from retrain.training.fitting import MAX_VALIDATION, Evaluation
from retrain.training.regularisation import Search
from retrain.training.tuned import FineTuned

SHOWN_EVALUATIONS = 20
BAR_SECONDS = 2.0  # that training takes before it shows a bar
HINT_IMAGES = 500  # computed in float32, above which a hint is given to save time


class Console(Listener):
    """Prints a run as it goes: results to stdout, the progress to stderr."""

    def __init__(
        self,
        config: Config,
        bar: ProgressBar,
        steps: ProgressBar,
        tuning: ProgressBar,
        download: ProgressBar | None = None,
        calibrating: ProgressBar | None = None,
    ) -> None:
        self._download, self._calibrating = download, calibrating
        self._config, self._bar, self._steps, self._tuning = config, bar, steps, tuning
        self._has_heading = self._has_tuning_heading = self._is_head_trained = False
        self._writing = ""  # a format
        self._rows = ""  # those that are computed beside plain bottlenecks
        self._evaluations = 0
        self._unprinted: Evaluation | None = None
        self._times: list[tuple[str, float]] = []
        self._since = time.monotonic()
        self.hint = ""  # what would have been faster

    def downloading(self, done: int, total: int) -> None:
        if self._download is not None:
            self._download(done, total)

    def calibrating(self, done: int, total: int) -> None:
        if self._calibrating is not None:
            self._calibrating(done, total)

    def progress(self, progress: Progress) -> None:
        self._bar(progress.done, progress.total, progress.by)

    def built(self, report: BuildReport) -> None:
        self._took("stage one")
        self.hint = _hint(self._config, report)
        print(summary(report), flush=True)
        if report.sets:
            print(ready_made(self._config, report.sets))

    def split(self, dataset: Dataset) -> None:
        config = self._config
        of_each = f" and {config.variants} variants of each" if config.distorts else ""
        validation = len(dataset.validation)
        drawn = f"{MAX_VALIDATION} of " if validation > MAX_VALIDATION else ""
        print(
            f"\nTraining on {len(dataset.training)} images{of_each}, validating on "
            f"{drawn}{validation}, testing on {len(dataset.testing)}."
        )
        if dataset.left_out:
            what = "images whose copy or group is" if self._config.group_by else "copies of images"
            print(f"Left out: {dataset.left_out} {what} in another set.")

    def stepped(self, step: int) -> None:
        self._rows_are_there()
        self._steps(step, self._config.how_many_training_steps)

    def searched(self, search: Search) -> None:
        self._rows_are_there()
        if self._config.tune:
            print(f"\n     L2   cross-entropy of images not seen, {search.images} in all")
            for trial in search.trials:
                mark = "   taken" if trial.l2 == search.l2 else ""
                print(f"{trial.l2:>7.3g}   {trial.cross_entropy:>32.4f}{mark}")
        elif search.times_the_usual != 1:
            times = f"{search.times_the_usual:.2g} times"
            print(
                f"Regularisation: {times} the usual, by cross-validation of {search.images} images."
            )

    def evaluated(self, evaluation: Evaluation) -> None:
        self._evaluations += 1
        config = self._config
        of_all = -(-config.how_many_training_steps // config.eval_step_interval)
        every = 1 if config.print_every_evaluation else -(-of_all // SHOWN_EVALUATIONS)
        self._unprinted = None
        if self._evaluations % every and evaluation.step < config.how_many_training_steps:
            self._unprinted = evaluation
            return
        self._print(evaluation)

    def _print(self, evaluation: Evaluation) -> None:
        self._steps.clear()
        whole, batch = evaluation.validation, evaluation.validation_batch
        if not self._has_heading:
            name = "validation" if whole == batch else "validation batch"
            print(
                f"\n            training batch   {name:>20}\n"
                "  step   accuracy  cross-entropy   accuracy  cross-entropy"
            )
            self._has_heading = True
        row = f"{evaluation.step:>6}   {columns(evaluation.train)}"
        if batch is not None:
            row += f"   {columns(batch)}"
        print(row, flush=True)

    def more_rows(self, name: str, rows: int, nbytes: int) -> None:
        if name != BOTTLENECK.name:
            self._head_is_trained()
        self._rows = more_of(name)
        self._bar.begin(self._rows)
        place = shown(self._config.bottleneck_dir)
        print(f"\nComputing {rows} {more_of(name)}, {megabytes(nbytes)} in {place}.", flush=True)

    def tuning(self, step: int, steps: int) -> None:
        self._head_is_trained()
        self._rows_are_there()
        if not self._has_tuning_heading:
            self._has_tuning_heading = True
            goes_on = f", going on at step {step} of an earlier run" if step else ""
            print(
                f"\nFine-tuning all behind {self._config.cut}, {steps} steps{goes_on}\n"
                "            training batch             validation\n"
                " epoch   accuracy  cross-entropy   accuracy  cross-entropy",
                flush=True,
            )
        self._tuning(step, steps)

    def tuned(self, evaluation: Evaluation, epoch: int) -> None:
        self._tuning.clear()
        row = f"{epoch:>6}   {columns(evaluation.train)}"
        if evaluation.validation is not None:
            row += f"   {columns(evaluation.validation)}"
        print(row, flush=True)

    def judged(self, fine_tuned: FineTuned) -> None:
        self._tuning.close()
        self._took("fine-tuning")

    def _rows_are_there(self) -> None:
        if self._rows:
            self._took(self._rows)
            self._rows = ""

    def _head_is_trained(self) -> None:
        """Done with the head alone, where there is more to come."""
        if not self._is_head_trained:
            self._is_head_trained = True
            self._steps.close()
            self._print_last()
            self._took("stage two")

    def _print_last(self) -> None:
        if self._unprinted is not None:  # where training stopped early
            self._print(self._unprinted)
            self._unprinted = None

    def helped(self) -> None:
        print("\nDone: the first worker tests and writes the graph.", flush=True)

    def trained(self, result: TrainingResult) -> None:
        self._steps.close()
        self._print_last()
        self._took("stage two" if not self._is_head_trained else "test")
        print(result_text(self._config, result), flush=True)

    def exporting(self, name: str, path: str) -> None:
        self._is_written()
        self._writing = name
        print(f"Writing {name} to {shown(path)}.", flush=True)

    def _is_written(self) -> None:
        """Done with the format that was written, if one was."""
        if self._writing:
            self._took(self._writing)
            self._writing = ""

    def comparing(self, done: int, total: int) -> None:
        if self._writing:
            self._is_written()
            self._bar.begin("comparison")
        self._bar(done, total)

    def quantised(self, loss: Loss | None) -> None:
        self._is_written()
        self._bar.close()
        self._took("comparison")
        print(loss_text(self._config, loss), flush=True)

    def finished(self, result: TrainingResult) -> None:
        self._is_written()
        lines = []
        if result.problems is not None:
            path = shown(self._config.data_health_path)
            lines += problems_lines(result.problems, path, result.samples)
        if self._config.report_dir is not None:
            lines.append(f"report  {shown(Path(self._config.report_dir) / REPORT_FILE)}")
        if lines:
            self._took("report")
            print("\n".join(["", *lines]))
        took = ", ".join(f"{what} {duration(seconds)}" for what, seconds in self._times)
        print(f"took    {took}")
        if self.hint:
            print(self.hint)

    def _took(self, what: str) -> None:
        now = time.monotonic()
        self._times.append((what, now - self._since))
        self._since = now


class MeasureConsole(MeasureListener):
    """Prints an evaluation as it goes: results to stdout, the progress to stderr."""

    def __init__(self, config: MeasureConfig, bar: ProgressBar) -> None:
        self._config, self._bar = config, bar
        self._since = time.monotonic()

    def chosen(self, choice: Choice) -> None:
        print(choice_text(choice), flush=True)

    def progress(self, done: int, total: int) -> None:
        self._bar(done, total)

    def measured(self, measurement: Measurement) -> None:
        self._bar.close()
        print(measurement_text(self._config, measurement), flush=True)

    def finished(self) -> None:
        """All is written."""
        if self._config.report_dir is not None:
            print(f"report  {shown(Path(self._config.report_dir) / REPORT_FILE)}")
        print(f"took    {duration(time.monotonic() - self._since)}")


def _hint(config: Config, report: BuildReport) -> str:
    """What would have been faster, if anything."""
    is_slow = report.network.startswith("float32") and report.computed > HINT_IMAGES
    if not (is_slow and report.images_per_second) or machine.has_gpu():
        return ""
    if machine.cpu_has_bfloat16():
        faster = "bfloat16"
    elif machine.most_of_int8() and with_openvino.is_installed():
        faster = "int8"
    else:
        what = f"hint    {with_openvino.INSTALL} makes stage one faster"
        return what if machine.most_of_int8() else ""
    seconds = report.computed / report.images_per_second
    other = speeds.remembered(config.model_dir, faster)
    saved = seconds - report.computed / other if other else 0.0
    if other and saved <= 0:
        return ""
    how = f"about {duration(saved)} less" if other else "about half the time"
    after = ", after a calibration" if faster == "int8" else ""
    return f"hint    --precision {faster} would have taken {how} for stage one{after}"
