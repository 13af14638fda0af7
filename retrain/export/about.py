"""What made a classifier, as every export carries it."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bottlenecks import __version__
from bottlenecks.errors import UsageError, shown
from bottlenecks.settings import Settings

_DATE = "%Y-%m-%dT%H:%M:%SZ"
_LAST, _DIGITS = 253402300799, 12  # seconds: the end of the year 9999


@dataclass(frozen=True)
class About:
    """What made a classifier; its labels are beside it in every format.

    ``network`` is the description of the frozen network, its weights' hash among it, and
    ``fingerprint`` that of its bottlenecks. ``images`` counts those of each set, and ``test`` has
    the accuracy on the test images, in [0, 1], with its 95 % interval and their number, or is None.
    ``flags`` are those that are not at their defaults, but for paths, which say where something
    lies on one machine and not what it is. ``step`` is the step of the head's training.
    ``quantised`` is how its numbers were rounded, after the test, or "none".
    """

    date: str
    network: Mapping[str, Any]
    fingerprint: str
    images: Mapping[str, int]
    test: Mapping[str, float] | None
    fine_tuned_from: str | None
    flags: Mapping[str, Any]
    step: int | None = None
    quantised: str = "none"
    program: str = f"retrain {__version__}"

    @property
    def json(self) -> str:
        """All of it; equal for equal ones."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)


def date_of_today() -> str:
    """Now, or what ``SOURCE_DATE_EPOCH`` says, in UTC; so equal runs can give equal bytes.

    See https://reproducible-builds.org/specs/source-date-epoch. Raises `UsageError` where it is
    set to what is no number of seconds.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return time.strftime(_DATE, time.gmtime())
    is_number = given.isascii() and given.isdecimal() and len(given) <= _DIGITS
    if not (is_number and int(given) <= _LAST):
        raise UsageError(
            "SOURCE_DATE_EPOCH must be seconds since 1970, a whole number; set it so, or unset it. "
            f"Received: {shown(given[:100])}"
        )
    return time.strftime(_DATE, time.gmtime(int(given)))


def flags_of(settings: Settings) -> dict[str, Any]:
    """The flags that are not at their defaults, but for paths."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.metadata.get("metavar", "").rpartition("|")[2] not in ("DIR", "FILE")
        and getattr(settings, field.name) != field.default
    }
