"""What the matrix leaves behind: summary.json, the same as a table for documents, and a table for the eye."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tunnelswitch_lab.matrix.judging import Judgement
from tunnelswitch_lab.options import LabOptions

if TYPE_CHECKING:
    from tunnelswitch_lab.matrix.running import Outcome

SUMMARY, TABLE = "summary.json", "table.md"


def summarise(
    outcomes: Sequence[Outcome],
    lab: LabOptions,
    unprovoked: Sequence[str],
    environment: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The content of summary.json. `unprovoked` tells of false failovers before a fault; those cases were run again."""
    faults = [_fault(outcome) for outcome in outcomes]
    return {
        "faults": faults,
        "passed": sum(fault["passed"] for fault in faults),
        "failed": sum(not fault["passed"] for fault in faults),
        "detection": {"interval_seconds": lab.interval_seconds, "multiplier": lab.multiplier},
        "unprovoked_failovers": list(unprovoked),
        "duration_seconds": round(seconds, 1),
        "environment": environment,
    }


def _fault(outcome: Outcome) -> dict[str, Any]:
    case, judgement = outcome.case, outcome.judgement
    return {
        "name": case.name,
        "does": case.does,
        "expected": {
            "verdict": case.expected.verdict.value,
            "another_verdict": case.expected.another.value if case.expected.another else None,
            "copies": list(case.expected.copies),
            "clients": case.expected.clients.value,
            "says": case.expected.says,
        },
        "seen": {
            "verdict": judgement.verdict,
            "copies": [stretch.site for stretch in judgement.served],
            "unanswered_packets": judgement.unanswered,
        },
        "passed": not judgement.problems,
        "problems": judgement.problems,
        "downtime_seconds": round(judgement.downtime_seconds, 4),
        "copies_seen": [_rounded(asdict(stretch)) for stretch in judgement.served],
        "epochs": outcome.epochs,
        "acts": [{"at_seconds": at, "does": does} for at, does in outcome.acts],
        "duration_seconds": round(outcome.seconds, 1),
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}


def write(out: Path, summary: dict[str, Any]) -> None:
    """Write summary.json and table.md. Raises OSError."""
    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (out / TABLE).write_text(markdown(summary), encoding="utf-8")


def in_short(judgement: Judgement) -> str:
    """How one case ended, in a few words."""
    if judgement.problems:
        return f"FAILED: {'; '.join(judgement.problems)}"
    copies = ", then ".join(stretch.site for stretch in judgement.served)
    return f"{copies}; {judgement.downtime_seconds * 1000:.0f} ms without service, verdict {judgement.verdict}"


def markdown(summary: dict[str, Any]) -> str:
    """The table of docs/faults.md."""
    rows = ["| fault | verdict | served by | epochs | without service, ms | call lost |", "|---|---|---|---|---|---|"]
    rows += [f"| {' | '.join(_cells(fault))} |" for fault in summary["faults"]]
    return "\n".join(rows) + "\n"


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the table, what is wrong below it, and the count."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("fault", "verdict", "served by"):
        table.add_column(column, overflow="fold")  # names are to be copied: never cut them
    for column in ("epochs", "down\nms", "call\nlost"):
        table.add_column(column, justify="right")
    table.add_column("")
    for fault in summary["faults"]:
        table.add_row(*_cells(fault), "[green]passed[/]" if fault["passed"] else "[red]FAILED[/]")
    console.print(table)
    for fault in summary["faults"]:
        for problem in fault["problems"]:
            console.print(f"{fault['name']}: {problem}", style="red", highlight=False, soft_wrap=True)
    for line in summary["unprovoked_failovers"]:
        console.print(f"false failover, {line}", style="yellow", highlight=False, soft_wrap=True)
    total = summary["passed"] + summary["failed"]
    console.print(
        f"{summary['passed']} of {total} faults ended as they must; {summary['duration_seconds']:.0f} s in all",
        style="bold",
        highlight=False,
    )


def _cells(fault: dict[str, Any]) -> list[str]:
    ends = "" if fault["expected"]["clients"] != "unserved" else ", then nobody"
    return [
        fault["name"],
        fault["seen"]["verdict"],
        ", ".join(_folded(fault["seen"]["copies"])) + ends,
        ", ".join(map(str, fault["epochs"])),
        f"{fault['downtime_seconds'] * 1000:.0f}",
        str(fault["seen"]["unanswered_packets"]),
    ]


def _folded(sites: Iterable[str]) -> list[str]:
    found: list[str] = []
    for site in sites:
        if found[-1:] != [site]:
            found.append(site)
    return found
