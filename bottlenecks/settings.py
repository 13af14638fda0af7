"""Settings: frozen dataclasses, one for each concern, that the flags are made from."""

import dataclasses
import os
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from bottlenecks.errors import UsageError, shown


def flag(default: Any, help: str, **options: Any) -> Any:  # noqa: A002
    """A field of `Settings` that is also a command line flag.

    ``dataclasses.MISSING`` as the default makes it required. ``options`` are argparse's
    (``choices``, ``metavar``), and ``first=True`` for one of the few flags that most people need,
    which the help shows before all others.
    """
    return dataclasses.field(default=default, metadata={"help": help, **options})


@dataclass(frozen=True)
class Output:
    """A file or ``folder`` that ``flag`` makes the command write.

    Where the user has not named the file itself, there is a ``marker``: bytes near the start of
    every such file, without which it is not this program's to replace.
    """

    flag: str
    path: str | os.PathLike[str]
    folder: bool = False
    marker: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base of all settings; a command's are put together from several by inheritance.

    A subclass gives its flags a ``title`` in the help, and has its own checks in
    ``__post_init__``, which calls ``super()``'s, as ``inputs`` and ``outputs`` do: each adds its
    own. All raise `UsageError` for values that cannot be.
    """

    title: ClassVar[str] = "options"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
                object.__setattr__(self, field.name, value)
            choices = field.metadata.get("choices")
            if choices and value is not None:
                require(value in choices, field.name, " or ".join(choices), value)
            metavar = field.metadata.get("metavar", "")
            if metavar.rpartition("|")[2] in ("DIR", "FILE") and isinstance(value, str):
                object.__setattr__(self, field.name, checked_path(value, field.name))

    @property
    def inputs(self) -> dict[str, str]:
        """The files that are read beside the photos, by their flags."""
        return {}

    @property
    def outputs(self) -> list[Output]:
        """All files and folders that are written."""
        return []


def require(condition: bool, name: str, expected: str, received: object) -> None:
    """Raise a `UsageError` that names the flag unless ``condition``."""
    if not condition:
        raise UsageError(f"--{name} must be {expected}. Received: {received}")


def checked_path(path: str | os.PathLike[str], flag: str) -> str:
    """``path`` with the home folder for a leading ``~``.

    The shell does so only where it sees a word of its own, not in ``--flag=~/folder``. Raises
    `UsageError` for an empty path, one with a null byte, and where there is no home folder, as in
    many a container.
    """
    path = os.fspath(path)
    if not path or "\0" in path:
        raise UsageError(f"--{flag} must be a path. Received: {path!r}")
    expanded = os.path.expanduser(path)
    if expanded.split(os.sep, 1)[0] == "~":
        raise UsageError(
            f"--{flag} {shown(path)} is below the home folder, and there is none: HOME is not set "
            f"and this user has no entry; name a folder with --{flag}"
        )
    return expanded
