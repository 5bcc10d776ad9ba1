"""The `colo` driver on pairs of real QEMUs: protected, promoted, lost, adopted, hung, refused."""

from __future__ import annotations

import signal
import time

import pytest
from machines import Machines, promote, until

from tunnelswitch.core.events import Promoted, RunExited
from tunnelswitch.core.facts import CheckpointSeen, Protection

pytestmark = pytest.mark.lab


async def test_a_pair_is_protected_and_its_checkpoints_are_told(machines: Machines) -> None:
    first, second = await machines.protected()
    assert (first.seen.role, second.seen.role) == ("active", "standby")
    assert first.seen.in_sync
    assert first.seen.run != second.seen.run
    await until(lambda: len(first.of(CheckpointSeen)) > 5 and len(second.of(CheckpointSeen)) > 5)
    told = first.of(CheckpointSeen)
    assert {(checkpoint.role, checkpoint.run, checkpoint.site) for checkpoint in told} == {
        ("active", first.seen.run, "one")
    }
    assert [checkpoint.sequence for checkpoint in told] == list(range(1, len(told) + 1))
    assert all(0 < checkpoint.pause_seconds < 5 for checkpoint in told)


async def test_the_standby_serves_when_the_active_was_killed(machines: Machines) -> None:
    first, second = await machines.protected()
    run = first.seen.run
    machines.signal("one", signal.SIGKILL)
    await until(lambda: bool(first.of(RunExited)))
    assert first.of(RunExited) == [RunExited("vm", run)]
    started_at = time.monotonic()
    done = await second.driver.promote(promote())
    print("promotion", time.monotonic() - started_at)
    assert isinstance(done, Promoted)
    assert done.run == second.seen.run
    await until(lambda: second.seen.role == "active")
    assert second.seen.protection is Protection.UNPROTECTED
    await machines.unwatch("two")
    assert (await machines.ask("two", "query-status"))["status"] == "running"
    assert "mute0" not in {entry["name"] for entry in await machines.ask("two", "qom-list", path="/objects")}
