"""Planned moves: what clients saw is at the standby before anybody moves, or nobody moves.

That a move by a wish loses nothing is an invariant of the simulator; these stories say when it is refused, and that the
service goes on.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import SERVICE, SWITCHER, TWO_GATEWAYS, Story, in_good_times

from tunnelswitch.core.actions import TakeCheckpoint
from tunnelswitch.core.copies import Instance
from tunnelswitch.core.events import CheckpointFailed, CheckpointTaken, ServiceSeen
from tunnelswitch.core.facts import (
    CheckpointSeen,
    DrainRequest,
    Handover,
    HandoverRefused,
    PlanRequest,
    Proof,
    ProofKind,
    Protection,
    Reason,
    Serving,
)
from tunnelswitch.core.handing import LAST_SECONDS, HandingOver
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Service
from tunnelswitch_lab.simulator.hypervisor import Hypervisor, Taking
from tunnelswitch_lab.simulator.process import Answer
from tunnelswitch_lab.simulator.setup import GROUP


def plan(world: Story, target: str) -> None:
    request = PlanRequest(world.group.name, world.record.stamp, target, "alice")
    world.bus.publish("operator", "gateway", request)
    world.run(0.5)


@pytest.mark.parametrize("group", [GROUP, TWO_GATEWAYS], ids=["one gateway", "two gateways"])
def test_the_last_checkpoint_is_in_the_proof_and_the_gap_is_short(group: object) -> None:
    world = in_good_times(group)  # type: ignore[arg-type]
    asked_at = world.now
    world.ask("secondary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
    assert world.moves == [("secondary", Reason.OPERATOR)]
    proof = next(proof for proof in world.said(Proof) if proof.kind is ProofKind.FENCED)
    assert proof.final_checkpoint > 1, "one while clients were served, and one after that"
    assert world.downtime(asked_at) < 0.06
    assert "alice asks for secondary" in "; ".join(world.record.evidence) or world.record.stamp.minor > 0


def test_the_standby_waits_for_the_record(world: Story) -> None:
    """Resumed on the proof alone it would be nobody's standby any more, should the commit never come."""
    standby = world.service.copies["secondary"].run
    world.store.slow_seconds = 0.1
    world.ask("secondary")
    world.run(0.08)
    assert world.said(Proof)
    assert world.service.copies["secondary"].role == "standby"
    world.run(2.0)
    assert world.answering_copies() == {"secondary"}
    assert world.service.copies["secondary"].run == standby


def test_without_the_first_checkpoint_nothing_is_closed(world: Story) -> None:
    world.service.linked = lambda: False
    asked_at = world.now
    world.ask("secondary")
    world.run(4.0)
    assert world.moves == []
    assert world.downtime(asked_at) == 0.0
    assert "operator: primary does not hand over: no checkpoint of pbx" in world.reasons("refuse")
    world.run(5.0)
    assert len(world.said(HandoverRefused)) == 1, "a wish that was refused is not kept for later"


def fail_the_last(world: Story, monkeypatch: pytest.MonkeyPatch, *, silent: bool) -> None:
    real = Hypervisor.checkpoint

    def checkpoint(self: Hypervisor, site: str, action: TakeCheckpoint, asked_at: float) -> Answer[Taking]:
        if not action.urgent:
            return real(self, site, action, asked_at)
        answer: Answer[Taking] = Answer()
        if not silent:
            answer.set(CheckpointFailed(SERVICE, action.request, "the standby is gone"))
        return answer

    monkeypatch.setattr(Hypervisor, "checkpoint", checkpoint)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "no answer"])
def test_without_the_last_checkpoint_the_service_stays_and_goes_on(
    world: Story, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    fail_the_last(world, monkeypatch, silent=silent)
    asked_at = world.now
    world.ask("secondary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.moves == []
    assert world.record.stamp.epoch == 1
    assert world.downtime(asked_at) < 2 * LAST_SECONDS
    assert len(world.said(HandoverRefused)) == 1


def test_an_agent_that_dies_with_the_gate_closed_and_forgets_the_plan_gets_the_service_back(world: Story) -> None:
    world.ask("secondary")
    while world.answering_copies():
        world.run(0.001)
    world.service.linked = lambda: False
    world.kill("primary")
    world.run(0.05)
    world.start("primary")
    world.run(2.0)
    assert world.answering_copies() == {"primary"}
    assert world.moves == []


def test_a_cut_off_active_hands_over_at_once_and_waits_for_no_checkpoint(world: Story) -> None:
    request = Handover(world.group.name, world.record.stamp, "secondary", Reason.CUT_OFF, "gateway.x")
    world.service.linked = lambda: False
    world.tell("primary", request)
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}


def test_a_late_answer_to_an_earlier_wish_is_no_last_checkpoint(world: Story) -> None:
    world.service.linked = lambda: False
    world.ask("secondary")
    world.run(1.0)
    world.tell("primary", CheckpointTaken(SERVICE, 99, 7, world.now))
    world.run(4.0)
    assert world.moves == []


def test_a_plan_says_what_would_be_done_and_does_nothing(world: Story) -> None:
    plan(world, "secondary")
    assert "operator: primary would hand over to secondary (pbx protected" in world.reasons("plan")
    world.service.lose_checkpoints()
    world.service.revives = False
    world.run(1.0)
    plan(world, "secondary")
    assert "not in sync" in world.reasons("refuse")
    assert world.moves == []
    assert not world.said(Serving, world.now - 1.0)
    plan(world, "primary")
    assert "primary is no standby of primary" in world.reasons("refuse")


def test_a_switcher_that_starts_anew_during_a_hand_over_moves_on_the_proof(world: Story) -> None:
    world.ask("secondary")
    while world.answering_copies():
        world.run(0.001)
    world.kill(SWITCHER)
    world.run(0.2)
    world.start(SWITCHER)
    world.run(2.0)
    assert len(world.answering_copies()) == 1


def test_a_planned_move_is_no_reason_for_hysteresis(world: Story) -> None:
    world.ask("secondary")
    world.run(1.5)
    assert world.record.in_sync
    lost_at = world.now
    world.lose_host("secondary")
    world.run(1.0)
    assert world.answering_copies() == {"primary"}
    assert world.downtime(lost_at) < 0.2


def test_a_standby_that_came_in_the_place_of_the_recorded_one_is_handed_nothing(world: Story) -> None:
    """Its heartbeats may be late: the switcher still believes in the one before."""
    world.service.crash("secondary")
    assert world.service.revive("secondary")
    world.tell("primary", Handover(world.group.name, world.record.stamp, "secondary", Reason.OPERATOR, "gateway.x"))
    world.run(0.1)
    (refused,) = world.said(HandoverRefused)
    assert "another one than the record says" in refused.reason
    world.run(1.0)
    world.ask("secondary")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}


