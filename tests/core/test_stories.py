"""The stories an operator cares about, in virtual time: who answers the client, and why."""

from __future__ import annotations

import pytest
from world import World, protected_world, with_policy

from tunnelswitch.core import events, facts
from tunnelswitch.core.evidence import PATH_DOWN_SECONDS
from tunnelswitch.core.facts import Path, Reason


@pytest.fixture
def world() -> World:
    return protected_world()


def reasons(world: World, action: str, since: float = 0.0) -> str:
    return " | ".join(d.reason for d in world.said(facts.Decision, since) if d.action == action)


def never_two(world: World) -> bool:
    return all(len(answering) <= 1 for _, answering in world.answered_by)


def test_host_loss_moves_to_the_standby_and_back_comes_nothing(world: World) -> None:
    lost_at = world.now
    world.lose_host("primary")
    world.run(2.0)
    assert world.answering_copies() == {"secondary"}
    assert world.record.reason is Reason.SUSPICION
    assert world.record.stamp.epoch == 2
    assert world.ovsdb["gateway"].present == {"t3-pbx"}
    assert world.downtime(lost_at) < 0.1
    assert never_two(world)
    (report,) = world.said(facts.Failover)
    assert list(report.marks) == ["path_down", "bus_silent", "verdict", "committed", "switched", "applied", "promoted"]


