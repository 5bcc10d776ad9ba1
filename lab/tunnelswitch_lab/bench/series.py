"""Cells, their interleaved order, and what many runs of one cell come to. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tunnelswitch_lab.bench.systems import System, label

JUDGED = ("host-loss", 10, "keepalived")  # fault, interval in ms, peer
AT_MOST = 1.5  # times the peer's gap there
PHASES = ("detect", "decide and commit", "switch", "apply", "first packet")


@dataclass
class Cell:
    """One system at one interval under one fault, and its runs so far.

    `gaps` are seconds without an answer, the probe's spacing taken off; a run without recovery is in `problems`.
    """

    system: System
    fault: str
    gaps: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    budgets: list[dict[str, float]] = field(default_factory=list)
    lateness_max_seconds: float = 0.0

    @property
    def name(self) -> str:
        """As in `ours@10 host-loss`."""
        return f"{label(self.system)} {self.fault}"

    def as_json(self) -> dict[str, Any]:
        """One element of `cells` in summary.json."""
        return {
            "system": self.system.name,
            "fault": self.fault,
            "workload": "process",
            "interval_ms": self.system.interval_ms,
            "runs": len(self.gaps),
            "failed": len(self.problems),
            "problems": self.problems,
            "gap_seconds": spread(self.gaps),
            "budget_seconds": budget(self.budgets),
            "probe_lateness_max_seconds": round(self.lateness_max_seconds, 6),
            "does_not": self.system.does_not,
        }


def cells_of(systems: Iterable[System]) -> list[Cell]:
    """Every system under every fault that it can notice, faults first: neighbours in time are peers."""
    chosen = list(systems)
    faults = dict.fromkeys(fault for system in chosen for fault in system.faults)
    return [Cell(system, fault) for fault in faults for system in chosen if fault in system.faults]


def interleaved(cells: Sequence[Cell], runs: int) -> list[tuple[int, Cell]]:
    """(Round, cell) in the order of measuring: A B C A B C, so that a slow minute of the machine meets all alike."""
    return [(number, cell) for number in range(1, runs + 1) for cell in cells]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Median, 95th percentile (nearest rank) and maximum; None without values."""
    if not values:
        return {"median": None, "p95": None, "max": None}
    ordered = sorted(values)
    rank = math.ceil(0.95 * len(ordered)) - 1
    figures = {"median": median(ordered), "p95": ordered[rank], "max": ordered[-1]}
    return {name: round(value, 6) for name, value in figures.items()}


def phases(marks: Mapping[str, float | None], first_packet: float | None) -> dict[str, float]:
    """Where the time of one of our runs went, in seconds; empty unless every mark is there.

    Marks are seconds from the fault. The phases add up to the first packet; promotion runs beside the switch.
    """
    names = ("verdict", "committed", "switched", "applied")
    times = [marks.get(name) for name in names]
    if first_packet is None or any(time is None for time in times):
        return {}
    moments = [0.0, *(time for time in times if time is not None), first_packet]
    return {name: moments[n + 1] - moments[n] for n, name in enumerate(PHASES)}


def budget(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of each phase over the runs that have it, in the order of the phases."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: round(median([run[name] for run in runs if name in run]), 6) for name in names}


def is_judged(cells: Iterable[Mapping[str, Any]]) -> bool:
    """Were both cells of the judged ratio measured? `cells` as in summary.json."""
    fault, interval_ms, peer = JUDGED
    systems = {cell["system"] for cell in cells if (cell["fault"], cell["interval_ms"]) == (fault, interval_ms)}
    return {"tunnelswitch", peer} <= systems


def ratios(cells: Iterable[Cell], of: str, to: str) -> list[dict[str, Any]]:
    """Our medians over the peer's, wherever both measured the same fault at the same interval."""
    medians = {(c.system.name, c.fault, c.system.interval_ms): spread(c.gaps)["median"] for c in cells}
    found = []
    for (name, fault, interval_ms), ours in medians.items():
        theirs = medians.get((to, fault, interval_ms))
        if name == of and ours is not None and theirs:
            judged = AT_MOST if (fault, interval_ms, to) == JUDGED else None
            ratio = round(ours / theirs, 3)
            found.append(
                {"of": of, "to": to, "fault": fault, "interval_ms": interval_ms, "ratio": ratio, "at_most": judged}
            )
    return found
