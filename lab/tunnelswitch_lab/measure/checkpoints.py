"""What checkpoints cost, from one run's files: their period, pause and size, and how long clients wait for answers.

Pure, apart from reading the clients' traces. Only what lies before the fault counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from tunnelswitch_lab.measure.events import BusEvent
from tunnelswitch_lab.measure.runs import PROBE_TRACE, RTP_TRACE, RunFiles
from tunnelswitch_lab.workload.trace import Sent, read_trace

_CHECKPOINT = "checkpoint"


def checkpoint_figures(files: RunFiles, directory: Path, seconds: float) -> dict[str, Any]:
    """Of the last `seconds` before the fault; times in seconds. What was not seen is None."""
    until, since = files.facts.fault_at, files.facts.fault_at - seconds
    told = [event for event in _checkpoints(files.events) if since <= event.sent_at < until]
    pauses = [float(event.data["pause_seconds"]) for event in told]
    sizes = [int(event.data["bytes"]) for event in told]
    times = [event.sent_at for event in told]
    periods = [after - before for before, after in pairwise(times)]
    figures: dict[str, Any] = {
        "checkpoints": len(told),
        "period_median_seconds": quantile(periods, 0.5),
        "period_p95_seconds": quantile(periods, 0.95),
        "pause_mean_seconds": mean(pauses) if pauses else None,
        "pause_p95_seconds": quantile(pauses, 0.95),
        "bytes_median": quantile(sizes, 0.5),
    }
    for flow, name in (("call", RTP_TRACE), ("probe", PROBE_TRACE)):
        waited = waits(directory / name, round(since * 1e9), round(until * 1e9))
        for what, share in (("median", 0.5), ("p95", 0.95), ("max", 1.0)):
            figures[f"{flow}_rtt_{what}_seconds"] = quantile(waited, share)
    return figures


def waits(trace: Path, since_ns: int, until_ns: int) -> list[float]:
    """How long each packet sent in this time waited for its first answer, in seconds; the unanswered ones are left out.

    Raises:
        OSError: there is no trace.
        TraceError: it is none.
    """
    sent: dict[int, int] = {}
    found = []
    for record in read_trace(trace):
        if isinstance(record, Sent):
            sent[record.sequence] = record.sent_ns
            continue
        sent_ns = sent.pop(record.sequence, 0)  # of a second answer nothing is left
        if since_ns <= sent_ns and record.received_ns < until_ns:
            found.append((record.received_ns - sent_ns) / 1e9)
    return found


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of all lie, of those that occurred; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _checkpoints(events: Iterable[BusEvent]) -> Iterable[BusEvent]:
    return (event for event in events if event.kind == _CHECKPOINT and event.data.get("role") == "active")
