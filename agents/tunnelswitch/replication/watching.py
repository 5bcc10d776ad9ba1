"""Looking at the local copy of a service: the status hook, its notices, and the end of its process.

Facts before words: that a run has ended is known from its pidfd alone. A hook that fails, hangs or prints nonsense
changes nothing but a counter and a log line. The health hook is logged and counted, and decides nothing (PROTOCOL R5).
Never acts on the service.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import msgspec
import structlog

from tunnelswitch.config import Exec
from tunnelswitch.core.events import RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen
from tunnelswitch.errors import DriverError
from tunnelswitch.ports import Emit
from tunnelswitch.replication.committed import Committed
from tunnelswitch.replication.hooks import Hooks
from tunnelswitch.replication.instance import Instance, Status
from tunnelswitch.replication.mistakes import unforeseen
from tunnelswitch.replication.notices import CheckpointNotice, Notice, NoticeSocket
from tunnelswitch.replication.runs import WatchedRun, ticks_now

POLL_SECONDS = 1.0
POLL_GAP_SECONDS = 0.05
HEALTH_FAILURES = 3
_ENDED_RUNS = 16
_FORMER_RUNS = 4


class Answer(Enum):
    """What the status hook came to: a usable status, its failure by itself (no copy is here), or nothing to go by."""

    TOLD = "told"
    ABSENT = "absent"
    NOTHING = "nothing"


class ServiceWatch:
    """What is known of one service at one site; emits every change of it.

    Args:
        emit: takes ServiceSeen (first one, then on change), RunExited and CheckpointSeen.
        count: called with notice_invalid, notice_too_large, notice_flood, status_failed or health_failed.
    """

    def __init__(
        self, service: str, options: Exec, site: str, hooks: Hooks, emit: Emit, count: Callable[[str], None]
    ) -> None:
        self.running: WatchedRun | None = None
        self.health_failures = 0
        self.commits = Committed()
        self._service = service
        self._options = options
        self._site = site
        self._hooks = hooks
        self._emit = emit
        self._count = count
        self._log = structlog.get_logger(__name__).bind(service=service, site=site)
        self._instance = Instance(service)
        self._told: ServiceSeen | None = None
        self._former: deque[WatchedRun] = deque()
        self._ended_runs: deque[str] = deque(maxlen=_ENDED_RUNS)
        self._version = 0
        self._complaint = ""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._decoder = msgspec.json.Decoder(Status)
        socket = options.notify_socket.replace("{site}", site)
        self._notices = NoticeSocket(Path(socket), self._noticed, count) if socket else None

    def start(self) -> None:
        """Listen for notices and begin to look.

        Raises:
            DriverError: the notify socket cannot be made.
        """
        if self._notices is not None:
            self._notices.open()
        self._task = asyncio.create_task(self._watch(), name=f"watch:{self._service}")

    async def close(self) -> None:
        """Stop looking; the service goes on."""
        if self._notices is not None:
            self._notices.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for watched in (self.running, *self._former):
            if watched is not None:
                watched.close()

    @property
    def sequence(self) -> int:
        """The number of the last checkpoint that the copy told of; 0: none."""
        return self._instance.sequence

    def has_ended(self, run: str) -> bool:
        """Is it a fact that this run has ended?"""
        return run in self._ended_runs

    def note_ended(self, run: str) -> None:
        """A verified fence found nobody: whoever names this run from now on is not believed."""
        if run not in self._ended_runs:
            self._ended_runs.append(run)

    def note_promoted(self) -> None:
        """A verified promotion: what was asked before it is of the past. What the copy says since then is not."""
        self._version += 1
        if self._instance.role != "active":
            self._instance.promoted()
        self._tell()

    @property
    def role(self) -> str:
        """What the copy last said of itself: active, standby or stopped."""
        return self._instance.role

    async def look(self, limit_seconds: float | None = None) -> Answer:
        """Ask the status hook, and watch the process that it names."""
        version = self._version
        limit = self._options.timeout_seconds if limit_seconds is None else limit_seconds
        environment = {"TUNNELSWITCH_ROLE": self._instance.role}
        result = await self._hooks.run("status", self._options.status, environment, limit)
        known_at = ticks_now()
        problem = result.problem
        if version == self._version:  # else it speaks of the time before a promotion, a notice or an exit
            problem = problem or self._take_status(result.output, known_at)
            self._complain(problem)
        self._tell()
        if not problem:
            return Answer.TOLD
        return Answer.ABSENT if result.problem and not result.killed else Answer.NOTHING

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
                if self._options.health and self.running is not None:
                    await self._check_health()
            except Exception as error:  # noqa: BLE001 - see `unforeseen`
                self._complain(unforeseen(error, self._log).diagnostics())
            await wait_for(self._wake, POLL_SECONDS - POLL_GAP_SECONDS)
            self._wake.clear()
            # What woke us has been told; whoever acts on it needs the processor more than our next look does.
            await asyncio.sleep(POLL_GAP_SECONDS)

    def _take_status(self, output: bytes, known_at_ticks: int) -> str:
        """Returns what is wrong with it."""
        try:
            status = self._decoder.decode(output)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return f"status printed no usable JSON object: {error}"
        if status.run in self._ended_runs:
            return f"status names run {status.run}, which has ended"
        if self.running is None or self.running.run != status.run:
            try:
                watched = WatchedRun(status.pid, status.run, known_at_ticks, status.start_ticks, self._exited)
            except DriverError as error:
                return error.diagnostics()
            self._replace_running(watched)
        elif self.running.pid != status.pid:
            return f"status names process {status.pid} for run {status.run}, which is process {self.running.pid}"
        self._instance.take_status(status)
        return ""

    def _replace_running(self, watched: WatchedRun) -> None:
        """A former run that still lives is watched to its end: that is a fact which others may wait for."""
        if self.running is not None:
            self._former.append(self.running)
            if len(self._former) > _FORMER_RUNS:
                self._former.popleft().close()
        self.running = watched

    async def _check_health(self) -> None:
        environment = {"TUNNELSWITCH_ROLE": self._instance.role}
        result = await self._hooks.run("health", self._options.health, environment, self._options.timeout_seconds)
        if not result.problem:
            if self.health_failures >= HEALTH_FAILURES:
                self._log.info("service_healthy_again")
            self.health_failures = 0
            return
        self.health_failures += 1
        self._count("health_failed")
        if self.health_failures == HEALTH_FAILURES:
            self._log.warning("service_unhealthy", problem=result.problem, failures=HEALTH_FAILURES)

    def _exited(self, watched: WatchedRun) -> None:
        self.note_ended(watched.run)
        self._emit(RunExited(self._service, watched.run))
        if watched is self.running:
            self.running = None
            self._version += 1
            self._instance.clear()
            self.commits.lost("the process has ended")
            self._tell()
            self._wake.set()

    def _noticed(self, notice: Notice) -> None:
        if self.running is None or notice.run != self.running.run:
            if notice.run not in self._ended_runs:
                self._wake.set()
            return
        if isinstance(notice, CheckpointNotice):
            seen = (notice.run, notice.role, notice.sequence, notice.pause_seconds, notice.bytes)
            self._emit(CheckpointSeen(self._site, self._service, *seen))
            self.commits.committed(notice.sequence, asyncio.get_running_loop().time())
        else:
            self._version += 1
        self._instance.take_notice(notice)
        self._tell()

    def _tell(self) -> None:
        """Emit what has changed."""
        seen = self._instance.seen()
        if seen != self._told:
            self._told = seen
            self._emit(seen)

    def _complain(self, problem: str) -> None:
        """Count every time, log once until it is another problem or none."""
        if problem:
            self._count("status_failed")
        if problem and problem != self._complaint:
            self._log.warning("service_not_seen", problem=problem)
        self._complaint = problem


async def wait_for(event: asyncio.Event, limit_seconds: float) -> None:
    """Wait for an event, no longer than the limit."""
    try:
        async with asyncio.timeout(limit_seconds):  # Python 3.11's wait_for loses a cancellation that meets the event
            await event.wait()
    except TimeoutError:
        return
