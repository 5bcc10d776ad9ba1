"""The `exec` driver: any service that commands can promote, fence and describe.

A hook's status 0 is a word; it counts only with a process to show for it that does not call itself a standby (promote),
or with the process gone (fence). The driver never starts the service and is never its parent. What is known of the
service is the business of `watching`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from tunnelswitch.config import Exec
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
from tunnelswitch.replication.hooks import HookResult, Hooks
from tunnelswitch.replication.watching import Answer, ServiceWatch, wait_for

_LOOK_AGAIN_SECONDS = 0.05


class ExecDriver:
    """One service at one site; implements `ports.ServiceDriver`.

    Args:
        service: its name in the deployment file.
        options: its `[services.NAME.exec]` table.
        emit: takes ServiceSeen (on every change), RunExited and CheckpointSeen.
        count: called with a short kind for everything bad that was ignored (see `ServiceWatch`).
    """

    def __init__(
        self, service: str, options: Exec, site: str, emit: Emit, count: Callable[[str], None] = uncounted
    ) -> None:
        self._service = service
        self._options = options
        self._hooks = Hooks(service, site, options.timeout_seconds)
        self._watch = ServiceWatch(service, options, site, self._hooks, emit, count)
        self._promoting = False
        self._log = structlog.get_logger(__name__).bind(service=service, site=site)

    @property
    def health_failures(self) -> int:
        """How often in a row the health hook has failed; no decision rests on it."""
        return self._watch.health_failures

    async def start(self) -> None:
        """Listen for notices and begin to look; the first ServiceSeen follows.

        Raises:
            DriverError: the notify socket cannot be made.
        """
        self._watch.start()

    def allow_output(self, allowed: bool) -> None:
        """Output is never held back."""

    def figures(self) -> Mapping[str, float]:
        """Nothing is measured here."""
        return {}

    async def close(self) -> None:
        """Stop looking. The service goes on; hooks under way are ended."""
        await self._watch.close()
        await self._hooks.close()

    async def checkpoint(self, action: TakeCheckpoint) -> CheckpointTaken | CheckpointFailed:
        """Wait for one more. Notices prove it where there are any; else the hook's status 0 has to do."""
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(action.deadline_seconds):
                sequence = await self._checkpoint(action)
                return CheckpointTaken(action.service, action.request, sequence, asked_at)
        except TimeoutError:
            error = f"none was committed within {action.deadline_seconds:g} s"
        except DriverError as problem:
            error = problem.diagnostics()
        return CheckpointFailed(action.service, action.request, error)

    async def _checkpoint(self, action: TakeCheckpoint) -> int:
        """Its number.

        Raises:
            DriverError: there will be none.
        """
        running, told, hook = self._watch.running, bool(self._options.notify_socket), self._options.checkpoint
        if running is None or running.run != action.run:
            raise DriverError(f"run {action.run} is not here")
        if not told and not hook:
            raise DriverError("it tells of none", "give exec.checkpoint or exec.notify_socket (docs/configuration.md)")
        # One is under way at most, and only its end is told: the second to end began after we asked.
        with self._watch.commits.following(2) as wanted:
            if hook:
                environment = {"TUNNELSWITCH_ROLE": "active"}
                result = await self._hooks.run("checkpoint", hook, environment, action.deadline_seconds)
                if result.problem:
                    raise DriverError(result.problem)
            return (await wanted.last).sequence if told else max(1, self._watch.sequence)

    async def promote(self, action: Promote) -> Promoted | PromotionFailed:
        """Have the standby serve. Status 0 counts only while a process lives that can, and does not say otherwise."""
        if self._promoting:
            return PromotionFailed(self._service, "a promotion is already under way")
        self._promoting = True
        try:
            return await self._promote(action)
        finally:
            self._promoting = False

    async def _promote(self, action: Promote) -> Promoted | PromotionFailed:
        now = asyncio.get_running_loop().time
        started_at = now()
        limit_at = started_at + action.deadline_seconds
        before = self._watch.running
        if action.run and (before is None or before.run != action.run):
            there = "none" if before is None else before.run
            return PromotionFailed(self._service, f"run {action.run} is to take over, and {there} is here")
        environment = _environment("active", action)
        result = await self._run("promote", self._options.promote, environment, action.deadline_seconds)
        if result.problem:
            return PromotionFailed(self._service, result.problem)
        answer = await self._wait_active(limit_at)
        running = self._watch.running
        if running is None:
            return PromotionFailed(self._service, "promote ended with status 0, but no process serves")
        if answer is Answer.TOLD and self._watch.role != "active":
            return PromotionFailed(self._service, f"promote ended with status 0, but run {running.run} is a standby")
        self._watch.note_promoted()
        return Promoted(self._service, running.run, now() - started_at)

    async def _wait_active(self, limit_at: float) -> Answer:
        """Have the copy say that it is active. A notice may have told it already; else the status hook is asked, until
        it says so. A hook that says nothing holds nobody: then the living process has to do."""
        now = asyncio.get_running_loop().time
        answer = Answer.TOLD
        while self._watch.role != "active" and now() < limit_at:
            answer = await self._watch.look(limit_at - now())
            if answer is not Answer.TOLD:
                break
            if self._watch.role != "active":
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return answer

    async def fence(self, action: Fence) -> FenceDone | FenceFailed:
        """Stop one run for good.

        A run whose end we saw needs no hook. Otherwise the hook runs, and the process must be gone within the time that
        is left; a hook that fails although the process is gone has done its work. A promotion under way is ended first.
        """
        now = asyncio.get_running_loop().time
        if self._watch.has_ended(action.run):
            return FenceDone(self._service, action.run)
        if self._watch.running is None:  # a status hook that hangs may not take the fence hook's time
            await self._watch.look(action.deadline_seconds / 4)
        running = self._watch.running
        if running is not None and running.run != action.run:
            return FenceFailed(self._service, f"run {action.run} is not here: run {running.run} is")
        self._hooks.kill("promote", "was overtaken by a fence")
        environment = _environment("fenced", action)
        limit_seconds = min(action.deadline_seconds / 2, self._hooks.limit_seconds)
        limit_at = now() + limit_seconds
        result = await self._run("fence", self._options.fence, environment, limit_seconds)
        if running is None:
            return await self._confirm_absent(action, result.problem)
        if not result.problem:
            await wait_for(running.ended, max(0.0, limit_at - now()))
        if running.ended.is_set():
            return FenceDone(self._service, action.run)
        word = result.problem or "fence ended with status 0"
        return FenceFailed(self._service, f"{word}; process {running.pid} of run {action.run} still runs")

    async def _confirm_absent(self, action: Fence, problem: str) -> FenceDone | FenceFailed:
        """Nobody was known before the hook ran: its word counts if nobody is there by the status hook's word, too."""
        if problem:
            return FenceFailed(self._service, problem)
        answer = await self._watch.look(action.deadline_seconds / 4)
        running = self._watch.running
        if running is not None:
            return FenceFailed(self._service, f"fence ended with status 0; process {running.pid} still runs")
        if answer is Answer.NOTHING:
            return FenceFailed(self._service, "fence ended with status 0, but status does not say that nobody is here")
        self._watch.note_ended(action.run)
        return FenceDone(self._service, action.run)

    async def _run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], limit_seconds: float
    ) -> HookResult:
        """Run a hook that acts, and keep what it said."""
        result = await self._hooks.run(name, command, environment, limit_seconds)
        told = {"hook": name, "seconds": round(result.seconds, 4), "said": result.said}
        if result.problem:
            self._log.warning("hook_failed", problem=result.problem, **told)
        else:
            self._log.info("hook_ended", **told)
        return result


def _environment(role: str, action: Promote | Fence) -> dict[str, str]:
    return {
        "TUNNELSWITCH_ROLE": role,
        "TUNNELSWITCH_EPOCH": str(action.stamp.epoch),
        "TUNNELSWITCH_REASON": action.reason.value,
    }
