"""What a crew makes of signals that Ray hides."""

import pytest

from bottlenecks.cluster.crew import _stops_as_itself
from bottlenecks.command import Terminated


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_stop_that_is_hidden_in_another_error(stop: type[BaseException]) -> None:
    with pytest.raises(stop), _stops_as_itself():
        try:
            raise stop
        except stop as hidden:
            raise SystemError("returned a result with an exception set") from hidden


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(SystemError, match="of its own"), _stops_as_itself():
        raise SystemError("of its own") from ValueError()
