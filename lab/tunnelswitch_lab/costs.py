"""What a checkpoint costs and what a crash takes back, for every interval and every buffering: one table.

Each cell is a run of its own: a fresh service, a call and a probe through it for some calm seconds, then the active's
QEMU is killed.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunnelswitch_lab import experiment, faults, results
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.experiment import Progress, UnprovokedMoveError, say
from tunnelswitch_lab.measure.checkpoints import checkpoint_figures
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.summary import rounded, summarise_run
from tunnelswitch_lab.options import BUFFERINGS, LabError, LabOptions, RunOptions, check_checkpoint_interval
from tunnelswitch_lab.testbed import Testbed

FAULT = "service-crash"
INTERVALS_MS = (40, 100, 200, 400, 800)
_ATTEMPTS = 3
_CELL = re.compile(r"([a-z]+)@(\d+)")
_COLUMNS = {
    "buffering": "buffering",
    "interval ms": "interval_ms",
    "period ms": "period_median_seconds",
    "pause ms": "pause_mean_seconds",
    "p95": "pause_p95_seconds",
    "KiB": "bytes_median",
    "call RTT ms": "call_rtt_median_seconds",
    "p95 ": "call_rtt_p95_seconds",
    "probe RTT ms": "probe_rtt_median_seconds",
    "p95  ": "probe_rtt_p95_seconds",
    "call rolled back": "state_rollback_packets",
    "probes rolled back": "probe_rollback_packets",
    "call gap ms": "max_gap_seconds",
}


@dataclass(frozen=True)
class Cell:
    """One buffering at one interval."""

    buffering: str
    interval_ms: int

    def __str__(self) -> str:
        return f"{self.buffering}@{self.interval_ms}"


@dataclass(frozen=True)
class CostOptions:
    """`runs` of every cell, each with `seconds` of calm before the crash."""

    lab: LabOptions
    cells: tuple[Cell, ...]
    out: Path
    runs: int
    seconds: float


def chosen(only: tuple[str, ...]) -> tuple[Cell, ...]:
    """The cells of these names, such as full@100; all of them by default. Raises LabError for what there is not."""
    if not only:
        return tuple(Cell(buffering, interval) for buffering in BUFFERINGS for interval in INTERVALS_MS)
    cells = []
    for text in only:
        found = _CELL.fullmatch(text)
        if not found or found[1] not in BUFFERINGS:
            raise LabError(f"--only {text!r} is not BUFFERING@MILLISECONDS: write for example full@100")
        cells.append(Cell(found[1], int(check_checkpoint_interval("vm", int(found[2])))))
    return tuple(cells)


async def run_costs(options: CostOptions, progress: Progress = say) -> dict[str, Any]:
    """Measure every cell; returns the content of summary.json, which is written below `options.out` with table.md.

    `problems` in it says what is not as it must be, such as an answer forgotten although it was held back. Raises
    LabError when nothing can be measured at all.
    """
    try:
        results.prepare(options.out)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    environment = describe_environment()
    bed = await Testbed.up(options.lab, progress)
    rows = []
    try:
        for number, cell in enumerate((c for c in options.cells for _ in range(options.runs)), start=1):
            progress(f"{cell}: service and agents")
            rows.append(await _measure(bed, cell, number, options, progress))
            results.keep_logs(bed.layout, results.run_directory(options.out, number))
    finally:
        await bed.down()
    summary = {
        "cells": rows,
        "problems": [f"{row['cell']}: {check}" for row in rows for check in row["checks"]],
        "environment": environment | {"load_average_after": describe_environment()["load_average"]},
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(table(rows), encoding="utf-8")
    return summary


async def _measure(bed: Testbed, cell: Cell, number: int, options: CostOptions, progress: Progress) -> dict[str, Any]:
    lab = replace(options.lab, buffering=cell.buffering, checkpoint_interval_ms=float(cell.interval_ms))
    run = RunOptions(lab, FAULT, options.out, calm_seconds=options.seconds)
    for attempt in range(1, _ATTEMPTS + 1):
        await experiment.start(bed, run, fresh=number == attempt == 1)
        try:
            files = await experiment.run_once(
                bed, faults.find(FAULT), run, number, lambda text: progress(f"{cell}: {text}")
            )
            break
        except UnprovokedMoveError as error:
            progress(f"{cell}: FALSE FAILOVER before the fault: {error}")
            if attempt == _ATTEMPTS:
                raise LabError(f"{cell}: the group moved by itself {_ATTEMPTS} times: {error}") from None
    figures = await asyncio.to_thread(summarise_run, files, names.RTP_PORT)
    directory = results.run_directory(options.out, number)
    costs = await asyncio.to_thread(checkpoint_figures, files, directory, options.seconds)
    row = {"cell": str(cell), "buffering": cell.buffering, "interval_ms": cell.interval_ms, **costs, **figures}
    progress(f"{cell}: {in_short(row)}")
    return rounded(row)


def in_short(row: dict[str, Any]) -> str:
    """One cell in a few words."""
    told = ", ".join(f"{head.strip()} {_shown(row, key)}" for head, key in list(_COLUMNS.items())[2:])
    return f"NOT as it must be: {'; '.join(row['checks'])}; {told}" if row["checks"] else told


def table(rows: list[dict[str, Any]]) -> str:
    """All cells in Markdown."""
    lines = ["| " + " | ".join(head.strip() for head in _COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_shown(row, key) for key in _COLUMNS.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _shown(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if value is None:
        return "-"
    if key == "bytes_median":
        return f"{value / 1024:.0f}"
    return f"{value * 1000:.1f}" if key.endswith("_seconds") else str(value)
