"""The figures of cycles: for every failover and failback how long clients were without service and what state was lost.

Pure, apart from reading what was recorded. Times are in seconds since 1970.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.measure.copies import Answer, overlap, rollback
from tunnelswitch_lab.measure.events import BusEvent, read_events
from tunnelswitch_lab.measure.gaps import largest_gap
from tunnelswitch_lab.measure.runs import CAPTURE, EVENTS, PROBE_TRACE, read_stream
from tunnelswitch_lab.measure.story import record_of, stamp_epoch
from tunnelswitch_lab.workload.probe import PROBE_SPACING_SECONDS
from tunnelswitch_lab.workload.trace import Received, read_trace

BEFORE_SECONDS, AFTER_SECONDS = 0.5, 1.5


@dataclass(frozen=True, slots=True)
class Moments:
    """One cycle: when the host or its copy was lost, when it was repaired, when all was as before."""

    number: int
    lost_at: float
    repaired_at: float
    whole_at: float


@dataclass(frozen=True, slots=True)
class _Move:
    at: float
    active: str
    reason: str
    epoch: int


def summarise(directory: Path, service: tuple[str, int], moments: list[Moments], verdict: str) -> dict[str, Any]:
    """The content of summary.json. `verdict` is what each loss must lead to; the way back is an operator's wish, the
    policy's."""
    moves = _moves(list(read_events(directory / EVENTS)))
    probes = [record for record in read_trace(directory / PROBE_TRACE) if isinstance(record, Received)]
    arrivals = sorted(probe.received_ns / 1e9 for probe in probes)
    packets = read_stream(directory / CAPTURE, service).packets
    answers = [(p.arrived_ns / 1e9, Answer(p.sequence, p.run, p.site, p.counter)) for p in packets]
    primary, secondary = names.SERVERS
    cycles: list[dict[str, Any]] = []
    problems: list[str] = []
    for moment in moments:
        mine = [move for move in moves if moment.lost_at <= move.at <= moment.whole_at]
        expected = [(secondary, verdict), (primary, "operator")]
        if [(move.active, move.reason.replace("_", "-")) for move in mine] != expected:
            told = ", ".join(f"{move.active} ({move.reason})" for move in mine) or "nothing"
            problems.append(f"cycle {moment.number}: {told} instead of one failover and one failback")
            continue
        over = _figures(mine[0], moment.lost_at, arrivals, answers)
        back = _figures(mine[1], mine[1].at, arrivals, answers)
        cycles.append(
            {
                "cycle": moment.number,
                "failover": over,
                "failback": back,
                "back_after_seconds": round(mine[1].at - moment.repaired_at, 3),
            }
        )
        if back["state_rollback_packets"]:
            lost = back["state_rollback_packets"]
            problems.append(f"cycle {moment.number}: the failback lost the state of {lost} answered packets")
    wrong = overlap([answer for _, answer in answers], replays=True)
    if wrong:
        problems.append(f"{wrong} answers came from a copy that had been replaced")
    return {
        "cycles": cycles,
        "medians": {
            way: _median([cycle[way]["downtime_seconds"] for cycle in cycles]) for way in ("failover", "failback")
        },
        "problems": problems,
    }


def _moves(events: list[BusEvent]) -> list[_Move]:
    """Every change of the active site, in order, by the epoch store's word."""
    found: dict[int, _Move] = {}
    active = names.SERVERS[0]
    for event in events:
        record = record_of(event) if event.kind == "record" else {}
        epoch = stamp_epoch(record.get("stamp"))
        if epoch is not None and epoch not in found and record.get("active") != active:
            active = str(record.get("active"))
            found[epoch] = _Move(event.received_at, active, str(record.get("reason")), epoch)
    return list(found.values())


def _figures(
    move: _Move, began_at: float, arrivals: list[float], answers: list[tuple[float, Answer]]
) -> dict[str, Any]:
    begin, end = began_at - BEFORE_SECONDS, move.at + AFTER_SECONDS
    gap = largest_gap(at for at in arrivals if begin <= at <= end)
    lost = rollback([answer for at, answer in answers if begin <= at <= end])
    return {
        "epoch": move.epoch,
        "reason": move.reason,
        "downtime_seconds": round(gap.downtime_seconds(PROBE_SPACING_SECONDS), 6) if gap else None,
        "state_rollback_packets": lost,
    }


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 6) if known else None


def lines(summary: dict[str, Any], out: Path) -> list[str]:
    """What matters of summary.json, for the one who waited for it."""
    told = ["cycle  failover ms  state  failback ms  state  back after s"]
    for cycle in summary["cycles"]:
        cells = [f"{cycle['cycle']:<5}"]
        for way, width in (("failover", 12), ("failback", 12)):
            seconds, lost = cycle[way]["downtime_seconds"], cycle[way]["state_rollback_packets"]
            cells += [
                f"{'-' if seconds is None else f'{seconds * 1000:.1f}':>{width}}",
                f"{'-' if lost is None else lost:>6}",
            ]
        told.append(" ".join([*cells, f"{cycle['back_after_seconds']:>13.1f}"]))
    medians = {way: summary["medians"][way] for way in ("failover", "failback")}
    told.append(
        "medians: "
        + ", ".join(
            f"{way} {'-' if seconds is None else f'{seconds * 1000:.1f} ms'}" for way, seconds in medians.items()
        )
    )
    told += [f"NOT as it must be: {problem}" for problem in summary["problems"]]
    return [*told, f"everything: {out / 'summary.json'}"]
