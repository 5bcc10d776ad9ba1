"""Pausing: nothing moves by itself, every switcher says that it knows, and operators are still obeyed."""

from __future__ import annotations

from stories import SWITCHER, TWO_GATEWAYS, Story, in_good_times

from tunnelswitch.core.facts import Decision, PauseRequest, Reason


def pause(world: Story, *, paused: bool = True, why: str = "a switch is replaced") -> None:
    request = PauseRequest(world.group.name, world.record.stamp, paused, why, "alice")
    world.bus.publish("operator", "gateway", request)
    world.run(0.3)


def who_said(world: Story, action: str, since: float = 0.0) -> set[str]:
    return {decision.site for decision in world.said(Decision, since) if decision.action == action}


def test_a_dead_site_is_not_left_while_paused_and_is_left_after_it(world: Story) -> None:
    pause(world)
    assert world.record.paused == "alice: a switch is replaced"
    world.lose_host("primary")
    world.run(3.0)
    assert world.moves == []
    assert "automatic failover is paused by alice: a switch is replaced (tunnelswitch resume)" in world.reasons(
        "refuse"
    )
    pause(world, paused=False)
    world.run(2.0)
    assert world.record.paused == ""
    assert world.moves == [("secondary", Reason.SUSPICION)]


def test_a_crash_is_not_answered_either(world: Story) -> None:
    pause(world)
    world.service.revives = False
    world.service.crash("primary")
    world.run(2.0)
    assert world.moves == []


def test_an_operator_still_moves_and_it_stays_paused(world: Story) -> None:
    pause(world)
    world.ask("secondary")
    world.run(1.0)
    assert world.moves == [("secondary", Reason.OPERATOR)]
    assert world.record.paused


def test_it_outlives_every_process(world: Story) -> None:
    pause(world)
    world.kill(*world.names)
    world.run(0.5)
    world.start()
    world.run(1.0)
    world.service.crash("primary")
    world.run(1.0)
    assert world.moves == []


def test_every_switcher_says_that_it_knows_and_says_it_again_when_asked() -> None:
    world = in_good_times(TWO_GATEWAYS)
    pause(world)
    assert who_said(world, "pause") == {"gateway", "branch"}
    asked_at, stamp = world.now, world.record.stamp
    pause(world)
    assert who_said(world, "pause", asked_at) == {"gateway", "branch"}
    assert world.record.stamp == stamp, "nothing was written"
    pause(world, paused=False)
    assert who_said(world, "resume") == {"gateway", "branch"}


def test_a_switcher_that_is_away_is_not_heard(world: Story) -> None:
    pause(world)
    world.kill(SWITCHER)
    asked_at = world.now
    pause(world)
    assert who_said(world, "pause", asked_at) == set()


def test_under_another_stamp_it_is_refused(world: Story) -> None:
    old = world.record.stamp
    pause(world)
    request = PauseRequest(world.group.name, old, False, "", "alice")
    world.bus.publish("operator", "gateway", request)
    world.run(0.3)
    assert world.record.paused
    assert "which is not in force" in world.reasons("refuse")


def test_a_site_that_closed_itself_while_paused_gets_its_service_back(world: Story) -> None:
    pause(world)
    world.isolate("primary")
    world.run(2.0)
    world.rejoin("primary")
    world.run(2.0)
    assert world.moves == []
    assert world.answering_copies() == {"primary"}
