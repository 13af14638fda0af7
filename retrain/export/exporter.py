"""What a format that is written has. Such a module needs three names, and a line in `formats`."""

from typing import Any, Protocol


class Exporter(Protocol):
    """A format that a classifier is written in: what a module of it has."""

    @property
    def is_wanted(self) -> Any:
        """``is_wanted(settings)``: whether the flags, `ExportSettings`, ask for it."""

    @property
    def check(self) -> Any:
        """``check(settings)``: raise `UsageError` where it could not be made, before anything is.

        A package that it needs and that is missing, for example.
        """

    @property
    def write(self) -> Any:
        """``write(classifier, settings)``: write a `TrainedClassifier`, whole or not at all.

        Raises ``OSError``, `UsageError`.
        """
