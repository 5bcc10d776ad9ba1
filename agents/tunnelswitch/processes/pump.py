"""The sole owner of the clock: feeds one machine with events and time, and hands its actions to the executor.

Everything happens synchronously within one event: receive, take the actions, start them. What an action came to is
posted back as an event. The pump measures how late its own timers run and tells the machine before anything that came
in meanwhile, so that a process that slept does not take its own sleep for silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from tunnelswitch.core.actions import Action
from tunnelswitch.core.events import LoopLate

# Below this a late timer is the scheduler's ordinary noise.
LATENESS_REPORTED_SECONDS = 0.002
# However eager a machine is, it is not woken more often than this by time alone.
TIMER_FLOOR_SECONDS = 0.0005


class Machine(Protocol):
    """What the core's machines have in common."""

    def receive(self, event: object, now: float) -> None: ...

    def deadline(self) -> float | None: ...

    def expire(self, now: float) -> None: ...

    def take_actions(self) -> tuple[Action, ...]: ...


class Pump:
    """Drives one machine on the running event loop.

    Args:
        perform: starts the actions, in order, without waiting for them.
        observe: sees every event and action, for metrics; must be cheap and must not raise.
    """

    def __init__(
        self,
        machine: Machine,
        perform: Callable[[tuple[Action, ...]], None],
        *,
        observe: Callable[[object, float], None] | None = None,
    ) -> None:
        self._machine = machine
        self._perform = perform
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._running = False

    @staticmethod
    def now() -> float:
        """Seconds of the one clock that decisions know (CLOCK_MONOTONIC)."""
        return time.monotonic()

    def start(self) -> None:
        self._running = True
        self._arm(self.now())

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def post(self, event: object) -> None:
        """Feed one event, now."""
        if not self._running:
            return
        now = self.now()
        if now - self._timer_at > LATENESS_REPORTED_SECONDS:
            self._tell_lateness(now)
        if self._observe is not None:
            self._observe(event, now)
        self._machine.receive(event, now)
        self._drain(now)

    def _tick(self) -> None:
        self._timer = None
        if not self._running:
            return
        now = self.now()
        if now - self._timer_at > LATENESS_REPORTED_SECONDS:
            self._tell_lateness(now)
        self._machine.expire(now)
        self._drain(now)

    def _tell_lateness(self, now: float) -> None:
        event = LoopLate(now - self._timer_at)
        # Once per lateness: the timer that was missed fires later, and is armed anew after this event.
        self._timer_at = now
        if self._observe is not None:
            self._observe(event, now)
        self._machine.receive(event, now)

    def _drain(self, now: float) -> None:
        actions = self._machine.take_actions()
        if actions:
            if self._observe is not None:
                for action in actions:
                    self._observe(action, now)
            self._perform(actions)
        self._arm(now)

    def _arm(self, now: float) -> None:
        deadline = self._machine.deadline()
        at = float("inf") if deadline is None else max(deadline, now + TIMER_FLOOR_SECONDS)
        if self._timer is not None:
            if at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at != float("inf"):
            # The loop's clock is CLOCK_MONOTONIC too.
            self._timer = asyncio.get_running_loop().call_at(at, self._tick)
