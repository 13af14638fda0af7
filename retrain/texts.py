"""What a run, a plan and an evaluation have found, in lines for the terminal."""

import dataclasses
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bottlenecks.cli import SHOWN_LABELS, bad_lines, label_lines
from bottlenecks.errors import shown
from bottlenecks.row_spec import BOTTLENECK
from retrain.config import ALL, Config, MeasureConfig
from retrain.evaluate import Confusion, Figure, Figures, LabelScore, Score
from retrain.export.formats import wanted
from retrain.export.graph_spec import FINAL_NODE
from retrain.report.health import KINDS, Problem
from retrain.report.results import Loss, Measurement, Sample, Test, TrainingResult
from retrain.training.tuned import FineTuned

if TYPE_CHECKING:
    from retrain.measuring import Choice
    from retrain.plan import Plan
    from retrain.preview import Preview


def choice_text(choice: "Choice") -> str:
    """Which images are measured, a line for each label and for what is special."""
    lines = label_lines({label: count for label, count in choice.counts.items() if count})
    what = "all images" if choice.set == ALL else f"the {choice.set} set"
    of = shown(choice.folder.root)
    if choice.folder.sets and choice.set != ALL:
        of += f", {shown(choice.folder.sets.get(choice.set, 'split off'))}"
    if (drawn := len(choice.images)) < choice.available:
        of += f": {drawn} of {choice.available}, drawn"
    lines.append(f"measured        {what} of {of}")
    if choice.left_out:
        lines.append(f"left out        {choice.left_out:>7} (copy or group in another set)")
    if missing := [label for label, count in choice.counts.items() if not count]:
        more = len(missing) - SHOWN_LABELS
        named = ", ".join(missing[:SHOWN_LABELS]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"no images of    {named} (the figures are of the others)")
    return "\n".join(lines)


def measurement_text(config: MeasureConfig, measurement: Measurement) -> str:
    """What could not be read, and the figures."""
    lines = bad_lines(measurement.failed)
    if measurement.copies:
        lines.append(
            f"copies          {measurement.copies:>7} (same content as another image; all count)"
        )
    lines += _test_lines(measurement.test, config.print_misclassified_test_images)
    return "\n".join([*lines, ""])


def more_of(name: str) -> str:
    """What rows beside plain bottlenecks are called, by the name of their `RowSpec`."""
    return "bottlenecks of variants" if name == BOTTLENECK.name else f"rows of {name}"


def megabytes(nbytes: int) -> str:
    if nbytes < 1e7:
        return f"{nbytes / 1e6:.1f} MB"
    return f"{nbytes / 1e6:.0f} MB" if nbytes < 1e10 else f"{nbytes / 1e9:.0f} GB"


