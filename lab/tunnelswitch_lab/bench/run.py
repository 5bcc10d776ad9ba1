"""Runs the bench: which systems, in which order, and whether the result is a success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tunnelswitch_lab.bench import report
from tunnelswitch_lab.bench.bfd_group import BfdGroup
from tunnelswitch_lab.bench.cases import CASES
from tunnelswitch_lab.bench.frr import FrrBfdBgp
from tunnelswitch_lab.bench.keepalived import Keepalived, KeepalivedScript
from tunnelswitch_lab.bench.measuring import run_cases, run_cells
from tunnelswitch_lab.bench.ours import Ours
from tunnelswitch_lab.bench.pacemaker import Pacemaker
from tunnelswitch_lab.bench.series import cells_of, is_judged
from tunnelswitch_lab.bench.systems import System, check_installed, label
from tunnelswitch_lab.experiment import Progress, say
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.testbed import Testbed

CASES_AT_MS = 100  # the shortest interval that every system can have, Pacemaker among them


@dataclass(frozen=True)
class BenchOptions:
    """What to measure. `only` holds labels such as `keepalived@10`; empty: all. `cases`: also the cases, for every
    system at their interval."""

    out: Path
    runs: int = 6
    only: tuple[str, ...] = ()
    name: str = "bench"
    cases: bool = True


def all_systems() -> list[System]:
    """Every system at every interval, in the order of measuring."""
    return [
        Ours(10),
        Keepalived(10),
        BfdGroup(10),
        FrrBfdBgp(10),
        Ours(100),
        Keepalived(100),
        KeepalivedScript(100),
        BfdGroup(100),
        FrrBfdBgp(100),
        Pacemaker(100),
        Keepalived(1000),
        Pacemaker(1000),
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
    systems = chosen_systems(options.only)
    check_installed(systems)
    cells = cells_of(systems)
    options.out.mkdir(parents=True, exist_ok=True)
    environment = describe_environment()
    bed = await Testbed.up(LabOptions(options.name), progress)
    try:
        await run_cells(bed, cells, options.runs, options.out / "runs", progress)
        judged = [system for system in systems if system.interval_ms == CASES_AT_MS and options.cases]
        told = await run_cases(bed, judged, CASES, options.out / "cases", progress)
    finally:
        await bed.down()
    environment["load_average_after"] = describe_environment()["load_average"]
    summary = report.summarise(cells, told, environment)
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
    for case in summary["cases"]:
        if case["problem"]:
            return f"{case['system']}@{case['interval_ms']:g}, {case['case']}: {case['problem']}"
    for ratio in summary["ratios"]:
        if ratio["at_most"] and ratio["ratio"] > ratio["at_most"]:
            return f"{ratio['ratio']:g} times {ratio['to']} at host loss; at most {ratio['at_most']:g}"
    if is_judged(summary["cells"]) and not any(ratio["at_most"] for ratio in summary["ratios"]):
        return "the judged ratio could not be worked out: one of its two medians is missing or zero"
    return None
