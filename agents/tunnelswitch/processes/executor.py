"""Carries out the core's actions through the ports, and posts what they came to.

Order: actions of one batch start in the order given; one published with `flush` has left the socket before the next
starts. From there all run in parallel. Every one has its own deadline, and an adapter that raises what it should not is
an event and a counter, never the end of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import fields
from typing import Any

import structlog

from tunnelswitch.core import actions, events, facts
from tunnelswitch.core.actions import Action
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import CommitRefusedError, EpochStoreError, TunnelswitchError
from tunnelswitch.ports import Bus, DataPlane, Emit, Epochs, MetaLeader, ServiceDriver

FLUSH_DEADLINE_SECONDS = 0.005
RUNNING_MAX = 512
READING_MAX = 4096  # one for each group and poll, and all of a poll are one request

_log = structlog.get_logger("tunnelswitch.executor")


# What an operator wants to find in this process' own log too.
TOLD = (
    facts.Decision,
    facts.Proof,
    facts.Handover,
    facts.HandoverRefused,
    facts.Serving,
    facts.PromoteFailed,
    facts.Failover,
)
BAD = (
    events.SwitchConflict,
    events.SwitchFailed,
    events.PromotionFailed,
    events.FenceFailed,
    events.CheckpointFailed,
    facts.PromoteFailed,
    facts.HandoverRefused,
)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Stamp) else sorted(value) if isinstance(value, frozenset) else value


class Executor:
    """What one process can do to the world.

    Args:
        post: where the results go; set by `connect` because the pump and the executor need each other.
        data_plane: None where there is none to switch (gateway agent).
        drivers: by service.
        meta: None where JetStream's own leader is not ours to place.
    """

    def __init__(
        self,
        bus: Bus,
        epochs: Epochs,
        data_plane: DataPlane | None = None,
        drivers: Mapping[str, ServiceDriver] | None = None,
        meta: MetaLeader | None = None,
    ) -> None:
        self._bus = bus
        self._epochs = epochs
        self._data_plane = data_plane
        self._drivers = dict(drivers or {})
        self._meta = meta
        self._post: Emit = lambda event: None
        self._running: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._pinning: asyncio.Task[None] | None = None
        self.refused = 0

    def connect(self, post: Emit) -> None:
        self._post = post

    async def close(self) -> None:
        """Abandon what still runs."""
        tasks = (*self._running, *self._reading)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def perform(self, batch: tuple[Action, ...]) -> None:
        """Start every action of the batch."""
        for index, action in enumerate(batch):
            if not isinstance(action, actions.Publish):
                self._start(action)
                continue
            self._bus.publish(action.message)
            if isinstance(action.message, TOLD):
                self._tell(action.message)
            rest = batch[index + 1 :]
            if action.flush and any(not isinstance(later, actions.Publish) for later in rest):
                if self._spawn(self._after_flush(rest)) is None:
                    self.perform(rest)  # unflushed, rather than lost: each is started or refused by itself
                return

    async def _after_flush(self, rest: tuple[Action, ...]) -> None:
        await self._bus.flush(FLUSH_DEADLINE_SECONDS)
        self.perform(rest)

    def _start(self, action: Action) -> None:
        match action:
            case actions.ReadRecord():
                self._spawn(self._read(action), reads=True)
            case actions.CommitRecord():
                self._spawn(self._commit(action))
            case actions.ApplyTunnels():
                self._spawn(self._apply(action))
            case actions.Promote() | actions.Fence() | actions.TakeCheckpoint():
                self._spawn(self._drive(action))
            case actions.AllowOutput():
                if driver := self._drivers.get(action.service):
                    driver.allow_output(action.allowed)
            case actions.PinLeader():
                if self._pinning is None or self._pinning.done():
                    self._pinning = self._spawn(self._pin(action))
            case _:
                raise TypeError(f"no executor for {type(action).__name__}")

    def _spawn(self, work: Coroutine[Any, Any, None], *, reads: bool = False) -> asyncio.Task[None] | None:
        among, limit = (self._reading, READING_MAX) if reads else (self._running, RUNNING_MAX)
        if len(among) >= limit:
            self.refused += 1
            work.close()
            _log.error("too many actions at once", limit=limit, remedy="is NATS or OVSDB hanging?")
            return None
        task = asyncio.get_running_loop().create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an action failed in an unforeseen way", error=repr(error))

    def _tell(self, thing: object) -> None:
        told = {field.name: _plain(getattr(thing, field.name)) for field in fields(thing)}  # type: ignore[arg-type]
        if isinstance(thing, events.SwitchApplied):
            for name in ("committed_at", "applied_at"):
                told[name.replace("_at", "_after_ms")] = round((told.pop(name) - thing.submitted_at) * 1000, 1)
            del told["submitted_at"]
        alarm = isinstance(thing, facts.Decision) and thing.action == "alarm"
        (_log.warning if alarm or isinstance(thing, BAD) else _log.info)(type(thing).__name__, **told)

    async def _read(self, action: actions.ReadRecord) -> None:
        try:
            record, revision = await self._epochs.read(action.group, action.deadline_seconds)
        except TunnelswitchError as error:
            self._post(events.ReadFailed(action.group, error.diagnostics()))
        else:
            self._post(events.RecordRead(action.group, record, revision))

    async def _commit(self, action: actions.CommitRecord) -> None:
        try:
            revision = await self._epochs.commit(action.record, action.revision, action.deadline_seconds)
        except CommitRefusedError:
            self._post(events.CommitRefused(action.record.group))
        except EpochStoreError as error:
            self._post(events.CommitUnknown(action.record.group, error.diagnostics()))
        else:
            self._post(events.Committed(action.record, revision))

    async def _apply(self, action: actions.ApplyTunnels) -> None:
        if self._data_plane is None:
            self._post(events.SwitchFailed(action.group, "this process has no data plane"))
            return
        result = await self._data_plane.apply(action)
        self._post(result)
        self._tell(result)

    async def _drive(self, action: actions.Promote | actions.Fence | actions.TakeCheckpoint) -> None:
        driver, absent = self._drivers.get(action.service), "no driver for it on this site"
        result: object
        match action:
            case actions.Promote():
                failed = events.PromotionFailed(action.service, absent)
                result = await driver.promote(action) if driver else failed
            case actions.Fence():
                result = await driver.fence(action) if driver else events.FenceFailed(action.service, absent)
            case actions.TakeCheckpoint():
                none = events.CheckpointFailed(action.service, action.request, absent)
                result = await driver.checkpoint(action) if driver else none
        self._post(result)
        self._tell(result)

    async def _pin(self, action: actions.PinLeader) -> None:
        try:
            leader = await self._epochs.pin_leader(action.avoid)
        except TunnelswitchError as error:
            _log.debug("leader not pinned", error=error.diagnostics())
            self._post(events.LeaderSeen(""))  # nobody knows where it is
        else:
            self._post(events.LeaderSeen(leader or ""))
        if self._meta is None:
            return
        try:
            await self._meta.pin_leader(action.avoid)
        except TunnelswitchError as error:
            _log.debug("JetStream's leader not pinned", error=error.diagnostics())
