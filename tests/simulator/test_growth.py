"""What a move costs with more gateways, counted in virtual time."""

from __future__ import annotations

import pytest

from tunnelswitch_lab.growth.gateways import checked_counts, count, line
from tunnelswitch_lab.options import LabError


def test_every_gateway_is_moved_by_one_report_and_what_is_said_grows_with_them() -> None:
    one, three = count(1), count(3)
    for told in (one, three):
        assert told["served_seconds"] is not None
        assert told["by_kind"]["Failover"] == 1
    assert one["commits"] == 1
    assert one["messages"] < three["messages"] <= 3 * one["messages"]
    assert "3 gateways" in line(three)


@pytest.mark.parametrize("text", ["0", "1,,2", "many", "17"])
def test_a_count_that_cannot_be_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(LabError, match="from 1 to 16"):
        checked_counts(text)
