"""A standby that its active has left makes room for a fresh one, and not before that is certain."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from stories import SERVICE, Story, in_good_times

from tunnelswitch.core.leftovers import LEFT_SECONDS

LONG_SECONDS = 4 * LEFT_SECONDS
BETWEEN_SERVERS = (("primary", "secondary"), ("secondary", "primary"))


@pytest.fixture
def world() -> Story:
    return in_good_times()


def run_at(world: Story, site: str) -> str:
    copy = world.service.copies[site]
    return copy.run if copy.alive else ""


def test_protection_comes_back_by_itself(world: Story) -> None:
    left = run_at(world, "secondary")
    world.service.lose_checkpoints()
    world.run(LEFT_SECONDS - 1.0)
    assert run_at(world, "secondary") == left
    world.run(LONG_SECONDS)
    assert run_at(world, "secondary") not in ("", left)
    assert world.record.in_sync
    assert f"{SERVICE}={run_at(world, 'secondary')}" in world.record.standby_run
    assert world.moves == []
    world.service.crash("primary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}


def test_it_stays_while_its_active_is_out_of_reach(world: Story) -> None:
    left = run_at(world, "secondary")
    world.network.cut(BETWEEN_SERVERS)
    world.links_changed()
    world.run(LONG_SECONDS)
    assert not world.record.in_sync
    assert run_at(world, "secondary") == left, "it may be all that is left of this state"
    world.network.mend(BETWEEN_SERVERS)
    world.links_changed()
    world.run(LONG_SECONDS)
    assert run_at(world, "secondary") != left
    assert world.record.in_sync


def test_it_stays_while_nobody_can_say_that_the_record_does_not_name_it(world: Story) -> None:
    left = run_at(world, "secondary")
    with patch.object(world.store, "reachable", lambda site: False):
        world.service.lose_checkpoints()
        world.run(LONG_SECONDS)
    assert run_at(world, "secondary") == left


def test_it_stays_when_its_active_has_ended(world: Story) -> None:
    left = run_at(world, "secondary")
    world.service.revives = False
    world.lose_host("primary")
    world.run(LONG_SECONDS)
    assert run_at(world, "secondary") == left
    assert world.answering_copies() == {"secondary"}
