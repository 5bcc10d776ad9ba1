"""One process of a site: the real pump and the real executor, driven by virtual time instead of an event loop.

Only what touches asyncio is replaced: how a timer is armed, and how a coroutine is carried on. A process can crash
before any action, be paused and go on with a full inbox, and be killed; its clock has a rate and an offset of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from tunnelswitch.core.actions import Action, Message
from tunnelswitch.ports import Bus, DataPlane, Epochs, ServiceDriver
from tunnelswitch.processes.executor import Executor
from tunnelswitch.processes.pump import TIMER_FLOOR_SECONDS, Machine, Pump
from tunnelswitch_lab.simulator.timeline import START_SECONDS, Timeline

T = TypeVar("T")
STEPS_MAX = 20_000


class CrashedError(Exception):
    """The process ends here, between two actions."""


class SpinsError(AssertionError):
    """A process never comes to rest."""


class Answer(Generic[T]):
    """What a coroutine waits for: the world sets it once, later words are ignored."""

    __slots__ = ("_error", "_told", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._told: Callable[[], None] | None = None

    def set(self, value: T | None = None, error: Exception | None = None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        if self._told is not None:
            self._told()

    def when_done(self, told: Callable[[], None]) -> None:
        self._told = told
        if self.done:
            told()

    def __await__(self) -> Generator[Answer[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Clock:
    """A site's monotonic clock: what it shows means nothing, and it may run a little fast or slow."""

    def __init__(self, timeline: Timeline, rate: float, offset: float) -> None:
        self._timeline = timeline
        self.rate = rate
        self.offset = offset

    def local(self) -> float:
        return (self._timeline.now - START_SECONDS) * self.rate + self.offset

    def true(self, local: float) -> float:
        return (local - self.offset) / self.rate + START_SECONDS


class _Pump(Pump):
    """The pump with another clock and another way to be woken."""

    def __init__(self, machine: Machine, perform: Any, clock: Clock, wake: Callable[[float], None]) -> None:
        super().__init__(machine, perform)
        self.now = clock.local  # type: ignore[method-assign]
        self._wake = wake

    def _arm(self, now: float) -> None:
        deadline = self._machine.deadline()
        at = float("inf") if deadline is None else max(deadline, now + TIMER_FLOOR_SECONDS)
        if at != self._timer_at:
            self._timer_at = at
            self._wake(at)

    def tick(self) -> None:
        self._tick()

    @property
    def timer_at(self) -> float:
        return self._timer_at


class _Executor(Executor):
    """The executor whose coroutines are carried on by the process instead of an event loop."""

    def __init__(self, process: Process, bus: Bus, epochs: Epochs, plane: DataPlane | None, drivers: Any) -> None:
        super().__init__(bus, epochs, plane, drivers)
        self._process = process

    def _start(self, action: Action) -> None:
        self._process.before(action)
        super()._start(action)

    def _tell(self, thing: object) -> None:
        """The world keeps its own log."""

    def _spawn(self, work: Coroutine[Any, Any, None], *, reads: bool = False) -> Any:
        self._process.carry_on(work)
        return _DONE


class _Done:
    @staticmethod
    def done() -> bool:
        return True


_DONE = _Done()


class Process:
    """An agent or a switcher.

    Args:
        name: of the process; `site` is where it runs.
        ports: bus, epochs, data plane or None, drivers: the world as this process sees it.
    """

    def __init__(self, name: str, site: str, timeline: Timeline, clock: Clock) -> None:
        self.name = name
        self.site = site
        self.alive = True
        self.crash_in: int | None = None
        self.slept_seconds = 0.0
        self._stopped_at = 0.0
        self.last_batch: Action | Message | None = None
        self._timeline = timeline
        self._clock = clock
        self._inbox: deque[Callable[[], None]] | None = None
        self._wake_at = float("inf")
        self._steps = (0.0, 0)

    def run(
        self,
        machine: Machine,
        bus: Bus,
        epochs: Epochs,
        plane: DataPlane | None,
        drivers: dict[str, ServiceDriver],
    ) -> None:
        """Begin."""
        executor = _Executor(self, bus, epochs, plane, drivers)
        self.machine = machine
        self._pump = _Pump(machine, executor.perform, self._clock, self._woken_at)
        executor.connect(self._pump.post)
        self._pump.start()

    # ------------------------------------------------------------------ in

    @property
    def paused(self) -> bool:
        return self._inbox is not None

    def post(self, event: object) -> None:
        """An adapter of this process saw something."""
        if self._inbox is not None:
            self._inbox.append(lambda: self._pump.post(event))
        elif self.alive:
            try:
                self._pump.post(event)
            except CrashedError:
                self.kill()

    def carry_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Take a coroutine as far as it goes without the world."""
        try:
            answer = work.send(None)
        except StopIteration:
            return
        answer.when_done(lambda: self._resume_work(work))

    def _resume_work(self, work: Coroutine[Any, Any, None]) -> None:
        if self._inbox is not None:
            self._inbox.append(lambda: self.carry_on(work))
        elif self.alive:
            self._guarded(self.carry_on, work)
        else:
            work.close()

    def _guarded(self, what: Callable[..., None], *args: Any) -> None:
        try:
            what(*args)
        except CrashedError:
            self.kill()

    # ------------------------------------------------------------------ time

    def _woken_at(self, local: float) -> None:
        true = self._clock.true(local) if local != float("inf") else local
        if true < self._wake_at:
            self._wake_at = true
            self._timeline.at(true, self._wake, true)

    def _wake(self, asked: float) -> None:
        if asked != self._wake_at or not self.alive or self.paused:
            return
        self._wake_at = float("inf")
        at = self._pump.timer_at
        if at <= self._clock.local() + 1e-9:
            self._count_steps()
            self._guarded(self._pump.tick)
        else:
            self._woken_at(at)

    def _count_steps(self) -> None:
        since, steps = self._steps
        if self._timeline.now - since > 1.0:
            since, steps = self._timeline.now, 0
        self._steps = (since, steps + 1)
        if steps > STEPS_MAX // 20:
            raise SpinsError(f"{self.name} is woken more than {STEPS_MAX // 20} times a second")

    # ------------------------------------------------------------------ faults

    def before(self, action: Action | Message) -> None:
        """An action starts now; the process may die just before it."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise CrashedError
        self.last_batch = action

    def kill(self) -> None:
        self.alive = False
        self._inbox = None

    def pause(self) -> None:
        """SIGSTOP: what comes in waits, timers run late."""
        if self.alive and self._inbox is None:
            self._inbox = deque()
            self._stopped_at = self._timeline.now

    def resume(self, *, timer_first: bool = False) -> None:
        """SIGCONT: everything that waited comes in; `timer_first` is the order of an event loop that finds its timer
        due before it has read its sockets. Either way the pump tells the lateness before anything else."""
        waiting, self._inbox = self._inbox, None
        if waiting is None or not self.alive:
            return
        self.slept_seconds = self._timeline.now - self._stopped_at
        if timer_first and self._pump.timer_at <= self._clock.local():
            self._guarded(self._pump.tick)
        while waiting and self.alive:
            self._guarded(waiting.popleft())
        if self.alive:
            self._wake_at = float("inf")
            self._woken_at(self._pump.timer_at)
