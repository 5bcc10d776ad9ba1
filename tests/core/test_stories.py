"""The stories an operator cares about, in virtual time: who answers the client, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import SERVICE, SWITCHER, Story, in_good_times

from tunnelswitch.core import events, facts
from tunnelswitch.core.concluding import PATH_DOWN_SECONDS
from tunnelswitch.core.facts import Path, Reason
from tunnelswitch_lab.simulator.network import both_ways
from tunnelswitch_lab.simulator.setup import GROUP


def test_a_deployment_fresh_from_init_comes_to_serve_with_a_standby_in_sync() -> None:
    world = Story(fresh=True)
    world.start()
    world.run(2.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.in_sync
    assert world.record.stamp.epoch == 1


def test_host_loss_moves_to_the_standby_and_back_comes_nothing(world: Story) -> None:
    lost_at = world.now
    world.lose_host("primary")
    world.run(2.0)
    assert world.answering_copies() == {"secondary"}
    assert world.moves == [("secondary", Reason.SUSPICION)]
    assert world.record.stamp.epoch == 2
    assert world.switches["gateway"].followed == {"t3-pbx"}
    assert world.downtime(lost_at) < 0.1
    (report,) = world.said(facts.Failover)
    assert list(report.marks) == ["path_down", "bus_silent", "verdict", "committed", "switched", "applied", "promoted"]
    world.boot("primary")
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}
    assert len(world.moves) == 1


def test_when_an_active_has_just_gone_nobody_reads_for_a_second_and_then_all_do(
    world: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that would follow would wait for a read's mark; here none follows, for one voter is no majority."""
    reads: list[tuple[float, str]] = []
    read = world.store.read
    monkeypatch.setattr(
        world.store, "read", lambda site, *rest: (reads.append((world.now, site)), read(site, *rest))[1]
    )
    world.kill("secondary")
    world.run(3.0)
    lost_at = world.now
    world.lose_host("primary")
    world.run(4.0)
    noticed_at = lost_at + 0.1
    soon = [who for at, who in reads if noticed_at <= at < noticed_at + 0.8]
    later = {who for at, who in reads if noticed_at + 0.8 <= at}
    assert soon == []
    assert {"gateway"} <= later
    assert len([at for at, _ in reads if at > lost_at + 2.0]) > 2


