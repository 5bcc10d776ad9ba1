"""The summary of a measurement over distances, and its tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tunnelswitch_lab.bench.series import PHASES
from tunnelswitch_lab.distance.announcing import Announced, GarpBetweenSubnets
from tunnelswitch_lab.distance.cells import SPARE_SECONDS, TRIPS, Cell, costs, failover
from tunnelswitch_lab.distance.distances import Distance, Line
from tunnelswitch_lab.wan import Shaping

_FAILOVER_HEADS = (
    *("distance", "RTT ms", "workload", "fault", "runs", "without service ms", "p95", "call ms", "detection ms"),
    *PHASES[1:],
    *("at most ms", "holds"),
)
_COST_HEADS = ("distance", "workload", "interval ms", "period ms", "pause ms", "p95", "KiB", "T1 Mbit/s", "call RTT ms")
_ANNOUNCE_HEADS = ("distance", "method", "decided for", "without service ms")


def summarise(
    distances: Sequence[Distance],
    line: Line,
    cells: Sequence[Cell],
    announced: Sequence[Announced],
    shapings: Mapping[str, Shaping],
) -> dict[str, Any]:
    """The content of summary.json but for the environment. Times in seconds."""
    failovers, checkpoints = [failover(cell) for cell in cells], costs(cells)
    places = []
    for distance in distances:
        weather, shaping = line.weather(distance), shapings.get(distance.name)
        places.append(
            {
                "name": distance.name,
                "rtt_seconds": distance.rtt_seconds,
                "weather": None if weather is None else asdict(weather),
                "shaping": None if weather is None else shaping.kind if shaping else "none",
                "relay": shaping.told if shaping else {},
                "failover": _of(distance, failovers),
                "checkpoints": _of(distance, checkpoints),
                "announcements": _of(distance, map(asdict, announced)),
            }
        )
    kinds = {shaping.kind for shaping in shapings.values()}
    return {
        "distances": places,
        "shaping": kinds.pop() if len(kinds) == 1 else None,
        "order": "interleaved: every cell once, then every cell again",
        "requirement": {"trips": TRIPS, "spare_seconds": SPARE_SECONDS},
        "runs": {cell.name: cell.runs for cell in cells},
        "problems": problems(failovers, announced),
    }


def _of(distance: Distance, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["distance"] == distance.name]


def problems(failovers: Iterable[Mapping[str, Any]], announced: Iterable[Announced]) -> list[str]:
    """What is not as it must be, in plain words. That an announcement does not cross a router is as it must be, and
    that a process is without service for no longer than distance makes it; a machine may be paused when it is lost."""
    wrong = []
    for row in failovers:
        head = f"{row['distance']} {row['workload']}@{row['checkpoint_interval_ms']:g} {row['fault']}"
        wrong += [f"{head}: {problem}" for problem in row["problems"]]
        if not row["runs"]:
            wrong.append(f"{head}: no run")
        elif row["holds"] is False and row["workload"] == "process":
            downtime, most = row["downtime_seconds"]["median"], row["allowed_seconds"]
            wrong.append(f"{head}: {downtime * 1e3:.1f} ms without service, more than {most * 1e3:.1f}")
    for seen in announced:
        if seen.problem:
            wrong.append(f"{seen.distance} {seen.method}: {seen.problem}")
        elif seen.moved_to is None:
            wrong.append(f"{seen.distance} {seen.method}: nothing was decided, so nothing was announced")
        elif seen.answered is (seen.method == GarpBetweenSubnets.name):
            wrong.append(f"{seen.distance} {seen.method}: clients were {'' if seen.answered else 'not '}answered")
    return wrong


def failover_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the first table, in milliseconds."""
    rows = []
    for place in summary["distances"]:
        for row in place["failover"]:
            down, spent = row["downtime_seconds"], row["phases_seconds"]
            times = [down["median"], down["p95"], row["call_downtime_seconds"]["median"]]
            times += [row["detection_seconds"]["median"], *(spent.get(name) for name in PHASES[1:])]
            workload = f"{row['workload']} @{row['checkpoint_interval_ms']:g}"
            holds = {True: "yes", False: "**no**", None: "-"}[row["holds"]]
            head = (place["name"], _ms(place["rtt_seconds"], 0), workload, row["fault"], str(row["runs"]))
            rows.append((*head, *map(_ms, times), _ms(row["allowed_seconds"]), holds))
    return rows


def cost_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the second."""
    rows = []
    for place in summary["distances"]:
        for row in place["checkpoints"]:
            size, rate = row["bytes_median"], row["t1_bits_per_second"]
            head = (place["name"], row["workload"], f"{row['checkpoint_interval_ms']:g}")
            times = (row["period_median_seconds"], row["pause_mean_seconds"], row["pause_p95_seconds"])
            kib = "-" if size is None else f"{size / 1024:.1f}"
            mbit = "-" if rate is None else f"{rate / 1e6:.2f}"
            rows.append((*head, *map(_ms, times), kib, mbit, _ms(row["call_rtt_median_seconds"])))
    return rows


def announcement_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the third."""
    rows: list[tuple[str, ...]] = []
    for place in summary["distances"]:
        for seen in place["announcements"]:
            told = "failed" if seen["problem"] else f"no answer in {seen['watched_seconds']:.0f} s"
            if seen["downtime_seconds"] is not None:
                told = _ms(seen["downtime_seconds"])
            rows.append((place["name"], seen["method"], seen["moved_to"] or "nobody", told))
    return rows


def markdown(summary: Mapping[str, Any]) -> str:
    """All tables, for docs/."""
    shaping = summary["shaping"] or "nothing"
    parts = [
        f"Medians in milliseconds; the WAN is made by {shaping}. "
        f"At most: detection and {TRIPS:g} round trips and {SPARE_SECONDS * 1e3:.0f} ms.",
        _table(_FAILOVER_HEADS, failover_rows(summary)),
        "Checkpoints over T1, medians of all runs' figures:",
        _table(_COST_HEADS, cost_rows(summary)),
    ]
    if rows := announcement_rows(summary):
        parts += ["Gratuitous ARP after a lost host, one run each:", _table(_ANNOUNCE_HEADS, rows)]
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ms(seconds: float | None, digits: int = 1) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.{digits}f}"
