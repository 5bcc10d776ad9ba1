"""The copy of the whole machine, with which protection begins.

QEMU sends the memory while the machine works, then what was written meanwhile, and stops the machine for the last
of it. Without KVM that loses writes: a page written between the last look at the memory and the stop is no longer
watched afterwards if it was to be sent anyway (docs/colo.md). So there the machine is halted before the last looks,
and QEMU ends the copy only when nothing is left to send.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tunnelswitch.config import Colo
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_qmp import Command, Mode
from tunnelswitch.replication.colo_state import COPYING, HALTED, RUNNING, Machine

# The machine is halted when what is left takes no longer than this at the rate so far, or after the first round.
STAND_SECONDS = 0.05

Ask = Callable[[Command, float], Awaitable[Any]]


class FirstCopy:
    """One attempt after the other to give a peer the whole machine, at `uri` (`qmp.migrate_to`). `now` is the event
    loop's clock."""

    def __init__(self, machine: Machine, options: Colo, uri: str, ask: Ask) -> None:
        self._machine, self._options, self._uri, self._ask = machine, options, uri, ask
        self._limit = options.timeout_seconds
        self._until: float | None = None  # then the attempt under way is given up
        self._halts = self._halted = False

    def forget(self) -> None:
        """The QEMU that all this was about has ended."""
        self.ended()
        self._halted = False

    def ended(self) -> None:
        """The attempt under way has come to its end; what it left is put right by `keep`."""
        self._until = None

    @property
    def under_way(self) -> bool:
        """Is an attempt under way?"""
        return self._until is not None

    @property
    def holds(self) -> bool:
        """Does the machine stand still because of it?"""
        return self._halted

    async def adopt(self, now: float) -> None:
        """Go on with what an earlier agent has begun, if it has.

        Raises:
            DriverError: QEMU did not answer.
        """
        machine = self._machine
        if self.under_way and machine.migration not in COPYING:
            self.ended()  # the order was lost with the connection
        if machine.role != "active" or machine.mode is not Mode.NONE or self.under_way:
            return
        parameters = await self._ask(qmp.QUERY_PARAMETERS, self._limit)
        self._halts = qmp.downtime_milliseconds(parameters) == qmp.ENDS_WHOLE
        self._halted = self._halts and machine.run_state == HALTED
        if machine.migration in COPYING:
            self._until = now + self._options.sync_seconds

    async def begin(self, now: float, interval_ms: int) -> None:
        """Have QEMU begin.

        Raises:
            DriverError: QEMU did not do it.
        """
        limit = self._limit
        self._halts = not qmp.has_kvm(await self._ask(qmp.QUERY_KVM, limit))
        await self._ask(qmp.ENABLE, limit)
        await self._ask(qmp.set_downtime(qmp.ENDS_WHOLE if self._halts else qmp.USUAL_DOWNTIME), limit)
        await self._ask(qmp.set_interval(interval_ms), limit)
        self._until = now + self._options.sync_seconds
        await self._ask(qmp.migrate_to(self._uri), limit)

    async def keep(self, now: float) -> None:
        """Take the next step: give up, halt the machine for the end of the copy, or clear up after it.

        Raises:
            DriverError: QEMU did not do it.
        """
        machine = self._machine
        if self._until is not None:
            if now > self._until:
                began = machine.migration in COPYING
                await self._ask(qmp.CANCEL, self._limit)
                if not began:
                    self.ended()  # QEMU never began, and will not tell of an end
            elif self._halts and not self._halted and machine.run_state == RUNNING and self._nearly_done:
                self._halted = True
                await self._ask(qmp.HALT, self._limit)
            return
        if self._halted:
            if machine.run_state == HALTED:
                await self._ask(qmp.GO_ON, self._limit)
            self._halted = False

    @property
    def _nearly_done(self) -> bool:
        copied = self._machine.copied
        return copied.rounds > 1 or copied.rest_seconds <= STAND_SECONDS
