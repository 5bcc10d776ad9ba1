"""report.html: one self-contained page that says what failed, how long clients were without service, and why.

It turns summaries and the last run's packets into text and pictures; it computes no figure that
summary.json lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tunnelswitch_lab.measure import charts
from tunnelswitch_lab.measure.charts import Point
from tunnelswitch_lab.measure.runs import RunFiles
from tunnelswitch_lab.measure.summary import MARKS

_WHAT_FAILED = {
    "host-loss": "The active site was lost: its link was cut and every process on it killed.",
    "service-crash": "The active copy of the service was killed; its host stayed alive.",
    "agent-crash": "The agent of the active site was killed; the service itself was left alone.",
    "nats-crash": "The message bus node of the active site was killed.",
    "link-cut:T1": "The link that carries the checkpoints was cut.",
    "link-cut:T2": "The tunnel between the clients' gateway and the active site was cut.",
    "link-cut:underlay": "The active site was cut off the network; its processes stayed alive.",
}


def write_report(path: Path, summary: dict[str, Any], last: RunFiles, title: str = "") -> None:
    """Write the page for a series whose last run is `last`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tunnelswitch_lab.measure", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ms=milliseconds, in_ms=in_milliseconds)
    page = environment.get_template("report.html.j2").render(
        title=title or f"Failover measured: {last.facts.fault}",
        what_failed=_WHAT_FAILED.get(last.facts.fault, f"Fault: {last.facts.fault}."),
        headline=headline(summary),
        summary=summary,
        last=summary["runs"][-1],
        facts=last.facts,
        marks=MARKS[1:],
        passed=not any(run["checks"] for run in summary["runs"]),
        charts=_charts(summary, last),
        capture_packets=len(last.stream.packets),
    )
    path.write_text(page, encoding="utf-8")


def headline(summary: dict[str, Any]) -> str:
    """One sentence: how long the client was without service, by the finest ruler there is."""
    runs, medians = summary["runs"], summary["medians"]
    downtime = medians["probe_downtime_seconds"]
    if downtime is None:
        return "The client got no service back."
    of = "" if len(runs) == 1 else f" (median of {len(runs)} runs)"
    site = runs[-1]["active_site"]
    if runs[-1]["marks"]["first_packet"] is None:
        return f"The client stayed with {site}; its longest silence was {milliseconds(downtime)}{of}."
    return f"The client was without service for {milliseconds(downtime)}{of}, then {site} served it."


def milliseconds(value: float | None) -> str:
    """A duration in seconds as milliseconds, or a dash."""
    return "–" if value is None else f"{value * 1000:.1f} ms"


def in_milliseconds(value: float | None) -> str:
    """The same without the unit, for tables."""
    return "–" if value is None else f"{value * 1000:.1f}"


def _fine_marks(figures: dict[str, Any]) -> dict[str, float | None]:
    """The marks with the probe's first packet, which is not rounded up to the call's 20 ms."""
    marks: dict[str, float | None] = dict(figures["marks"])
    if figures["probe_first_packet_seconds"] is not None:
        marks["first_packet"] = figures["probe_first_packet_seconds"]
    return marks


def _charts(summary: dict[str, Any], last: RunFiles) -> dict[str, Markup]:
    marks, since_fault = summary["runs"][-1]["marks"], last.facts.since_fault_seconds
    points: list[Point] = []
    for packet in last.stream.packets:
        arrival = since_fault(packet.arrived_ns)
        gap = arrival - points[-1].time_seconds if points else 0.0
        points.append(Point(arrival, max(gap, 0.0), packet.jitter_seconds, packet.site))
    sites = list(dict.fromkeys(packet.site for packet in last.stream.packets))
    calls = [(point.time_seconds, point.site) for point in points]
    probes = [(since_fault(probe.received_ns), probe.site) for probe in last.probes]
    rows = [(f"run {run['run']}", _fine_marks(run)) for run in summary["runs"]]
    if len(rows) > 1:
        rows.insert(0, ("median", _fine_marks(summary["medians"])))
    # Drawn by our own code, which escapes what it is given.
    return {
        "over_time": Markup(charts.over_time(points, marks, sites)),
        "the_moment": Markup(charts.the_moment(calls, probes, marks, sites)),
        "phases": Markup(charts.phase_bars(rows)),
    }
