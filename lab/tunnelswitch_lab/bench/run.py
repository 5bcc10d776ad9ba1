"""Runs the bench: one lab, reset before every run; every run one system, one fault, one recording."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tunnelswitch_lab import faults
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.bench import report
from tunnelswitch_lab.bench.bfd_group import BfdGroup
from tunnelswitch_lab.bench.keepalived import Keepalived
from tunnelswitch_lab.bench.ours import Ours
from tunnelswitch_lab.bench.series import Cell, cells_of, interleaved, is_judged, phases
from tunnelswitch_lab.bench.systems import System, label
from tunnelswitch_lab.experiment import ANSWER_SECONDS, Progress, observe, say
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.runs import RunFacts, RunFiles, read_run
from tunnelswitch_lab.measure.summary import summarise_run
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.recording import SERVICE, Recording
from tunnelswitch_lab.testbed import Testbed

_CALM_SECONDS = 1.5  # between everything being up and the fault
_PACKET_SECONDS = 0.02


@dataclass(frozen=True)
class BenchOptions:
    """What to measure. `only` holds labels such as `keepalived@10`; empty: all."""

    out: Path
    runs: int = 10
    only: tuple[str, ...] = ()
    name: str = "bench"


def all_systems() -> list[System]:
    """Every system at every interval, in the order of measuring."""
    return [
        Ours(10),
        Keepalived(10),
        BfdGroup(10),
        BfdGroup(30),
        Ours(100),
        Keepalived(100),
        BfdGroup(100),
        Keepalived(1000),
    ]


def chosen_systems(only: Sequence[str]) -> list[System]:
    """Those of these labels. Raises LabError that lists the known ones."""
    systems = {label(system): system for system in all_systems()}
    unknown = [name for name in only if name not in systems]
    if unknown:
        raise LabError(f"--only {unknown[0]!r} is not known: {', '.join(systems)}")
    return [system for name, system in systems.items() if not only or name in only]


async def run_bench(options: BenchOptions, progress: Progress = say) -> dict[str, Any]:
    """Measure, write everything below `options.out`, print the table; returns the content of summary.json.

    Raises LabError when the lab cannot be built, or when `failed` says why (the results are written then).
    """
    cells = cells_of(chosen_systems(options.only))
    options.out.mkdir(parents=True, exist_ok=True)
    environment = describe_environment()
    order = interleaved(cells, options.runs)
    bed = await Testbed.up(LabOptions(options.name), progress)
    try:
        for position, (number, cell) in enumerate(order, 1):
            place = options.out / "runs" / cell.name.replace(" ", "-") / f"{number:02}"
            place.mkdir(parents=True, exist_ok=True)
            problem = await _one(bed, cell, place)
            said = problem or f"{cell.gaps[-1] * 1000:.1f} ms"
            progress(f"{position} of {len(order)}  {cell.name}: {said}")
    finally:
        await bed.down()
    environment["load_average_after"] = describe_environment()["load_average"]
    summary = report.summarise(cells, environment)
    report.write(options.out, summary)
    report.show(summary, Console())
    if (why := failed(summary)) is not None:
        raise LabError(why)
    return summary


def failed(summary: Mapping[str, Any]) -> str | None:
    """Why the content of a summary.json is no success, or None. A figure that is missing is not a good one."""
    for cell in summary["cells"]:
        if not cell["runs"]:
            why = cell["problems"][0] if cell["problems"] else "none was begun"
            return f"{cell['system']}@{cell['interval_ms']:g} {cell['fault']} has no run: {why}"
    for ratio in summary["ratios"]:
        if ratio["at_most"] and ratio["ratio"] > ratio["at_most"]:
            return f"{ratio['ratio']:g} times {ratio['to']} at host loss; at most {ratio['at_most']:g}"
    if is_judged(summary["cells"]) and not any(ratio["at_most"] for ratio in summary["ratios"]):
        return "the judged ratio could not be worked out: one of its two medians is missing or zero"
    return None


async def _one(bed: Testbed, cell: Cell, place: Path) -> str:
    """One run; its gap goes to the cell. Returns what went wrong, or an empty text."""
    system = cell.system
    try:
        await bed.reset()
        try:
            await system.start(bed)
            files = await _measure(bed, system, cell.fault, place)
        finally:
            await system.stop(bed)
    except (LabError, TimeoutError) as error:
        cell.problems.append(str(error))
        return f"FAILED: {error}"
    figures = summarise_run(files, names.RTP_PORT)
    cell.lateness_max_seconds = max(cell.lateness_max_seconds, figures["lateness"]["probe_max_seconds"] or 0.0)
    if (problem := _no_failover(files)) is not None:
        cell.problems.append(problem)
        return f"FAILED: {problem}"
    cell.gaps.append(figures["probe_downtime_seconds"])
    if isinstance(system, Ours):
        cell.budgets.append(phases(figures["marks"], figures["probe_first_packet_seconds"]))
    return ""


def _no_failover(files: RunFiles) -> str | None:
    """Why this run shows no failover, or None. Answers must come from the other copy, until the end."""
    answers = files.stream.packets
    if not answers or answers[-1].site != names.SERVERS[1]:
        return "the other copy never answered"
    if files.facts.observed_until - answers[-1].arrived_ns / 1e9 > 1.0:
        return "the answers ended again"
    return None


async def _measure(bed: Testbed, system: System, fault_name: str, place: Path) -> RunFiles:
    fault, active = faults.find(fault_name), names.SERVERS[0]
    recording = Recording(bed, place)
    try:
        await recording.start()
        await recording.wait_for_service(ANSWER_SECONDS)
        await system.wait_ready(recording)
        await asyncio.sleep(_CALM_SECONDS + random.uniform(0, _PACKET_SECONDS))
        fault_at = await bed.inject(fault, active)
        await observe(recording, fault, fault_at)
        observed_until = time.time()
    finally:
        await recording.stop()
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
