"""How a training run shows in the terminal."""

from bottlenecks.builder import BuildReport, Progress
from bottlenecks.cli import summary
from bottlenecks.errors import shown
from bottlenecks.progress import ProgressBar
from retrain.config import Config
from retrain.dataset import Dataset
from retrain.evaluate import LabelScore, Score
from retrain.graph_spec import FINAL_NODE
from retrain.trainer import Evaluation, Listener, TrainingResult

SHOWN_LABELS = 30


class Console(Listener):
    """Prints a run as it goes: results to stdout, the progress of stage one to stderr."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar

    def progress(self, progress: Progress) -> None:
        self._bar(progress.done, progress.total)

    def built(self, report: BuildReport) -> None:
        print(summary(report), flush=True)

    def split(self, dataset: Dataset) -> None:
        print(
            f"\nTraining on {len(dataset.training)} images, validating on "
            f"{len(dataset.validation)}, testing on {len(dataset.testing)}.\n\n"
            "            training batch             validation\n"
            "  step   accuracy  cross-entropy   accuracy  cross-entropy"
        )

    def evaluated(self, evaluation: Evaluation) -> None:
        columns = f"{evaluation.step:>6}   {_columns(evaluation.train)}"
        if evaluation.validation is not None:
            columns += f"   {_columns(evaluation.validation)}"
        print(columns, flush=True)


def _columns(score: Score) -> str:
    return f"{score.accuracy:>8.1%}  {score.cross_entropy:>13.4f}"


def result_text(config: Config, result: TrainingResult) -> str:
    """The figures of the test, and what was written."""
    lines = [""]
    if config.print_misclassified_test_images:
        lines.append("=== MISCLASSIFIED TEST IMAGES ===")
        lines += [f"{shown(m.image.path):>70}  {m.predicted}" for m in result.misclassified]
        lines.append("")
    if result.test is None:
        lines.append("No test: --testing_percentage is 0.")
    else:
        lines += _label_table(result.test_labels)
        lines.append(f"Final test accuracy = {result.test.accuracy:.1%} (N={result.test.n})")
    lines += [
        f"graph   {shown(config.output_graph)}",
        f"labels  {shown(config.output_labels)}",
        f"use it  {_label_image_command(config)}",
    ]
    return "\n".join(lines)


def _label_table(scores: tuple[LabelScore, ...]) -> list[str]:
    """The labels with the lowest F1 first, as these are what to look at."""
    ordered = sorted(scores, key=lambda s: (s.f1, s.label))[:SHOWN_LABELS]
    width = max(len(s.label) for s in ordered)
    lines = [f"{'test':<{width}}  precision  recall      F1  images"]
    lines += [
        f"{s.label:<{width}}  {s.precision:>9.1%}  {s.recall:>6.1%}  {s.f1:>6.1%}  {s.support:>6}"
        for s in ordered
    ]
    if len(scores) > len(ordered):
        lines.append(f"... and {len(scores) - len(ordered)} more labels")
    return [*lines, ""]


def _label_image_command(config: Config) -> str:
    command = "python -m label_image"
    for name, default in (
        ("output_graph", Config.output_graph),
        ("output_labels", Config.output_labels),
    ):
        if (value := getattr(config, name)) != default:
            command += f" --{name.removeprefix('output_')} {shown(value)}"
    if config.final_tensor_name != FINAL_NODE:
        command += f" --output_layer {config.final_tensor_name}"
    return f"{command} photo.jpg"
