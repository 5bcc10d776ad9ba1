"""The guarded switch at one site: what is sent, what is refused, what is repaired."""

from __future__ import annotations

import pytest

from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import DataPlaneLost, DataPlaneSeen, SwitchApplied, SwitchConflict, SwitchFailed
from tunnelswitch.core.gate import CONFLICTS_MAX, Gate
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import tunnel_ends
from tunnelswitch_lab.simulator.setup import ADDRESSES, GROUP

OLD, MINE, NEWER = Stamp(1, "a"), Stamp(2, "b"), Stamp(3, "c")


@pytest.fixture
def gate() -> Gate:
    gate = Gate(GROUP, "gateway", tunnel_ends(GROUP, "gateway", ADDRESSES))
    gate.receive(DataPlaneSeen({"voip": OLD}, frozenset({"t2-pbx"})), 0.0)
    gate.want(MINE, "secondary")
    return gate


def names(action: ApplyTunnels | None) -> tuple[list[str], list[str]]:
    assert action is not None
    return [end.interface for end in action.add], [end.interface for end in action.remove]


def applied(present: str, stamp: Stamp = MINE) -> SwitchApplied:
    return SwitchApplied("voip", stamp, frozenset({present}), 0.0, 0.0, 0.0)


def test_one_transaction_adds_and_removes_under_the_guard_of_what_was_read(gate: Gate) -> None:
    action = gate.step(0.0)
    assert names(action) == (["t3-pbx"], ["t2-pbx"])
    assert action is not None
    assert (action.expected, action.stamp) == (OLD, MINE)
    assert gate.step(0.0) is None, "one at a time"


def test_settled_only_when_the_data_plane_follows(gate: Gate) -> None:
    gate.step(0.0)
    assert not gate.settled(MINE)
    gate.receive(applied("t3-pbx"), 0.0)
    assert gate.settled(MINE)


def test_closed_only_when_the_data_plane_follows(gate: Gate) -> None:
    assert not gate.closed
    gate.receive(DataPlaneSeen({"voip": MINE}, frozenset()), 0.0)
    assert not gate.open
    assert not gate.closed, "a vswitchd that hangs still carries what OVSDB holds no longer"
    gate.want(MINE, None)
    assert gate.step(0.0) is not None, "so it is to be confirmed"
    gate.receive(SwitchApplied("voip", MINE, frozenset(), 0.0, 0.0, 0.0), 0.0)
    assert gate.closed
    gate.receive(DataPlaneLost("gone"), 0.0)
    assert not gate.closed


def test_stored_higher_is_fenced_and_nothing_is_sent(gate: Gate) -> None:
    gate.receive(DataPlaneSeen({"voip": NEWER}, frozenset({"t2-pbx"})), 0.0)
    assert gate.fenced
    assert gate.step(0.0) is None


def test_a_conflict_with_a_lower_stamp_is_tried_again_but_not_for_ever(gate: Gate) -> None:
    for n in range(CONFLICTS_MAX):
        action = gate.step(0.0)
        assert action is not None, n
        gate.receive(SwitchConflict("voip", Stamp(1, f"b{n}"), frozenset()), 0.0)
    assert gate.step(0.0) is None
    assert gate.step(1.0) is not None


def test_a_conflict_with_a_higher_stamp_is_the_end(gate: Gate) -> None:
    gate.step(0.0)
    gate.receive(SwitchConflict("voip", NEWER, frozenset()), 0.0)
    assert gate.fenced
    assert gate.step(10.0) is None


def test_a_conflict_tells_also_which_ends_are_there(gate: Gate) -> None:
    gate.receive(applied("t3-pbx"), 0.0)
    gate.want(Stamp(3, "x"), "secondary")
    gate.step(0.0)
    gate.receive(SwitchConflict("voip", Stamp(1, "init"), frozenset({"t2-pbx"})), 0.0)
    action = gate.step(0.0)
    assert action is not None
    assert ([end.interface for end in action.add], [end.interface for end in action.remove]) == (["t3-pbx"], ["t2-pbx"])


