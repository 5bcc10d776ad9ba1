"""Runs a soak: a lab, a call and the probe, load, and no fault for minutes. Then, still under load, a lost host.

Nothing may move before that loss, and everything must after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch_lab import experiment, faults, results
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.experiment import Progress, UnprovokedMoveError, say
from tunnelswitch_lab.host import Init
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.runs import PROBE_TRACE, RTP_TRACE
from tunnelswitch_lab.measure.summary import summarise_run
from tunnelswitch_lab.options import LabError, LabOptions, RunOptions
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.soak.checkpoints import broken, checkpoints
from tunnelswitch_lab.soak.loads import Load
from tunnelswitch_lab.soak.watch import Watch
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.workload.trace import read_trace_summary

FAULT = "host-loss"
_SETTLE_SECONDS = 3.0
_TELL_SECONDS = 60.0


@dataclass(frozen=True)
class SoakOptions:
    """How long, under what, and where the results go."""

    lab: LabOptions
    load: str
    out: Path
    minutes: float


async def run_soak(options: SoakOptions, progress: Progress = say) -> dict[str, Any]:
    """Soak, then lose the active host; returns the content of summary.json, which is written below `options.out`.

    `problems` in it says in plain words what is not as it must be. Raises LabError when it cannot be run at all.
    """
    try:
        results.prepare(options.out)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    environment = describe_environment()
    bed = await Testbed.up(options.lab, progress)
    try:
        async with Load(bed, options.load, options.out) as load:
            progress("service and agents")
            await bed.start_service()
            await bed.start_agents()
            await _protected(bed, options)
            await load.begin()
            soaked = await _soak(bed, options, progress)
            progress(
                f"{soaked['failovers']} failovers in {options.minutes:g} minutes; now a host is lost, still under load"
            )
            lost = await _lose_host(bed, options, progress)
        results.keep_logs(bed.layout, options.out)
    finally:
        await bed.down()
    lab = options.lab
    summary = {
        "minutes": options.minutes,
        "detect": {"interval_seconds": lab.interval_seconds, "multiplier": lab.multiplier},
        "workload": lab.workload,
        "checkpoint_interval_ms": lab.checkpoint_interval_ms,
        "buffering": lab.buffering,
        "load": load.told,
        **soaked,
        "host_loss": lost,
        "problems": problems(soaked, lost),
        "environment": environment | {"load_average_after": describe_environment()["load_average"]},
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


async def _protected(bed: Testbed, options: SoakOptions) -> None:
    """Return when the standby is in sync and the start's bustle is over."""
    directory = options.out / "start"
    directory.mkdir(exist_ok=True)
    recording = Recording(bed, directory)
    try:
        await recording.start()
        await recording.wait_for_service(experiment.ANSWER_SECONDS)
        await experiment.wait_protected(recording)
    finally:
        await recording.stop()
    await asyncio.sleep(_SETTLE_SECONDS)


async def _soak(bed: Testbed, options: SoakOptions, progress: Progress) -> dict[str, Any]:
    """The call and the probe go on while the agents' metrics are watched, and the servers' init systems start anew what
    ends. The bus is not recorded: it would be half a million messages."""
    directory = options.out / "soak"
    directory.mkdir(exist_ok=True)
    recording, watch, init = Recording(bed, directory), Watch(bed.layout), Init(bed)
    recording.start_clients()
    going_on = [asyncio.create_task(watch.run()), asyncio.create_task(init.run())]
    try:
        ends_at = time.monotonic() + options.minutes * 60
        while (left := ends_at - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _TELL_SECONDS))
            for task in going_on:
                if task.done():
                    task.result()
            widest = max(watch.window_max.values(), default=0.0)
            progress(
                f"{max(0.0, ends_at - time.monotonic()) / 60:.1f} minutes left; widest window {widest * 1e3:.0f} ms"
            )
    finally:
        for task in going_on:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await recording.stop()
    traces = {"call": directory / RTP_TRACE, "probe": directory / PROBE_TRACE}
    clients = {name: read_trace_summary(trace) for name, trace in traces.items()}
    for trace in traces.values():
        trace.unlink(missing_ok=True)  # hundreds of megabytes of which the summary says what matters here
    return watch.summary() | {"checkpoints": checkpoints(watch), "copies_started": init.started, "clients": clients}


async def _lose_host(bed: Testbed, options: SoakOptions, progress: Progress) -> dict[str, Any]:
    """The figures of one host loss under the widened windows, or why there are none."""
    run = RunOptions(options.lab, FAULT, options.out)
    try:
        files = await experiment.run_once(bed, faults.find(FAULT), run, 1, progress)
    except UnprovokedMoveError as error:
        return {"moved_before": str(error)}
    except LabError as error:
        return {"failed": str(error)}
    figures = await asyncio.to_thread(summarise_run, files, names.RTP_PORT)
    progress(results.in_short(figures))
    return figures


def problems(soaked: dict[str, Any], lost: dict[str, Any]) -> list[str]:
    """What of a soak is not as it must be, in plain words."""
    wrong = []
    if soaked["failovers"]:
        wrong.append(f"{soaked['failovers']} false failovers: {', '.join(soaked['active_sites'])}")
    wrong += broken(soaked.get("checkpoints", {}))
    if "moved_before" in lost:
        wrong.append(f"false failover before the host was lost: {lost['moved_before']}")
    elif "failed" in lost:
        wrong.append(f"no host could be lost: {lost['failed']}")
    elif lost["active_site"] != names.SERVERS[1] or lost["verdict"] != faults.find(FAULT).verdict.value:
        wrong.append(f"the lost host was not noticed: verdict {lost['verdict']}, active {lost['active_site']}")
    return wrong
