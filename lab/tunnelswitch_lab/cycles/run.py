"""Cycles of loss, repair and failback: the active copy or its host is lost, comes back by what an init system does, and
the group goes back to it by its own policy. Nothing here asks any agent for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch_lab import experiment, faults, recording, results
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.cycles.figures import Moments, summarise
from tunnelswitch_lab.cycles.view import View
from tunnelswitch_lab.experiment import Progress, say
from tunnelswitch_lab.faults import Fault
from tunnelswitch_lab.host import Init, boot
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

FAULTS = ("host-loss", "service-crash")
REPAIR_SECONDS = 2.0
_FAILOVER_SECONDS = 15.0
_FAILBACK_SECONDS = 90.0
_CALM_SECONDS = 1.0
_PRIMARY, _SECONDARY = names.SERVERS


@dataclass(frozen=True)
class CycleOptions:
    """How many cycles, of which fault, in which lab, and where the results go."""

    lab: LabOptions
    fault: str
    out: Path
    runs: int


async def run_cycles(options: CycleOptions, progress: Progress = say) -> dict[str, Any]:
    """Run them; returns the content of summary.json, whose `problems` say in plain words what is not as it must be.

    Raises LabError when they cannot be run at all.
    """
    try:
        results.prepare(options.out)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    environment, fault = describe_environment(), faults.find(options.fault)
    bed = await Testbed.up(options.lab, progress)
    moments: list[Moments] = []
    stuck = ""
    try:
        progress("service and agents")
        await bed.start_service()
        await bed.start_agents()
        recorders = Recording(bed, options.out)
        try:
            await recorders.start()
            await recorders.wait_for_service(experiment.ANSWER_SECONDS)
            stuck = await _unattended(bed, fault, options.runs, moments, progress)
            await asyncio.sleep(_CALM_SECONDS)
            tunnels = await experiment.client_tunnels(bed)
        finally:
            await recorders.stop()
        results.keep_logs(bed.layout, options.out)
    finally:
        await bed.down()
    summary = await asyncio.to_thread(summarise, options.out, recording.SERVICE, moments, fault.verdict.value)
    summary["gateway_tunnels"] = tunnels
    if stuck:
        summary["problems"].append(stuck)
    if len(tunnels) != 1:
        summary["problems"].append(f"client tunnels at the gateway: {', '.join(tunnels) or 'none'}; expected one")
    summary["environment"] = environment | {"load_average_after": describe_environment()["load_average"]}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


async def _unattended(bed: Testbed, fault: Fault, runs: int, moments: list[Moments], progress: Progress) -> str:
    """All cycles, with an init system at work; returns where they got stuck, or nothing."""
    init, view = Init(bed), View(bed)
    keeping = asyncio.create_task(init.run())
    try:
        await view.until(_PRIMARY, _FAILBACK_SECONDS, protected=True)
        for number in range(1, runs + 1):
            await asyncio.sleep(_CALM_SECONDS)
            head = f"cycle {number} of {runs}"
            lost_at = await _lose(bed, fault, init)
            progress(f"{head}: {fault.does}")
            await view.until(_SECONDARY, _FAILOVER_SECONDS, protected=False)
            await asyncio.sleep(REPAIR_SECONDS)
            if fault.name == "host-loss":
                progress(f"{head}: the host boots")
                await boot(bed, _PRIMARY)
                init.away.discard(_PRIMARY)
            repaired_at = time.time()
            await view.until(_PRIMARY, _FAILBACK_SECONDS, protected=True)
            moments.append(Moments(number, lost_at, repaired_at, time.time()))
            progress(f"{head}: back at {_PRIMARY} and protected, {time.time() - repaired_at:.1f} s after the repair")
            if keeping.done():
                keeping.result()
    except TimeoutError as error:
        return f"cycle {len(moments) + 1}: {error}"
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
    return ""


async def _lose(bed: Testbed, fault: Fault, init: Init) -> float:
    if fault.name == "host-loss":
        init.away.add(_PRIMARY)
    return await bed.inject(fault, _PRIMARY)
