"""The `xen` driver: a guest under Xen whose state Remus copies to a second host all the time.

It attaches to the guest's keeper in dom0, which owns `xl remus` and `xl migrate-receive`, is never its parent, and lets
go of it without a trace: guest and checkpoints go on while an agent restarts. What is known of the guest stands in
`xen_state`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from tunnelswitch.config import Xen
from tunnelswitch.core.actions import Fence, Promote, TakeCheckpoint
from tunnelswitch.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    FenceDone,
    FenceFailed,
    Promoted,
    PromotionFailed,
)
from tunnelswitch.errors import DriverError
from tunnelswitch.ports import Emit, uncounted
from tunnelswitch.replication.mistakes import unforeseen
from tunnelswitch.replication.xen_link import KeeperLink, KeeperMessage
from tunnelswitch.replication.xen_state import Guest
from tunnelswitch.telemetry.families import DRIVER_PROBLEM_KINDS

ABSENT_POLL_SECONDS = 0.25
# The keeper's own limit comes first, so that its reason is heard.
ANSWER_SECONDS = 0.2
PROBLEM_KINDS = DRIVER_PROBLEM_KINDS["xen"]


class XenDriver:
    """One guest at one site; implements `ports.ServiceDriver`.

    Args:
        service: its name in the deployment file.
        options: its `[services.NAME.xen]` table.
        emit: takes ServiceSeen (on every change), RunExited and CheckpointSeen.
        count: called with one of `PROBLEM_KINDS` for everything bad.
    """

    health_failures = 0  # nobody looks into the guest

    def __init__(
        self, service: str, options: Xen, site: str, emit: Emit, count: Callable[[str], None] = uncounted
    ) -> None:
        self._service, self._site, self._options = service, site, options
        self._path = Path(options.keeper_socket.replace("{site}", site))
        self._emit, self._count = emit, count
        self._guest = Guest(service, site)
        self._link: KeeperLink | None = None
        self._promoting = False
        self._complaint = ""
        self._log = structlog.get_logger(__name__).bind(service=service, site=site)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for the keeper; the first ServiceSeen follows."""
        self._task = asyncio.create_task(self._watch(), name=f"xen:{self._service}")

    async def close(self) -> None:
        """Let go; guest, keeper and checkpoints go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # ------------------------------------------------------------------ what the keeper says

    async def _watch(self) -> None:
        while True:
            link = KeeperLink(self._path, self._take)
            try:
                boot = await link.connect(self._options.timeout_seconds)
                self._tell(self._guest.attached(boot))
                self._link = link
                await link.ask("configure", self._options.timeout_seconds, **self._settings())
                self._complaint = ""
                self._log.info("attached", boot=boot)
                await link.lost.wait()
                raise DriverError(f"the keeper on {self._path} was lost", "it is looked for")
            except DriverError as error:
                self._complain(error)
            except Exception as error:  # noqa: BLE001 - see `unforeseen`
                self._complain(unforeseen(error, self._log))
            finally:
                self._link = None
                await link.close()
            await asyncio.sleep(ABSENT_POLL_SECONDS)

    def _settings(self) -> dict[str, object]:
        options = self._options
        peer = next(there for name, there in options.sites.items() if name != self._site)
        return {
            "guest": options.guest or self._service,
            "listen": options.sites[self._site].migration_address,
            "peer": peer.migration_address,
            "interval_ms": options.checkpoint_interval_ms,
            "stall_seconds": options.stall_seconds,
            "silence_seconds": options.silence_seconds,
            "sync_seconds": options.sync_seconds,
            "timeout_seconds": options.timeout_seconds,
            "run": self._guest.seen.run,
        }

    def _take(self, message: KeeperMessage) -> None:
        if message.event == "problem":
            kind = message.kind if message.kind in PROBLEM_KINDS else "keeper_failed"
            self._count(kind)
            self._log.warning(kind, problem=message.text)
            return
        try:
            self._tell(self._guest.take(message))
        except ValueError as error:
            self._count("keeper_failed")
            self._log.warning("keeper_not_understood", problem=str(error))

    def _tell(self, events: Iterable[object]) -> None:
        for event in events:
            self._emit(event)

    def _complain(self, error: DriverError) -> None:
        """Count every time, log once until it is another problem or none."""
        self._count("keeper_failed")
        if error.problem != self._complaint:
            self._log.warning("guest_not_seen", problem=error.diagnostics())
        self._complaint = error.problem

    # ------------------------------------------------------------------ what the agent is to do

    async def promote(self, action: Promote) -> Promoted | PromotionFailed:
        """Have the copy go on from its last checkpoint. Counts when xl has resumed it and says so."""
        run, now = self._guest.seen.run, asyncio.get_running_loop().time
        if self._promoting:
            return PromotionFailed(self._service, "a promotion is already under way")
        if not run:
            return PromotionFailed(self._service, "there is no copy of the guest here")
        if action.run and run != action.run:
            return PromotionFailed(self._service, f"run {action.run} is to take over, and {run} is here")
        started_at, self._promoting = now(), True
        try:
            await self._ask("promote", run, action.deadline_seconds)
        except DriverError as error:
            return PromotionFailed(self._service, error.diagnostics())
        finally:
            self._promoting = False
        if self._guest.has_ended(run):
            return PromotionFailed(self._service, f"run {run} ended while it took over")
        if self._guest.seen.run == run and self._guest.seen.role != "active":
            self._tell(self._guest.promoted())
        return Promoted(self._service, run, now() - started_at)

    async def fence(self, action: Fence) -> FenceDone | FenceFailed:
        """`xl destroy` of exactly this run's domain; done when no list of domains names it any more."""
        if self._guest.has_ended(action.run):
            return FenceDone(self._service, action.run)
        try:
            await self._ask("fence", action.run, action.deadline_seconds)
        except DriverError as error:
            return FenceFailed(self._service, error.diagnostics())
        return FenceDone(self._service, action.run)

    async def checkpoint(self, action: TakeCheckpoint) -> CheckpointTaken | CheckpointFailed:
        """Wait for one that is begun after now, and committed: it has everything until now. It comes no sooner for
        being urgent, since Remus keeps its interval."""
        asked_at = asyncio.get_running_loop().time()
        try:
            sequence = await self._ask("checkpoint", action.run, action.deadline_seconds)
        except DriverError as error:
            return CheckpointFailed(action.service, action.request, error.diagnostics())
        return CheckpointTaken(action.service, action.request, sequence, asked_at)

    def allow_output(self, allowed: bool) -> None:
        """Output is never held back."""

    def figures(self) -> Mapping[str, float]:
        """Nothing is measured here."""
        return {}

    async def _ask(self, verb: str, run: str, limit_seconds: float) -> int:
        if self._link is None:
            raise DriverError(f"not attached to the keeper on {self._path}", self._complaint)
        spare = min(ANSWER_SECONDS, limit_seconds / 4)
        return await self._link.ask(verb, limit_seconds, run=run, limit_seconds=limit_seconds - spare)
