"""What a user may choose: about a lab, and about a series of runs in it. Checked here, so that nobody else must."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch.config import Runtime

WORKLOADS = ("process", "vm")  # `tunnelswitch-lab xen` has one of its own
CHECKPOINT_INTERVALS_MS = {"process": 25.0, "vm": 100.0}
# What the service and the `colo` driver take.
_CHECKPOINT_RANGES_MS = {"process": (1, 60_000), "vm": (10, 60_000)}
DEFAULT_REALTIME_PRIORITY = 10
CALM_SECONDS = 2.5
SLICE_SECONDS = Runtime().slice_seconds
BUFFERINGS = ("none", "full", "realtime")

_DETECT = re.compile(r"(\d+(?:\.\d+)?)x(\d+)")


class LabError(Exception):
    """Something a user can put right; the text says how, in one line."""


@dataclass(frozen=True)
class LabOptions:
    """How a lab's agents are set up.

    `realtime_priority` is 0 for the ordinary scheduler, or 1 to 99 for SCHED_FIFO in the agents. `tls`: on the bus, to
    the nodes and between them. `failback_after_seconds`: after that the group goes back to the primary by itself.
    `bridge` is where the agents switch the client tunnels; the clients are on br-svc. `compress`: a virtual machine's
    checkpoints go through carriers. `slice_seconds`: the agents' time slice; 0: the ordinary one.
    """

    name: str = "lab"
    interval_seconds: float = 0.02
    multiplier: int = 3
    realtime_priority: int = 0
    workload: str = "process"
    checkpoint_interval_ms: float = CHECKPOINT_INTERVALS_MS["process"]
    tls: bool = False
    failback_after_seconds: float | None = None
    buffering: str = "none"
    bridge: str = "br-svc"
    compress: bool = True
    slice_seconds: float = SLICE_SECONDS


@dataclass(frozen=True)
class RunOptions:
    """A series of runs: bring a lab up, inject `fault` in each run, measure, write everything below `out`.

    `keep_failed`: the first run that fails ends the series, and the lab stays up as it was then. `calm_seconds`: the
    call goes on for so long before the fault.
    """

    lab: LabOptions
    fault: str
    out: Path
    runs: int = 1
    keep_failed: bool = False
    calm_seconds: float = CALM_SECONDS


def carries(options: LabOptions) -> bool:
    """Do carriers run in this lab?"""
    return options.workload == "vm" and options.compress


def check_workload(text: str) -> str:
    """The workload of this name. Raises LabError if there is none."""
    if text not in WORKLOADS:
        raise LabError(f"--workload {text!r} is not known: {', '.join(WORKLOADS)}")
    return text


def check_buffering(workload: str, text: str) -> str:
    """The buffering of this name. Raises LabError if there is none, or the workload has none."""
    if text not in BUFFERINGS:
        raise LabError(f"--buffering {text!r} is not known: {', '.join(BUFFERINGS)}")
    if text != "none" and workload != "vm":
        raise LabError(f"--buffering {text} is for --workload vm: a {workload} answers when its standby has the state")
    return text


def check_checkpoint_interval(workload: str, milliseconds: float | None) -> float:
    """The interval given, or the workload's own. Raises LabError if it cannot be checkpointed so often or so seldom."""
    if milliseconds is None:
        return CHECKPOINT_INTERVALS_MS[workload]
    least, most = _CHECKPOINT_RANGES_MS[workload]
    if not least <= milliseconds <= most:
        raise LabError(
            f"--checkpoint-interval {milliseconds:g} is out of range: {least} to {most} milliseconds for a {workload}"
        )
    return milliseconds


def parse_detect(text: str) -> tuple[float, int]:
    """`10x3` as (interval in seconds, multiplier). Raises LabError that says what is wrong."""
    found = _DETECT.fullmatch(text)
    if not found:
        raise LabError(f"--detect {text!r} is not MILLISECONDSxMULTIPLIER: write for example 10x3")
    interval_seconds, multiplier = float(found[1]) / 1000, int(found[2])
    if not 0.001 <= interval_seconds <= 60 or not 2 <= multiplier <= 50:
        raise LabError(f"--detect {text!r} is out of range: 1 to 60000 milliseconds, times 2 to 50")
    return interval_seconds, multiplier
