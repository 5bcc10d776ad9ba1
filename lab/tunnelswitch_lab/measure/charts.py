"""The report's pictures: gap and jitter over time (the paper's Fig. 4), the moment itself, and where the
time went.

Pure: figures in, SVG text out. Times are in seconds from the fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunnelswitch_lab.measure import svg
from tunnelswitch_lab.measure.svg import Scale

WIDTH = 960.0
_LEFT, _RIGHT = 64.0, 16.0
PHASES = ("detect", "decide", "commit", "switch", "promote", "first packet")
_MARK_LABELS = {
    "fault": "fault",
    "path_down": "path down",
    "bus_silent": "bus silent",
    "verdict": "verdict",
    "committed": "committed",
    "switched": "switched",
    "applied": "applied",
    "promoted": "promoted",
    "first_packet": "first packet",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One reply: when it came, how long after the one before, the running jitter, and who sent it."""

    time_seconds: float
    gap_seconds: float
    jitter_seconds: float
    site: str


Marks = Mapping[str, float | None]


def phases(marks: Marks) -> list[tuple[str, float]]:
    """The parts of an outage as (name, seconds), from the marks that there are; empty without a first packet.

    detect: until the evidence is there; decide: until the verdict; commit: until the epoch is stored;
    switch: until the switch forwards to the other site; promote: what the new copy, which resumes meanwhile, still
    takes then; first packet: until the client hears from there.
    """
    first_packet = marks.get("first_packet")
    if first_packet is None:
        return []
    seen = [value for name in ("path_down", "bus_silent") if (value := marks.get(name)) is not None]
    verdict = marks.get("verdict")
    detected = min(max(seen), verdict) if seen and verdict is not None else verdict
    applied = marks.get("applied")
    ends = (
        detected,
        verdict,
        marks.get("committed"),
        applied if applied is not None else marks.get("switched"),
        marks.get("promoted"),
        first_packet,
    )
    parts, reached = [], 0.0
    for name, end in zip(PHASES, ends, strict=True):
        if end is None or (name == "promote" and end <= reached):
            continue
        # A confirmation may come after the packet that it allowed; the outage was over then.
        parts.append((name, max(0.0, min(end, first_packet) - reached)))
        reached = max(reached, min(end, first_packet))
    return parts


def over_time(points: Sequence[Point], marks: Marks, sites: Sequence[str]) -> str:
    """Gap before each packet and jitter after it, over time, with the outage shaded."""
    shown_to = max(2.0, (marks.get("first_packet") or 0.0) + 1.5)
    shown = [point for point in points if -1.0 <= point.time_seconds <= shown_to]
    if not shown:
        return ""
    x = Scale(-1.0, shown_to, _LEFT, WIDTH - _RIGHT)
    longest = max(shown, key=lambda point: point.gap_seconds)
    parts = [_band(x, longest, 40, 360)]
    gap_axis = Scale(0, max(point.gap_seconds for point in shown) * 1100, 200, 40)
    parts += _panel(x, gap_axis, "time since the packet before, ms")
    for point in shown:
        where = x(point.time_seconds)
        css = _copy(point.site, sites)
        parts.append(svg.line(where, gap_axis(0), where, gap_axis(point.gap_seconds * 1000), f"stem {css}"))
    parts.append(
        svg.text(
            x(longest.time_seconds) + 6,
            gap_axis(longest.gap_seconds * 1000) + 4,
            f"{longest.gap_seconds * 1000:.1f} ms",
            "value",
        )
    )
    top = max(max(point.jitter_seconds for point in shown) * 1200, 0.5)
    jitter_axis = Scale(0, top, 360, 236)
    parts += _panel(x, jitter_axis, "interarrival jitter (RFC 3550), ms", last=True)
    parts.append(svg.path(((x(p.time_seconds), jitter_axis(p.jitter_seconds * 1000)) for p in shown), "curve"))
    parts.append(svg.line(x(0), 30, x(0), 360, "fault"))
    parts.append(svg.text(x(0) - 5, 30, "fault", "fault-label", "end"))
    parts.append(svg.text(WIDTH - _RIGHT, 396, "seconds from the fault", "label", "end"))
    return svg.drawing(WIDTH, 404, "Gap and jitter of the client's packets over time", parts)


