"""When a standby is halted: soon after a checkpoint, or not at all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.replication.colo_qmp import HALT, Command, Mode
from tunnelswitch.replication.colo_watch import MachineWatch

SITES = {"one": ColoSite(migration_address="127.0.0.1:1"), "two": ColoSite(migration_address="127.0.0.1:2")}


@pytest.mark.parametrize(("late_seconds", "times"), [(0.0, 1), (0.5, 0)], ids=["in time", "late"])
async def test_a_late_halt_is_left_out(monkeypatch: pytest.MonkeyPatch, late_seconds: float, times: int) -> None:
    """Another checkpoint may let the machine go on just then, and QEMU would wait for it to stand still for ever."""
    asked: list[Command] = []

    async def ask(command: Command, limit_seconds: float) -> Any:
        asked.append(command)

    watch = MachineWatch("vm", Colo(qmp_socket="/x", sites=SITES, checkpoint_interval_ms=1000), "two", str, str)
    monkeypatch.setattr(watch, "ask", ask)
    watch.machine.found("b.1.2")
    watch.machine.take_answers(Mode.SECONDARY, "running", "colo")
    at = time.time() - late_seconds
    watch._event({"event": "RESUME", "timestamp": {"seconds": int(at), "microseconds": int(at % 1 * 1e6)}})
    await asyncio.sleep(0)
    assert asked.count(HALT) == times
    await watch.close()


async def test_a_mistake_of_ours_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that has ended says "protected" for ever."""
    looked = asyncio.Semaphore(0)

    async def attend(link: object) -> None:
        looked.release()
        raise ZeroDivisionError("unforeseen")

    watch = MachineWatch("vm", Colo(qmp_socket="/x", sites=SITES, checkpoint_interval_ms=1000), "two", str, str)
    monkeypatch.setattr(watch, "_attend", attend)
    watch.start()
    async with asyncio.timeout(10):
        for _ in range(2):
            await looked.acquire()
    await watch.close()
