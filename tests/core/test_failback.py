"""Going back to the preferred site: by itself after the stable time, if the policy says so; else never."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import SWITCHER, Story, in_good_times

from tunnelswitch.core.facts import DrainRequest, PauseRequest, Reason
from tunnelswitch_lab.simulator.setup import GROUP

STABLE_SECONDS = 3.0
AUTOMATIC = replace(GROUP, failback_after_seconds=STABLE_SECONDS)


@pytest.fixture
def moved() -> Story:
    """The preferred site was lost and is back; the other one serves."""
    world = in_good_times(AUTOMATIC)
    world.lose_host("primary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    world.boot("primary")
    return world


def until_in_sync(world: Story) -> None:
    while not world.record.in_sync:
        world.run(0.05)


def test_the_group_goes_back_after_the_stable_time_and_loses_nothing(moved: Story) -> None:
    until_in_sync(moved)
    moved.run(STABLE_SECONDS - 1.5)
    assert moved.answering_copies() == {"secondary"}, "not yet"
    moved.run(3.0)
    assert moved.answering_copies() == {"primary"}
    assert moved.moves[-1] == ("primary", Reason.OPERATOR)
    moved.run(2 * STABLE_SECONDS)
    assert len(moved.moves) == 2, "there it stays"


def test_a_standby_that_is_lost_meanwhile_begins_the_time_anew(moved: Story) -> None:
    until_in_sync(moved)
    moved.run(STABLE_SECONDS - 1.0)
    moved.service.lose_checkpoints()
    moved.run(1.5)
    assert moved.answering_copies() == {"secondary"}
    until_in_sync(moved)
    moved.run(STABLE_SECONDS - 2.0)
    assert moved.answering_copies() == {"secondary"}
    moved.run(3.0)
    assert moved.answering_copies() == {"primary"}


@pytest.mark.parametrize(
    "order",
    [
        lambda stamp: PauseRequest("voip", stamp, True, "", "alice"),
        lambda stamp: DrainRequest("voip", stamp, "primary", True, "alice"),
    ],
    ids=["paused", "drained"],
)
def test_an_operators_order_keeps_it_where_it_is(moved: Story, order: object) -> None:
    until_in_sync(moved)
    moved.bus.publish("operator", "gateway", order(moved.record.stamp))  # type: ignore[operator]
    moved.run(3 * STABLE_SECONDS)
    assert moved.answering_copies() == {"secondary"}
    assert len(moved.moves) == 1


def test_a_refusal_of_the_active_is_not_answered_by_asking_each_second(moved: Story) -> None:
    until_in_sync(moved)
    moved.service.linked = lambda: False
    moved.run(STABLE_SECONDS + 4.0)
    refused = moved.reasons("refuse").count("does not hand over")
    assert refused == 1
    moved.service.linked = lambda: True
    moved.run(STABLE_SECONDS + 4.0)
    assert moved.answering_copies() == {"primary"}


def test_a_switcher_that_starts_anew_begins_the_time_anew(moved: Story) -> None:
    until_in_sync(moved)
    moved.run(STABLE_SECONDS - 0.5)
    moved.kill(SWITCHER)
    moved.start(SWITCHER)
    moved.run(STABLE_SECONDS - 0.5)
    assert moved.answering_copies() == {"secondary"}
    moved.run(3.0)
    assert moved.answering_copies() == {"primary"}


def test_ten_losses_in_a_row_need_nobody() -> None:
    world = in_good_times(AUTOMATIC)
    for cycle in range(10):
        world.lose_host("primary")
        world.run(2.0)
        assert world.answering_copies() == {"secondary"}, cycle
        world.boot("primary")
        world.run(STABLE_SECONDS + 5.0)
        assert world.answering_copies() == {"primary"}, cycle
        assert world.record.in_sync, cycle
    assert world.record.stamp.epoch == 21


def test_a_time_that_has_come_for_nothing_does_not_keep_the_switcher_busy(moved: Story) -> None:
    """The stable time passes while something else is under way that the active's dead agent never answers."""
    until_in_sync(moved)
    moved.run(0.5)
    moved.kill("secondary")
    moved.ask("primary")
    moved.run(STABLE_SECONDS + 0.5)
    moved.ask("primary")
    moved.run(0.2)
    assert moved.machine(SWITCHER).deadline() > moved.now
