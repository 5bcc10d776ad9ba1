"""One run under the bench: a lab reset, one system, a call through it, and a fault or a case.

It knows nothing of which systems there are, and compares nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunnelswitch_lab import faults
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.bench.cases import Case, Told, look
from tunnelswitch_lab.bench.series import Cell, interleaved, phases
from tunnelswitch_lab.bench.systems import System, label
from tunnelswitch_lab.experiment import ANSWER_SECONDS, Progress, observe
from tunnelswitch_lab.matrix.packets import read_exchange
from tunnelswitch_lab.matrix.steps import Stage
from tunnelswitch_lab.measure.runs import PROBE_TRACE, RunFacts, RunFiles, read_run
from tunnelswitch_lab.measure.summary import summarise_run
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.recording import SERVICE, Recording
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.workload.trace import read_trace_summary

_CALM_SECONDS = 1.5  # between everything being up and the fault
_PACKET_SECONDS = 0.02
_SETTLED_SECONDS = 0.1  # an answer so shortly before the fault
_TROUBLES = (LabError, OSError, LookupError, RuntimeError, TimeoutError)

Split = Callable[[Mapping[str, float | None], float | None], dict[str, float]]


async def run_cells(
    bed: Testbed, cells: Sequence[Cell], runs: int, out: Path, progress: Progress, split: Split = phases
) -> None:
    """Measure every cell `runs` times, interleaved; gaps, budgets and problems go to the cells, files below `out`.

    `split` makes a budget of a run's marks and its first packet from the new copy, in seconds from the fault.
    """
    order = interleaved(cells, runs)
    for position, (number, cell) in enumerate(order, 1):
        place = out / cell.name.replace(" ", "-") / f"{number:02}"
        place.mkdir(parents=True, exist_ok=True)
        problem = await _run_cell(bed, cell, place, split)
        if problem:
            cell.problems.append(problem)
        said = f"FAILED: {problem}" if problem else f"{cell.gaps[-1] * 1000:.1f} ms"
        progress(f"{position} of {len(order)}  {cell.name}: {said}")


async def run_cases(
    bed: Testbed, systems: Sequence[System], cases: Sequence[Case], out: Path, progress: Progress
) -> list[Told]:
    """Every case once for every system, neighbours in time being peers; files below `out`."""
    order = [(case, system) for case in cases for system in systems]
    told = []
    for position, (case, system) in enumerate(order, 1):
        place = out / re.sub(r"\W+", "-", case.name) / label(system)
        place.mkdir(parents=True, exist_ok=True)
        told.append(await _run_case(bed, system, case, place))
        progress(f"case {position} of {len(order)}  {case.name}, {label(system)}: {told[-1].short}")
    return told


@contextlib.asynccontextmanager
async def _called(bed: Testbed, system: System, place: Path, *, fresh_bus: bool = False) -> AsyncIterator[Recording]:
    """A system in a lab that was reset, with a call through it that has been calm for a while."""
    await bed.reset(fresh_bus=fresh_bus)
    try:
        await system.start(bed)
        recording = system.record(bed, place)
        try:
            await recording.start()
            await recording.wait_for_service(ANSWER_SECONDS)
            await system.wait_ready(recording)
            await asyncio.sleep(_CALM_SECONDS + random.uniform(0, _PACKET_SECONDS))
            yield recording
        finally:
            await recording.stop()
    finally:
        await system.stop(bed)


async def _run_cell(bed: Testbed, cell: Cell, place: Path, split: Split) -> str:
    """One run; its gap goes to the cell. Returns what went wrong, or an empty text."""
    try:
        files = await _measure(bed, cell.system, cell.fault, place)
    except _TROUBLES as error:
        return str(error)
    figures = summarise_run(files, names.RTP_PORT)
    cell.lateness_max_seconds = max(cell.lateness_max_seconds, figures["lateness"]["probe_max_seconds"] or 0.0)
    if problem := _unsettled(files) or _no_failover(files):
        return problem
    cell.gaps.append(figures["probe_downtime_seconds"])
    cell.budgets.append(split(figures["marks"], figures["probe_first_packet_seconds"]))
    return ""


async def _measure(bed: Testbed, system: System, fault_name: str, place: Path) -> RunFiles:
    fault, active = faults.find(fault_name), names.SERVERS[0]
    async with _called(bed, system, place) as recording:
        fault_at = await bed.inject(fault, active)
        await observe(recording, fault, fault_at)
        observed_until = time.time()
    RunFacts(
        number=int(place.name),
        fault=fault.name,
        fault_at=fault_at,
        observed_until=observed_until,
        active_before=active,
        expected_verdict=fault.verdict.value,
        expected_active=fault.expected_active(active),
        interval_seconds=system.interval_ms / 1000,
    ).save(place)
    return await asyncio.to_thread(read_run, place, SERVICE)


def _unsettled(files: RunFiles) -> str:
    """Why the fault did not meet a service that ran, or an empty text: a system may move by itself before it."""
    before = [probe for probe in files.probes if files.facts.since_fault_seconds(probe.received_ns) <= 0]
    if not before or before[-1].site != files.facts.active_before:
        return "the clients were not at the primary when the fault came"
    if files.facts.since_fault_seconds(before[-1].received_ns) < -_SETTLED_SECONDS:
        return "nobody answered when the fault came"
    return ""


def _no_failover(files: RunFiles) -> str:
    """Why this run shows no failover, or an empty text. Answers must come from the other copy, until the end."""
    answers = files.probes
    if not answers or answers[-1].site != names.SERVERS[1]:
        return "the other copy never answered"
    if files.facts.observed_until - answers[-1].received_ns / 1e9 > 1.0:
        return "the answers ended again"
    return ""


async def _run_case(bed: Testbed, system: System, case: Case, place: Path) -> Told:
    told = Told(system.name, system.interval_ms, case, "")
    try:
        # The case before may have left NATS nodes that a partition keeps busy for half a minute.
        async with _called(bed, system, place, fresh_bus=True) as recording:
            fault_at = time.time()
            for step in case.steps:
                await step.act(Stage(bed, recording))
            await asyncio.sleep(case.watch_seconds)
            observed_seconds = time.time() - fault_at
    except _TROUBLES as error:
        return replace(told, problem=str(error))
    exchange = await asyncio.to_thread(read_exchange, place, SERVICE, fault_at)
    late_seconds = float(read_trace_summary(place / PROBE_TRACE).get("lateness_max_seconds") or 0.0)
    return replace(told, seen=look(exchange, observed_seconds), probe_lateness_max_seconds=late_seconds)