def test_service_crash_is_a_proof_and_needs_no_silence(world: World) -> None:
    crashed_at = world.now
    world.crash_service("primary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.record.reason is Reason.PROOF
    assert world.downtime(crashed_at) < 0.03
    assert never_two(world)


def test_a_false_alarm_on_the_path_to_the_standby_does_not_hold_up_a_proof(world: World) -> None:
    world.tell("gateway", events.PathChanged("secondary", Path.DOWN))
    world.run(0.1)
    crashed_at = world.now
    world.crash_service("primary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.downtime(crashed_at) < 0.03


def test_a_live_active_is_not_left_for_a_path_that_is_down(world: World) -> None:
    world.tell("gateway", events.PathChanged("secondary", Path.DOWN))
    world.run(0.1)
    world.tell("switcher", facts.MoveRequest("voip", world.record.stamp, "secondary", "alice"))
    world.tell("gateway", events.PathChanged("secondary", Path.UP))
    world.run(1.0)
    assert world.answering_copies() == {"primary"}, "a refused wish is not carried out later"
    assert "path from gateway to secondary is not up" in reasons(world, "refuse")


def test_a_crash_that_cannot_be_decided_yet_stays_a_crash(world: World) -> None:
    world.store_up = False
    crashed_at = world.now
    world.crash_service("primary")
    world.tell("primary", events.ServiceSeen("pbx", "", "stopped", facts.Protection.STOPPED, in_sync=False))
    world.run(3.0)
    assert not world.said(facts.PromoteFailed, crashed_at), "it had served: nobody failed to take over"
    world.store_up = True
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}
    assert world.record.reason is Reason.PROOF


def test_end_of_an_earlier_run_moves_nothing(world: World) -> None:
    world.tell("primary", events.RunExited("pbx", "run-of-yesterday"))
    world.run(2.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_agent_crash_is_no_reason_to_move(world: World) -> None:
    died_at = world.now
    world.kill("primary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1
    assert "its agent or its bus has failed" in reasons(world, "alarm", died_at)


def test_agent_restart_is_no_blip_for_clients(world: World) -> None:
    restarted_at = world.now
    for name in ("primary", "secondary", "gateway", "switcher"):
        world.kill(name)
        world.run(0.2)
        world.start(name)
        world.run(2.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1
    assert all(answering == {"primary"} for at, answering in world.answered_by if at >= restarted_at)


def test_isolated_primary_closes_itself_and_the_other_side_serves(world: World) -> None:
    world.isolate("primary")
    world.run(0.3)
    assert world.answering_copies() == {"secondary"}
    world.run(1.0)
    assert world.ovsdb["primary"].present == frozenset()
    world.rejoin("primary")
    world.run(2.0)
    assert world.answering_copies() == {"secondary"}
    assert world.copies["primary"].role == "stopped", "the old copy is destroyed once the new one serves"
    assert never_two(world)


def test_isolated_primary_gets_its_service_back_if_nobody_took_over(world: World) -> None:
    world.copies["secondary"].run = ""
    world.copies["secondary"].role = "stopped"
    world.service_seen("secondary")
    world.isolate("primary")
    world.run(1.0)
    world.rejoin("primary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_gateway_isolated_moves_nothing(world: World) -> None:
    world.isolate("gateway")
    world.run(3.0)
    world.rejoin("gateway")
    world.run(3.0)
    assert world.record.stamp.epoch == 1
    assert world.answering_copies() == {"primary"}


def test_standby_isolated_moves_nothing(world: World) -> None:
    world.isolate("secondary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_store_gone_means_traffic_stays_as_it_is(world: World) -> None:
    world.store_up = False
    world.run(2.0)
    assert world.answering_copies() == {"primary"}
    world.lose_host("primary")
    world.run(2.0)
    assert world.answering_copies() == frozenset()
    assert world.record.stamp.epoch == 1
    world.store_up = True
    world.run(4.0)
    assert world.answering_copies() == {"secondary"}


def test_checkpoint_link_lost_makes_the_standby_unpromotable(world: World) -> None:
    world.lose_checkpoints()
    world.run(1.0)
    assert not world.record.in_sync
    world.lose_host("primary")
    world.run(2.0)
    assert world.answering_copies() == frozenset()
    assert "not in sync" in reasons(world, "refuse")


def test_clients_cut_off_are_moved_with_consent(world: World) -> None:
    world.tell("gateway", events.ClientsSeen("pbx", 0.25))
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.record.reason is Reason.CUT_OFF
    assert never_two(world)


def test_a_path_that_flaps_while_the_bus_lives_moves_nothing(world: World) -> None:
    for _ in range(20):
        world.tell("gateway", events.PathChanged("primary", Path.DOWN))
        world.run(0.05)
        world.tell("gateway", events.PathChanged("primary", Path.UP))
        world.run(0.1)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_gateway_that_lost_the_path_alone_asks_for_a_handover(world: World) -> None:
    world.tell("gateway", events.PathChanged("primary", Path.DOWN))
    world.run(PATH_DOWN_SECONDS - 1.0)
    assert world.record.stamp.epoch == 1, "it may be a false alarm"
    world.run(2.0)
    assert world.record.reason is Reason.CUT_OFF
    assert world.answering_copies() == {"secondary"}
    assert never_two(world)


def test_operator_moves_a_healthy_service(world: World) -> None:
    request = facts.MoveRequest("voip", world.record.stamp, "secondary", "alice")
    world.tell("switcher", request)
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.record.reason is Reason.OPERATOR
    assert never_two(world)


def test_operator_with_an_old_stamp_is_refused(world: World) -> None:
    stale = facts.MoveRequest("voip", world.record.stamp.rearmed(), "secondary", "alice")
    world.tell("switcher", stale)
    world.run(1.0)
    assert world.answering_copies() == {"primary"}
    assert "not in force" in reasons(world, "refuse")


def test_manual_policy_only_says_what_it_would_do() -> None:
    world = protected_world(with_policy(automatic=False))
    world.lose_host("primary")
    world.run(2.0)
    assert world.record.stamp.epoch == 1
    assert "automatic failover is off" in reasons(world, "refuse")


def test_tunnel_removed_by_hand_comes_back(world: World) -> None:
    world.unplug("gateway", "t2-pbx")
    world.unplug("primary", "t2-pbx")
    assert world.answering_copies() == frozenset()
    world.run(0.1)
    assert world.answering_copies() == {"primary"}


def test_store_that_went_back_is_raised_above_the_marks(world: World) -> None:
    old = world.record
    world.lose_host("primary")
    world.run(2.0)
    assert world.record.stamp.epoch == 2
    _, revision = world.store["voip"]
    world.store["voip"] = (old, revision + 5)
    world.run(4.0)
    assert world.answering_copies() == {"secondary"}
    assert world.record.stamp.epoch > 2
    assert world.record.active == "secondary"
    assert world.record.reason is Reason.RECOVERY


def test_switcher_restarted_over_a_store_that_went_back_moves_nothing(world: World) -> None:
    old = world.record
    world.lose_host("primary")
    world.run(2.0)
    world.kill("switcher", "secondary")
    _, revision = world.store["voip"]
    world.store["voip"] = (old, revision + 5)
    world.start("switcher", "secondary")
    world.run(6.0)
    assert world.ovsdb["gateway"].present == {"t3-pbx"}
    assert world.record.active == "secondary"


def test_missing_record_decides_nothing() -> None:
    world = World()
    world.store.clear()
    world.start("primary", "secondary", "gateway", "switcher")
    world.run(2.0)
    assert world.answering_copies() == frozenset()
    assert "tunnelswitch init" in reasons(world, "alarm")


def test_promotion_that_fails_is_an_alarm(world: World) -> None:
    world.promote_fails = True
    world.lose_host("primary")
    world.run(5.0)
    assert "could not take over" in reasons(world, "alarm")


def test_promotion_that_fails_after_a_handover_gives_the_service_back(world: World) -> None:
    world.promote_fails = True
    world.tell("switcher", facts.MoveRequest("voip", world.record.stamp, "secondary", "alice"))
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert "promote_failed: secondary -> primary" in reasons(world, "commit")
    assert world.record.stamp.epoch == 3
    assert world.copies["primary"].run == "run-p"
    assert never_two(world)
