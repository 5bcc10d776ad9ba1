"""The `colo` driver on pairs of real QEMUs: protected, promoted, lost, adopted, hung, refused."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from machines import Machines, fence, promote, until

from tunnelswitch.core.actions import TakeCheckpoint
from tunnelswitch.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    FenceDone,
    FenceFailed,
    Promoted,
    PromotionFailed,
    RunExited,
    ServiceSeen,
)
from tunnelswitch.core.facts import CheckpointSeen, Protection
from tunnelswitch.replication.colo_qmp import QUERY_STATUS

pytestmark = pytest.mark.lab


async def test_a_pair_is_protected_and_its_checkpoints_are_told(machines: Machines) -> None:
    first, second = await machines.protected()
    assert (first.seen.role, second.seen.role) == ("active", "standby")
    assert first.seen.in_sync
    assert first.seen.run != second.seen.run
    await until(lambda: len(first.of(CheckpointSeen)) > 5 and len(second.of(CheckpointSeen)) > 5)
    told = first.of(CheckpointSeen)
    assert {(one.role, one.run, one.site) for one in told} == {("active", first.seen.run, "one")}
    assert [one.sequence for one in told] == list(range(1, len(told) + 1))
    assert all(0 < one.pause_seconds < 20 for one in told)


async def test_a_standby_stands_still_between_checkpoints(machines: Machines) -> None:
    _, second = await machines.protected()
    await until(lambda: len(second.of(CheckpointSeen)) > 1)
    for _ in range(5):  # a halt that comes late is left out, and while the machine is slow each of them does
        states = []
        for _ in range(40):
            states.append((await second.driver._watch.ask(QUERY_STATUS, 20.0))["status"])
            await asyncio.sleep(0.013)
        if states.count("paused") > states.count("running"):
            return
    raise AssertionError(states)


async def test_the_standby_serves_when_the_active_was_killed(machines: Machines) -> None:
    first, second = await machines.protected()
    run = first.seen.run
    machines.signal("one", signal.SIGKILL)
    await until(lambda: bool(first.of(RunExited)))
    assert first.of(RunExited) == [RunExited("vm", run)]
    assert first.seen.role == "stopped"
    assert second.seen.in_sync  # it holds the state to go on from
    done = await second.driver.promote(promote())
    assert isinstance(done, Promoted), done
    assert done.run == second.seen.run
    await until(lambda: second.seen.role == "active")
    assert second.seen.protection is Protection.UNPROTECTED
    await machines.unwatch("two")
    assert (await machines.ask("two", "query-status"))["status"] == "running"
    assert "mute0" not in {entry["name"] for entry in await machines.ask("two", "qom-list", path="/objects")}


async def test_a_standby_whose_active_lives_can_take_over(machines: Machines) -> None:
    first, second = await machines.protected()
    assert isinstance(await second.driver.promote(promote()), Promoted)
    await until(lambda: first.seen.protection is Protection.UNPROTECTED)
    assert first.seen.role == "active"  # behind a closed gate, until it is fenced
    done = await first.driver.fence(fence(first.seen.run))
    assert isinstance(done, FenceDone)
    assert machines.processes["one"].wait(20) is not None


async def test_a_fresh_standby_protects_the_promoted_machine(machines: Machines) -> None:
    first, second = await machines.protected()
    machines.signal("one", signal.SIGKILL)
    assert isinstance(await second.driver.promote(promote()), Promoted)
    machines.boot("one", standby=True)
    await until(lambda: second.seen.protection is Protection.PROTECTED and first.seen.in_sync)
    assert (first.seen.role, second.seen.role) == ("standby", "active")
    machines.signal("two", signal.SIGKILL)
    assert isinstance(await first.driver.promote(promote()), Promoted)


async def test_the_active_goes_on_alone_when_the_standby_dies(machines: Machines) -> None:
    first, _ = await machines.protected()
    run = first.seen.run
    machines.signal("two", signal.SIGKILL)
    await until(lambda: first.seen.protection is Protection.UNPROTECTED)
    assert (first.seen.run, first.seen.role) == (run, "active")
    await until(lambda: first.counts["peer_lost"] == 1)  # counted a turn of the loop after it was seen
    machines.boot("two", standby=True)
    await until(lambda: first.seen.protection is Protection.PROTECTED)
    assert first.seen.run == run


async def test_a_standby_that_hangs_does_not_hold_the_active(machines: Machines) -> None:
    first, _ = await machines.protected(stall_seconds=0.5)
    machines.signal("two", signal.SIGSTOP)
    await until(lambda: first.seen.protection is Protection.UNPROTECTED)
    await machines.unwatch("one")

    async def runs() -> bool:
        status = await machines.ask("one", "query-status")
        return bool(status["status"] == "running")

    async with asyncio.timeout(20):
        while not await runs():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.05)


async def test_a_peer_that_accepts_and_hangs_does_not_hold_the_machine(machines: Machines) -> None:
    machines.boot("two", standby=True)
    second = await machines.watch("two")
    await until(lambda: second.seen.role == "standby")
    await asyncio.sleep(0.5)  # it listens now
    machines.signal("two", signal.SIGSTOP)
    machines.boot("one")
    first = await machines.watch("one", stall_seconds=0.2)
    await until(lambda: first.counts["sync_failed"] == 1)
    assert first.seen.role == "active"
    await machines.unwatch("one")
    assert (await machines.ask("one", "query-status"))["status"] == "running"


async def test_the_standby_serves_although_the_active_only_hangs(machines: Machines) -> None:
    first, second = await machines.protected(stall_seconds=2.0)
    machines.signal("one", signal.SIGSTOP)
    await asyncio.sleep(3)
    assert not first.of(RunExited)  # silence is no proof
    assert second.seen.in_sync
    assert first.seen.protection is Protection.PROTECTED  # the standby holds what the active last gave
    assert isinstance(await second.driver.promote(promote()), Promoted)
    done = await first.driver.fence(fence(first.seen.run))
    assert isinstance(done, FenceDone)
    assert first.of(RunExited)


async def test_a_hung_qemu_does_not_hold_its_agent(machines: Machines) -> None:
    first, second = await machines.protected(timeout_seconds=0.3)
    machines.signal("two", signal.SIGSTOP)
    failed = await second.driver.promote(promote(0.5))
    assert isinstance(failed, PromotionFailed)
    assert "did not answer" in failed.error
    async with asyncio.timeout(20):
        await machines.unwatch("two")
    again = await machines.watch("two", timeout_seconds=0.3)
    await until(lambda: again.counts["qmp_failed"] > 0)
    assert again.events == []  # nothing is known of it, and nothing is said
    async with asyncio.timeout(20):
        await machines.unwatch("two")
    assert first.seen.run


async def test_a_restarted_agent_adopts_both_machines(machines: Machines) -> None:
    first, second = await machines.protected()
    runs = (first.seen.run, second.seen.run)
    for site in ("one", "two"):
        await machines.unwatch(site)
    first = await machines.watch("one", checkpoint_interval_ms=200)
    second = await machines.watch("two")
    await until(lambda: first.seen.protection is Protection.PROTECTED and second.seen.in_sync)
    assert (first.seen.run, second.seen.run) == runs
    assert [event.protection for event in first.events if hasattr(event, "protection")] == [Protection.PROTECTED]
    await until(lambda: len(first.of(CheckpointSeen)) > 2)
    await machines.unwatch("one")
    assert (await machines.ask("one", "query-migrate-parameters"))["x-checkpoint-delay"] == 200


async def test_the_interval_changes_while_the_machine_runs(machines: Machines) -> None:
    first, _ = await machines.protected(checkpoint_interval_ms=5000)
    before = len(first.of(CheckpointSeen))
    await first.driver.set_interval(20)
    await until(lambda: len(first.of(CheckpointSeen)) > before + 10)  # ten of the former would take longer
    assert first.seen.protection is Protection.PROTECTED


async def test_a_machine_with_a_disk_of_its_own_is_refused(machines: Machines, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    machines.boot("one", "-drive", f"file={disk},format=raw,if=virtio,id=data")
    machines.boot("two", standby=True)
    first, second = await machines.watch("one"), await machines.watch("two")
    await until(lambda: first.counts["refused"] == 1 and second.seen.role == "standby")
    await asyncio.sleep(0.5)
    assert first.seen.protection is Protection.UNPROTECTED
    assert not second.seen.in_sync


async def test_a_disk_that_cannot_be_written_is_no_obstacle(machines: Machines, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    drive = ("-drive", f"file={disk},format=raw,if=virtio,readonly=on,file.locking=off")
    machines.boot("one", *drive)
    machines.boot("two", *drive, standby=True)
    first, _ = await machines.watch("one"), await machines.watch("two")
    await until(lambda: first.seen.protection is Protection.PROTECTED)


async def test_a_standby_that_could_talk_is_refused(machines: Machines) -> None:
    machines.boot("one")
    machines.boot("two", standby=True, muted=False)
    first, second = await machines.watch("one"), await machines.watch("two")
    await until(lambda: second.counts["refused"] == 1 and first.seen.role == "active")
    failed = await second.driver.promote(promote())
    assert isinstance(failed, PromotionFailed)
    assert "no object mute0" in failed.error


async def test_a_standby_without_a_checkpoint_is_not_promoted(machines: Machines) -> None:
    machines.boot("two", standby=True)
    second = await machines.watch("two")
    await until(lambda: second.seen.role == "standby")
    failed = await second.driver.promote(promote())
    assert isinstance(failed, PromotionFailed)
    assert "no checkpoint" in failed.error


async def test_only_the_named_run_is_fenced(machines: Machines) -> None:
    machines.boot("one")
    first = await machines.watch("one")
    await until(lambda: first.seen.role == "active")
    other = await first.driver.fence(fence("another.1.2"))
    assert isinstance(other, FenceFailed)
    assert first.seen.run in other.error
    assert isinstance(await first.driver.fence(fence(first.seen.run)), FenceDone)
    assert isinstance(await first.driver.fence(fence(first.of(RunExited)[0].run)), FenceDone)  # known to have ended


def take(run: str, *, urgent: bool, deadline_seconds: float = 20.0) -> TakeCheckpoint:
    return TakeCheckpoint("vm", run, 7, urgent=urgent, deadline_seconds=deadline_seconds)


async def test_a_last_checkpoint_begins_at_once_and_holds_all_until_the_machine_goes_on(machines: Machines) -> None:
    first, _ = await machines.protected(checkpoint_interval_ms=60_000)
    run, now = first.seen.run, asyncio.get_running_loop().time
    for urgent in (True, False):  # at this interval nobody waits for the next one
        asked_at = now()
        taken = await first.driver.checkpoint(take(run, urgent=urgent))
        assert isinstance(taken, CheckpointTaken), taken
        assert taken.sequence == first.of(CheckpointSeen)[-1].sequence
        assert asked_at < taken.holds_until <= now()
    machines.signal("two", signal.SIGKILL)
    failed = await first.driver.checkpoint(take(run, urgent=True))
    assert isinstance(failed, CheckpointFailed)
    assert first.seen.role == "active"


async def test_the_state_of_protection_is_told_with_its_reason(machines: Machines) -> None:
    machines.boot("one")
    first = await machines.watch("one")
    await until(lambda: "no standby at 127.0.0.1:" in first.seen.why)
    assert first.seen.protection is Protection.UNPROTECTED
    machines.boot("two", standby=True)
    second = await machines.watch("two")
    await until(lambda: first.seen.protection is Protection.PROTECTED and second.seen.in_sync)
    assert (first.seen.why, second.seen.why) == ("", "")
    assert any(seen.protection is Protection.SYNCING and seen.why for seen in second.of(ServiceSeen))


async def test_a_machine_near_its_memory_limit_is_told_as_outgrown(machines: Machines) -> None:
    first, second = await machines.protected(memory_limit_mb=1)
    await until(lambda: first.seen.outgrown)
    assert first.counts["memory"] == 1
    assert first.seen.protection is Protection.PROTECTED
    await machines.unwatch("two")
    second = await machines.watch("two", memory_limit_mb=0)
    await until(lambda: second.seen.in_sync)
    assert not second.seen.outgrown


async def test_a_qemu_that_has_grown_by_its_checkpoints_takes_a_fresh_standby(machines: Machines) -> None:
    first, _ = await machines.protected()
    limit_bytes = round(first.driver.figures()["machine_resident_bytes"] * 1.25)
    machines.signal("two", signal.SIGKILL)  # so that this agent sees protection begin
    machines.processes["two"].wait()
    first = await machines.watch("one", memory_limit_mb=(limit_bytes >> 20) + 1, renew=True, checkpoint_interval_ms=10)
    await until(lambda: first.seen.protection is Protection.UNPROTECTED)
    machines.boot("two", standby=True)
    second = await machines.watch("two")
    await until(lambda: first.counts["renewed"] > 0, 60.0)
    await until(lambda: any("left for a fresh one" in seen.why for seen in first.of(ServiceSeen)))
    await until(lambda: second.seen.left)
    machines.signal("two", signal.SIGKILL)  # as its agent does
    machines.processes["two"].wait()
    machines.boot("two", standby=True)
    await until(lambda: first.seen.protection is Protection.PROTECTED)
    assert (first.seen.role, first.counts["renewed"]) == ("active", 1)


async def test_a_machine_that_is_large_by_itself_is_not_parted_for_it(machines: Machines) -> None:
    machines.boot("one")
    first = await machines.watch("one")
    await until(lambda: first.driver.figures()["machine_resident_bytes"] > 0 and first.counts["sync_failed"] > 0)
    own_mb = round(first.driver.figures()["machine_resident_bytes"]) >> 20
    first = await machines.watch("one", memory_limit_mb=round(own_mb * 1.2), renew=True, checkpoint_interval_ms=500)
    machines.boot("two", standby=True)
    await machines.watch("two")
    await until(lambda: first.seen.outgrown and first.seen.protection is Protection.PROTECTED)
    await until(lambda: len(first.of(CheckpointSeen)) > 4)
    assert first.counts["renewed"] == 0
    assert first.seen.protection is Protection.PROTECTED


async def test_a_machine_that_stood_still_for_its_copy_when_the_agent_died_goes_on(machines: Machines) -> None:
    machines.boot("one")
    first = await machines.watch("one")
    await until(lambda: first.counts["sync_failed"] > 0)  # nobody listens; its parameters are those of a copy
    await machines.unwatch("one")
    await machines.ask("one", "stop")
    first = await machines.watch("one")
    await until(lambda: first.counts["sync_failed"] > 0)
    await machines.unwatch("one")
    assert (await machines.ask("one", "query-status"))["status"] == "running"
