"""The world as one process sees it: `tunnelswitch.ports`, answered in virtual time."""

from __future__ import annotations

from collections.abc import Mapping

from tunnelswitch.core.actions import ApplyTunnels, Fence, Message, Promote, TakeCheckpoint
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch_lab.simulator.bus import SimulatedBus
from tunnelswitch_lab.simulator.hypervisor import Fencing, Hypervisor, Promotion, Taking
from tunnelswitch_lab.simulator.process import Clock, Process
from tunnelswitch_lab.simulator.store import Read, SimulatedStore
from tunnelswitch_lab.simulator.switches import Result, Switch


class _Started:
    async def start(self) -> None:
        """Everything is there from the beginning."""

    async def close(self) -> None:
        """Nothing is held."""


class BusPort(_Started):
    connected = True

    def __init__(self, bus: SimulatedBus, process: Process) -> None:
        self._bus = bus
        self._process = process

    def publish(self, message: Message) -> None:
        self._process.before(message)
        self._bus.publish(self._process.name, self._process.site, message)

    async def flush(self, deadline_seconds: float) -> None:
        """What is published has left."""


class EpochsPort(_Started):
    def __init__(self, store: SimulatedStore, site: str) -> None:
        self._store = store
        self._site = site

    async def read(self, group: str, deadline_seconds: float) -> Read:
        return await self._store.read(self._site, group, deadline_seconds)

    async def commit(self, record: GroupRecord, revision: int, deadline_seconds: float) -> int:
        return await self._store.commit(self._site, record, revision, deadline_seconds)

    async def pin_leader(self, avoid: tuple[str, ...]) -> str | None:
        """Where the leader is costs or saves an election, nothing else."""
        return self._store.leader


class PlanePort(_Started):
    def __init__(self, switch: Switch, clock: Clock) -> None:
        self._switch = switch
        self._session = switch.session()
        self._clock = clock

    async def apply(self, action: ApplyTunnels) -> Result:
        return await self._switch.apply(action, self._clock, self._session)


class DriverPort(_Started):
    health_failures = 0

    def __init__(self, hypervisor: Hypervisor, site: str, clock: Clock) -> None:
        self._hypervisor = hypervisor
        self._site = site
        self._clock = clock

    async def checkpoint(self, action: TakeCheckpoint) -> Taking:
        return await self._hypervisor.checkpoint(self._site, action, self._clock.local())

    async def promote(self, action: Promote) -> Promotion:
        return await self._hypervisor.promote(self._site, action)

    async def fence(self, action: Fence) -> Fencing:
        return await self._hypervisor.fence(self._site, action)

    def allow_output(self, allowed: bool) -> None:
        self._hypervisor.allow_output(self._site, allowed)

    def figures(self) -> Mapping[str, float]:
        return {}