def the_moment(
    calls: Sequence[tuple[float, str]], probes: Sequence[tuple[float, str]], marks: Marks, sites: Sequence[str]
) -> str:
    """The failover itself in milliseconds: every answer as a dot in its copy's lane, every mark as a line."""
    known = [value for value in marks.values() if value is not None]
    end = max([0.08, *(value + 0.04 for value in known)])
    x = Scale(-40.0, end * 1000, 132.0, WIDTH - _RIGHT)
    lanes = [(f"{what}, {site}", site, data) for what, data in (("call", calls), ("probe", probes)) for site in sites]
    rows = _label_rows(marks, x)
    top = 16.0 + 15.0 * (1 + max(rows.values(), default=0))
    bottom = top + 26.0 * len(lanes) + 8
    parts = []
    for index, (label, site, data) in enumerate(lanes):
        y = top + 20 + 26.0 * index
        parts.append(svg.line(x.start, y, x.end, y, "grid"))
        parts.append(svg.text(x.start - 10, y + 4, label, "label", "end"))
        radius = 4.0 if label.startswith("call") else 1.6
        parts += [
            svg.dot(x(moment * 1000), y, radius, f"fill {_copy(site, sites)}")
            for moment, who in data
            if who == site and x.holds(moment * 1000)
        ]
    for name, row in rows.items():
        moment = (marks[name] or 0.0) * 1000
        css = "fault" if name == "fault" else "mark"
        y = 12.0 + 15.0 * row
        parts.append(svg.line(x(moment), y + 4, x(moment), bottom, css))
        parts.append(svg.text(x(moment) + 3, y, f"{_MARK_LABELS[name]} {moment:.1f}", f"{css}-label"))
    for tick in x.ticks(10):
        parts.append(svg.text(x(tick), bottom + 16, svg.tick_label(tick), "tick", "middle"))
    parts.append(svg.text(WIDTH - _RIGHT, bottom + 34, "milliseconds from the fault", "label", "end"))
    return svg.drawing(WIDTH, bottom + 42, "Answers of both copies around the fault", parts)


def phase_bars(rows: Sequence[tuple[str, Marks]]) -> str:
    """One bar per run: how the time from the fault to the first packet was spent."""
    bars = [(label, phases(marks)) for label, marks in rows]
    bars = [(label, parts) for label, parts in bars if parts]
    if not bars:
        return ""
    longest = max(sum(seconds for _, seconds in parts) for _, parts in bars) * 1000
    x = Scale(0, longest * 1.1, max(84.0, 20 + 6.4 * max(len(label) for label, _ in bars)), WIDTH - _RIGHT)
    bottom = 34.0 + 24 * len(bars)
    drawn = _legend(x.start)
    for tick in x.ticks(8):
        drawn.append(svg.line(x(tick), 30, x(tick), bottom, "grid"))
        drawn.append(svg.text(x(tick), bottom + 16, svg.tick_label(tick), "tick", "middle"))
    for index, (label, parts) in enumerate(bars):
        y, reached = 34.0 + 24 * index, 0.0
        drawn.append(svg.text(x.start - 10, y + 13, label, "label", "end"))
        for name, seconds in parts:
            css = f"fill phase-{PHASES.index(name)}"
            tip = f"{name}: {seconds * 1000:.1f} ms"
            drawn.append(svg.box(x(reached), y, x(reached + seconds * 1000) - x(reached), 17, css, tip, radius=1.5))
            reached += seconds * 1000
        drawn.append(svg.text(x(reached) + 6, y + 13, f"{reached:.1f}", "value"))
    drawn.append(svg.text(WIDTH - _RIGHT, bottom + 34, "milliseconds from the fault", "label", "end"))
    return svg.drawing(WIDTH, bottom + 42, "Phases of each failover", drawn)


def _legend(at: float) -> list[str]:
    parts = []
    for index, name in enumerate(PHASES):
        parts.append(svg.box(at, 6, 11, 11, f"fill phase-{index}", radius=2))
        parts.append(svg.text(at + 16, 16, name, "label"))
        at += 32 + 7.2 * len(name)
    return parts


def _panel(x: Scale, y: Scale, title: str, last: bool = False) -> list[str]:
    parts = [svg.text(_LEFT, y.end - 8, title, "label")]
    for tick in y.ticks(5):
        parts.append(svg.line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(svg.text(x.start - 8, y(tick) + 4, svg.tick_label(tick), "tick", "end"))
    if last:
        parts += [svg.text(x(tick), y.start + 18, svg.tick_label(tick), "tick", "middle") for tick in x.ticks(8)]
    return parts


def _band(x: Scale, longest: Point, top: float, bottom: float) -> str:
    start = x(max(x.low, longest.time_seconds - longest.gap_seconds))
    return svg.box(start, top, x(longest.time_seconds) - start, bottom - top, "outage")


def _copy(site: str, sites: Sequence[str]) -> str:
    return f"copy-{sites.index(site) % 2}" if site in sites else "copy-0"


def _label_rows(marks: Marks, x: Scale) -> dict[str, int]:
    """A row for each mark's label, so that no two labels of one row overlap; earliest marks lowest."""
    moments = sorted((value, name) for name, value in marks.items() if value is not None and name in _MARK_LABELS)
    free_from: list[float] = []
    rows: dict[str, int] = {}
    for value, name in moments:
        at = x(value * 1000)
        row = next((index for index, edge in enumerate(free_from) if edge <= at), len(free_from))
        end = at + 6.6 * len(f"{_MARK_LABELS[name]} {value * 1000:.1f}") + 10
        free_from[row : row + 1] = [end]
        rows[name] = row
    return rows