def duration(seconds: float) -> str:
    """As people say it: 0.8 s, 58 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if not minutes:
        return f"{left} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def ready_made(config: Config, sets: Mapping[str, str]) -> str:
    """Which folders were taken for which sets."""
    names = ("training", "validation", "testing")
    shares = (100, config.validation_percentage, config.testing_percentage)
    said = [
        f"{name} {shown(sets[name])}" if name in sets else f"{name} split off"
        for name, share in zip(names, shares, strict=True)
        if name in sets or share
    ]
    return f"split           {', '.join(said)}"


def columns(score: Score) -> str:
    return f"{score.accuracy:>8.1%}  {score.cross_entropy:>13.4f}"


def plan_text(config: Config, plan: "Plan") -> str:
    """What a run would do."""
    lines = label_lines(plan.counts)
    if plan.folder.sets:
        lines.append(ready_made(config, plan.folder.sets))
    lines.append(
        f"\nWould train on {plan.sets['training']}, validate on {plan.sets['validation']} and test "
        f"on {plan.sets['testing']} of them"
        "\n(fewer where there are copies, groups in two sets, or photos that cannot be read);"
    )
    lines.append(f"{plan.missing} bottlenecks are missing{_takes(plan, plan.seconds)};")
    for more in plan.more:
        size = f", {megabytes(more.nbytes)}," if more.rows else ""
        what = f"{more.rows} {more_of(more.name)}{size} are missing"
        lines.append(f"{what}{_takes(plan, more.seconds)};")
    if plan.network and plan.missing:
        first = ", calibrated first on some of the photos" if plan.calibrates else ""
        lines.append(f"they would be of {plan.network}{first};")
    if plan.weights_missing:
        lines.append("the ImageNet weights would be downloaded first (88 MB);")
    steps = f"{config.how_many_training_steps} training steps"
    if config.cut is not None:
        steps += f", {config.fine_tune_epochs} epochs of fine-tuning behind {config.cut} "
        steps += f"({_tuning_takes(plan)})"
    paths = [shown(exporter.path_of(config) or "") for exporter in wanted(config)]
    written = f"{', '.join(paths)} and {shown(config.output_labels)}"
    lines.append(f"{steps}, then {written}.")
    return "\n".join([*lines, "Nothing was computed or written."])


def _takes(plan: "Plan", seconds: float) -> str:
    """How long it takes to compute what is missing; nothing where that is no time."""
    if not seconds:
        return ""
    by = "this machine's last run" if plan.speed else "what is usual; this machine is not known"
    return f" and take about {duration(seconds)} (by {by})"


def _tuning_takes(plan: "Plan") -> str:
    """How long the steps of fine-tuning take."""
    if plan.tuning_seconds is None:
        return "how long they take is not known yet"
    return f"about {duration(plan.tuning_seconds)}, by this machine's last such run"


def preview_text(preview: "Preview") -> str:
    """Where the sheet of distorted photos is."""
    return (
        f"distortions  {shown(preview.path)} ({preview.photos} photos, {preview.variants} variants "
        "of each)\nNothing was computed or trained."
    )


def result_text(config: Config, result: TrainingResult) -> str:
    """The figures of the test, and where the graph and the labels are."""
    lines = _kept(config, result)
    if result.test is None:
        asked = config.testing_percentage
        why = "no image is left for it, see the warning" if asked else "--testing_percentage is 0"
        lines += ["", f"No test: {why}."]
    else:
        lines += _test_lines(result.test, config.print_misclassified_test_images)
    lines += [
        "",
        f"graph   {shown(config.output_graph)}",
        f"labels  {shown(config.output_labels)}",
        f"use it  {_label_image_command(config)}",
    ]
    return "\n".join(lines)


def loss_text(config: Config, loss: Loss | None) -> str:
    """What rounding has cost, in a line."""
    if loss is None:
        return f"{config.quantize:<7} not compared: no test or validation image can be read"
    return (
        f"{config.quantize:<7} accuracy {loss.before:.1%} -> {loss.after:.1%} on the same "
        f"{loss.n} {loss.set} images"
    )


def _test_lines(test: Test, shows_misclassified: bool) -> list[str]:
    """All figures of a test, under a blank line."""
    lines = []
    if shows_misclassified:
        lines += ["", "=== MISCLASSIFIED TEST IMAGES ==="]
        lines += [f"{shown(m.image.path):>70}  {m.predicted}" for m in test.misclassified]
        if more := test.wrong - len(test.misclassified):
            lines.append(f"... and {more} more, given with less confidence")
    return [
        *lines,
        "",
        *_label_table(test.worst_first),
        *_figures(test.figures, len(test.labels)),
        *_confused(test.most_confused),
        f"Final test accuracy = {test.accuracy:.1%} (N={test.n})",
    ]


def _kept(config: Config, result: TrainingResult) -> list[str]:
    fitted = result.fitted
    lines = []
    if fitted.steps < config.how_many_training_steps:
        lines.append(f"Stopped: {config.patience} steps have not lowered the validation loss.")
    if fitted.step < fitted.steps:
        lines.append(
            f"Kept step {fitted.step}: the validation set shows that it is better than the last."
        )
    if config.calibrate:
        by = _sampled(result.samples.get("calibration"), "validation images", ", by ")
        lines.append(f"Calibrated: logits divided by {result.temperature:.3f}{by}.")
    if result.fine_tuned is not None:
        lines += _verdict(result, result.fine_tuned)
    return ["", *lines] if lines else []


def _verdict(result: TrainingResult, fine_tuned: FineTuned) -> list[str]:
    """Whether fine-tuning is better than the head alone, and by how much."""
    lines = []
    kept = fine_tuned.fitted.step // fine_tuned.steps_in_epoch
    of_all = fine_tuned.fitted.steps // fine_tuned.steps_in_epoch
    if kept < of_all:
        lines.append(f"Of its {of_all} epochs the validation set takes number {kept}.")
    if fine_tuned.loss is None or fine_tuned.loss_before is None:
        lines.append("There is no validation set to judge by: the fine-tuned network is exported.")
    else:
        change = f"{fine_tuned.loss_before:.3f} -> {fine_tuned.loss:.3f} with scaled scores"
        if fine_tuned.is_taken:
            lines.append(f"Fine-tuning lowers the validation loss, {change}: it is exported.")
        else:
            lines += [
                f"Fine-tuning does not lower the validation loss, {change}:",
                "the head alone is exported. More photos may help, or a smaller "
                "--fine_tune_learning_rate.",
            ]
    if result.test_before is not None and result.test_after is not None:
        before, after = result.test_before.figures, result.test_after.figures
        lines.append(
            f"test accuracy {before.accuracy.value:.1%} -> {after.accuracy.value:.1%}, "
            f"cross-entropy {before.cross_entropy.value:.3f} -> {after.cross_entropy.value:.3f}"
        )
    return lines


def _figures(figures: Figures, labels: int) -> list[str]:
    lines = [f"{'test':<20}   value     95 % interval  images"]
    for field in dataclasses.fields(Figures):
        if field.name == "top_5_accuracy" and labels <= 5:
            continue
        figure: Figure = getattr(figures, field.name)
        show = "{:.3f}" if field.name == "cross_entropy" else "{:.1%}"
        value, low, high = (show.format(x) for x in (figure.value, figure.low, figure.high))
        name = field.name.replace("_", " ").replace("top 5", "top-5").replace("cross e", "cross-e")
        lines.append(f"{name:<20}  {value:>6}  {f'{low} to {high}':>16}  {figure.n:>6}")
    return [*lines, ""]


def _confused(confusions: Sequence[Confusion]) -> list[str]:
    if not confusions:
        return []
    width = max(len(f"{c.label} taken for {c.predicted}") for c in confusions)
    lines = ["most confused"]
    lines += [f"{f'{c.label} taken for {c.predicted}':<{width}}  {c.count}" for c in confusions]
    return [*lines, ""]


def problems_lines(
    problems: Sequence[Problem], path: str, samples: Mapping[str, Sample]
) -> list[str]:
    counts = Counter(problem.kind for problem in problems)
    drawn = _sampled(samples.get("near leaks"), "held-out images", "        near leaks of ")
    of_some = [drawn] if drawn else []
    if not counts:
        return ["data health: nothing found", *of_some, ""]
    lines = ["data health"]
    lines += [f"{counts[kind]:>6}  {kind}: {KINDS[kind]}" for kind in KINDS if counts[kind]]
    return [*lines, *of_some, f"        listed in {path}", ""]


def _sampled(sample: Sample | None, what: str, before: str) -> str:
    """Of how many something is; nothing where it is of all."""
    return "" if sample is None else f"{before}{sample.drawn} of {sample.available} {what}"


def _label_table(scores: Sequence[LabelScore]) -> list[str]:
    ordered = scores[:SHOWN_LABELS]
    width = max(len(s.label) for s in ordered)
    lines = [f"{'test':<{width}}  precision  recall      F1  images"]
    for s in ordered:
        recall, f1 = (f"{x:.1%}" if s.support else "-" for x in (s.recall, s.f1))
        lines.append(
            f"{s.label:<{width}}  {s.precision:>9.1%}  {recall:>6}  {f1:>6}  {s.support:>6}"
        )
    if len(scores) > len(ordered):
        lines.append(f"... and {len(scores) - len(ordered)} more labels")
    return [*lines, ""]


def _label_image_command(config: Config) -> str:
    """A line that can be copied into a shell, whatever the files are called."""
    flags = {
        "graph": (config.output_graph, Config.output_graph),
        "labels": (config.output_labels, Config.output_labels),
        "output_layer": (config.final_tensor_name, FINAL_NODE),
    }
    command = "python -m label_image"
    for name, (value, default) in flags.items():
        if value != default:
            between = "=" if value.startswith("-") else " "  # not to be taken for a flag
            command += f" --{name}{between}{_quoted(value)}"
    return f"{command} photo.jpg"


def _quoted(word: str) -> str:
    """``word`` for a POSIX shell, in printable characters."""
    if shown(word) == word:
        return shlex.quote(word)
    octal = "".join(f"\\0{byte:03o}" for byte in os.fsencode(word))
    return f"\"$(printf %b '{octal}')\""
