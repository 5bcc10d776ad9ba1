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


@contextlib.asynccontextmanager
async def loaded(bed: Testbed, load: str, out: Path) -> AsyncIterator[dict[str, Any]]:
    """Have the load while the context lasts; what it says of itself is complete afterwards."""
    told: dict[str, Any] = {"name": load}
    if load == "busy":
        async with _busy(bed) as number:
            told["busy_loops"] = number
            yield told
    elif load == "loss":
        told |= {"loss": LOSSY.loss, "jitter_seconds": LOSSY.jitter_seconds, "in_order": LOSSY.in_order}
        wan = Wan(bed, LOSSY, out / "relay.json")
        try:
            async with wan:
                yield told
        finally:
            told["relay"] = wan.told()
    else:
        yield told


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
