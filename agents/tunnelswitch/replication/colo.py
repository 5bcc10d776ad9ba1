"""The `colo` driver: a virtual machine under QEMU whose state is copied to a second QEMU all the time.

It attaches to a QEMU that an operator, systemd or a lab started, is never its parent, and lets go of it without a
trace: the machine does not notice when an agent restarts. What is known of the machine is for `colo_watch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping

from tunnelswitch.config import Colo, Output
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
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_link import RefusedError
from tunnelswitch.replication.colo_qmp import Mode
from tunnelswitch.replication.colo_state import HALTED, RUNNING
from tunnelswitch.replication.colo_watch import MachineWatch
from tunnelswitch.replication.runs import WatchedRun
from tunnelswitch.replication.watching import wait_for

QUIT_SECONDS = 0.3
# A checkpoint that is not urgent is waited for if it comes within this: one more would be one more pause.
PATIENT_MS = 500
# QEMU tells when the machine runs. One that has not told by then is asked, again and again.
_RESUMES_SECONDS = 0.05
_SERVES_POLL_SECONDS = 0.001


class ColoDriver:
    """One machine at one site; implements `ports.ServiceDriver`.

    Args:
        service: its name in the deployment file.
        options: its `[services.NAME.colo]` table.
        emit: takes ServiceSeen (on every change), RunExited and CheckpointSeen.
        count: called with a short kind for everything bad (see `MachineWatch`).
        output: its `[services.NAME.output]` table, if its output waits for checkpoints.
    """

    health_failures = 0  # nobody looks into the machine

    def __init__(
        self,
        service: str,
        options: Colo,
        site: str,
        emit: Emit,
        count: Callable[[str], None] = uncounted,
        output: Output | None = None,
    ) -> None:
        self._service = service
        self._options = options
        self._watch = MachineWatch(service, options, site, emit, count, output)

    async def start(self) -> None:
        """Begin to look for QEMU; the first ServiceSeen follows."""
        self._watch.start()

    async def close(self) -> None:
        """Let go; the machine goes on, protected as it is."""
        await self._watch.close()

    def allow_output(self, allowed: bool) -> None:
        """May output leave that no standby holds?"""
        if self._watch.output is not None:
            self._watch.output.allow(allowed)

    def figures(self) -> Mapping[str, float]:
        """Memory of QEMU, and its output held back."""
        output = self._watch.output
        return {**self._watch.memory.figures(), **(output.figures() if output is not None else {})}

    async def set_interval(self, milliseconds: int) -> None:
        """Change the time between checkpoints while the machine runs.

        Raises:
            DriverError: QEMU did not do it.
        """
        await self._watch.protector.set_interval(milliseconds)

    async def checkpoint(self, action: TakeCheckpoint) -> CheckpointTaken | CheckpointFailed:
        """Wait for the next one to end. It has everything until then: the machine stands still while it is taken."""
        watch, name, request = self._watch, self._service, action.request
        if watch.running is None or watch.running.run != action.run:
            return CheckpointFailed(name, request, f"run {action.run} is not here")
        if watch.machine.mode is not Mode.PRIMARY or watch.machine.peer_lost:
            return CheckpointFailed(name, request, watch.machine.why or "it has no standby")
        try:
            async with asyncio.timeout(action.deadline_seconds):
                with watch.commits.following(1) as wanted:
                    if action.urgent or self._options.checkpoint_interval_ms > PATIENT_MS:
                        await watch.protector.hasten()
                    ended = await wanted.last
                return CheckpointTaken(name, request, ended.sequence, ended.at)
        except TimeoutError:
            return CheckpointFailed(name, request, f"none was committed within {action.deadline_seconds:g} s")
        except DriverError as problem:
            return CheckpointFailed(name, request, problem.diagnostics())

    async def promote(self, action: Promote) -> Promoted | PromotionFailed:
        """Have the standby serve from the last checkpoint. Counts when QEMU says that the machine runs by itself."""
        watch = self._watch
        if watch.promoting:
            return PromotionFailed(self._service, "a promotion is already under way")
        running = watch.running
        if running is None:
            return PromotionFailed(self._service, "there is no QEMU here")
        if action.run and running.run != action.run:
            return PromotionFailed(self._service, f"run {action.run} is to take over, and {running.run} is here")
        if watch.machine.mode is not Mode.SECONDARY or watch.machine.obstacle:
            return PromotionFailed(self._service, watch.machine.obstacle or "this QEMU holds no checkpoint")
        now = asyncio.get_running_loop().time
        started_at = now()
        watch.promoting = True
        watch.huge_pages.leave()
        try:
            await self._take_over(running, started_at + action.deadline_seconds)
            watch.note_promoted()
        except DriverError as error:
            return PromotionFailed(self._service, error.diagnostics())
        finally:
            watch.promoting = False
            watch.wake()
        return Promoted(self._service, running.run, now() - started_at)

    async def _take_over(self, running: WatchedRun, limit_at: float) -> None:
        """Free it from a peer that no longer speaks, give it its voice, and let it go on by itself.

        Raises:
            DriverError: it does not run in time, or QEMU is gone.
        """
        now = asyncio.get_running_loop().time
        # Sent together: nothing in an answer could change the next command, and every one costs a turn of QEMU's loop.
        # The mute goes last: taking over takes longer than that.
        steps = (qmp.CUT, qmp.PEER_LOST, qmp.remove_object(self._options.mute_object))
        self._watch.resumed.clear()
        answers = await asyncio.gather(
            *(self._watch.ask(step, limit_at - now()) for step in steps), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, RefusedError):
                raise answer  # what is refused was done before; whether it serves is seen below
        await wait_for(self._watch.resumed, _RESUMES_SECONDS)  # asked meanwhile, it would only be later
        while not running.ended.is_set():
            left = limit_at - now()
            colo, status = await asyncio.gather(
                self._watch.ask(qmp.QUERY_COLO, left), self._watch.ask(qmp.QUERY_STATUS, left)
            )
            mode, state = qmp.mode(colo), qmp.run_state(status)
            if mode is Mode.NONE and state == RUNNING:
                return
            if mode is Mode.NONE and state == HALTED:
                await self._watch.ask(qmp.GO_ON, limit_at - now())
                continue
            if now() > limit_at:
                raise DriverError(f"QEMU took the order but does not run by itself (mode {mode})")
            await asyncio.sleep(_SERVES_POLL_SECONDS)
        raise DriverError("QEMU ended while it took over")

    async def fence(self, action: Fence) -> FenceDone | FenceFailed:
        """End one run for good: `quit`, and SIGKILL for a QEMU that does not follow. Its pidfd says when it is gone."""
        watch, now = self._watch, asyncio.get_running_loop().time
        limit_at = now() + action.deadline_seconds
        if watch.has_ended(action.run):
            return FenceDone(self._service, action.run)
        running = watch.running
        if running is None:
            return FenceFailed(self._service, f"run {action.run} is not here, and its end was not seen")
        if running.run != action.run:
            return FenceFailed(self._service, f"run {action.run} is not here: run {running.run} is")
        with contextlib.suppress(DriverError):
            await watch.ask(qmp.QUIT, min(QUIT_SECONDS, action.deadline_seconds / 2))
        await wait_for(running.ended, QUIT_SECONDS)
        if not running.ended.is_set():
            problem = _kill(running)
            if problem:
                return FenceFailed(self._service, problem)
            await wait_for(running.ended, max(0.0, limit_at - now()))
        if running.ended.is_set():
            return FenceDone(self._service, action.run)
        return FenceFailed(self._service, f"process {running.pid} of run {action.run} still runs")


def _kill(running: WatchedRun) -> str:
    """SIGKILL exactly this process; returns what is wrong."""
    try:
        running.signal(signal.SIGKILL)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"process {running.pid} of run {running.run} cannot be killed: {os.strerror(error.errno or 0)}"
    return ""