def test_a_standby_that_was_only_away_for_a_moment_is_handed_to_once_it_is_confirmed(world: Story) -> None:
    seen = world.service.seen("primary")
    world.tell("primary", replace(seen, protection=Protection.SYNCING, in_sync=False))
    world.tell("primary", seen)
    assert world.record.stamp.minor == 1, "too short a time for the record to say so"
    world.run(0.1)
    world.ask("secondary")
    world.run(1.0)
    assert world.moves == [("secondary", Reason.OPERATOR)]


def test_a_drained_site_that_cannot_hand_over_may_be_undrained_and_its_standby_lost(world: Story) -> None:
    world.service.linked = lambda: False
    drain = DrainRequest(world.group.name, world.record.stamp, "primary", True, "alice")
    world.bus.publish("operator", "gateway", drain)
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.record.drained == ("primary",)
    world.service.revives = False
    world.service.lose_checkpoints()
    world.run(1.0)
    assert not world.record.in_sync, "though it is asked for each second"
    undrain = DrainRequest(world.group.name, world.record.stamp, "primary", False, "alice")
    world.bus.publish("operator", "gateway", undrain)
    world.run(0.5)
    assert world.record.drained == ()
    assert world.moves == []


@pytest.mark.parametrize(("period_seconds", "deadline_seconds"), [(0.08, 0.4), (0.4, 1.6), (30.0, 2.0)])
def test_the_last_checkpoint_is_waited_for_as_long_as_checkpoints_take(
    period_seconds: float, deadline_seconds: float
) -> None:
    instance, stamp = Instance.absent(Service("pbx", "br", 2, 3)), Stamp(1, "a")
    instance.saw(ServiceSeen("pbx", "r1", "active", Protection.PROTECTED, in_sync=True), 0.0)
    for sequence in (1, 2):
        seen = CheckpointSeen("primary", "pbx", "r1", "active", sequence, 0.01, 900)
        instance.took_checkpoint(seen, period_seconds * sequence)
    handing, now = HandingOver(), period_seconds * 2
    handing.begin(stamp, 0.0, [instance], now)
    (first,) = handing.take_actions()
    handing.heard(CheckpointTaken("pbx", first.request, 3, now))
    assert handing.step(stamp, [instance], now, closed=False)
    (last,) = handing.take_actions()
    assert last.urgent
    assert last.deadline_seconds == pytest.approx(deadline_seconds)


@pytest.mark.parametrize(("ended_after_seconds", "is_last"), [(0.004, False), (0.02, True)])
def test_a_last_checkpoint_that_ended_while_clients_were_served_is_followed_by_another(
    ended_after_seconds: float, is_last: bool
) -> None:
    """It is begun beside the closing of the gate, and either may be done first."""
    instance, stamp, closed_at = Instance.absent(Service("pbx", "br", 2, 3)), Stamp(1, "a"), 0.01
    instance.saw(ServiceSeen("pbx", "r1", "active", Protection.PROTECTED, in_sync=True), 0.0)
    handing = HandingOver()
    handing.begin(stamp, 0.0, [instance], 0.0)
    (first,) = handing.take_actions()
    handing.heard(CheckpointTaken("pbx", first.request, 1, 0.0))
    handing.step(stamp, [instance], 0.0, closed=False)
    (last,) = handing.take_actions()
    handing.heard(CheckpointTaken("pbx", last.request, 2, ended_after_seconds))
    handing.step(stamp, [instance], closed_at, closed=True)
    handing.step(stamp, [instance], 0.03, closed=True)
    assert (handing.final_checkpoint(stamp, "pbx") == 2) is is_last
    more = handing.take_actions()
    assert bool(more) is not is_last
    if more:
        handing.heard(CheckpointTaken("pbx", more[0].request, 3, 0.04))
        handing.step(stamp, [instance], 0.04, closed=True)
        assert handing.final_checkpoint(stamp, "pbx") == 3


def test_a_wish_that_the_active_never_answers_is_forgotten() -> None:
    """Its agent is dead, and whoever asked has given up. When it is back nobody expects a move any more."""
    world = in_good_times()
    world.kill("primary")
    world.ask("secondary")
    world.run(8.0)
    assert "primary is asked to hand over" in world.reasons("ask")
    world.start("primary")
    world.run(8.0)
    assert world.moves == []
    assert world.answering_copies() == {"primary"}
