"""What an adversary tries: every situation that once broke a rule, and seeded random faults.

After every step at most one copy answers the clients of all gateways, a gateway has at most one client tunnel, and no
stored stamp goes down. When all is healed, the service is back soon.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from schedule import Schedule, told
from world import GROUP, protect, with_policy
from world_faults import BrokenRuleError, FaultyWorld

from tunnelswitch.core import events, facts
from tunnelswitch.core.evidence import Verdict
from tunnelswitch.core.facts import Path, Reason
from tunnelswitch.core.freshness import Freshness, Stale
from tunnelswitch.core.keeping import RecordKeeper
from tunnelswitch.core.stamp import Stamp

TWO_GATEWAYS = with_policy(gateways=("gateway", "branch"), voters=("primary", "secondary", "gateway"))
RECORD = FaultyWorld().record
SCHEDULES = 40
SCHEDULES_TWO_GATEWAYS = 30


def test_a_promotion_that_failed_for_a_while_is_tried_again() -> None:
    world = protect(FaultyWorld())
    world.promote_fails = True
    world.lose_host("primary")
    world.run(3.0)
    world.promote_fails = False
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}


# ---------------------------------------------------------------------- it never comes back, although it could


def test_a_standing_reason_to_move_does_not_hide_that_the_standby_is_in_sync_again() -> None:
    world = protect(FaultyWorld())
    world.copies["primary"].role = "stopped"
    world.tell("primary", events.RunExited("pbx", "run-p"))
    world.run(0.3)
    assert world.answering_copies() == {"secondary"}
    world.tell("gateway", events.PathChanged("secondary", Path.DOWN))
    world.run(3.0)
    world.revive("primary")
    world.run(2.0)
    assert world.record.reason is Reason.CUT_OFF
    assert world.answering_copies() == {"primary"}


def test_a_standby_that_dies_before_it_took_over_gives_the_service_back() -> None:
    world = protect(FaultyWorld())
    request = facts.MoveRequest("voip", world.record.stamp, "secondary", "alice")
    world.tell("switcher", request)
    while world.record.active != "secondary":
        world.run(0.0005)
    world.crash_service("secondary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.copies["primary"].run == "run-p"


def test_one_old_heartbeat_of_an_unknown_incarnation_does_not_deafen_for_ever() -> None:
    freshness = Freshness(0.03)
    assert freshness.check("a", "now", 500, 100.0, 7.0) is None
    assert freshness.check("a", "before", 3, 90.0, 7.001) is None
    late = [freshness.check("a", "now", 501 + n, 100.01 + n * 0.01, 7.01 + n * 0.01) for n in range(100)]
    assert late[-1] is None


def test_a_sender_whose_clock_stood_still_is_heard_again() -> None:
    """A virtual machine that was suspended: its monotonic clock is behind for good."""
    freshness = Freshness(0.03)
    assert freshness.check("a", "i", 1, 100.0, 7.0) is None
    later = [freshness.check("a", "i", 2 + n, 100.01 + n * 0.01, 12.01 + n * 0.01) for n in range(400)]
    assert later[0] is Stale.AGE
    assert later[-1] is None


# ---------------------------------------------------------------------- two copies


def test_time_alone_is_no_certificate_against_an_active_that_is_in_touch_again() -> None:
    """Several gateways: one has no switcher and still leads to the old active, which never learns of the new epoch."""
    world = protect(FaultyWorld(TWO_GATEWAYS))
    world.kill("switcher@branch")
    world.isolate("primary")
    world.run(0.2)
    assert world.record.active == "secondary"
    world.store_up = False
    world.rejoin("primary")
    world.run(3.0)
    world.store_up = True
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}


def test_an_unreachable_gateway_costs_the_fence_time_not_the_service() -> None:
    world = protect(FaultyWorld(TWO_GATEWAYS))
    world.kill("switcher@branch")
    world.lose_host("primary")
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}


# ---------------------------------------------------------------------- it spins


def test_an_isolated_active_without_ovsdb_does_not_spin() -> None:
    world = protect(FaultyWorld())
    world.isolate("primary")
    world.run(0.7)
    world.switch_seconds["primary"] = 10.0
    world.lose_ovsdb("primary")
    world.run(1.0)


def test_a_refused_commit_waits_for_the_read_that_tells_why() -> None:
    keeper = RecordKeeper("voip")
    keeper.have_read(events.RecordRead("voip", RECORD, 3), 0.0)
    keeper.commit(RECORD, 0.0)
    keeper.refused()
    assert not keeper.can_commit
    assert keeper.step(0.001) is not None
    keeper.have_read(events.RecordRead("voip", RECORD, 4), 0.002)
    assert keeper.can_commit


# ---------------------------------------------------------------------- what is old moves something


def test_an_old_word_of_a_commit_is_not_believed_by_an_agent_that_has_just_started() -> None:
    world = protect(FaultyWorld())
    member = world.machines["secondary"].member
    old = replace(world.record, stamp=Stamp(0, "old"), active="secondary", previous="primary")
    world.start("secondary")
    world.store_up = False
    world.tell("secondary", facts.Epoch(old))
    world.run(0.5)
    assert world.copies["secondary"].role == "standby"
    assert member is not world.machines["secondary"].member


def test_an_answer_overtaken_by_a_newer_record_does_not_bring_the_older_one_back() -> None:
    world = protect(FaultyWorld())
    decider = world.machines["switcher"].deciders[0]
    mine = replace(world.record, stamp=Stamp(2, "mine"), active="secondary")
    newer = replace(world.record, stamp=Stamp(3, "theirs"))
    world.tell("switcher", facts.Epoch(newer))
    world.tell("switcher", events.Committed(mine, 7))
    assert decider.record == newer


def test_a_promotion_told_after_the_copy_died_is_no_service() -> None:
    world = protect(FaultyWorld())
    world.tell("secondary", events.RunExited("pbx", "run-s"))
    world.tell("secondary", events.Promoted("pbx", "run-s", 0.003))
    (status,) = world.machines["secondary"].hosted[0].statuses(world.now)
    assert status.role == "stopped"


def test_hysteresis_counts_every_move_whoever_told_of_it() -> None:
    world = protect(FaultyWorld())
    decider = world.machines["switcher"].deciders[0]
    moved = replace(world.record, stamp=Stamp(2, "theirs"), active="secondary", previous="primary")
    world.tell("switcher", facts.Epoch(moved))
    against = decider._policy_against(moved, Verdict(Reason.SUSPICION, ()), world.now + 0.1)
    assert against


# ---------------------------------------------------------------------- anything


def check_schedule(world: FaultyWorld) -> None:
    protect(world, 0.5)
    try:
        Schedule(world).play()
    except (BrokenRuleError, AssertionError) as error:
        pytest.fail(told(world, str(error)), pytrace=False)
    record = world.record
    active = world.copies[record.active]
    could = active.role == "active" or (active.role == "standby")
    if could and not world.answering_copies():
        pytest.fail(told(world, "all is healed, but nobody answers"), pytrace=False)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_any_schedule_with_one_gateway(seed: int) -> None:
    check_schedule(FaultyWorld(GROUP, seed))


@pytest.mark.parametrize("seed", range(1000, 1000 + SCHEDULES_TWO_GATEWAYS))
def test_any_schedule_with_two_gateways(seed: int) -> None:
    check_schedule(FaultyWorld(TWO_GATEWAYS, seed))
