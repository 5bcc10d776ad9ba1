"""Draining: a site that is to serve nobody, and what an operator may ask."""

from __future__ import annotations

import pytest

from tunnelswitch.core.facts import Decision, DrainRequest, MoveRequest, Reason
from tunnelswitch.core.leftovers import LEFT_SECONDS
from tunnelswitch_lab.simulator.running import unlogged
from tunnelswitch_lab.simulator.setup import GROUP
from tunnelswitch_lab.simulator.world import World


class Story:
    """A world in good times, and everything that its switcher says."""

    def __init__(self) -> None:
        self.said: list[Decision] = []
        self.world = World(told=lambda now, who, what: self.said.append(what) if isinstance(what, Decision) else None)
        self.world.start()
        self.world.run(0.5)

    def drain(self, site: str, *, drained: bool = True, minor: int | None = None) -> None:
        stamp = self.world.record.stamp if minor is None else self.world.record.stamp.rearmed()
        request = DrainRequest(GROUP.name, stamp, site, drained, "alice")
        self.world.bus.publish("operator", "gateway", request)
        self.world.run(1.0)

    def refusals(self) -> str:
        return " | ".join(decision.reason for decision in self.said if decision.action == "refuse")


@pytest.fixture
def story() -> Story:
    with unlogged():
        return Story()


def test_a_drained_active_hands_over_and_stays_drained(story: Story) -> None:
    story.drain("primary")
    assert story.world.answering_copies() == {"secondary"}
    assert story.world.record.drained == ("primary",)
    assert story.world.record.stamp.epoch == 2
    story.world.run(3.0)
    assert story.world.record.stamp.epoch == 2, "nothing moves back by itself"


def test_nothing_moves_to_a_drained_standby_until_it_is_undrained(story: Story) -> None:
    story.drain("secondary")
    story.world.lose_host("primary")
    story.world.run(2.0)
    assert story.world.answering_copies() == frozenset()
    assert "secondary is drained (tunnelswitch undrain)" in story.refusals()
    story.drain("secondary", drained=False)
    assert story.world.answering_copies() == {"secondary"}


def test_an_operator_cannot_move_to_a_drained_site_either(story: Story) -> None:
    story.drain("secondary")
    story.world.bus.publish(
        "operator", "gateway", MoveRequest(GROUP.name, story.world.record.stamp, "secondary", "alice")
    )
    story.world.run(1.0)
    assert story.world.answering_copies() == {"primary"}
    assert "operator: secondary is drained" in story.refusals()


def test_a_drain_that_cannot_be_done_yet_is_done_as_soon_as_it_can(story: Story) -> None:
    story.world.isolate("secondary")
    story.world.run(1.0)
    story.drain("primary")
    assert story.world.answering_copies() == {"primary"}
    assert "not in sync" in story.refusals()
    story.world.rejoin("secondary")
    story.world.run(LEFT_SECONDS + 5.0)
    assert story.world.answering_copies() == {"secondary"}


def test_both_servers_cannot_be_drained(story: Story) -> None:
    story.drain("secondary")
    story.drain("primary")
    assert story.world.record.drained == ("secondary",)
    assert "then nobody could serve" in story.refusals()


def test_a_site_that_serves_nobody_of_the_group_cannot_be_drained(story: Story) -> None:
    story.drain("gateway")
    assert story.world.record.drained == ()
    assert "is served by primary and secondary" in story.refusals()


def test_a_drain_under_another_stamp_is_refused_and_the_refusal_is_said_each_time(story: Story) -> None:
    for _ in range(2):
        story.drain("primary", minor=1)
    assert story.world.record.drained == ()
    assert story.refusals().count("not in force") == 2


def test_a_drain_whose_target_cannot_take_over_is_given_up(story: Story) -> None:
    (hypervisor,) = story.world.hypervisors.values()
    hypervisor.fault = "fails"
    story.drain("primary")
    story.world.run(2.0)
    assert story.world.answering_copies() == {"primary"}
    assert story.world.record.drained == ()
    assert story.world.record.stamp.epoch == 3


def test_a_dead_active_is_left_whatever_else_is_drained(story: Story) -> None:
    story.drain("primary")
    story.world.run(1.0)
    story.drain("primary", drained=False)
    story.world.hypervisors["pbx"].crash("secondary")
    story.world.run(1.0)
    assert story.world.answering_copies() == {"primary"}
    assert story.world.record.reason in (Reason.PROOF, Reason.PROTECTION)
