"""What a forked child must make anew: the threads that hold or run it are not there."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

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
