"""What is measured at each distance, and what many runs of it come to. Pure.

A failover far away takes what detection takes, and then one and a half round trips: the commit waits for the nearest
other site that still stands, the clients' first packet goes there and back; half a trip of that the last answers of
the old copy are still on their way, and nobody misses them. `SPARE_SECONDS` is for everything that is no distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tunnelswitch_lab.bench.series import budget, phases, spread
from tunnelswitch_lab.distance.distances import Distance
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS

TRIPS = 1.5
SPARE_SECONDS = 0.030
FAULTS = ("host-loss", "service-crash")
VM_INTERVALS_MS = (100.0, 40.0)
# Of each run; a cell has their medians.
_COSTS = (
    "period_median_seconds",
    "pause_mean_seconds",
    "pause_p95_seconds",
    "bytes_median",
    "t1_bits_per_second",
    "call_rtt_median_seconds",
)


@dataclass
class Cell:
    """One workload with its checkpoint interval under one fault at one distance, and the figures of its runs so far.

    `runs` are as `measure.summary.summarise_run` makes them, with what checkpoints cost; `failed` says why others have
    no figures, `unprovoked` which of them moved before the fault.
    """

    distance: Distance
    workload: str
    interval_ms: float
    fault: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unprovoked: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As in `continental vm@100 host-loss`."""
        return f"{self.distance.name} {self.workload}@{self.interval_ms:g} {self.fault}"


def cells_of(distances: Iterable[Distance], workloads: Sequence[str]) -> list[Cell]:
    """All faults for every workload at its own interval, and of a machine the shorter one too, where checkpoints are
    what is of interest. Distances are neighbours in time."""
    kinds = [(name, CHECKPOINT_INTERVALS_MS[name], fault) for name in workloads for fault in FAULTS]
    if "vm" in workloads:
        kinds += [("vm", interval, FAULTS[1]) for interval in VM_INTERVALS_MS if interval != kinds[-1][1]]
    places = list(distances)
    return [Cell(distance, *kind) for kind in kinds for distance in places]


def allowed_seconds(distance: Distance, detection_seconds: float) -> float:
    """The most that clients may be without service."""
    return detection_seconds + TRIPS * distance.rtt_seconds + SPARE_SECONDS


def failover(cell: Cell) -> dict[str, Any]:
    """Downtime and its phases over a cell's runs; None where nothing was seen.

    `downtime_seconds` is the probe's, `call_downtime_seconds` the call's, which sends every 20 ms only.
    """
    down = _all(cell, "probe_downtime_seconds")
    detection = spread(_values(run["marks"]["verdict"] for run in cell.runs))
    most = None if detection["median"] is None else allowed_seconds(cell.distance, detection["median"])
    downtime = spread(down)
    holds = None if most is None or downtime["median"] is None else downtime["median"] <= most
    return {
        "distance": cell.distance.name,
        "workload": cell.workload,
        "checkpoint_interval_ms": cell.interval_ms,
        "fault": cell.fault,
        "runs": len(cell.runs),
        "downtime_seconds": downtime,
        "call_downtime_seconds": spread(_all(cell, "downtime_seconds")),
        "detection_seconds": detection,
        "phases_seconds": budget([phases(run["marks"], run["probe_first_packet_seconds"]) for run in cell.runs]),
        "after_detection_trips": _trips(cell),
        "allowed_seconds": None if most is None else round(most, 6),
        "holds": holds,
        "unprovoked_failovers": cell.unprovoked,
        "problems": cell.failed + [f"run {run['run']}: {check}" for run in cell.runs for check in run["checks"]],
    }


def _trips(cell: Cell) -> float | None:
    """How many round trips the median run was without service after the verdict; None where there is no distance."""
    after = [
        run["probe_downtime_seconds"] - run["marks"]["verdict"]
        for run in cell.runs
        if run["probe_downtime_seconds"] is not None and run["marks"]["verdict"] is not None
    ]
    return round(median(after) / cell.distance.rtt_seconds, 2) if after and cell.distance.rtt_seconds else None


def t1_bits_per_second(figures: Mapping[str, Any]) -> float | None:
    """What checkpoints carry over T1: the median one, each median period."""
    size, period = figures["bytes_median"], figures["period_median_seconds"]
    return size * 8 / period if size is not None and period else None


def costs(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What checkpoints cost, by distance, workload and interval: medians over the runs of all faults."""
    found: dict[tuple[str, str, float], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.distance.name, cell.workload, cell.interval_ms), []).append(cell)
    rows = []
    for (distance, workload, interval), same in found.items():
        row: dict[str, Any] = {"distance": distance, "workload": workload, "checkpoint_interval_ms": interval}
        row["runs"] = sum(len(cell.runs) for cell in same)
        for key in _COSTS:
            values = [value for cell in same for value in _all(cell, key)]
            row[key] = round(median(values), 6) if values else None
        rows.append(row)
    return rows


def _all(cell: Cell, key: str) -> list[float]:
    return _values(run.get(key) for run in cell.runs)


def _values(found: Iterable[float | None]) -> list[float]:
    return [value for value in found if value is not None]
