"""What `tunnelswitch status` shows, and how. Collecting it is the business of `processes.status`."""

from __future__ import annotations

import datetime
import json
import sys

from tunnelswitch.processes.status import CopyStatus, GroupStatus, StatusReport


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
    """For people: three tables, and what an operator has ordered."""
    print(f"cluster {report['cluster']}\n")
    rows = [("GROUP", "EPOCH", "ACTIVE", "STANDBY", "REASON", "SINCE")]
    rows += [_group_row(name, group) for name, group in report["groups"].items()]
    _print_table(rows)
    for name, group in report["groups"].items():
        for line in _orders(name, group):
            print(line)
    rows = [("SERVICE", "SITE", "ROLE", "STATE", "CHECKPOINT", "")]
    rows += [_copy_row(copy) for copy in report["copies"]]
    print()
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


def _orders(name: str, group: GroupStatus) -> list[str]:
    lines = []
    if group.get("paused"):
        since = datetime.datetime.fromtimestamp(group.get("paused_at", 0.0), tz=datetime.UTC)
        who = _clean(group["paused"])
        lines.append(f"{name}: automatic moves are paused since {since.isoformat(sep=' ', timespec='seconds')}, {who}")
    if group.get("drained"):
        lines.append(f"{name}: drained: {', '.join(group['drained'])}")
    return lines


def _copy_row(copy: CopyStatus) -> tuple[str, str, str, str, str, str]:
    if "error" in copy:
        return (copy["service"], copy["site"], "-", "-", "-", _clean(copy["error"]))
    state, sequence = copy["state"], copy["checkpoint_sequence"]
    if state == "syncing" and copy["progress"]:
        state = f"syncing {copy['progress']:.0%}"
    checkpoint = f"{sequence}, {copy['checkpoint_age_seconds']:.2f} s old" if sequence else "-"
    return (copy["service"], copy["site"], copy["role"], state, checkpoint, _clean(copy["why"]))


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _print_table(rows: list[tuple[str, str, str, str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
