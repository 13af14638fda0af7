"""A network arrives whole and gives the same rows, or is refused."""

import dataclasses
import pickle

import numpy as np
import pytest

from bottlenecks.cluster.carried import Carried, carry, unpacked
from bottlenecks.errors import ClusterError
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.weights import Weights
from bottlenecks.photos import decode
from tests.standin import StandIn

GRAPH = b"the bytes of a graph"


def network() -> InceptionV3:
    weights = Weights("theirs.h5", "ab" * 32, None)
    return InceptionV3.of_frozen(weights, GRAPH, "float32", "tensorflow", None)


def sent(extractor: InceptionV3) -> Carried:
    arrived = pickle.loads(pickle.dumps(carry(extractor)))
    assert isinstance(arrived, Carried)
    return arrived


@pytest.mark.parametrize("cut", [None, "mixed7", "input"])
def test_it_arrives(cut: str | None) -> None:
    one = network() if cut is None else network().at(cut)
    other = unpacked(sent(one))
    assert isinstance(other, InceptionV3)
    assert (other.fingerprint, other.spec) == (one.fingerprint, one.spec)
    assert other.description == one.description
    if cut != "input":
        assert other.frozen == GRAPH


def test_other_bytes_are_refused() -> None:
    damaged = dataclasses.replace(sent(network()), frozen=np.frombuffer(GRAPH[::-1], np.uint8))
    with pytest.raises(ClusterError, match="has other bytes"):
        damaged.unpack()


def test_a_machine_whose_rows_are_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = sent(network())
    monkeypatch.setattr("bottlenecks.network.inception.DECODE_VERSION", decode.DECODE_VERSION + "x")
    with pytest.raises(ClusterError, match=r"its rows would be others .*the same version"):
        arrived.unpack()


def test_stand_ins_are_sent_as_they_are() -> None:
    stand_in = StandIn()
    assert carry(stand_in) is stand_in
    assert unpacked(stand_in) is stand_in
