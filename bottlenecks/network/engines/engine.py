"""What an engine of the frozen network has: its module; and all of them.

A new engine is such a module, a line here, and its name in `bottlenecks.network.names`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from bottlenecks.network.engines import with_openvino, with_tensorflow
from bottlenecks.network.engines.devices import Run


class Engine(Protocol):
    """Runs the frozen network."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What ``--engine`` calls it."""

    @property
    def TITLE(self) -> str:  # noqa: N802
        """What people call it."""

    def is_installed(self) -> bool:
        """Whether what it needs is there; nothing is imported for it."""

    def marks(self, precision: str) -> dict[str, Any]:
        """What of it changes a row of this precision, for the fingerprint; nothing for many."""

    def start(self, frozen: bytes, cut: str | None, precision: str, int8: bytes | None) -> Run:
        """Load a network, once: ``frozen`` is a serialized GraphDef.

        ``cut`` is where it ends, None for the bottleneck; ``int8`` are the numbers for that
        precision (`bottlenecks.network.engines.int8.to_bytes`), else None.
        """


ENGINES: Mapping[str, Engine] = {engine.NAME: engine for engine in (with_tensorflow, with_openvino)}
