"""The pump: order of events and actions, time, and the telling of its own lateness."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from tunnelswitch.core.actions import Action, PinLeader
from tunnelswitch.core.events import LoopLate
from tunnelswitch.processes.pump import TIMER_FLOOR_SECONDS, Pump


@dataclass
class Recorder:
    """A machine that writes everything down and wants to be woken at `wake_at`."""

    wake_at: float | None = None
    seen: list[object] = field(default_factory=list)
    expired: list[float] = field(default_factory=list)
    answer: tuple[Action, ...] = ()

    def receive(self, event: object, now: float) -> None:
        self.seen.append(event)

    def deadline(self) -> float | None:
        return self.wake_at

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self.wake_at = None

    def take_actions(self) -> tuple[Action, ...]:
        return self.answer


async def test_an_event_and_what_follows_from_it_happen_in_one_step() -> None:
    machine = Recorder(answer=(PinLeader(("a",)), PinLeader(("b",))))
    performed: list[Action] = []
    pump = Pump(machine, performed.extend)
    pump.start()
    pump.post("event")
    assert machine.seen == ["event"]
    assert performed == [PinLeader(("a",)), PinLeader(("b",))]
    pump.stop()


async def test_woken_at_the_deadline_and_not_before() -> None:
    wake_at = time.monotonic() + 0.05
    machine = Recorder(wake_at=wake_at)
    pump = Pump(machine, lambda actions: None)
    pump.start()
    async with asyncio.timeout(20):
        while not machine.expired:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    (woken_at,) = machine.expired
    assert woken_at >= wake_at
    pump.stop()


async def test_a_deadline_in_the_past_does_not_stop_the_world() -> None:
    machine = Recorder()
    machine.expire = machine.expired.append  # type: ignore[method-assign]
    machine.wake_at = 0.0
    pump = Pump(machine, lambda actions: None)
    started_at = time.monotonic()
    pump.start()
    await asyncio.sleep(0.05)
    assert 1 <= len(machine.expired) <= 1 + (time.monotonic() - started_at) / TIMER_FLOOR_SECONDS
    pump.stop()


async def test_a_process_that_slept_hears_of_it_before_anything_that_came_meanwhile() -> None:
    machine = Recorder(wake_at=time.monotonic() + 0.01)
    pump = Pump(machine, lambda actions: None)
    pump.start()
    time.sleep(0.05)  # noqa: ASYNC251  the loop is held up: that is the point
    pump.post("came meanwhile")
    late, event = machine.seen
    assert isinstance(late, LoopLate)
    assert late.lateness_seconds >= 0.03
    assert event == "came meanwhile"
    pump.stop()


async def test_a_stopped_pump_takes_nothing() -> None:
    machine = Recorder()
    pump = Pump(machine, lambda actions: None)
    pump.post("before start")
    pump.start()
    pump.stop()
    pump.post("after stop")
    assert machine.seen == []
