"""Looking at the local QEMU and keeping it protected: attach, listen as a standby, begin as an active, go on alone.

Facts before words: that a run has ended is known from its pidfd alone, which needs no answer of QEMU. A QEMU that hangs
keeps the state it was last known in. Promotion and fencing are the business of `colo`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from tunnelswitch.adapters.links import Links
from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.core.events import RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen
from tunnelswitch.errors import DataPlaneError, DriverError
from tunnelswitch.ports import Emit
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_link import LostError, QmpLink, RefusedError
from tunnelswitch.replication.colo_meter import DeviceMeter
from tunnelswitch.replication.colo_qmp import Command, Mode
from tunnelswitch.replication.colo_state import HELD, INCOMING, RUNNING, Machine
from tunnelswitch.replication.runs import WatchedRun, start_ticks, ticks_now
from tunnelswitch.replication.watching import wait_for

POLL_SECONDS = 1.0
ABSENT_POLL_SECONDS = 0.25
SYNC_POLL_SECONDS = 0.05
RETRY_MAX_SECONDS = 5.0
STALL_ANSWER_SECONDS = 0.1
OVERDUE_STALLS = 4
_ENDED_RUNS = 16
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class MachineWatch:
    """What is known of one machine at one site; emits every change of it.

    Args:
        emit: takes ServiceSeen (on change), RunExited and CheckpointSeen.
        count: called with qmp_failed, refused, sync_failed or peer_lost.
    """

    def __init__(self, service: str, options: Colo, site: str, emit: Emit, count: Callable[[str], None]) -> None:
        self.machine = Machine(service)
        self.running: WatchedRun | None = None
        self.link: QmpLink | None = None
        self.promoting = False
        self._service, self._site = service, site
        self._options = options
        self._here: ColoSite = options.sites[site]
        self._peer: ColoSite = next(there for name, there in options.sites.items() if name != site)
        self._path = Path(options.qmp_socket.replace("{site}", site))
        self._emit, self._count = emit, count
        self._log = structlog.get_logger(__name__).bind(service=service, site=site)
        self._meter = DeviceMeter(self._here.device)
        self._told: ServiceSeen | None = None
        self._ended_runs: deque[str] = deque(maxlen=_ENDED_RUNS)
        self._version = 0
        self._complaint = ""
        self._interval_ms = options.checkpoint_interval_ms
        self._retry_seconds = POLL_SECONDS
        self._sync_until: float | None = None
        self._next_try_at = 0.0
        self._stall: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._parting: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name=f"colo:{self._service}")

    async def close(self) -> None:
        """Stop looking; QEMU goes on, protected as it is."""
        self._stop_stall_timer()
        for task in (self._task, self._parting):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self.running is not None:
            self.running.close()

    def has_ended(self, run: str) -> bool:
        """Is it a fact that this run has ended?"""
        return run in self._ended_runs

    def note_promoted(self) -> None:
        """A verified promotion: what was asked before it is of the past."""
        self._version += 1
        self.machine.promoted()
        self._tell()
        self._wake.set()

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    async def ask(self, command: Command, limit_seconds: float) -> Any:
        """Ask the QEMU that we are attached to.

        Raises:
            DriverError: there is none, it refuses, or does not answer in time.
        """
        if self.link is None:
            raise DriverError(f"not attached to QEMU on {self._path}", self._complaint)
        return await self.link.ask(command, limit_seconds)

    async def _watch(self) -> None:
        while True:
            self.link = link = QmpLink(self._path, self._event)
            try:
                await self._attend(link)
            except DriverError as error:
                self._complain(error)
            finally:
                self.link = None
                await link.close()
            self._wake.clear()
            await wait_for(self._wake, ABSENT_POLL_SECONDS)

    async def _attend(self, link: QmpLink) -> None:
        """Attach, and look until the connection or the process is gone."""
        watched = self._identify(link.connect())
        await link.greet(self._options.timeout_seconds)
        await self._settle()
        while not watched.ended.is_set():
            self._wake.clear()
            if not link.hung:  # a QEMU that owes answers is not asked more
                try:
                    await self.look()
                    await self._keep_protected()
                except LostError:
                    raise
                except DriverError as error:
                    self._complain(error)
            busy = self._sync_until is not None
            await wait_for(self._wake, SYNC_POLL_SECONDS if busy else POLL_SECONDS)

    def _identify(self, pid: int) -> WatchedRun:
        """Watch the process behind the socket; the run's name holds for one start of it on one boot of the host."""
        known_at = ticks_now()
        try:
            started = start_ticks(pid)
            boot = _BOOT.read_text(encoding="ascii")[:8]
        except OSError:
            raise DriverError(f"process {pid} on {self._path} is gone") from None
        run = f"{boot}.{pid}.{started}"
        if self.running is None or self.running.run != run:
            watched = WatchedRun(pid, run, known_at, started, self._exited)
            if self.running is not None:
                self.running.close()
            self.running = watched
            self.machine.found(run)
            self._log.info("attached", run=run, pid=pid)
        return self.running

    # ------------------------------------------------------------------ what QEMU says

    async def look(self) -> None:
        """Ask QEMU what it is."""
        limit, version = self._options.timeout_seconds, self._version
        run_state = qmp.run_state(await self.ask(qmp.QUERY_STATUS, limit))
        mode = qmp.mode(await self.ask(qmp.QUERY_COLO, limit))
        migration = await self.ask(qmp.QUERY_MIGRATE, limit)
        if version != self._version or self.promoting:
            return  # it speaks of the time before a promotion or an exit
        self.machine.take_answers(mode, run_state, qmp.migration_status(migration))
        if self._stall is None:
            self._expect(held=False)
        if mode is not Mode.NONE or self.machine.migration in ("failed", "cancelled"):
            self._synced(mode, qmp.migration_error(migration))
        self._complaint = "" if not self.machine.obstacle else self._complaint
        self._tell()

    def _event(self, event: Mapping[str, Any]) -> None:
        checkpoint = self.machine.take_event(event, asyncio.get_running_loop().time())
        name = event.get("event")
        if name in (qmp.STOP, qmp.RESUME):
            self._expect(held=name == qmp.STOP)
        elif name == qmp.COLO_EXIT:
            self._stop_stall_timer()
        if checkpoint is not None and not self.promoting:
            told = (checkpoint.role, checkpoint.sequence, checkpoint.pause_seconds, self._meter.grown_bytes())
            self._emit(CheckpointSeen(self._site, self._service, self.machine.run, *told))
        if name == qmp.COLO_EXIT and self.machine.peer_lost:
            self._tell()
            self._part("the connection to it ended")
        elif name in (qmp.COLO_EXIT, qmp.MIGRATION):
            self._wake.set()

    def _exited(self, watched: WatchedRun) -> None:
        self._ended_runs.append(watched.run)
        self._emit(RunExited(self._service, watched.run))
        if watched is self.running:
            self.running = None
            self._version += 1
            self._stop_stall_timer()
            self._sync_until = None
            self._next_try_at = 0.0
            self.machine.clear()
            self._tell()
            self._wake.set()

    def _tell(self) -> None:
        """Emit what has changed, the checkpoints' number aside: they tell of themselves."""
        if self.machine.run and not self.machine.known:
            return
        seen = self.machine.seen()
        if self._told is None or _but_sequence(seen) != _but_sequence(self._told):
            self._told = seen
            self._emit(seen)
            self._log.info("seen", role=seen.role, protection=seen.protection.value, in_sync=seen.in_sync)

    def _complain(self, error: DriverError) -> None:
        """Count every time, log once until it is another problem or none. No QEMU at all is no problem."""
        if self.running is None and not self.machine.run:
            self._tell()
            if self._complaint != error.problem:
                self._log.info("no_machine", problem=error.problem)
        else:
            self._count("qmp_failed")
            if self._complaint != error.problem:
                self._log.warning("machine_not_seen", problem=error.diagnostics())
        self._complaint = error.problem

    # ------------------------------------------------------------------ protection

    async def _settle(self) -> None:
        """After attaching: may it be protected at all, and is the interval the configured one?"""
        limit = self._options.timeout_seconds
        await self.look()
        obstacle = ""
        disks = qmp.unreplicated_disks(await self.ask(qmp.QUERY_BLOCK, limit))
        if disks:
            obstacle = f"writable disks that are not replicated: {', '.join(disks)}"
            remedy = "make them read-only, remove them, or use QEMU's block replication"
        elif self.machine.role == "standby" and not await self._is_muted():
            obstacle = f"it has no object {self._options.mute_object}: as a standby it would talk to the network"
            remedy = f"start it with -object filter-redirector,id={self._options.mute_object},... (docs/colo.md)"
        self.machine.obstacle = obstacle
        if obstacle:
            self._count("refused")
            self._log.error("not_protected", problem=obstacle, remedy=remedy)
            self._tell()
        elif self.machine.mode is Mode.PRIMARY:
            await self.set_interval(self._interval_ms)

    async def _is_muted(self) -> bool:
        objects = await self.ask(qmp.LIST_OBJECTS, self._options.timeout_seconds)
        return self._options.mute_object in qmp.object_names(objects)

    async def set_interval(self, milliseconds: int) -> None:
        """Change the time between checkpoints of a machine under protection; in force at once.

        Raises:
            DriverError: QEMU did not do it.
        """
        limit = self._options.timeout_seconds
        self._interval_ms = milliseconds
        if qmp.interval_milliseconds(await self.ask(qmp.QUERY_PARAMETERS, limit)) != milliseconds:
            await self.ask(qmp.set_interval(milliseconds), limit)
            self._log.info("interval_set", milliseconds=milliseconds)

    async def _keep_protected(self) -> None:
        machine, limit = self.machine, self._options.timeout_seconds
        now = asyncio.get_running_loop().time()
        if machine.obstacle or self.promoting:
            return
        if machine.run_state == INCOMING and not machine.migration:
            await self._route_quickly()
            await self.ask(qmp.ENABLE, limit)
            await self.ask(qmp.listen_on(self._here.migration_address), limit)
            self._log.info("waiting_for_state", address=self._here.migration_address)
        elif self._sync_until is not None and now > self._sync_until:
            await self.ask(qmp.CANCEL, limit)
        elif self._sync_until is None and machine.wants_protection and now >= self._next_try_at:
            await self._route_quickly()
            await self.ask(qmp.ENABLE, limit)
            await self.ask(qmp.set_interval(self._interval_ms), limit)
            self._sync_until = now + self._options.sync_seconds
            try:
                await self.ask(qmp.migrate_to(self._peer.migration_address), limit)
            except RefusedError as error:
                self._synced(Mode.NONE, error.problem)

    def _synced(self, mode: Mode, error: str) -> None:
        """The attempt to begin protection has ended, one way or the other."""
        if self._sync_until is None:
            return
        self._sync_until = None
        if mode is Mode.NONE:
            self._count("sync_failed")
            self._log.info("not_yet_protected", peer=self._peer.migration_address, error=error)
            self._next_try_at = asyncio.get_running_loop().time() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_MAX_SECONDS)
        else:
            self._retry_seconds = POLL_SECONDS

    async def _route_quickly(self) -> None:
        """Have checkpoints acknowledged at once; without it they only take longer."""
        if not self._options.quickack or not self._here.device:
            return
        host = self._peer.migration_address.rpartition(":")[0].strip("[]")
        try:
            async with asyncio.timeout(self._options.timeout_seconds), Links() as links:
                await links.ensure_quickack(self._here.device, host)
        except (DataPlaneError, OSError, TimeoutError) as error:
            self._log.warning("no_quickack", error=str(error))

    def _expect(self, *, held: bool) -> None:
        """A primary must resume soon, and stop again for the next checkpoint; one that does not waits for its peer."""
        self._stop_stall_timer()
        if self.machine.mode is not Mode.PRIMARY or self.machine.peer_lost:
            return
        seconds = self._options.stall_seconds
        if not held:
            seconds = self._interval_ms / 1000 + OVERDUE_STALLS * seconds
        self._stall = asyncio.get_running_loop().call_later(seconds, self._stalled, seconds, held)

    def _stalled(self, seconds: float, held: bool) -> None:
        self._stall = None
        self._part(f"{'a checkpoint took longer than' if held else 'no checkpoint for'} {seconds:g} s", held=held)

    def _part(self, reason: str, *, held: bool = False) -> None:
        if self._parting is None or self._parting.done():
            self._parting = asyncio.create_task(self._go_alone(reason, held))

    async def _go_alone(self, reason: str, held: bool) -> None:
        """The standby is lost: free the machine, and say that nobody stands by."""
        machine, limit = self.machine, self._options.timeout_seconds
        if not machine.peer_lost and not await self._waits_for_peer(held):
            self._expect(held=held)
            return
        if machine.mode is not Mode.PRIMARY:
            return
        machine.peer_lost = True
        self._count("peer_lost")
        self._log.warning("goes_on_alone", reason=reason)
        self._tell()
        for command in (qmp.CUT, qmp.PEER_LOST):
            try:
                await self.ask(command, limit)
            except RefusedError as error:
                self._log.info("peer_already_gone", answer=error.problem)
            except DriverError as error:
                self._complain(error)
        self._wake.set()

    async def _waits_for_peer(self, held: bool) -> bool:
        """Is it the peer that is late? A machine that an operator stopped is not, nor a QEMU that itself hangs: then
        the standby is worth more than ever."""
        try:
            await self.ask(qmp.PING, STALL_ANSWER_SECONDS)
        except DriverError:
            return False
        try:
            state = qmp.run_state(await self.ask(qmp.QUERY_STATUS, STALL_ANSWER_SECONDS))
        except DriverError:
            return held  # its main loop is stuck in the checkpoint
        return state in HELD or (not held and state == RUNNING)

    def _stop_stall_timer(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def _but_sequence(seen: ServiceSeen) -> tuple[object, ...]:
    return (seen.run, seen.role, seen.protection, seen.in_sync)
