"""A standby that is lost or too late: the active notices, is freed, and goes on alone.

Checkpoints are told by QEMU's STOP and RESUME. One that takes too long, or does not come, means that the peer no longer
takes them, unless it is QEMU itself that hangs, or an operator who has stopped the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tunnelswitch.config import Colo
from tunnelswitch.errors import DriverError
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_copy import Ask, FirstCopy
from tunnelswitch.replication.colo_qmp import Command, Mode
from tunnelswitch.replication.colo_state import HALTED, HELD, RUNNING, Machine

STALL_ANSWER_SECONDS = 0.1
PART_SECONDS = 0.5
OVERDUE_STALLS = 4


class PeerWatch:
    """The watch of an active over its standby at the other site.

    Args:
        copy: the first copy; while that is made the machine may stand still for longer.
        changed: the machine is not what it was; called from the event loop.
        count: called with peer_lost.
        hung: called when the peer was late rather than gone.

    Attributes:
        interval_ms: the time between checkpoints.
        output_waits: the machine's output is held until a checkpoint is committed.
    """

    def __init__(
        self,
        machine: Machine,
        options: Colo,
        site: str,
        copy: FirstCopy,
        ask: Ask,
        changed: Callable[[], None],
        count: Callable[[str], None],
        hung: Callable[[], None],
    ) -> None:
        self._machine, self._options, self._copy = machine, options, copy
        self._ask, self._changed, self._count, self._hung = ask, changed, count, hung
        self._log = structlog.get_logger(__name__).bind(service=machine.service, site=site)
        self._limit = options.timeout_seconds
        self._stall: asyncio.TimerHandle | None = None
        self._parting: asyncio.Task[None] | None = None
        self._closed = self._freed = False
        self.interval_ms = options.checkpoint_interval_ms
        self.output_waits = False

    async def close(self) -> None:
        """Stop; the machine stays protected as it is."""
        self._closed = True
        self.rest()
        if self._parting is not None:
            await asyncio.wait({self._parting}, timeout=PART_SECONDS)  # a machine is not left half freed
            self._parting.cancel()
            await asyncio.wait({self._parting})

    def heard(self, event: str) -> None:
        """QEMU told of a checkpoint's beginning or end, or of the end of them all; `colo_state` knows already."""
        if event in (qmp.STOP, qmp.RESUME):
            self._expect(held=event == qmp.STOP)
        elif event == qmp.COLO_EXIT:
            self.rest()
            if self._machine.peer_lost and not self._freed:
                self._changed()
                self._part("the connection to it ended")

    def expect_checkpoints(self) -> None:
        """Be on the watch for the next checkpoint, unless that is so already."""
        self._freed = self._freed and self._machine.peer_lost
        if self._machine.peer_lost and self._machine.mode is Mode.PRIMARY and not self._closed:
            # The order that frees it was lost, or never given: QEMU takes it twice without harm.
            if not self._is_parting:
                self._parting = asyncio.create_task(self._free("the standby that was lost still holds it"))
        elif self._stall is None:
            self._expect(held=False)

    def _expect(self, *, held: bool) -> None:
        """A primary must resume soon, and stop again for the next checkpoint; one that does not waits for its peer."""
        self.rest()
        if self._closed or self._machine.peer_lost:
            return
        seconds = self._options.stall_seconds
        if self._machine.mode is Mode.NONE and self._copy.under_way and held:
            seconds *= OVERDUE_STALLS  # the last step before the first checkpoint
        elif self._machine.mode is not Mode.PRIMARY:
            return
        elif not held:
            # Clients wait for a checkpoint that does not come as they do for one that takes long.
            seconds = self.interval_ms / 1000 + (1 if self.output_waits else OVERDUE_STALLS) * seconds
        self._stall = asyncio.get_running_loop().call_later(seconds, self._stalled, seconds, held)

    def _stalled(self, seconds: float, held: bool) -> None:
        self._stall = None
        self._part(f"{'a checkpoint took longer than' if held else 'no checkpoint for'} {seconds:g} s", held=held)

    @property
    def _is_parting(self) -> bool:
        return self._parting is not None and not self._parting.done()

    def _part(self, reason: str, *, held: bool = False) -> None:
        if not self._is_parting:
            self._parting = asyncio.create_task(self._go_alone(reason, held))

    async def _go_alone(self, reason: str, held: bool) -> None:
        """The standby is lost: free the machine, and say that nobody stands by."""
        machine = self._machine
        if not machine.peer_lost:
            if await self._waits_for_peer(held):
                self._hung()
            elif not machine.peer_lost:  # which it may have become meanwhile
                self._expect(held=held)
                return
        if machine.mode is Mode.NONE:
            self._log.warning("gives_up_copying", reason=reason)
            await self._do(qmp.CUT)
            return
        if machine.mode is not Mode.PRIMARY:
            return
        self._count("peer_lost")
        await self._free(f"the standby was lost: {reason}")

    def leave(self, reason: str) -> None:
        """Give up a standby that is well, for a fresh one: what QEMU has gathered for it is given back."""
        if self._machine.checkpointed and not self._closed and not self._is_parting:
            self.rest()
            self._count("renewed")
            self._parting = asyncio.create_task(self._free(f"the standby is left for a fresh one: {reason}"))

    async def _free(self, problem: str) -> None:
        """End the checkpoints. What QEMU is asked comes after the word that nobody stands by."""
        machine, again, self._freed = self._machine, self._freed, True
        machine.peer_lost, machine.problem = True, problem
        if not again:  # else the next look is soon enough
            self._log.warning("goes_on_alone", reason=problem)
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

    def rest(self) -> None:
        """Expect nothing."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
