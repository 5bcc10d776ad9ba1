"""What `recover` writes where a record is lost, and what `reconfigure` changes, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.facts import GroupRecord, Heartbeat, Protection, Reason, ServiceStatus
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import RefusedError
from tunnelswitch.processes.reconfiguring import changes
from tunnelswitch.processes.recovering import recovered
from tunnelswitch_lab.simulator.setup import GROUP

LOW, HIGH = Stamp(3, "a", 4), Stamp(5, "b")
SITES = ("s1", "s2", "s3", "s4", "s5", "s6")


def beat(site: str, mark: Stamp | None, *, gate_open: bool = False, run: str = "") -> Heartbeat:
    status = ServiceStatus("pbx", "voip", run, "active", Protection.UNPROTECTED, in_sync=False, gate_open=gate_open)
    marks = {} if mark is None else {"voip": mark}
    return Heartbeat(site, "i", 1, 0.0, 0.01, marks=marks, services=(status,) if run else ())


def heard(*beats: Heartbeat) -> dict[str, Heartbeat]:
    return {one.site: one for one in beats}


def test_the_record_exceeds_every_mark_and_names_who_serves() -> None:
    record = recovered(
        GROUP,
        heard(beat("primary", LOW, run="p1"), beat("secondary", HIGH, gate_open=True, run="s1"), beat("gateway", HIGH)),
    )
    assert record.stamp.epoch == HIGH.epoch + 1
    assert (record.active, record.previous, record.active_run) == ("secondary", "secondary", "pbx=s1")
    assert (record.in_sync, record.standby_run, record.reason) == (False, "", Reason.RECOVERY)


def test_a_gate_that_is_open_under_an_older_decision_names_nobody() -> None:
    beats = heard(beat("primary", LOW, gate_open=True, run="p1"), beat("secondary", HIGH), beat("gateway", HIGH))
    with pytest.raises(RefusedError, match="do not show who serves") as refused:
        recovered(GROUP, beats)
    assert "--active" in refused.value.remedy
    assert recovered(GROUP, beats, active="secondary").active == "secondary"


def test_a_site_with_many_services_that_has_not_come_to_this_group_yet_is_waited_for() -> None:
    silent = replace(beat("secondary", HIGH), services_version=3)
    beats = heard(beat("primary", HIGH, gate_open=True, run="p1"), silent, beat("gateway", HIGH))
    with pytest.raises(RefusedError, match="secondary has not said yet what it hosts of voip"):
        recovered(GROUP, beats)
    said = replace(beat("secondary", HIGH, run="s1"), services_version=3)
    assert recovered(GROUP, beats | {"secondary": said}).active == "primary"


def test_two_open_gates_name_nobody() -> None:
    both = heard(
        beat("primary", HIGH, gate_open=True, run="p"),
        beat("secondary", HIGH, gate_open=True, run="s"),
        beat("gateway", HIGH),
    )
    with pytest.raises(RefusedError, match="primary and secondary is open"):
        recovered(GROUP, both)


def test_a_site_that_is_not_heard_has_to_be_vouched_for_and_certified_away() -> None:
    beats = heard(beat("secondary", HIGH, gate_open=True, run="s1"), beat("gateway", HIGH))
    with pytest.raises(RefusedError, match="no heartbeat of primary"):
        recovered(GROUP, beats)
    assert recovered(GROUP, beats, without=("primary",)).previous == "primary"


def record(voters: tuple[str, ...], gateways: tuple[str, ...] = ("gateway",)) -> GroupRecord:
    return GroupRecord(
        "voip",
        Stamp(2, "d", 1),
        "primary",
        "secondary",
        in_sync=True,
        reason=Reason.INIT,
        voters=voters,
        gateways=gateways,
    )


@given(st.sets(st.sampled_from(SITES), min_size=1), st.sets(st.sampled_from(SITES), min_size=1))
def test_majorities_before_and_after_each_change_have_a_voter_in_common(before: set[str], after: set[str]) -> None:
    now = record(tuple(sorted(before)))
    while (changed := next(changes(now, tuple(sorted(after)), now.gateways), None)) is not None:
        assert len(set(now.voters) ^ set(changed.voters)) == 1
        together = len(set(now.voters) | set(changed.voters))
        assert quorum(len(now.voters)) + quorum(len(changed.voters)) > together
        assert changed.stamp == now.stamp.rearmed()
        now = changed
    assert set(now.voters) == after


def test_what_is_as_wanted_is_not_changed() -> None:
    now = record(("primary", "secondary", "gateway"))
    assert list(changes(now, ("gateway", "secondary", "primary"), ("gateway",))) == []


def test_gateways_come_after_voters_and_one_at_a_time() -> None:
    now = record(("primary", "secondary", "gateway"))
    steps = list(changes(now, (*now.voters, "branch"), ("branch",)))
    assert [step.evidence[0] for step in steps] == [
        "branch is added to the voters",
        "branch is added to the gateways",
        "gateway is removed from the gateways",
    ]
    assert replace(steps[0], voters=now.voters, stamp=now.stamp).gateways == now.gateways
