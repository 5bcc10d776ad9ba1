"""What a system under the bench is: something that brings a client's packets to a copy that answers.

The testbed, the client, the fault and the measurement are the same for all; only what is below differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Protocol

from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed


class System(Protocol):
    """One way to fail over, at one interval of detection.

    Attributes:
        name: as in the results.
        interval_ms: between two heartbeats, adverts or BFD packets.
        faults: names of the faults that it can notice at all.
        programs: what must be on the machine for it.
        record: the client's call and what watches it.
        does_not: what it does not do, for whoever reads the table.
    """

    name: str
    interval_ms: float
    faults: tuple[str, ...]
    programs: tuple[str, ...]
    record: type[Recording]
    does_not: str

    async def start(self, bed: Testbed) -> None:
        """Start both copies and all that fails over, in a lab that was just reset. Raises LabError."""

    async def wait_ready(self, recording: Recording) -> None:
        """Return when a fault would be survived; the call is being answered. Raises LabError."""

    async def stop(self, bed: Testbed) -> None:
        """Undo what a reset of the lab would not."""


def label(system: System) -> str:
    """Name and interval, as in `ours@10`."""
    return f"{system.name}@{system.interval_ms:g}"


def check_installed(systems: Iterable[System]) -> None:
    """Raise LabError, with the remedy, if a system's program is not on this machine."""
    for system in systems:
        for program in system.programs:
            if shutil.which(program) is None:
                raise LabError(f"{system.name} needs {program}, which is not installed: sudo make setup-peers")
