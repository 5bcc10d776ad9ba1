"""The memory of QEMU: how much it holds, and a standby's in huge pages.

A primary of QEMU 11.1 grows by some 94 KiB with every checkpoint, and gives it back when its checkpoints end. So what
helps is to begin anew: with a fresh standby (`renew`, nothing for clients to notice, but some ten seconds unprotected),
or by a planned move to the standby, which has not grown (the operator, or the switcher where `policy.relief` says so).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from tunnelswitch.adapters import hugepages
from tunnelswitch.errors import DriverError

NEAR = 0.8
# Of the limit: what protection must have cost for its end to be worth it. A machine that is as large by itself is not
# parted again and again.
WORTH = 0.2
_RESIDENT = 1  # columns of proc_pid_statm(5), in pages
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Of the QEMU of one service at one site.

    Args:
        limit_bytes: what it must not exceed; 0: no limit.
        count: called with memory, once each time that the limit comes near.
    """

    def __init__(self, service: str, limit_bytes: int, count: Callable[[str], None]) -> None:
        self.resident_bytes = 0
        self.limit_bytes = limit_bytes
        self._count = count
        self.near = False
        self._before_bytes: int | None = None
        self._log = structlog.get_logger(__name__).bind(service=service)

    @property
    def worth_renewing(self) -> bool:
        """Is the limit near, and is it checkpoints that brought it there? Of a machine that was found protected that is
        not known, and found out by beginning anew, once."""
        before = self._before_bytes
        return self.near and (before is None or self.resident_bytes - before >= WORTH * self.limit_bytes)

    def look(self, pid: int, *, checkpointed: bool) -> None:
        """Read what the process holds now; one that is gone holds nothing."""
        try:
            columns = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
            self.resident_bytes = int(columns[_RESIDENT]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            self.resident_bytes = 0
        if not checkpointed:
            self._before_bytes = self.resident_bytes
        near = bool(self.limit_bytes) and self.resident_bytes >= NEAR * self.limit_bytes
        if near and not self.near:
            self._count("memory")
            self._log.warning(
                "memory_near_limit",
                resident_mb=self.resident_bytes >> 20,
                limit_mb=self.limit_bytes >> 20,
                remedy="begin anew, with a fresh standby or by a move (docs/buffering.md)",
            )
        self.near = near

    def forget(self) -> None:
        """The process has ended."""
        self.resident_bytes, self._before_bytes, self.near = 0, None, False

    def figures(self) -> dict[str, float]:
        """For `telemetry.machines`."""
        return {"machine_resident_bytes": self.resident_bytes, "machine_resident_limit_bytes": self.limit_bytes}


class HugePages:
    """A standby's memory, once for each run: promoted, QEMU first gives back its second copy of the machine's whole
    memory, and that is soon done in huge pages."""

    def __init__(self, service: str, site: str) -> None:
        self._run = ""
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger(__name__).bind(service=service, site=site)

    def begin(self, run: str, pid: int) -> None:
        """Move the memory of this run, if that was not begun before."""
        if run != self._run:
            self._run = run
            self._task = asyncio.create_task(self._collapse(pid))

    def leave(self) -> None:
        """Stop: QEMU is needed."""
        if self._task is not None:
            self._task.cancel()

    async def _collapse(self, pid: int) -> None:
        try:
            moved = await hugepages.collapse(pid)
            self._log.info("memory_in_huge_pages", moved_bytes=moved)
        except DriverError as error:
            self._log.warning("memory_in_small_pages", problem=error.diagnostics())
