"""What a soak does to the lab: both cores saturated, or loss and jitter on every link."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tunnelswitch_lab import procs
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.relay import Weather
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.wan import Wan

LOADS = ("busy", "loss", "none")
BUSY_PER_CORE = 2
LOSSY = Weather(jitter_seconds=0.010, loss=0.05)
_BUSY_LOOP = "while True: pass"
_END_SECONDS = 5.0


def check_load(name: str) -> str:
    """The load of this name. Raises LabError if there is none."""
    if name not in LOADS:
        raise LabError(f"--load {name!r} is not known: {', '.join(LOADS)}")
    return name


class Load:
    """One load on one lab: entered before the agents start, begun when all is well, over when the context ends.

    Attributes:
        told: what it says of itself; complete afterwards.
    """

    def __init__(self, bed: Testbed, name: str, out: Path) -> None:
        self.told: dict[str, Any] = {"name": name}
        self._bed = bed
        self._name = name
        self._wan = Wan(bed, out / "relay.json") if name == "loss" else None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Load:
        if self._wan is not None:
            await self._stack.enter_async_context(self._wan)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        if self._wan is not None:
            self.told["relay"] = self._wan.told()

    async def begin(self) -> None:
        """From now on there is load. Raises LabError if there cannot be."""
        if self._wan is not None:
            self._wan.change(LOSSY)
            self.told |= {"loss": LOSSY.loss, "jitter_seconds": LOSSY.jitter_seconds, "in_order": LOSSY.in_order}
        elif self._name == "busy":
            self.told["busy_loops"] = await self._stack.enter_async_context(_busy(self._bed))


@contextlib.asynccontextmanager
async def _busy(bed: Testbed) -> AsyncIterator[int]:
    """Loops at ordinary priority, each in a session of its own as any other program is (sched(7), autogroup)."""
    number = BUSY_PER_CORE * (os.cpu_count() or 1)
    loops = [bed.spawn("wan", [sys.executable, "-c", _BUSY_LOOP], name=f"busy-{index}") for index in range(number)]
    try:
        yield number
    finally:
        for loop in loops:
            loop.signal(9)
        await procs.wait_gone([loop.pid for loop in loops], _END_SECONDS)
