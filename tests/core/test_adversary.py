"""What an adversary tries: every situation that once broke a rule, played again.

Random ones, by the thousand, are played in tests/simulator.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import SERVICE, SWITCHER, TWO_GATEWAYS, Story, in_good_times

from tunnelswitch.core import events, facts
from tunnelswitch.core.concluding import PATH_DOWN_SECONDS
from tunnelswitch.core.facts import Path, Reason
from tunnelswitch.core.keeping import RecordKeeper
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.faults import FAULTS
from tunnelswitch_lab.simulator.names import switcher_at

# ---------------------------------------------------------------------- it never comes back, although it could


def test_a_promotion_that_failed_for_a_while_is_tried_again(world: Story) -> None:
    world.service.fault = "fails"
    world.lose_host("primary")
    world.run(3.0)
    assert world.answering_copies() == frozenset()
    world.service.fault = None
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}


def test_a_standing_reason_to_move_does_not_hide_that_the_standby_is_in_sync_again(world: Story) -> None:
    world.service.revives = False
    world.service.crash("primary")
    world.run(0.3)
    assert world.answering_copies() == {"secondary"}
    world.network.say("gateway", "secondary", Path.DOWN)
    world.run(PATH_DOWN_SECONDS + 1.0)
    assert "not in sync" in world.reasons("refuse")
    world.service.revives = True
    world.run(2.0)
    assert world.moves == [("secondary", Reason.PROOF), ("primary", Reason.CUT_OFF)]
    assert world.answering_copies() == {"primary"}


def test_a_standby_that_dies_before_it_took_over_gives_the_service_back(world: Story) -> None:
    world.ask("secondary")
    while world.record.active != "secondary":
        world.run(0.0005)
    world.service.crash("secondary")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
    assert world.copies["primary"].run == "pbx-p0"


# ---------------------------------------------------------------------- two copies


def test_time_alone_is_no_certificate_against_an_active_that_is_in_touch_again() -> None:
    """Several gateways: at one nobody switches, so it still leads to the old active, which never learns of the new
    epoch."""
    world = in_good_times(TWO_GATEWAYS)
    world.kill("branch", switcher_at("branch"))
    world.isolate("primary")
    world.run(0.2)
    assert world.record.active == "secondary"
    world.store.up = False
    world.rejoin("primary")
    world.run(3.0)
    world.store.up = True
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}


def test_an_unreachable_gateway_costs_the_fence_time_not_the_service() -> None:
    world = in_good_times(TWO_GATEWAYS)
    world.kill("branch", switcher_at("branch"))
    lost_at = world.now
    world.lose_host("primary")
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}
    assert world.downtime(lost_at) > world.setup.timing.fence_after_seconds


def test_hearing_others_who_cannot_hear_us_is_not_being_in_touch() -> None:
    """The active is mute but for one gateway, which has neither switcher nor agent and still leads to it; and the word
    of the move, said once, is lost on its way to the active."""
    world = in_good_times(TWO_GATEWAYS)
    world.bus._hearers[facts.Epoch].pop("primary")
    world.kill("branch", switcher_at("branch"))
    FAULTS["mute"].begin(world, "primary", "branch")
    world.run(3.0)
    assert world.switches["primary"].present == frozenset()
    assert world.answering_copies() == {"secondary"}


# ---------------------------------------------------------------------- it spins


@pytest.mark.parametrize("lost_after_seconds", [0.3, 0.7])
def test_an_isolated_active_without_ovsdb_does_not_spin(world: Story, lost_after_seconds: float) -> None:
    """Its OVSDB goes before it has to close itself, or while it is about to."""
    world.switches["primary"].commit_seconds = 10.0
    world.isolate("primary")
    world.run(lost_after_seconds)
    world.lose_ovsdb("primary")
    world.run(2.0)


def test_a_refused_commit_waits_for_the_read_that_tells_why() -> None:
    record = Story().record
    keeper = RecordKeeper("voip")
    keeper.have_read(events.RecordRead("voip", record, 3), 0.0)
    keeper.commit(record, 0.0)
    keeper.refused()
    assert not keeper.can_commit
    assert keeper.step(0.001) is not None
    keeper.have_read(events.RecordRead("voip", record, 4), 0.002)
    assert keeper.can_commit


# ---------------------------------------------------------------------- what is old moves something


def test_an_old_word_of_a_commit_is_not_believed_by_an_agent_that_has_just_started(world: Story) -> None:
    old = replace(world.record, stamp=Stamp(0, "old"), active="secondary", active_run=world.record.standby_run)
    world.start("secondary")
    world.store.up = False
    world.tell("secondary", facts.Epoch(old))
    world.run(0.5)
    assert world.copies["secondary"].role == "standby"


def test_an_answer_overtaken_by_a_newer_record_does_not_bring_the_older_one_back(world: Story) -> None:
    mine = replace(world.record, stamp=Stamp(2, "mine"), active="secondary")
    newer = replace(world.record, stamp=Stamp(3, "theirs"))
    world.tell(SWITCHER, facts.Epoch(newer))
    world.tell(SWITCHER, events.Committed(mine, 7))
    (decider,) = world.machine(SWITCHER).deciders
    assert decider.record == newer


def test_a_promotion_told_after_the_copy_died_is_no_service(world: Story) -> None:
    world.tell("secondary", events.RunExited(SERVICE, "pbx-s0"))
    world.tell("secondary", events.Promoted(SERVICE, "pbx-s0", 0.003))
    (hosted,) = world.machine("secondary").hosted
    (status,) = hosted.statuses(world.clocks["secondary"].local())
    assert status.role == "stopped"


def test_hysteresis_counts_every_move_whoever_told_of_it() -> None:
    """The switcher that is left slept while the other one moved the service, and heard of it afterwards."""
    world = in_good_times(TWO_GATEWAYS)
    world.processes[SWITCHER].pause()
    world.service.crash("primary")
    world.run(0.1)
    world.resume(SWITCHER)
    world.run(0.9)
    assert world.moves == [("secondary", Reason.PROOF)]
    assert world.record.in_sync
    world.kill(switcher_at("branch"))
    world.lose_host("secondary")
    world.run(0.5)
    assert len(world.moves) == 1
    assert "hysteresis" in world.reasons("refuse")
    world.run(3.0)
    assert world.answering_copies() == {"primary"}
