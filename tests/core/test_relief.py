"""A copy that nears its memory limit: where the policy says so it hands over by itself, once, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import SWITCHER, Story, in_good_times

from tunnelswitch.core.facts import PauseRequest, Reason
from tunnelswitch.core.standing import RELIEF_AFTER_SECONDS
from tunnelswitch_lab.simulator.setup import GROUP

RELIEVED = replace(GROUP, relief=True)


def outgrow(world: Story, site: str) -> None:
    world.service.copies[site].outgrown = True
    world.service.say()


@pytest.fixture
def grown() -> Story:
    world = in_good_times(RELIEVED)
    outgrow(world, "primary")
    return world


def test_the_standby_serves_and_the_old_process_ends(grown: Story) -> None:
    grown.run(RELIEF_AFTER_SECONDS - 1.0)
    assert grown.answering_copies() == {"primary"}, "first it is seen that the standby is steady"
    grown.run(3.0)
    assert grown.answering_copies() == {"secondary"}
    assert grown.moves == [("secondary", Reason.OPERATOR)]
    assert "policy.relief: pbx at primary nears its memory limit" in "; ".join(grown.record.evidence) or (
        grown.record.stamp.minor > 0
    )
    grown.run(3 * RELIEF_AFTER_SECONDS)
    assert len(grown.moves) == 1, "a young process is left alone"


def test_the_next_one_that_outgrows_hands_back(grown: Story) -> None:
    grown.run(RELIEF_AFTER_SECONDS + 3.0)
    while not grown.record.in_sync:
        grown.run(0.05)
    outgrow(grown, "secondary")
    grown.run(RELIEF_AFTER_SECONDS + 2.0)
    assert grown.answering_copies() == {"primary"}


def test_without_the_policy_it_is_only_said() -> None:
    world = in_good_times(GROUP)
    outgrow(world, "primary")
    world.run(3 * RELIEF_AFTER_SECONDS)
    assert world.answering_copies() == {"primary"}
    assert world.moves == []


def test_nobody_moves_while_paused(grown: Story) -> None:
    grown.bus.publish("operator", "gateway", PauseRequest("voip", grown.record.stamp, True, "", "alice"))
    grown.run(3 * RELIEF_AFTER_SECONDS)
    assert grown.moves == []


def test_without_a_standby_it_stays_until_there_is_one(grown: Story) -> None:
    grown.service.revives = False
    grown.service.lose_checkpoints()
    grown.run(3 * RELIEF_AFTER_SECONDS)
    assert grown.answering_copies() == {"primary"}
    assert grown.moves == []


def test_a_switcher_that_starts_anew_knows_it_from_the_heartbeats(grown: Story) -> None:
    grown.run(RELIEF_AFTER_SECONDS - 1.0)
    grown.kill(SWITCHER)
    grown.start(SWITCHER)
    grown.run(RELIEF_AFTER_SECONDS + 3.0)
    assert grown.answering_copies() == {"secondary"}
