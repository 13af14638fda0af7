"""A report is written, or an error says why it is not and what to do without."""

import os
from collections.abc import Mapping
from typing import Any

from bottlenecks.errors import OutputError, RetrainError, one_line
from retrain.report.results import Measurement, TrainingResult


def write(
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any],
    result: TrainingResult | Measurement,
    remedy: str,
) -> None:
    """Write the report as `retrain.report.page.write_report` does.

    Raises ``OSError``, and `OutputError` with the ``remedy`` for what else may go wrong: a font, a
    setting of matplotlib's, and the like.
    """
    from retrain.report.page import write_report  # matplotlib takes a while to import

    try:
        write_report(folder, settings, result)
    except (RetrainError, OSError, MemoryError):
        raise
    except Exception as error:
        raise OutputError(f"cannot make the report: {one_line(error)}; {remedy}") from error
