"""Folding QEMU's answers and events into what a copy of a machine is. Pure, no QEMU."""

from __future__ import annotations

from typing import Any

import pytest

from tunnelswitch.core.facts import Protection
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_qmp import Mode
from tunnelswitch.replication.colo_state import Checkpoint, Machine

START = 1_700_000_000.0


def event(name: str, at: float = 0.0, **data: Any) -> dict[str, Any]:
    whole = int(START + at)
    stamp = {"seconds": whole, "microseconds": round((START + at - whole) * 1e6)}
    return {"event": name, "timestamp": stamp, "data": data}


def machine(mode: Mode = Mode.PRIMARY, run_state: str = "running", migration: str = "colo") -> Machine:
    made = Machine("pbx")
    made.found("b007.4711.99")
    made.take_answers(mode, run_state, migration)
    return made


def test_a_checkpoint_is_a_stop_and_its_resume() -> None:
    copy = machine()
    assert copy.take_event(event("STOP", 1.0), 0) is None
    done = copy.take_event(event("RESUME", 1.0125), 0)
    assert isinstance(done, Checkpoint)
    assert (done.role, done.sequence) == ("active", 1)
    assert done.pause_seconds == pytest.approx(0.0125, abs=1e-5)
    copy.take_event(event("STOP", 2.0), 0)
    again = copy.take_event(event("RESUME", 2.01), 0)
    assert again is not None
    assert again.sequence == 2


def test_a_resume_alone_is_no_checkpoint() -> None:
    copy = machine()
    assert copy.take_event(event("RESUME", 1.0), 0) is None
    copy.take_event(event("STOP", 2.0), 0)
    copy.take_event(event("COLO_EXIT", 2.1, mode="primary", reason="error"), 0)
    assert copy.take_event(event("RESUME", 2.2), 0) is None  # freed from a checkpoint that never was


def test_a_standby_that_we_halt_has_a_checkpoint_at_each_resume() -> None:
    copy = machine(Mode.SECONDARY)
    first = copy.take_event(event("RESUME", 1.0), 0)
    copy.take_event(event("STOP", 1.001), 0)
    second = copy.take_event(event("RESUME", 1.1), 0)
    assert (first, second) == (Checkpoint("standby", 1, 0.0), Checkpoint("standby", 2, 0.0))
    copy.take_event(event("COLO_EXIT", 1.2, mode="secondary", reason="request"), 0)
    assert copy.take_event(event("RESUME", 1.3), 0) is None  # it takes over, whoever told it to


def test_an_operator_s_stop_is_no_checkpoint() -> None:
    copy = machine(Mode.NONE, "running", "")
    copy.take_event(event("STOP", 1.0), 0)
    assert copy.take_event(event("RESUME", 9.0), 0) is None


def test_without_qemu_s_time_ours_counts() -> None:
    copy = machine()
    copy.take_event({"event": "STOP"}, 5.0)
    done = copy.take_event({"event": "RESUME", "timestamp": {"seconds": -1, "microseconds": -1}}, 5.5)
    assert done is not None
    assert done.pause_seconds == pytest.approx(0.5)


def test_a_clock_that_was_set_back_makes_no_negative_pause() -> None:
    copy = machine()
    copy.take_event(event("STOP", 5.0), 0)
    done = copy.take_event(event("RESUME", 1.0), 0)
    assert done is not None
    assert done.pause_seconds == 0.0


@pytest.mark.parametrize(
    ("mode", "run_state", "migration", "role", "protection", "in_sync"),
    [
        (Mode.NONE, "running", "", "active", Protection.UNPROTECTED, False),
        (Mode.NONE, "running", "failed", "active", Protection.UNPROTECTED, False),
        (Mode.NONE, "running", "active", "active", Protection.SYNCING, False),
        (Mode.NONE, "finish-migrate", "device", "active", Protection.SYNCING, False),
        (Mode.PRIMARY, "running", "colo", "active", Protection.PROTECTED, True),
        (Mode.PRIMARY, "colo", "colo", "active", Protection.PROTECTED, True),
        (Mode.NONE, "inmigrate", "", "standby", Protection.SYNCING, False),
        (Mode.NONE, "inmigrate", "active", "standby", Protection.SYNCING, False),
        (Mode.SECONDARY, "running", "colo", "standby", Protection.PROTECTED, True),
    ],
)
def test_what_a_copy_is(
    mode: Mode, run_state: str, migration: str, role: str, protection: Protection, in_sync: bool
) -> None:
    seen = machine(mode, run_state, migration).seen()
    assert (seen.role, seen.protection, seen.in_sync) == (role, protection, in_sync)
    assert seen.run == "b007.4711.99"


