"""A series of runs: a fresh lab, a call through it, one fault, and what the client saw of it.

It uses the testbed, the recorders and the summary, and decides only when to go on: when the call is
answered and protected, the fault comes at a random moment of the 20 ms between two packets; when answers
flow again, the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from tunnelswitch.core.detector import DOUBT_SECONDS
from tunnelswitch_lab import faults, netns, procs, recording, results, teardown
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Fault
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.events import BusEvent
from tunnelswitch_lab.measure.gaps import largest_gap_after
from tunnelswitch_lab.measure.load import LoadMeter
from tunnelswitch_lab.measure.runs import RunFacts, RunFiles, read_run
from tunnelswitch_lab.measure.story import connected, moved_before, protected
from tunnelswitch_lab.measure.summary import summarise_run, summarise_series
from tunnelswitch_lab.options import LabError, RunOptions
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed, usable_layout
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS

Progress = Callable[[str], object]

ANSWER_SECONDS = 15.0
_PROTECTED_SECONDS = 30.0
_BFD_SECONDS = 1.0
_REST_SECONDS = 30.0
_STEADY_SECONDS = 2.0
_QUIET_SECONDS = 4.0  # how long to look for a failover that must not come
_OBSERVE_SECONDS = 20.0
_CAPTURE_LAG_SECONDS = 1.0
_TOOL_SECONDS = 5.0
_ATTEMPTS = 3


class CheckFailedError(LabError):
    """The series was measured, and something in it is not as it must be. The results are written."""


class UnprovokedMoveError(Exception):
    """The group moved before the fault: a false failover, and no measurement of the fault."""


def say(line: str) -> None:
    """The default progress: one line per step, with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


async def run_experiment(options: RunOptions, progress: Progress = say) -> dict[str, Any]:
    """Run a series and write its results below `options.out`; returns the content of summary.json.

    A lab of this name that is up is used, and set up afresh afterwards; otherwise one is made, and removed
    at the end (with `keep_failed`, a lab in which a run failed stays as it is). Raises CheckFailedError when
    a run does not show what it must, LabError when it cannot be run at all.
    """
    fault = faults.find(options.fault)
    try:
        results.prepare(options.out)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    environment = describe_environment()
    found = bool(teardown.leftovers(usable_layout(options.lab.name)))
    bed = await (Testbed.attach(options.lab.name) if found else Testbed.up(options.lab, progress))
    kept = False
    try:
        series, unprovoked = await _run_all(bed, fault, options, progress, fresh=not found)
        kept = options.keep_failed and bool(series[-1][1]["checks"])
        if kept:
            progress(f"the lab stays as it failed: tunnelswitch-lab status --name {options.lab.name}")
        elif found:
            progress("setting the lab up afresh")
            await start(bed, options, fresh=False)
    except LabError:
        kept = options.keep_failed
        raise
    finally:
        await (bed.close() if found or kept else bed.down())
    return _conclude(series, unprovoked, environment, options)


async def _run_all(
    bed: Testbed, fault: Fault, options: RunOptions, progress: Progress, *, fresh: bool
) -> tuple[list[tuple[RunFiles, dict[str, Any]]], list[str]]:
    """All runs, and the false failovers that made some of them start again."""
    series: list[tuple[RunFiles, dict[str, Any]]] = []
    unprovoked: list[str] = []
    for number in range(1, options.runs + 1):
        head = f"run {number} of {options.runs}"
        for attempt in range(1, _ATTEMPTS + 1):
            progress(f"{head}: service and agents")
            try:
                await start(bed, options, fresh=fresh and number == attempt == 1)
                files = await run_once(bed, fault, options, number, _under(head, progress))
                break
            except LabError as error:
                await _keep_logs(bed, options, number)
                raise LabError(f"{head}: {error}") from error
            except UnprovokedMoveError as error:
                unprovoked.append(f"run {number}: moved before the fault ({error})")
                progress(f"{head}: FALSE FAILOVER before the fault: {error}")
        else:
            raise LabError(
                f"{head}: the group moved {_ATTEMPTS} times before the fault, last for {unprovoked[-1]}; "
                "the machine is too busy for this --detect"
            )
        figures = await asyncio.to_thread(summarise_run, files, names.RTP_PORT)
        progress(f"{head}: {results.in_short(figures)}")
        series.append((files, figures))
        if figures["checks"]:
            await _keep_logs(bed, options, number)
            if options.keep_failed:
                break
    return series, unprovoked