def test_what_ovsdb_holds_is_believed_over_memory(gate: Gate) -> None:
    gate.step(0.0)
    gate.receive(applied("t3-pbx"), 0.0)
    assert gate.step(0.1) is None
    gate.receive(DataPlaneSeen({"voip": MINE}, frozenset()), 0.0)
    repair = gate.step(0.2)
    assert names(repair) == (["t3-pbx"], ["t2-pbx"]), "what is not wanted has to go, seen or not"
    assert repair is not None
    assert repair.expected == MINE


def test_right_rows_are_confirmed_once_and_again_after_ovsdb_was_lost(gate: Gate) -> None:
    seen = DataPlaneSeen({"voip": MINE}, frozenset({"t3-pbx"}))
    gate.receive(seen, 0.0)
    assert names(gate.step(0.0)) == ([], ["t2-pbx"])
    assert not gate.settled(MINE)
    gate.receive(applied("t3-pbx"), 0.0)
    assert gate.settled(MINE)
    assert gate.step(0.1) is None
    gate.receive(DataPlaneLost("gone"), 0.0)
    gate.receive(seen, 0.0)
    assert not gate.settled(MINE)
    assert names(gate.step(0.2)) == ([], ["t2-pbx"])


def test_a_tunnel_with_a_wrong_key_is_made_anew_and_an_unwanted_one_goes(gate: Gate) -> None:
    both = frozenset({"t2-pbx", "t3-pbx"})
    gate.receive(DataPlaneSeen({"voip": MINE}, both, broken=both), 0.0)
    assert names(gate.step(0.0)) == (["t3-pbx"], ["t2-pbx"])


def test_a_port_that_is_not_ours_is_left_alone(gate: Gate) -> None:
    gate.receive(DataPlaneSeen({"voip": OLD}, frozenset({"t2-pbx"}), foreign=frozenset({"t3-pbx"})), 0.0)
    assert gate.step(0.0) is None
    assert "not ours" in gate.error


def test_a_failure_is_tried_again_a_little_later(gate: Gate) -> None:
    gate.step(0.0)
    gate.receive(SwitchFailed("voip", "OVSDB is gone"), 0.0)
    assert gate.step(0.001) is None
    assert gate.step(0.1) is not None


def test_an_answer_that_never_comes_is_abandoned(gate: Gate) -> None:
    assert gate.step(0.0) is not None
    assert gate.step(1.0) is None
    deadline = gate.deadline()
    assert deadline is not None
    assert gate.step(deadline) is not None


def test_a_late_answer_to_an_old_wish_does_not_settle_the_new_one(gate: Gate) -> None:
    gate.step(0.0)
    gate.want(NEWER, "primary")
    gate.receive(applied("t3-pbx"), 0.0)
    assert not gate.settled(NEWER)
    action = gate.step(0.1)
    assert names(action) == (["t2-pbx"], ["t3-pbx"])
    assert action is not None
    assert (action.expected, action.stamp) == (MINE, NEWER)


def test_without_ovsdb_nothing_is_guessed(gate: Gate) -> None:
    gate.receive(DataPlaneLost("gone"), 0.0)
    assert gate.step(0.0) is None


def test_a_server_site_holds_its_end_only_while_it_runs_the_service() -> None:
    gate = Gate(GROUP, "secondary", tunnel_ends(GROUP, "secondary", ADDRESSES))
    gate.receive(DataPlaneSeen({"voip": OLD}, frozenset()), 0.0)
    gate.want(MINE, "secondary")
    assert names(gate.step(0.0)) == (["t3-pbx"], [])
    gate.receive(applied("t3-pbx"), 0.0)
    gate.want(NEWER, "primary")
    assert names(gate.step(0.0)) == ([], ["t3-pbx"])


def test_what_is_asked_for_no_more_is_not_tried_again(gate: Gate) -> None:
    gate.step(0.0)
    gate.receive(SwitchFailed("voip", "OVSDB is gone"), 0.0)
    assert gate.asked_for("secondary")
    gate.rest()
    assert not gate.asked_for("secondary")
    assert gate.step(10.0) is None
    gate.want(MINE, "secondary")
    assert names(gate.step(10.0)) == (["t3-pbx"], ["t2-pbx"])


def test_what_came_of_another_groups_switch_is_not_ours(gate: Gate) -> None:
    gate.step(0.0)
    gate.receive(SwitchConflict("web", NEWER, frozenset()), 0.0)
    assert gate.stored == OLD
    assert not gate.fenced
