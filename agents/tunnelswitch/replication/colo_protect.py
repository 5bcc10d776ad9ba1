"""Keeping one machine under protection: may it be, begin as an active, listen as a standby, go on alone without one.

It acts on QEMU only through `ask`, and on the word of `colo_state` about what the machine is. It never promotes or ends
a machine, and never waits for a peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tunnelswitch.adapters.links import Links
from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.errors import DataPlaneError, DriverError
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_copy import Ask, FirstCopy
from tunnelswitch.replication.colo_link import RefusedError
from tunnelswitch.replication.colo_qmp import Command, Mode
from tunnelswitch.replication.colo_state import HALTED, HELD, INCOMING, RUNNING, Machine

RETRY_SECONDS = 1.0
# QEMU puts its part as a secondary away after it has taken over; only then may it begin as a primary.
SETTLE_SECONDS = 2.0
RETRY_MAX_SECONDS = 5.0
STALL_ANSWER_SECONDS = 0.1
PART_SECONDS = 0.5
OVERDUE_STALLS = 4
# A peer that accepts and then says nothing holds the machine each time: it is not tried soon again.
HUNG_RETRY_SECONDS = 10.0
HUNG_RETRY_MAX_SECONDS = 300.0


class Protector:
    """The protection of one machine at one site. `output_waits`: its output is held until a checkpoint is committed.

    Args:
        ask: has QEMU carry out a command, see `QmpLink.ask`.
        changed: the machine is not what it was; called from the event loop.
        count: called with refused, sync_failed or peer_lost.
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
        self._peer: ColoSite = next(there for name, there in options.sites.items() if name != site)
        self._ask, self._changed, self._count = ask, changed, count
        self._log = structlog.get_logger(__name__).bind(service=machine.service, site=site)
        self._interval_ms = options.checkpoint_interval_ms
        self._limit = options.timeout_seconds
        self._retry_seconds = RETRY_SECONDS
        self._copy = FirstCopy(machine, options, self._peer.migration_address, ask)
        self._next_try_at = 0.0
        self._hung_seconds = HUNG_RETRY_SECONDS
        self._stall: asyncio.TimerHandle | None = None
        self._parting: asyncio.Task[None] | None = None
        self._closed = False
        self.output_waits = False

    @property
    def copying(self) -> bool:
        """Is an attempt to begin protection under way?"""
        return self._copy.until is not None

    def forget(self) -> None:
        """The QEMU that all this was about has ended."""
        self._stop_timer()
        self._copy.forget()
        self._next_try_at, self._retry_seconds = 0.0, RETRY_SECONDS

    def promoted(self) -> None:
        """The machine serves by itself from now on."""
        self._stop_timer()
        self._not_before(SETTLE_SECONDS)

    async def close(self) -> None:
        """Stop; the machine stays protected as it is."""
        self._closed = True
        self._stop_timer()
        if self._parting is not None:
            await asyncio.wait({self._parting}, timeout=PART_SECONDS)  # a machine is not left half freed
            self._parting.cancel()
            await asyncio.wait({self._parting})

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
            await self.set_interval(self._interval_ms)
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
        self._interval_ms = milliseconds
        if qmp.interval_milliseconds(await self._ask(qmp.QUERY_PARAMETERS, self._limit)) != milliseconds:
            await self._ask(qmp.set_interval(milliseconds), self._limit)
            self._log.info("interval_set", milliseconds=milliseconds)

    async def hasten(self) -> None:
        """Have the next checkpoint begin at once: QEMU does so whenever the interval is set.

        Raises:
            DriverError: QEMU did not do it.
        """
        await self._ask(qmp.set_interval(self._interval_ms), self._limit)

    async def keep(self) -> None:
        """Take the next step towards protection, if there is one to take.

        Raises:
            DriverError: QEMU did not do it.
        """
        machine, now = self._machine, asyncio.get_running_loop().time()
        if machine.obstacle:
            if now >= self._next_try_at:  # block replication may have begun
                await self.settle()
        elif machine.run_state == INCOMING and not machine.migration:
            await self._prepare_link()
            await self._ask(qmp.enable(deltas=bool(self._options.delta_cache_mb)), self._limit)
            await self._ask(qmp.listen_on(self._here.migration_address), self._limit)
            self._log.info("waiting_for_state", address=self._here.migration_address)
        elif machine.wants_protection and not self.copying and now >= self._next_try_at:
            await self._begin(now)
        else:
            await self._copy.keep(now)

    async def _begin(self, now: float) -> None:
        await self._prepare_link()
        try:
            await self._copy.begin(now, self._interval_ms)
        except RefusedError as error:
            if not self.copying:
                raise
            self.attempted(Mode.NONE, error.problem)

    def attempted(self, mode: Mode, error: str) -> None:
        """An attempt to begin protection has ended, one way or the other."""
        if not self.copying:
            return
        self._copy.until = None
        if mode is Mode.NONE:
            self._machine.problem = f"no standby at {self._peer.migration_address}: {error or 'no answer'}"
            self._count("sync_failed")
            self._log.info("not_yet_protected", peer=self._peer.migration_address, error=error)
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
        host = self._peer.migration_address.rpartition(":")[0].strip("[]")
        try:
            async with asyncio.timeout(self._limit), Links() as links:
                if self._options.quickack:
                    await links.ensure_quickack(device, host)
                if rate:
                    await links.limit_rate(device, rate)
        except (DataPlaneError, OSError, TimeoutError) as error:
            self._log.warning("t1_not_prepared", error=str(error))

    # ------------------------------------------------------------------ without a standby

    def heard(self, event: str) -> None:
        """QEMU told of a checkpoint's beginning or end, or of the end of them all; `colo_state` knows already."""
        if event in (qmp.STOP, qmp.RESUME):
            self._expect(held=event == qmp.STOP)
        elif event == qmp.COLO_EXIT:
            self._stop_timer()
            if self._machine.peer_lost:
                self._changed()
                self._part("the connection to it ended")

    def expect_checkpoints(self) -> None:
        """Be on the watch for the next checkpoint, unless that is so already."""
        if self._stall is None:
            self._expect(held=False)

    def _expect(self, *, held: bool) -> None:
        """A primary must resume soon, and stop again for the next checkpoint; one that does not waits for its peer."""
        self._stop_timer()
        if self._closed or self._machine.peer_lost:
            return
        seconds = self._options.stall_seconds
        if self._machine.mode is Mode.NONE and self.copying and held:  # the last step before the first checkpoint
            seconds *= OVERDUE_STALLS
        elif self._machine.mode is not Mode.PRIMARY:
            return
        elif not held:
            # Clients wait for a checkpoint that does not come as they do for one that takes long.
            seconds = self._interval_ms / 1000 + (1 if self.output_waits else OVERDUE_STALLS) * seconds
        self._stall = asyncio.get_running_loop().call_later(seconds, self._stalled, seconds, held)

    def _stalled(self, seconds: float, held: bool) -> None:
        self._stall = None
        self._part(f"{'a checkpoint took longer than' if held else 'no checkpoint for'} {seconds:g} s", held=held)

    def _part(self, reason: str, *, held: bool = False) -> None:
        if self._parting is None or self._parting.done():
            self._parting = asyncio.create_task(self._go_alone(reason, held))

    async def _go_alone(self, reason: str, held: bool) -> None:
        """The standby is lost: free the machine, and say that nobody stands by."""
        machine = self._machine
        if not machine.peer_lost:
            if not await self._waits_for_peer(held):
                self._expect(held=held)
                return
            self._peer_hung()
        if machine.mode is Mode.NONE:
            self._log.warning("gives_up_copying", reason=reason)
            await self._do(qmp.CUT)
            return
        if machine.mode is not Mode.PRIMARY:
            return
        machine.peer_lost = True
        machine.problem = f"the standby was lost: {reason}"
        self._count("peer_lost")
        self._log.warning("goes_on_alone", reason=reason)
        self._changed()
        await self._do(qmp.CUT)
        await self._do(qmp.PEER_LOST)

    async def _do(self, command: Command) -> None:
        """Have it done; what does not work is not needed (nothing to cut, QEMU just ends), and looking will tell."""
        try:
            await self._ask(command, self._limit)
        except DriverError as error:
            self._log.info("not_needed", command=command.name, answer=error.problem)

    async def _waits_for_peer(self, held: bool) -> bool:
        """Is it the peer that is late? A machine that an operator stopped is not, nor a QEMU that itself hangs: then
        the standby is worth more than ever."""
        try:
            await self._ask(qmp.PING, STALL_ANSWER_SECONDS)
        except DriverError:
            return False
        try:
            state = qmp.run_state(await self._ask(qmp.QUERY_STATUS, STALL_ANSWER_SECONDS))
        except DriverError:
            return held  # its main loop is stuck in the checkpoint
        return state in HELD or (state == HALTED and self._copy.holds) or (not held and state == RUNNING)

    def _stop_timer(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
