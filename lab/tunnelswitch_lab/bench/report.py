"""The bench in a file for machines, a table for people, and the budget of our own time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tunnelswitch_lab.bench.cases import Told
from tunnelswitch_lab.bench.series import Cell, ratios

OURS = "tunnelswitch"
PEERS = ("keepalived", "keepalived-script", "ovs-bfd-group", "frr-bfd-bgp", "pacemaker")


def summarise(cells: Sequence[Cell], told: Sequence[Told], environment: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json."""
    return {
        "cells": [cell.as_json() for cell in cells],
        "ratios": [ratio for peer in PEERS for ratio in ratios(cells, OURS, peer)],
        "cases": [one.as_json() for one in told],
        "order": "interleaved: every cell once, then every cell again",
        "environment": environment,
    }


def write(out: Path, summary: dict[str, Any]) -> None:
    """Write summary.json and table.md below `out`. Raises OSError."""
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(markdown(summary), encoding="utf-8")


def rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """System, interval, fault, runs, median, p95, maximum, ratio to ours' peer, in milliseconds where it is time."""
    of_ours = {(r["fault"], r["interval_ms"], r["to"]): r["ratio"] for r in summary["ratios"]}
    found: list[tuple[str, ...]] = []
    for cell in summary["cells"]:
        gap = cell["gap_seconds"]
        runs = f"{cell['runs']}" + (f" (+{cell['failed']} failed)" if cell["failed"] else "")
        ratio = of_ours.get((cell["fault"], cell["interval_ms"], cell["system"]))
        figures = (_ms(gap["median"]), _ms(gap["p95"]), _ms(gap["max"]), f"{ratio:.2f}" if ratio else "")
        found.append((cell["fault"], cell["system"], f"{cell['interval_ms']:g}", runs, *figures))
    return found


HEADS = ("fault", "system", "interval", "runs", "median", "p95", "max", "ours / it")


def markdown(summary: dict[str, Any]) -> str:
    """The table, the budget and what each does not do, for docs/."""
    lines = ["Milliseconds without an answer.", ""]
    lines += [_row(HEADS), _row(["---"] * len(HEADS)), *map(_row, rows(summary))]
    lines += ["", "| system | does not |", "|---|---|"]
    told = {cell["system"]: cell["does_not"] for cell in summary["cells"]}
    lines += [_row(pair) for pair in told.items()]
    for cell in summary["cells"]:
        if cell["budget_seconds"]:
            parts = ", ".join(f"{name} {_ms(value)}" for name, value in cell["budget_seconds"].items())
            lines += ["", f"{cell['system']} at {cell['interval_ms']:g} ms, {cell['fault']} (medians, ms): {parts}."]
    lines += _cases(summary["cases"])
    return "\n".join(lines) + "\n"


def _cases(cases: Sequence[dict[str, Any]]) -> list[str]:
    """A table per case: who answered the client, in order, as its packets tell."""
    lines = []
    for case in dict.fromkeys(one["case"] for one in cases):
        these = [one for one in cases if one["case"] == case]
        lines += ["", f"**{case}**: {these[0]['does']}.", "", _row(("system", "interval", "the client is answered by"))]
        lines += [_row(["---"] * 3)]
        lines += [_row((one["system"], f"{one['interval_ms']:g}", one["in_short"])) for one in these]
    return lines


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the table; what each system does not do below it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, head in enumerate(HEADS):
        table.add_column(head, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows(summary):
        table.add_row(*row)
    console.print(table)
    for system, text in {cell["system"]: cell["does_not"] for cell in summary["cells"]}.items():
        console.print(f"{system} does not {text}", highlight=False, soft_wrap=True)
    for cell in summary["cells"]:
        if cell["budget_seconds"]:
            parts = ", ".join(f"{name} {_ms(value)}" for name, value in cell["budget_seconds"].items())
            console.print(f"{cell['system']}@{cell['interval_ms']:g} {cell['fault']}: {parts}", highlight=False)
    for case in summary["cases"]:
        line = f"{case['case']}: {case['system']}@{case['interval_ms']:g}: {case['in_short']}"
        console.print(line, highlight=False, soft_wrap=True)


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"
