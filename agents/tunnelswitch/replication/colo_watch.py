"""Looking at the local QEMU: attach to it, ask it what it is, hear its events, and see its end.

Facts before words: that a run has ended is known from pidfds alone, which need no answer of QEMU. A QEMU that hangs
keeps the state it was last known in. What follows for protection is the business of `colo_protect`, promotion and
fencing are that of `colo`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from tunnelswitch.config import Colo, Output
from tunnelswitch.core.events import RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen
from tunnelswitch.errors import DriverError
from tunnelswitch.ports import Emit
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_link import LostError, QmpLink
from tunnelswitch.replication.colo_memory import HugePages, MemoryWatch
from tunnelswitch.replication.colo_meter import DeviceMeter
from tunnelswitch.replication.colo_output import OutputHold
from tunnelswitch.replication.colo_processors import ProcessorWatch
from tunnelswitch.replication.colo_protect import Protector
from tunnelswitch.replication.colo_qmp import Command, Mode
from tunnelswitch.replication.colo_state import Machine
from tunnelswitch.replication.committed import Committed
from tunnelswitch.replication.mistakes import unforeseen
from tunnelswitch.replication.runs import WatchedRun, start_ticks, ticks_now
from tunnelswitch.replication.watching import wait_for

POLL_SECONDS = 1.0
ABSENT_POLL_SECONDS = 0.25
SYNC_POLL_SECONDS = 0.02
# QEMU's main loop is stuck for good if the machine is let go on by a checkpoint while it waits for it to stand still. A
# halt that comes within so much of an interval is done by then; a later one is left out.
HALT_WITHIN = 0.25
# A standby that had no checkpoint for so long, and for so many intervals, has been left by its active.
OVERDUE_SECONDS, OVERDUE_INTERVALS = 30.0, 10
_ENDED_RUNS = 16
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class MachineWatch:
    """What is known of one machine at one site; emits every change of it.

    Args:
        emit: takes ServiceSeen (on change), RunExited and CheckpointSeen.
        count: called with qmp_failed, and by `Protector`.
    """

    def __init__(
        self,
        service: str,
        options: Colo,
        site: str,
        emit: Emit,
        count: Callable[[str], None],
        output: Output | None = None,
    ) -> None:
        self.machine = Machine(service)
        self.output = None if output is None else OutputHold(service, output, self._changed, count)
        self.memory = MemoryWatch(service, options.memory_limit_mb << 20, count)
        self.huge_pages = HugePages(service, site)
        self.running: WatchedRun | None = None
        self.link: QmpLink | None = None
        self.promoting = False
        self.resumed = asyncio.Event()  # it was told that the machine runs
        self.commits = Committed()
        self.protector = Protector(self.machine, options, site, self.ask, self._changed, count)
        self.protector.peer.output_waits = self.output is not None
        self._service, self._site = service, site
        self._options = options
        self._path = Path(options.qmp_socket.replace("{site}", site))
        self._emit, self._count = emit, count
        self._log = structlog.get_logger(__name__).bind(service=service, site=site)
        self._meter = DeviceMeter(options.sites[site].device)
        self._told: ServiceSeen | None = None
        self._ended_runs: deque[str] = deque(maxlen=_ENDED_RUNS)
        self._version = 0
        self._fed_at = float("-inf")
        self._complaint = ""
        self._wake = asyncio.Event()
        self._processors: ProcessorWatch | None = None
        self._task: asyncio.Task[None] | None = None
        self._halting: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to look."""
        if self.output is not None:
            self.output.start()
        self._task = asyncio.create_task(self._watch(), name=f"colo:{self._service}")

    async def close(self) -> None:
        """Stop looking; QEMU goes on, protected as it is."""
        await self.protector.peer.close()
        if self._halting is not None:
            await asyncio.wait({self._halting}, timeout=self._options.timeout_seconds)
        self.huge_pages.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._leave_processors()
        if self.running is not None:
            self.running.close()
        if self.output is not None:
            await self.output.close()

    def has_ended(self, run: str) -> bool:
        """Is it a fact that this run has ended?"""
        return run in self._ended_runs

    def note_promoted(self) -> None:
        """A verified promotion: what was asked before it is of the past."""
        self._version += 1
        self.machine.promoted()
        self.protector.promoted()
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
            except Exception as error:  # noqa: BLE001 - see `unforeseen`
                self._complain(unforeseen(error, self._log))
            finally:
                self.link = None
                await link.close()
            self._wake.clear()
            await wait_for(self._wake, ABSENT_POLL_SECONDS)

    async def _attend(self, link: QmpLink) -> None:
        """Attach, and look until the connection or the process is gone."""
        watched = self._identify(link.connect())
        await link.greet(self._options.timeout_seconds)
        await self._watch_processors(watched)
        await self.look()
        await self.protector.settle()
        while watched is self.running:
            self._wake.clear()
            self.memory.look(watched.pid, checkpointed=self.machine.checkpointed)
            if not link.hung:  # a QEMU that owes answers is not asked more
                try:
                    await self.look()
                    if not self.promoting:
                        await self.protector.keep()
                        # A checkpoint that is waited for may be the last one of a planned move, which helps as well.
                        if self._options.renew and self.memory.worth_renewing and not self.commits.awaited:
                            self.protector.peer.leave("its memory is needed back")
                except LostError:
                    raise
                except DriverError as error:
                    self._complain(error)
            await wait_for(self._wake, SYNC_POLL_SECONDS if self.protector.copying else POLL_SECONDS)

    def _identify(self, pid: int) -> WatchedRun:
        """Watch the process behind the socket; the run's name holds for one start of it on one boot of the host."""
        known_at = ticks_now()
        try:
            started = start_ticks(pid)
            boot = _BOOT.read_text(encoding="ascii")[:8]
        except OSError:
            raise DriverError(f"process {pid} on {self._path} is gone") from None
        run = f"{boot}.{pid}.{started}"
        if self.has_ended(run):
            raise DriverError(f"process {pid} on {self._path} is being taken apart")
        if self.running is None or self.running.run != run:
            watched = WatchedRun(pid, run, known_at, started, self._exited)
            if self.running is not None:
                self.running.close()
            self.running = watched
            self._fed_at = asyncio.get_running_loop().time()
            self.machine.found(run)
            self._log.info("attached", run=run, pid=pid)
        return self.running

    async def _watch_processors(self, watched: WatchedRun) -> None:
        """Know of the machine's end before its memory is gone; where that cannot be, from the process' end."""
        self._leave_processors()
        threads = qmp.processor_threads(await self.ask(qmp.QUERY_PROCESSORS, self._options.timeout_seconds))
        try:
            self._processors = ProcessorWatch(watched.pid, threads, lambda: self._exited(watched))
        except (OSError, LookupError) as error:
            self._log.info("processors_not_watched", problem=str(error))

    def _leave_processors(self) -> None:
        if self._processors is not None:
            self._processors.close()
            self._processors = None

    # ------------------------------------------------------------------ what QEMU says

    async def look(self) -> None:
        """Ask QEMU what it is."""
        limit, version = self._options.timeout_seconds, self._version
        run_state = qmp.run_state(await self.ask(qmp.QUERY_STATUS, limit))
        mode = qmp.mode(await self.ask(qmp.QUERY_COLO, limit))
        migration = await self.ask(qmp.QUERY_MIGRATE, limit)
        if version != self._version or self.promoting:
            return  # it speaks of the time before a promotion or an exit
        self.machine.take_answers(mode, run_state, qmp.migration_status(migration), qmp.copied(migration))
        overdue_seconds = max(OVERDUE_SECONDS, OVERDUE_INTERVALS * self._options.checkpoint_interval_ms / 1000)
        self.machine.checkpoint_overdue = asyncio.get_running_loop().time() - self._fed_at > overdue_seconds
        self.protector.peer.expect_checkpoints()
        if mode is not Mode.NONE or self.machine.migration in ("failed", "cancelled"):
            self.protector.attempted(mode, qmp.migration_error(migration))
        self._complaint = "" if not self.machine.obstacle else self._complaint
        self._tell()

    def _event(self, event: Mapping[str, Any]) -> None:
        checkpoint = self.machine.take_event(event, asyncio.get_running_loop().time())
        name = str(event.get("event"))
        if name == qmp.RESUME:
            self.resumed.set()
        if self.output is not None and name == qmp.STOP:
            self.output.stopped(qmp.event_nanoseconds(event))
        self.protector.peer.heard(name)
        if name == qmp.COLO_EXIT:
            self.commits.lost("checkpoints have ended")
        if checkpoint is not None and not self.promoting:
            told = (checkpoint.role, checkpoint.sequence, checkpoint.pause_seconds, self._meter.grown_bytes())
            self._emit(CheckpointSeen(self._site, self._service, self.machine.run, *told))
            # When the machine went on, by QEMU's word on the host's clock; never later than now.
            ago = max(0.0, time.time() - (qmp.event_seconds(event) or time.time()))
            self.commits.committed(checkpoint.sequence, asyncio.get_running_loop().time() - ago)
            if self.output is not None and checkpoint.role == "active":
                self.output.committed()
            if checkpoint.role == "standby":
                self._fed_at = asyncio.get_running_loop().time()
                if ago < HALT_WITHIN * self._options.checkpoint_interval_ms / 1000:
                    self._halting = asyncio.create_task(self._halt())
                if self.running is not None:
                    self.huge_pages.begin(self.machine.run, self.running.pid)
        if name in (qmp.COLO_EXIT, qmp.MIGRATION):
            self._wake.set()

    async def _halt(self) -> None:
        """A standby has nothing to do until it takes over; running along, it would only drift from what it holds. Asked
        before a promotion, QEMU does it before the promotion."""
        with contextlib.suppress(DriverError):  # it runs along until the next checkpoint
            await self.ask(qmp.HALT, self._options.timeout_seconds)

    def _exited(self, watched: WatchedRun) -> None:
        """Its processors have ended, or all of it: told once."""
        if self.has_ended(watched.run):
            return
        self._ended_runs.append(watched.run)
        self._emit(RunExited(self._service, watched.run))
        if watched is self.running:
            self.huge_pages.leave()
            self._leave_processors()
            self.running = None
            self._version += 1
            self.protector.forget()
            self.machine.clear()
            self.commits.lost("QEMU has ended")
            self.memory.forget()
            if self.output is not None:
                self.output.ended()
            self._tell()
            self._wake.set()

    def _changed(self) -> None:
        self._tell()
        self._wake.set()

    def _tell(self) -> None:
        """Emit what has changed."""
        if self.output is not None:
            self.output.follow(guarded=self.machine.checkpointed)
            self.machine.output_ready, self.machine.output_covered = self.output.ready, self.output.held.covered
        if self.machine.run and not self.machine.known:
            return
        self.machine.outgrown = self.memory.near
        seen = self.machine.seen()
        if seen != self._told:
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
