"""The settings of the split."""

import os
from dataclasses import dataclass
from typing import ClassVar

from bottlenecks.errors import UsageError
from bottlenecks.settings import Settings, flag, require


@dataclass(frozen=True, kw_only=True)
class SplitSettings(Settings):
    """Which photos are trained on, which choose, and which test."""

    title: ClassVar[str] = "which photos train, validate and test"

    testing_percentage: int = flag(10, "share of the images to test on", metavar="PERCENT")
    validation_percentage: int = flag(10, "share of the images to validate on", metavar="PERCENT")
    group_by: str | None = flag(
        None,
        "photos that belong together share a set: a regular expression that finds the group's "
        "name in label/filename, or a CSV file with the columns path,group",
        metavar="PATTERN|CSV",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.group_by != "", "group_by", "a regular expression or a CSV file", "nothing")
        for name in ("testing_percentage", "validation_percentage"):
            value = getattr(self, name)
            require(0 <= value < 100, name, "from 0 to 99", value)
        if self.testing_percentage + self.validation_percentage >= 100:
            raise UsageError(
                "--testing_percentage and --validation_percentage must leave images to train on: "
                f"together below 100. Received: {self.testing_percentage} + "
                f"{self.validation_percentage}"
            )

    @property
    def inputs(self) -> dict[str, str]:
        group_by = os.path.expanduser(self.group_by or "")
        return super().inputs | ({"group_by": group_by} if os.path.isfile(group_by) else {})