def test_nothing_is_there() -> None:
    seen = Machine("pbx").seen()
    assert (seen.run, seen.role, seen.protection, seen.in_sync) == ("", "stopped", Protection.STOPPED, False)


def test_the_end_of_the_stream_unprotects_the_active_alone() -> None:
    active, standby = machine(Mode.PRIMARY), machine(Mode.SECONDARY)
    for copy in (active, standby):
        copy.take_event(event("COLO_EXIT", 1.0, reason="error"), 0)
    assert active.seen().protection is Protection.UNPROTECTED
    assert not active.seen().in_sync
    assert standby.seen().in_sync  # if the active died, that is the state to go on from
    active.take_answers(Mode.NONE, "running", "completed")
    assert active.wants_protection


def test_a_promoted_standby_is_an_active_without_one() -> None:
    copy = machine(Mode.SECONDARY)
    copy.promoted()
    assert (copy.role, copy.protection) == ("active", Protection.UNPROTECTED)
    assert copy.wants_protection


def test_an_obstacle_is_stronger_than_qemu_s_word() -> None:
    copy = machine(Mode.NONE, "running", "")
    copy.obstacle = "a disk"
    assert copy.protection is Protection.UNPROTECTED
    assert not copy.wants_protection
    standby = machine(Mode.SECONDARY)
    standby.obstacle = "not muted"
    assert not standby.in_sync


def test_a_machine_that_does_not_run_is_not_protected() -> None:
    assert not machine(Mode.NONE, "paused", "").wants_protection
    assert not machine(Mode.NONE, "guest-panicked", "").wants_protection


def test_another_run_begins_anew() -> None:
    copy = machine()
    copy.take_event(event("STOP", 1.0), 0)
    copy.take_event(event("RESUME", 1.1), 0)
    copy.found("b007.4712.100")
    assert (copy.sequence, copy.mode, copy.known) == (0, Mode.NONE, False)


def test_disks() -> None:
    def disk(device: str, **medium: Any) -> dict[str, Any]:
        return {"device": device, "inserted": {"ro": False, "drv": "qcow2", "node-name": "n", **medium}}

    reply = [
        disk("root"),
        disk("iso", ro=True),
        disk("both", drv="quorum", children=[{"child": "children.0", "node-name": "a"}, {"node-name": "r"}]),
        disk("half", drv="quorum", children=[{"child": "children.0", "node-name": "a"}]),
        disk("standby", drv="replication"),
        {"device": "cd0", "removable": True},
        {"device": "", "qdev": "/machine/x", "inserted": {"ro": False, "drv": "raw"}},
    ]
    nodes = [{"node-name": "a", "drv": "qcow2"}, {"node-name": "r", "drv": "replication"}]
    expected = ["root", "half (quorum without a replication child)", "/machine/x"]
    assert qmp.unreplicated_disks(reply, nodes) == expected


@pytest.mark.parametrize("nonsense", [None, [], "x", 7, {"mode": 9}, {"status": None}, {"mode": "tertiary"}])
def test_nonsense_is_no_mode(nonsense: Any) -> None:
    assert qmp.mode(nonsense) is Mode.NONE
    assert qmp.interval_milliseconds(nonsense) == 0
    assert qmp.unreplicated_disks(nonsense, nonsense) == []
    assert qmp.version(nonsense) == (0, 0, 0)
    assert qmp.object_names(nonsense) == frozenset()
    assert isinstance(qmp.run_state(nonsense), str)
