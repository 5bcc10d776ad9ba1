"""Runs the methods side by side: the bench's cells and measurement, with a report of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tunnelswitch_lab.bench.measuring import run_cells
from tunnelswitch_lab.bench.series import Cell, cells_of
from tunnelswitch_lab.bench.systems import check_installed
from tunnelswitch_lab.experiment import Progress, say
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.redirection.bgp import Bgp
from tunnelswitch_lab.redirection.ddns import Dns
from tunnelswitch_lab.redirection.methods import Garp, Method, Tunnel
from tunnelswitch_lab.redirection.system import Redirected
from tunnelswitch_lab.testbed import Testbed

METHODS: dict[str, type[Method]] = {"tunnel": Tunnel, "garp": Garp, "bgp": Bgp, "dns": Dns}
PHASES = ("detect", "decide and commit", "redirect")
_HEADS = ("fault", "method", "runs", "median", "p95", "max", *PHASES)


@dataclass(frozen=True)
class RedirectOptions:
    """Which methods (none: all), how often each, and where the results go."""

    out: Path
    methods: tuple[str, ...] = ()
    runs: int = 6
    name: str = "redirect"


def chosen_methods(wanted: Sequence[str]) -> list[Method]:
    """The methods of these names, in our order. Raises LabError that lists the known ones."""
    for name in wanted:
        if name not in METHODS:
            raise LabError(f"--method {name!r} is not known: {', '.join(METHODS)}")
    return [make() for name, make in METHODS.items() if not wanted or name in wanted]


def split(marks: Mapping[str, float | None], first_packet: float | None) -> dict[str, float]:
    """Where a run's time went, in seconds: to the verdict, to the commit, and from there to the first packet.

    Promotion is part of the last, and the same for all. Empty unless every mark is there.
    """
    verdict, committed = marks.get("verdict"), marks.get("committed")
    if verdict is None or committed is None or first_packet is None:
        return {}
    return dict(zip(PHASES, (verdict, committed - verdict, first_packet - committed), strict=True))


async def run_redirect(options: RedirectOptions, progress: Progress = say) -> dict[str, Any]:
    """Measure, write summary.json and table.md below `options.out`, print the table; returns the summary.

    Raises LabError when the lab cannot be built, or when a method has no run that came through.
    """
    methods = chosen_methods(options.methods)
    systems = [Redirected(method) for method in methods]
    check_installed(systems)
    cells = cells_of(systems)
    options.out.mkdir(parents=True, exist_ok=True)
    environment = describe_environment()
    bed = await Testbed.up(LabOptions(options.name), progress)
    try:
        await run_cells(bed, cells, options.runs, options.out / "runs", progress, split)
    finally:
        await bed.down()
    environment["load_average_after"] = describe_environment()["load_average"]
    summary = summarise(cells, methods, environment)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(markdown(summary), encoding="utf-8")
    _show(summary, Console())
    for cell in summary["cells"]:
        if not cell["runs"]:
            raise LabError(f"{cell['system']} at {cell['fault']} has no run: {cell['problems'][0]}")
    return summary


def summarise(cells: Sequence[Cell], methods: Sequence[Method], environment: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json: cells as the bench has them, `system` being the method."""
    return {
        "cells": [cell.as_json() for cell in cells],
        "methods": {method.name: method.does for method in methods},
        "order": "interleaved: every cell once, then every cell again",
        "environment": environment,
    }


def rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows: times in milliseconds, phases as medians."""
    found = []
    for cell in summary["cells"]:
        gap, spent = cell["gap_seconds"], cell["budget_seconds"]
        times = [gap["median"], gap["p95"], gap["max"], *(spent.get(name) for name in PHASES)]
        runs = f"{cell['runs']}" + (f" (+{cell['failed']} failed)" if cell["failed"] else "")
        found.append(
            (cell["fault"], cell["system"], runs, *(f"{t * 1000:.1f}" if t is not None else "-" for t in times))
        )
    return found


def markdown(summary: Mapping[str, Any]) -> str:
    """The table and what each method does, for docs/."""
    lines = ["Milliseconds without an answer, and where they went (medians).", ""]
    lines += ["| " + " | ".join(row) + " |" for row in (_HEADS, ["---"] * len(_HEADS), *rows(summary))]
    lines += [""] + [f"- `{name}`: {does}." for name, does in summary["methods"].items()]
    return "\n".join(lines) + "\n"


def _show(summary: Mapping[str, Any], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, head in enumerate(_HEADS):
        table.add_column(head, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows(summary):
        table.add_row(*row)
    console.print(table)
    for name, does in summary["methods"].items():
        console.print(f"{name}: {does}", highlight=False, soft_wrap=True)
