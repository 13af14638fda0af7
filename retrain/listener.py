"""What a run tells while it runs."""

from bottlenecks.builder import BuildReport, Progress
from retrain.data.dataset import Dataset
from retrain.report.results import Loss, TrainingResult
from retrain.training.fitting import Evaluation
from retrain.training.regularisation import Search
from retrain.training.tuned import FineTuned


class Listener:
    """What `train` tells while it runs; a subclass shows what it wants to."""

    def downloading(self, done: int, total: int) -> None:
        """So many bytes of the weights are here; ``total`` is 0 where that is not known."""

    def calibrating(self, done: int, total: int) -> None:
        """So many steps of the calibration of 8 bits are done."""

    def progress(self, progress: Progress) -> None:
        """Stage one is this far."""

    def built(self, report: BuildReport) -> None:
        """Stage one is done."""

    def split(self, dataset: Dataset) -> None:
        """The sets are made and their vectors can be read."""

    def searched(self, search: Search) -> None:
        """The strength of the regularisation was searched."""

    def stepped(self, step: int) -> None:
        """So many training steps are taken."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Called every ``eval_step_interval`` steps and after the last."""

    def more_rows(self, name: str, rows: int, nbytes: int) -> None:
        """So many ``rows`` of ``name`` are missing and come next: of variants, or of a cut."""

    def tuning(self, step: int, steps: int) -> None:
        """So many of the steps of fine-tuning are taken."""

    def tuned(self, evaluation: Evaluation, epoch: int) -> None:
        """Called after each ``epoch``, from 1, of fine-tuning."""

    def judged(self, fine_tuned: FineTuned) -> None:
        """Fine-tuning is done, and taken or not."""

    def helped(self) -> None:
        """This worker's part is done: another one tests and writes. Nothing else is told."""

    def trained(self, result: TrainingResult) -> None:
        """The graph and its labels are written; ``result.problems`` are yet to be looked for."""

    def exporting(self, name: str, path: str) -> None:
        """The format ``name`` is written next, to ``path``; it may take a minute."""

    def comparing(self, done: int, total: int) -> None:
        """So many images have gone through the file of rounded numbers."""

    def quantised(self, loss: Loss | None) -> None:
        """What rounding has cost the file of ``--quantize``; None where no image could tell."""

    def finished(self, result: TrainingResult) -> None:
        """All is written."""