def test_service_crash_is_a_proof_and_needs_no_silence(world: Story) -> None:
    crashed_at = world.now
    world.service.crash("primary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.moves == [("secondary", Reason.PROOF)]
    assert world.downtime(crashed_at) < 0.03


def test_a_false_alarm_on_the_path_to_the_standby_does_not_hold_up_a_proof(world: Story) -> None:
    world.network.say("gateway", "secondary", Path.DOWN)
    world.run(0.1)
    crashed_at = world.now
    world.service.crash("primary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.downtime(crashed_at) < 0.03


def test_a_live_active_is_not_left_for_a_path_that_is_down(world: Story) -> None:
    world.network.say("gateway", "secondary", Path.DOWN)
    world.run(0.1)
    world.ask("secondary")
    world.run(0.1)
    world.network.say("gateway", "secondary", Path.UP)
    world.run(1.0)
    assert world.answering_copies() == {"primary"}, "a refused wish is not carried out later"
    assert "path from gateway to secondary is not up" in world.reasons("refuse")


def test_a_crash_that_cannot_be_decided_yet_stays_a_crash(world: Story) -> None:
    world.store.up = False
    crashed_at = world.now
    world.service.crash("primary")
    world.tell("primary", events.ServiceSeen(SERVICE, "", "stopped", facts.Protection.STOPPED, in_sync=False))
    world.tell("primary", events.RunExited(SERVICE, "pbx-p0"))
    world.run(3.0)
    assert not world.said(facts.PromoteFailed, crashed_at), "it had served: nobody failed to take over"
    world.store.up = True
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}
    assert world.moves == [("secondary", Reason.PROOF)]


def test_end_of_an_earlier_run_moves_nothing(world: Story) -> None:
    world.tell("primary", events.RunExited(SERVICE, "run-of-yesterday"))
    world.run(2.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_agent_crash_is_no_reason_to_move(world: Story) -> None:
    died_at = world.now
    world.kill("primary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1
    assert "its agent or its bus has failed" in world.reasons("alarm", died_at)


def test_agent_restart_is_no_blip_for_clients(world: Story) -> None:
    restarted_at = world.now
    for name in world.names:
        world.kill(name)
        world.run(0.2)
        world.start(name)
        world.run(2.0)
    assert world.record.stamp.epoch == 1
    assert world.answered_since(restarted_at) == [{"primary"}]


def test_isolated_primary_closes_itself_and_the_other_side_serves(world: Story) -> None:
    world.isolate("primary")
    world.run(0.3)
    assert world.answering_copies() == {"secondary"}
    world.run(1.0)
    assert world.switches["primary"].followed == frozenset()
    assert world.copies["primary"].run == "pbx-p0"
    world.service.revives = False
    world.rejoin("primary")
    world.run(2.0)
    assert world.answering_copies() == {"secondary"}
    assert world.copies["primary"].role == "stopped", "the old copy is destroyed once the new one serves"


def test_isolated_primary_gets_its_service_back_if_nobody_took_over(world: Story) -> None:
    world.service.crash("secondary")
    world.isolate("primary")
    world.run(1.0)
    assert world.switches["primary"].followed == frozenset(), "it cannot know that nobody could take over"
    world.rejoin("primary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_isolated_primary_gets_its_service_back_where_nothing_moves_by_itself() -> None:
    world = in_good_times(replace(GROUP, automatic=False))
    world.isolate("primary")
    world.run(1.0)
    assert world.switches["primary"].followed == frozenset()
    world.rejoin("primary")
    world.run(1.0)
    assert world.answering_copies() == {"primary"}
    assert Reason.REARM in [record.reason for record, _ in world.store.history["voip"]]
    assert world.moves == []


def test_gateway_isolated_moves_nothing(world: Story) -> None:
    world.isolate("gateway")
    world.run(3.0)
    world.rejoin("gateway")
    world.run(3.0)
    assert world.record.stamp.epoch == 1
    assert world.answering_copies() == {"primary"}


def test_standby_isolated_moves_nothing(world: Story) -> None:
    isolated_at = world.now
    world.isolate("secondary")
    world.run(3.0)
    assert world.answered_since(isolated_at) == [{"primary"}]
    assert world.record.stamp.epoch == 1


def test_store_gone_means_traffic_stays_as_it_is(world: Story) -> None:
    gone_at = world.now
    world.store.up = False
    world.run(2.0)
    assert world.answered_since(gone_at) == [{"primary"}]
    world.lose_host("primary")
    world.run(2.0)
    assert world.answering_copies() == frozenset()
    assert world.record.stamp.epoch == 1
    world.store.up = True
    world.run(4.0)
    assert world.answering_copies() == {"secondary"}


def test_checkpoint_link_lost_makes_the_standby_unpromotable(world: Story) -> None:
    world.service.revives = False
    world.service.lose_checkpoints()
    world.run(1.0)
    assert not world.record.in_sync
    world.lose_host("primary")
    world.run(2.0)
    assert world.answering_copies() == frozenset()
    assert "not in sync" in world.reasons("refuse")


def test_clients_cut_off_are_moved_with_consent(world: Story) -> None:
    world.tell("gateway", events.ClientsSeen(SERVICE, 0.25))
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.moves == [("secondary", Reason.CUT_OFF)]


def test_a_path_that_flaps_while_the_bus_lives_moves_nothing(world: Story) -> None:
    for _ in range(20):
        world.network.say("gateway", "primary", Path.DOWN)
        world.run(0.05)
        world.network.say("gateway", "primary", Path.UP)
        world.run(0.1)
    assert world.answering_copies() == {"primary"}
    assert world.record.stamp.epoch == 1


def test_gaps_like_those_before_are_no_reason_to_move_and_a_lost_host_is_noticed_all_the_same(world: Story) -> None:
    world.run(2.0)  # nobody learns from the bustle of a start

    def gap() -> None:
        world.bus.stall("primary")
        world.run(0.08)
        world.bus.release("primary")
        world.run(0.3)

    gap()
    for voter in ("secondary", "gateway"):
        world.network.say(voter, "primary", Path.DOWN)
    gap()
    assert not world.moves, "the paths are down, but such a silence is nothing new"
    lost_at = world.now
    world.lose_host("primary")
    world.run(2.0)
    assert world.moves == [("secondary", Reason.SUSPICION)]
    assert 0.08 < world.downtime(lost_at) < 0.2


def test_gateway_that_lost_the_path_alone_asks_for_a_handover(world: Story) -> None:
    world.network.say("gateway", "primary", Path.DOWN)
    world.run(PATH_DOWN_SECONDS - 1.0)
    assert world.record.stamp.epoch == 1, "it may be a false alarm"
    world.run(2.0)
    assert world.moves == [("secondary", Reason.CUT_OFF)]
    assert world.answering_copies() == {"secondary"}


def test_an_active_that_comes_back_after_long_is_given_the_time_to_show_its_path_and_to_answer(world: Story) -> None:
    ways = both_ways("gateway", "primary")
    world.network.cut(ways)
    world.run(PATH_DOWN_SECONDS + 1.0)
    world.network.mend(ways)
    world.run(2.0)
    assert world.moves == []
    assert world.answering_copies() == {"primary"}


def test_a_gateway_that_alone_has_lost_the_active_moves_nothing_and_says_why_its_clients_wait(world: Story) -> None:
    world.network.cut([("gateway", "primary"), ("primary", "gateway")])
    cut_at = world.now
    world.run(3.0)
    assert world.answering_copies() == set()
    assert world.moves == []
    assert "gateway has lost primary, path and bus, and too few of the other voters have" in world.reasons(
        "alarm", cut_at
    )
    world.heal()
    world.run(2.0)
    assert world.answering_copies() == {"primary"}


def test_operator_moves_a_healthy_service(world: Story) -> None:
    world.ask("secondary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.moves == [("secondary", Reason.OPERATOR)]


def test_operator_with_an_old_stamp_is_refused(world: Story) -> None:
    world.ask("secondary", world.record.stamp.rearmed())
    world.run(1.0)
    assert world.answering_copies() == {"primary"}
    assert "not in force" in world.reasons("refuse")


def test_manual_policy_only_says_what_it_would_do() -> None:
    world = in_good_times(replace(GROUP, automatic=False))
    world.lose_host("primary")
    world.run(2.0)
    assert world.record.stamp.epoch == 1
    assert "automatic failover is off" in world.reasons("refuse")


def test_tunnel_removed_by_hand_comes_back(world: Story) -> None:
    unplugged_at = world.now
    world.switches["gateway"].unplug("t2-pbx")
    world.switches["primary"].unplug("t2-pbx")
    world.run(0.1)
    assert world.answered_since(unplugged_at) == [{"primary"}, set(), {"primary"}]


@pytest.mark.parametrize("restored", [True, False])
def test_store_that_went_back_is_raised_above_the_marks(world: Story, restored: bool) -> None:
    old = world.record
    world.lose_host("primary")
    world.run(2.0)
    assert world.record.stamp.epoch == 2
    went_back_at = world.now
    if restored:
        world.store.put_back(old)
    else:
        world.store.forget("voip", 100)
    assert world.record == old
    world.run(4.0)
    assert world.answered_since(went_back_at) == [{"secondary"}]
    assert world.record.stamp.epoch > 2
    assert world.record.active == "secondary"
    assert world.record.reason is Reason.RECOVERY


def test_switcher_restarted_over_a_store_that_went_back_moves_nothing(world: Story) -> None:
    old = world.record
    world.lose_host("primary")
    world.run(2.0)
    world.kill(SWITCHER, "secondary")
    world.store.put_back(old)
    went_back_at = world.now
    world.start(SWITCHER, "secondary")
    world.run(6.0)
    assert world.answered_since(went_back_at) == [{"secondary"}]
    assert world.switches["gateway"].followed == {"t3-pbx"}
    assert world.record.active == "secondary"


@pytest.mark.parametrize("fresh", [True, False])
def test_missing_record_decides_nothing(fresh: bool) -> None:
    """A deployment that was never begun stays dark, and one whose store was emptied goes on as it is."""
    world = Story(fresh=fresh)
    world.store.history.clear()
    world.start()
    world.run(2.0)
    assert world.answered_since(world.now) == [set() if fresh else {"primary"}]
    assert len(world.answered_by) == 1
    assert "tunnelswitch init" in world.reasons("alarm")


def test_promotion_that_fails_is_an_alarm(world: Story) -> None:
    world.service.fault = "fails"
    world.lose_host("primary")
    world.run(5.0)
    assert "could not take over" in world.reasons("alarm")


def test_promotion_that_fails_after_a_handover_gives_the_service_back(world: Story) -> None:
    world.service.fault = "fails"
    world.ask("secondary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert "promote_failed: secondary -> primary" in world.reasons("commit")
    assert world.record.stamp.epoch == 3
    assert world.copies["primary"].run == "pbx-p0"