async def _keep_logs(bed: Testbed, options: RunOptions, number: int) -> None:
    await asyncio.to_thread(results.keep_logs, bed.layout, results.run_directory(options.out, number))


def _under(head: str, progress: Progress) -> Progress:
    return lambda text: progress(f"{head}: {text}")


async def start(bed: Testbed, options: RunOptions, *, fresh: bool) -> None:
    """Start service and agents in a lab as it was after `up`: `fresh`, or set up afresh. Raises LabError."""
    if not fresh:
        await bed.reset()
    lab = options.lab
    await bed.start_service(lab.checkpoint_interval_ms, lab.workload, lab.realtime_priority, lab.buffering)
    await bed.start_agents(options.lab)


async def run_once(bed: Testbed, fault: Fault, options: RunOptions, number: int, progress: Progress) -> RunFiles:
    """One run in a lab whose service and agents were just started; returns what it recorded.

    Raises UnprovokedMoveError when the group moved by itself before the fault.
    """
    directory, active = results.run_directory(options.out, number), names.SERVERS[0]
    directory.mkdir(parents=True, exist_ok=True)
    recorders = Recording(bed, directory)
    try:
        progress("the client calls")
        await recorders.start()
        loads = await _warm_up(bed, recorders, options.calm_seconds)
        await asyncio.sleep(random.uniform(0, PACKET_SPACING_SECONDS))
        _refuse_moved(recorders.events(), active)
        try:
            fault_at = await bed.inject(fault, active)
        except RuntimeError as error:
            await asyncio.sleep(_CAPTURE_LAG_SECONDS)
            _refuse_moved(recorders.events(), active)
            raise LabError(f"the fault cannot be injected: {error}") from None
        progress(f"fault: {fault.does}")
        await observe(recorders, fault, fault_at)
        observed_until = time.time()
        tunnels = await client_tunnels(bed)
    finally:
        await recorders.stop()
    RunFacts(
        number=number,
        fault=fault.name,
        fault_at=fault_at,
        observed_until=observed_until,
        active_before=active,
        expected_verdict=fault.verdict.value,
        expected_active=fault.expected_active(active),
        gateway_tunnels=tunnels,
        interval_seconds=options.lab.interval_seconds,
        multiplier=options.lab.multiplier,
        checkpoint_interval_ms=options.lab.checkpoint_interval_ms,
        realtime_priority=options.lab.realtime_priority,
        workload=options.lab.workload,
        buffering=options.lab.buffering,
        agents=loads,
    ).save(directory)
    files = await asyncio.to_thread(read_run, directory, recording.SERVICE)
    _refuse_moved(files.events, active, fault_at)
    return files


def _refuse_moved(events: Iterable[BusEvent], active: str, before: float = float("inf")) -> None:
    reason = moved_before(events, before, active)
    if reason is not None:
        raise UnprovokedMoveError(reason)


async def _warm_up(bed: Testbed, recorders: Recording, seconds: float) -> dict[str, dict[str, float]]:
    """Wait until the call is answered and protected; returns what the agents cost in the calm that follows."""
    await recorders.wait_for_service(ANSWER_SECONDS)
    await wait_protected(recorders)
    await wait_at_rest(recorders)
    agents = {
        process["name"]: process["pid"]
        for process in bed.status()["processes"]
        if process["alive"] and process["name"].startswith(("agent-", "switcher-"))
    }
    meter = LoadMeter(agents)
    await asyncio.sleep(seconds)
    return meter.read()


