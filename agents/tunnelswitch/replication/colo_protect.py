"""Keeping one machine under protection: may it be, begin as an active, listen as a standby, begin anew.

It acts on QEMU only through `ask`, and on the word of `colo_state` about what the machine is. It never promotes or ends
a machine, and never waits for a peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tunnelswitch.adapters.links import Links
from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.errors import DataPlaneError
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_copy import Ask, FirstCopy
from tunnelswitch.replication.colo_link import RefusedError
from tunnelswitch.replication.colo_peer import PeerWatch
from tunnelswitch.replication.colo_qmp import Mode
from tunnelswitch.replication.colo_state import INCOMING, Machine

RETRY_SECONDS = 1.0
# QEMU puts its part as a secondary away after it has taken over; only then may it begin as a primary.
SETTLE_SECONDS = 2.0
RETRY_MAX_SECONDS = 5.0
# A peer that accepts and then says nothing holds the machine each time: it is not tried soon again.
HUNG_RETRY_SECONDS = 10.0
HUNG_RETRY_MAX_SECONDS = 300.0


class Protector:
    """The protection of one machine at one site.

    Args:
        ask: has QEMU carry out a command, see `QmpLink.ask`.
        changed: the machine is not what it was; called from the event loop.
        count: called with refused, sync_failed or peer_lost.

    Attributes:
        peer: the watch over the standby, once there is one.
    """

    def __init__(
        self,
        machine: Machine,
        options: Colo,
        site: str,
        ask: Ask,
        changed: Callable[[], None],
        count: Callable[[str], None],
    ) -> None:
        self._machine, self._options = machine, options
        self._here: ColoSite = options.sites[site]
        self._incoming = options.incoming_uri(machine.service, site)
        self._there = options.peer_of(site)
        self._ask, self._changed, self._count = ask, changed, count
        self._log = structlog.get_logger(__name__).bind(service=machine.service, site=site)
        self._limit = options.timeout_seconds
        self._retry_seconds = RETRY_SECONDS
        self._copy = FirstCopy(machine, options, options.outgoing_uri(machine.service, site), ask)
        self._next_try_at = 0.0
        self._hung_seconds = HUNG_RETRY_SECONDS
        self.peer = PeerWatch(machine, options, site, self._copy, ask, changed, count, self._peer_hung)

    @property
    def copying(self) -> bool:
        """Is an attempt to begin protection under way?"""
        return self._copy.under_way

    def forget(self) -> None:
        """The QEMU that all this was about has ended."""
        self.peer.rest()
        self._copy.forget()
        self._next_try_at, self._retry_seconds = 0.0, RETRY_SECONDS

    def promoted(self) -> None:
        """The machine serves by itself from now on."""
        self.peer.rest()
        self._not_before(SETTLE_SECONDS)

    # ------------------------------------------------------------------ begin

    async def settle(self) -> None:
        """After attaching: may it be protected at all, and is the interval the configured one?

        Raises:
            DriverError: QEMU did not answer.
        """
        obstacle, remedy = await self._obstacle()
        known, self._machine.obstacle = self._machine.obstacle, obstacle
        if obstacle:
            self._not_before(RETRY_MAX_SECONDS)
            if obstacle != known:
                self._count("refused")
                self._log.error("not_protected", problem=obstacle, remedy=remedy)
        elif self._machine.mode is Mode.PRIMARY:
            await self.set_interval(self.peer.interval_ms)
        await self._copy.adopt(asyncio.get_running_loop().time())
        if obstacle != known:
            self._changed()

    async def _obstacle(self) -> tuple[str, str]:
        """Why it must not be protected, and what to do about it; empty if it may."""
        version = qmp.version(await self._ask(qmp.QUERY_VERSION, self._limit))
        if version < qmp.OLDEST_VERSION:
            oldest = _dotted(qmp.OLDEST_VERSION)
            return (
                f"QEMU {_dotted(version)}; {oldest} or later is needed",
                "start it with deploy/get-qemu (docs/colo.md)",
            )
        blocks = await self._ask(qmp.QUERY_BLOCK, self._limit)
        disks = qmp.unreplicated_disks(blocks, await self._ask(qmp.QUERY_NODES, self._limit))
        if disks:
            problem = f"writable disks that are not replicated: {', '.join(disks)}"
            return problem, "make them read-only, remove them, or use QEMU's block replication"
        mute = self._options.mute_object
        if self._machine.role == "standby" and not await self._is_muted():
            problem = f"it has no object {mute}: as a standby it would talk to the network"
            return problem, f"start it with -object filter-redirector,id={mute},... (docs/colo.md)"
        return "", ""

    async def _is_muted(self) -> bool:
        return self._options.mute_object in qmp.object_names(await self._ask(qmp.LIST_OBJECTS, self._limit))

    async def set_interval(self, milliseconds: int) -> None:
        """Change the time between checkpoints; in force at once.

        Raises:
            DriverError: QEMU did not do it.
        """
        self.peer.interval_ms = milliseconds
        if qmp.interval_milliseconds(await self._ask(qmp.QUERY_PARAMETERS, self._limit)) != milliseconds:
            await self._ask(qmp.set_interval(milliseconds), self._limit)
            self._log.info("interval_set", milliseconds=milliseconds)

    async def hasten(self) -> None:
        """Have the next checkpoint begin at once: QEMU does so whenever the interval is set.

        Raises:
            DriverError: QEMU did not do it.
        """
        await self._ask(qmp.set_interval(self.peer.interval_ms), self._limit)

    async def keep(self) -> None:
        """Take the next step towards protection, if there is one to take.

        Raises:
            DriverError: QEMU did not do it.
        """
        machine, now = self._machine, asyncio.get_running_loop().time()
        if self.copying or self._copy.holds:  # also one that must not be protected: it would stand still for ever
            await self._copy.keep(now)
        elif machine.obstacle:
            if now >= self._next_try_at:  # block replication may have begun
                await self.settle()
        elif machine.run_state == INCOMING and not machine.migration:
            await self._prepare_link()
            await self._ask(qmp.ENABLE, self._limit)
            await self._ask(qmp.listen_on(self._incoming), self._limit)
            self._log.info("waiting_for_state", at=self._incoming)
        elif machine.wants_protection and now >= self._next_try_at:
            await self._begin(now)

    async def _begin(self, now: float) -> None:
        await self._prepare_link()
        try:
            await self._copy.begin(now, self.peer.interval_ms)
        except RefusedError as error:
            if not self.copying:
                raise
            self.attempted(Mode.NONE, error.problem)

    def attempted(self, mode: Mode, error: str) -> None:
        """An attempt to begin protection has ended, one way or the other."""
        if not self.copying:
            return
        self._copy.ended()
        if mode is Mode.NONE:
            self._machine.problem = f"no standby at {self._there.migration_address}: {error or 'no answer'}"
            self._count("sync_failed")
            self._log.info("not_yet_protected", peer=self._there.migration_address, error=error)
            self._not_before(self._retry_seconds)
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_MAX_SECONDS)
        else:
            self._retry_seconds, self._hung_seconds = RETRY_SECONDS, HUNG_RETRY_SECONDS

    def _not_before(self, seconds: float) -> None:
        self._next_try_at = max(self._next_try_at, asyncio.get_running_loop().time() + seconds)

    def _peer_hung(self) -> None:
        self._not_before(self._hung_seconds)
        self._hung_seconds = min(2 * self._hung_seconds, HUNG_RETRY_MAX_SECONDS)

    async def _prepare_link(self) -> None:
        """Have checkpoints acknowledged at once, and leave others their share of the line; protection does without."""
        device, rate = self._here.device, self._here.rate_mbit
        if not device or not (self._options.quickack or rate):
            return
        host = self._there.migration_address.rpartition(":")[0].strip("[]")
        try:
            async with asyncio.timeout(self._limit), Links() as links:
                if self._options.quickack:
                    await links.ensure_quickack(device, host)
                if rate:
                    await links.limit_rate(device, rate)
        except (DataPlaneError, OSError, TimeoutError) as error:
            self._log.warning("t1_not_prepared", error=str(error))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
