"""What a forked child must make anew: the threads that hold or run it are not there."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from bottlenecks.errors import UsageError

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What ``make()`` gives, by a call; another one in each forked child.

    For locks and pools of a module: one that another thread holds while this one forks would be
    held in the child for ever, and a pool's threads are missing there.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._renew()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._made = self._make()

    def __call__(self) -> T:
        return self._made


class OwnProcess:
    """The process that something was made in which is of no use in a forked child.

    The threads of TensorFlow and OpenVINO are missing there, which it would wait for for ever.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check(self, what: str) -> None:
        """Raise `UsageError`, which names ``what``, in another process."""
        if os.getpid() != self._pid:
            raise UsageError(
                f"{what} was started before this process was forked, and cannot go on in a forked "
                "child; make one in each process, after the fork"
            )