async def wait_protected(recorders: Recording) -> None:
    """Return when heartbeats name a standby in sync. Raises LabError when none does in time."""
    deadline = time.monotonic() + _PROTECTED_SECONDS
    while not protected(await asyncio.to_thread(recorders.events, time.time() - 2)):
        if time.monotonic() > deadline:
            raise LabError(
                f"the service is not protected after {_PROTECTED_SECONDS:g} s: no heartbeat names a standby in sync"
            )
        await asyncio.sleep(0.25)


async def wait_at_rest(recorders: Recording, bfd_seconds: float = _BFD_SECONDS) -> None:
    """Return when BFD has been at its full pace for a while between all sites, and what a false alarm of the start has
    left behind, windows that are wider for a while (decision 7), is over. A machine too busy for that is measured as it
    is."""

    async def at_rest() -> bool:
        events = await asyncio.to_thread(recorders.events, time.time() - 1)
        return connected(events, names.SITES, bfd_seconds, DOUBT_SECONDS)

    with contextlib.suppress(TimeoutError):
        await netns.wait_for(at_rest, "BFD at rest", _REST_SECONDS, 0.5)


async def observe(recorders: Recording, fault: Fault, fault_at: float) -> None:
    """Return when answers have flowed for a while after the fault's gap, or when there is nothing to wait for."""
    at_least = _STEADY_SECONDS if fault.failover else _QUIET_SECONDS
    while (since := time.time() - fault_at) < _OBSERVE_SECONDS:
        await asyncio.sleep(0.25)
        if since < at_least + _CAPTURE_LAG_SECONDS:
            continue
        arrivals = await asyncio.to_thread(recorders.arrivals)
        gap = largest_gap_after(arrivals, fault_at)
        if gap is None or time.time() - arrivals[-1] > _CAPTURE_LAG_SECONDS:
            continue
        if arrivals[-1] - gap.end_seconds >= _STEADY_SECONDS or gap.length_seconds < 3 * PACKET_SPACING_SECONDS:
            return


async def client_tunnels(bed: Testbed) -> list[str]:
    """Names of the client tunnels that the gateway's switch has now, straight from its database.

    Raises LabError when the database does not answer.
    """
    command = [
        "ovs-vsctl",
        f"--db={bed.layout.gateway.ovsdb}",
        f"--timeout={_TOOL_SECONDS:.0f}",
        "list-ports",
        bed.options.bridge,
    ]
    try:
        ports = await procs.check_output(command, _TOOL_SECONDS + 1)
    except (RuntimeError, TimeoutError) as error:
        raise LabError(f"the gateway's switch cannot be asked for its tunnels: {error}") from None
    return sorted(port for port in ports.split() if port.startswith(("t2-", "t3-")))


def _conclude(
    series: list[tuple[RunFiles, dict[str, Any]]],
    unprovoked: list[str],
    environment: dict[str, Any],
    options: RunOptions,
) -> dict[str, Any]:
    runs = [figures for _, figures in series]
    last = series[-1][0]
    environment |= {
        "scheduling": {
            "agents_slice_seconds": options.lab.slice_seconds,
            "agents_fifo_priority": options.lab.realtime_priority,
            "probe_fifo_priority": last.probe_summary.get("realtime_priority"),
            "caller_fifo_priority": last.client_summary.get("realtime_priority"),
        },
        "loop_lateness": results.worst_lateness(runs),
        "load_average_after": describe_environment()["load_average"],
    }
    summary = summarise_series(runs, environment, unprovoked)
    results.write(Path(options.out), summary, last)
    results.show(options.out, summary, Console())
    wrong = [f"run {run['run']}: {check}" for run in runs for check in run["checks"]]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckFailedError(f"{wrong[0]}{more}")
    return summary
