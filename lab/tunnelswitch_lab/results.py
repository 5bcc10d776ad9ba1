"""What a series leaves behind: summary.json, the last run's capture, all bus events, the report, and a table."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.measure.report import headline, write_report
from tunnelswitch_lab.measure.runs import CAPTURE, EVENTS, RunFiles


def run_directory(out: Path, number: int) -> Path:
    """Where run `number` of a series keeps its files."""
    return out / "runs" / f"{number:02}"


def prepare(out: Path) -> None:
    """Make the directory of a series and remove an earlier series' results from it. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "runs", ignore_errors=True)
    for name in ("summary.json", "report.html", CAPTURE, EVENTS):
        (out / name).unlink(missing_ok=True)


def write(out: Path, summary: dict[str, Any], last: RunFiles) -> None:
    """Write the results of a series. Raises OSError."""
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(run_directory(out, last.facts.number) / CAPTURE, out / CAPTURE)
    with (out / EVENTS).open("wb") as everything:
        for run in summary["runs"]:
            with (run_directory(out, run["run"]) / EVENTS).open("rb") as events:
                shutil.copyfileobj(events, everything)
    write_report(out / "report.html", summary, last)


def show(out: Path, summary: dict[str, Any], console: Console) -> None:
    """Print the series as a table, with what is wrong below it, and where the report is."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("run", "verdict", "serves\nnow"):
        table.add_column(column)
    # Narrow on purpose: it must fit 80 columns. The report has the rest.
    for column in ("probe\nms", "pcap\nms", "agents\nms", "lost", "roll-\nback"):
        table.add_column(column, justify="right")
    table.add_column("checks")
    for run in summary["runs"]:
        words = [str(run["run"]), run["verdict"], run["active_site"] or "-"]
        table.add_row(*words, *_figures(run), "[red]failed[/]" if run["checks"] else "[green]passed[/]")
    if len(summary["runs"]) > 1:
        table.add_section()
        table.add_row("median", "", "", *_figures(summary["medians"]), "", style="bold")
    console.print(headline(summary), style="bold", highlight=False, soft_wrap=True)
    console.print(table)
    for run in summary["runs"]:
        for check in run["checks"]:
            console.print(f"run {run['run']}: {check}", style="red", highlight=False, soft_wrap=True)
    for line in summary["unprovoked_failovers"]:
        console.print(f"false failover, {line}", style="yellow", highlight=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def worst_lateness(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The worst lateness of each loop over a series."""
    worst: dict[str, float] = {}
    for run in runs:
        for name, value in run["lateness"].items():
            if value is not None:
                worst[name] = max(worst.get(name, 0.0), value)
    return worst


def keep_logs(layout: Layout, directory: Path) -> None:
    """Copy what every process of the lab has said until now to `directory`/logs: the next run begins new logs."""
    logs = [log for pattern in ("*.log", "*/*.log") for log in layout.directory.glob(pattern)]  # not below the stores
    for log in logs:
        place = directory / "logs" / log.relative_to(layout.directory)
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log, place)


def in_short(figures: dict[str, Any]) -> str:
    """One run in a few words."""
    if figures["checks"]:
        return f"NOT as it must be: {'; '.join(figures['checks'])}"
    milliseconds = (figures["probe_downtime_seconds"] or 0.0) * 1000
    if figures["marks"]["first_packet"] is None:
        return f"stayed with {figures['active_site']}, longest silence {milliseconds:.1f} ms"
    return f"{milliseconds:.1f} ms without service, verdict {figures['verdict']}, then {figures['active_site']}"


def _figures(row: dict[str, Any]) -> list[str]:
    def in_milliseconds(key: str) -> str:
        return "-" if row[key] is None else f"{row[key] * 1000:.1f}"

    def count(key: str) -> str:
        return "-" if row[key] is None else f"{row[key]:g}"

    downtimes = [in_milliseconds(f"{who}downtime_seconds") for who in ("probe_", "", "agent_")]
    return [*downtimes, count("lost_packets"), count("state_rollback_packets")]
