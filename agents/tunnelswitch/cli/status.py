"""What `tunnelswitch status` shows, and how. Collecting it is the business of `processes.status`."""

from __future__ import annotations

import datetime
import json
import sys

from tunnelswitch.processes.status import GroupStatus, StatusReport


def is_well(report: StatusReport) -> bool:
    """Every record could be read, and every process is ready."""
    return not any("error" in group for group in report["groups"].values()) and all(
        process.get("ready", False) for process in report["processes"]
    )


def print_json(report: StatusReport) -> None:
    """For other programs."""
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_pretty(report: StatusReport) -> None:
    """For people: two tables."""
    print(f"cluster {report['cluster']}\n")
    rows = [("GROUP", "EPOCH", "ACTIVE", "STANDBY", "REASON", "SINCE")]
    rows += [_group_row(name, group) for name, group in report["groups"].items()]
    _print_table(rows)
    rows = [("SITE", "PROCESS", "ADDRESS", "STATE", "", "")]
    for process in report["processes"]:
        why = process.get("error") or "; ".join(process.get("reasons", []))
        state = "ready" if process.get("ready") else "no answer" if process.get("error") else "not ready"
        rows.append((process["site"], process["process"], process["address"], state, _clean(why), ""))
    print()
    _print_table(rows)


def _group_row(name: str, group: GroupStatus) -> tuple[str, str, str, str, str, str]:
    if "error" in group:
        return (name, "-", "-", "-", _clean(group["error"]), "-")
    since = "-"
    if group.get("decided_at"):
        moment = datetime.datetime.fromtimestamp(group["decided_at"], tz=datetime.UTC)
        since = moment.isoformat(sep=" ", timespec="milliseconds")
    standby = "in sync" if group.get("in_sync") else "none in sync"
    return (name, group.get("stamp", "-"), group.get("active", "-"), standby, group.get("reason", "-"), since)


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _print_table(rows: list[tuple[str, str, str, str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
