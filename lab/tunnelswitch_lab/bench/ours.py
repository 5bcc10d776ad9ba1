"""Ours: the agents and the switcher as they are deployed, with the process workload and its standby."""

from __future__ import annotations

from dataclasses import dataclass

from tunnelswitch_lab.experiment import wait_at_rest, wait_protected
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS, LabOptions
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

MULTIPLIER = 3
# RFC 5880, 6.8.3: a session begins at one packet a second, and until it has agreed on more, it is as slow to notice.
BFD_SETTLES_INTERVALS = 30


@dataclass
class Ours:
    """tunnelswitch with heartbeats and BFD at `interval_ms`, times three."""

    interval_ms: float
    name: str = "tunnelswitch"
    faults: tuple[str, ...] = ("host-loss", "service-crash")
    programs: tuple[str, ...] = ()
    record: type[Recording] = Recording
    does_not: str = (
        "run on two sites alone: it needs a third that votes, and NATS; "
        "notice a hung service before its clients go unanswered"
    )

    async def start(self, bed: Testbed) -> None:
        await bed.start_service(CHECKPOINT_INTERVALS_MS["process"], "process", 0)
        await bed.start_agents(LabOptions(bed.layout.name, self.interval_ms / 1000, MULTIPLIER))

    async def wait_ready(self, recording: Recording) -> None:
        await wait_protected(recording)
        await wait_at_rest(recording, BFD_SETTLES_INTERVALS * self.interval_ms / 1000)

    async def stop(self, bed: Testbed) -> None:
        """A reset undoes all of it."""
