"""The network on its way to other machines, checked by its hash where it arrives."""

import hashlib
from dataclasses import dataclass

import numpy as np

from bottlenecks.errors import ClusterError
from bottlenecks.network.cuts import INPUT
from bottlenecks.network.inception import Extractor, InceptionV3
from bottlenecks.network.weights import Weights


@dataclass(frozen=True)
class Carried:
    """An `InceptionV3` in parts.

    ``frozen`` is the network's bytes as (n,) uint8, which Ray keeps once for all processes of a
    machine, and none for a cut before it. ``numbers`` are those of 8 bits.
    """

    weights_name: str
    weights_sha256: str
    precision: str
    engine: str
    cut: str | None
    numbers: bytes | None
    frozen: np.ndarray
    frozen_sha256: str
    fingerprint: str

    def unpack(self) -> InceptionV3:
        """The network, on another machine.

        Raises `ClusterError` where not all has arrived, and where its rows would be others.
        """
        frozen = self.frozen.tobytes()
        if hashlib.sha256(frozen).hexdigest() != self.frozen_sha256:
            raise ClusterError("the network that arrived there has other bytes")
        weights = Weights(self.weights_name, self.weights_sha256, None)
        found = InceptionV3.of_frozen(weights, frozen, self.precision, self.engine, self.numbers)
        if self.cut is not None:
            found = found.at(self.cut)
        if found.fingerprint != self.fingerprint:
            raise ClusterError(
                f"its rows would be others ({found.row_precision}, fingerprint "
                f"{found.fingerprint[:12]}, here {self.precision}, {self.fingerprint[:12]}): it "
                "needs the same version of this program, and a processor that has the precision"
            )
        return found


def carry(extractor: Extractor) -> "Carried | Extractor":
    """What is sent of an extractor; one that is not InceptionV3 is pickled as it is."""
    if not isinstance(extractor, InceptionV3):
        return extractor
    frozen = b"" if extractor.cut == INPUT else extractor.frozen
    weights = extractor.weights
    return Carried(
        weights.name,
        weights.sha256,
        extractor.row_precision,
        extractor.engine,
        extractor.cut,
        extractor.numbers,
        np.frombuffer(frozen, np.uint8),
        hashlib.sha256(frozen).hexdigest(),
        extractor.fingerprint,
    )


def unpacked(sent: "Carried | Extractor") -> Extractor:
    """What `carry` was given. Raises as `Carried.unpack` does."""
    return sent.unpack() if isinstance(sent, Carried) else sent
