"""What a move costs with more gateways, counted in virtual time."""

from __future__ import annotations

import pytest

from tunnelswitch.config import parse
from tunnelswitch_lab.growth.deployment import Shape
from tunnelswitch_lab.growth.gateways import checked_counts, count, line
from tunnelswitch_lab.growth.run import checked_services
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError, LabOptions


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


@pytest.mark.parametrize("text", ["0", "10;100", "1001"])
def test_a_number_of_services_that_cannot_be_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(LabError, match="from 1 to 1000"):
        checked_services(text)


@pytest.mark.parametrize("shared", [True, False])
def test_a_hundred_services_are_a_deployment_with_or_without_tunnels_of_their_own(shared: bool) -> None:
    shape = Shape(100, shared)
    deployment = parse(shape.render(Layout("growth"), LabOptions()), "growth.toml")
    groups = deployment.groups_at("gateway")
    assert [len(group.services) for group in groups] == [25, 25, 25, 25]
    assert [len(group.carriers()) for group in groups] == ([1] * 4 if shared else [25] * 4)
