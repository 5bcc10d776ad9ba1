"""What may leave when: the queue of frames that wait for their checkpoint; and what of it decides about a standby."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.config import Output
from tunnelswitch.core.facts import Protection
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_memory import MemoryWatch
from tunnelswitch.replication.colo_output import OutputHold
from tunnelswitch.replication.colo_qmp import Mode
from tunnelswitch.replication.colo_state import Machine
from tunnelswitch.replication.held import CROSSED_SECONDS, DEAF_SECONDS, HeldOutput

LIMIT = 1000


def guarded(limit_bytes: int = LIMIT) -> HeldOutput:
    """Under protection, with a first checkpoint committed."""
    held = HeldOutput(limit_bytes)
    held.guard(0)
    held.stopped(0, 0.0)
    assert held.committed(0.0) == []
    return held


def test_what_was_sent_before_the_stop_leaves_with_its_commit_and_the_rest_waits() -> None:
    held = guarded()
    for at_ns, frame in ((10, b"a"), (20, b"b"), (31, b"c")):
        assert not held.take(at_ns, frame)
    held.stopped(30, 1.0)
    assert not held.take(40, b"d")  # seen before the commit, sent after the machine went on
    assert held.committed(1.0) == [b"a", b"b"]
    held.stopped(50, 2.0)
    assert held.committed(2.0) == [b"c", b"d"]
    assert (len(held), held.bytes) == (0, 0)


def test_a_resume_without_a_stop_releases_nothing() -> None:
    held = guarded()
    held.take(10, b"a")
    assert held.committed(1.0) == []
    assert len(held) == 1


def test_nothing_leaves_before_the_core_has_spoken() -> None:
    held = HeldOutput(LIMIT)
    assert not held.take(10, b"a")
    held.stopped(20, 0.0)
    assert held.committed(0.0) == []  # no peer takes this machine's state: that was no checkpoint
    assert held.allow(True, 1.0) == [b"a"]
    assert held.take(30, b"b")


def test_a_lost_standby_releases_nothing_until_the_record_says_so() -> None:
    held = guarded()
    held.take(10, b"a")
    held.unguard()
    held.stopped(20, 5.0)
    assert held.committed(5.0) == []
    assert held.loose() == []
    assert held.allow(True, 6.0) == [b"a"]


def test_output_waits_again_as_soon_as_a_peer_takes_the_state() -> None:
    held = HeldOutput(LIMIT)
    held.allow(True, 1.0)
    assert held.take(10, b"a")
    held.guard(15)
    assert not held.take(20, b"b")
    assert not held.covered
    held.stopped(14, 2.0)  # a stop from before output was held: what left after it is in no checkpoint yet
    assert held.committed(2.0) == []
    assert not held.covered
    held.stopped(30, 2.1)
    assert held.committed(2.1) == [b"b"]
    assert held.covered


def test_leave_given_before_a_standby_was_claimed_is_void() -> None:
    held = HeldOutput(LIMIT)
    held.allow(True, 1.0)
    held.guard(10)
    held.stopped(20, 2.0)
    held.committed(2.0)
    held.take(30, b"a")
    held.unguard()
    assert held.loose() == []
    assert held.allow(True, 2.0 + CROSSED_SECONDS / 2) == []  # it crossed with the claim
    assert held.allow(True, 3.0) == [b"a"]


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    held = guarded(limit_bytes=10)
    for number in range(4):
        held.take(number, b"1234")
    assert (len(held), held.counts.dropped) == (2, 2)
    held.stopped(100, 1.0)
    assert len(held.committed(1.0)) == 2
    assert not held.take(200, b"1234")
    assert held.counts.dropped == 2


def test_a_clock_that_is_set_makes_output_wait_longer_and_never_shorter() -> None:
    held = guarded()
    held.take(1000, b"a")
    held.stopped(1100, 1.0)
    held.clock_set(500, 1.0)  # back
    assert held.committed(1.0) == []
    held.take(510, b"b")
    held.stopped(1200, 1.0 + DEAF_SECONDS / 2)  # of the time before
    assert held.committed(1.0 + DEAF_SECONDS / 2) == []
    held.stopped(505, 3.0)
    assert held.committed(3.0) == [b"a"]


def test_an_ended_machine_takes_its_output_with_it() -> None:
    held = guarded()
    held.take(10, b"a")
    held.discard()
    assert (len(held), held.bytes, held.counts.discarded) == (0, 0, 1)
    assert held.allow(True, 9.0) == []


steps = st.lists(st.sampled_from(["send", "checkpoint", "lose", "protect", "allow", "forbid"]), max_size=60)


@given(steps)
def test_under_protection_only_what_a_committed_checkpoint_holds_has_left(story: list[str]) -> None:
    """The standby's state is the last committed stop: whatever left under protection was sent before it."""
    held, now, committed_at, protected = HeldOutput(1 << 20), 0, -1, False
    for step in story:
        now += 10
        left: list[bytes] = []
        if step == "send":
            frame = now.to_bytes(8, "big")
            if held.take(now, frame):
                left = [frame]
        elif step == "checkpoint":
            held.stopped(now, now)
            now += 5
            held.take(now + 1, (now + 1).to_bytes(8, "big"))  # it goes on before anybody hears of the commit
            committed_at = now - 5 if protected else committed_at
            left = held.committed(now)
        elif step in ("lose", "protect"):
            protected = step == "protect"
            held.guard(now) if protected else held.unguard()
            left = held.loose()
        else:
            left = held.allow(step == "allow", now)
        if protected:
            assert all(int.from_bytes(frame, "big") <= committed_at for frame in left)


def test_a_standby_counts_only_when_output_was_held_for_a_whole_checkpoint() -> None:
    machine = Machine("pbx")
    machine.found("b.1.2")
    machine.take_answers(Mode.PRIMARY, "running", "colo")
    machine.output_covered = False
    assert (machine.protection, machine.in_sync) == (Protection.SYNCING, False)
    assert not machine.wants_protection  # it has begun
    machine.output_covered = True
    assert (machine.protection, machine.in_sync) == (Protection.PROTECTED, True)
    machine.output_ready = False  # the devices went away: its output cannot leave
    assert not machine.in_sync


def test_a_standby_that_could_not_speak_is_not_in_sync() -> None:
    machine = Machine("pbx")
    machine.found("b.1.2")
    machine.take_answers(Mode.SECONDARY, "paused", "colo")
    machine.output_ready = False
    assert not machine.in_sync


def test_the_time_of_a_stop_is_exact() -> None:
    stop = {"event": "STOP", "timestamp": {"seconds": 1_700_000_000, "microseconds": 999_999}}
    assert qmp.event_nanoseconds(stop) == 1_700_000_000_999_999_000
    for wrong in ({}, {"timestamp": {"seconds": -1, "microseconds": -1}}, {"timestamp": {"seconds": "1"}}):
        assert qmp.event_nanoseconds(wrong) == 0


def test_memory_near_its_limit_is_said_once_each_time() -> None:
    said: Counter[str] = Counter()
    watch = MemoryWatch("pbx", 1, lambda kind: said.update([kind]))
    for _ in range(3):
        watch.look(os.getpid(), checkpointed=True)
    assert said == {"memory": 1}
    assert watch.figures()["machine_resident_bytes"] > 1 << 20
    watch.forget()
    watch.look(os.getpid(), checkpointed=True)
    assert said == {"memory": 2}
    free = MemoryWatch("pbx", 0, lambda kind: said.update([kind]))
    free.look(os.getpid(), checkpointed=True)
    free.look(0, checkpointed=True)  # no such process
    assert (free.resident_bytes, said["memory"]) == (0, 2)


class Tap:
    """Takes whatever is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


async def test_what_may_leave_and_cannot_at_once_has_a_limit_and_is_shown() -> None:
    options = Output(machine_device="vm0", bridge_device="br0", held_bytes_max=1 << 20)
    hold, tap = OutputHold("pbx", options, lambda: None, lambda kind: None), Tap()
    hold._tap = tap  # type: ignore[assignment]
    frames = [number.to_bytes(4, "big") * 256 for number in range(2000)]
    hold._let_go(frames)
    figures = hold.figures()
    assert figures["output_dropped"] == 2000 - 1024, "a mebibyte of frames of a kibibyte"
    assert figures["output_held_packets"] + len(tap.sent) == 1024
    assert figures["output_held_bytes"] == 1024 * figures["output_held_packets"] > 0
    async with asyncio.timeout(10):
        while hold.figures()["output_held_packets"]:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
    assert tap.sent == frames[:1024]
    assert hold.figures()["output_held_bytes"] == 0
