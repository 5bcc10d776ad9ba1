"""The paper's figures, drawn: Fig. 4 as two panels with the same axes, Fig. 5 with every run.

Pure: figures in, SVG text out. Colours are CSS classes (style.css).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from tunnelswitch_lab.measure import svg
from tunnelswitch_lab.measure.svg import Scale
from tunnelswitch_lab.paper.reading import spread
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS

WIDTH = 960.0
_LEFT, _RIGHT = 64.0, 16.0
_BEFORE_SECONDS, _AFTER_SECONDS = 1.0, 2.0
_PANEL_HEIGHT, _PANEL_GAP = 150.0, 62.0
KINDS = ("original", "modified")
LABELS = {"original": "original: gratuitous ARP", "modified": "modified: tunnel switching"}


@dataclass(frozen=True, slots=True)
class Heard:
    """One packet of a call: seconds from the fault, since the packet before, |D| of equation (1), J of equation (2)."""

    at_seconds: float
    spacing_seconds: float
    difference_seconds: float
    jitter_seconds: float


def fig4(calls: Mapping[str, Sequence[Heard]]) -> str:
    """Jitter per packet and the outage; one panel a kind, (a) the original and (b) the modified failover."""
    shown = {kind: _around_the_fault(calls[kind]) for kind in KINDS if calls.get(kind)}
    packets = [packet for kind in shown for packet in shown[kind]]
    if not packets:
        return ""
    until = max(packet.at_seconds for packet in packets)
    x = Scale(-_BEFORE_SECONDS, until, _LEFT, WIDTH - _RIGHT)
    top_ms = max(0.5, *(packet.jitter_seconds * 1250 for packet in packets))
    parts: list[str] = []
    for number, (kind, heard) in enumerate(shown.items()):
        top = 40 + number * (_PANEL_HEIGHT + _PANEL_GAP)
        letter = "ab"[KINDS.index(kind)]
        parts.append(svg.text(_LEFT, top - 22, f"({letter}) {LABELS[kind]}", "title"))
        parts += _jitter_panel(x, Scale(0, top_ms, top + _PANEL_HEIGHT, top), kind, heard)
    bottom = 40 + len(shown) * (_PANEL_HEIGHT + _PANEL_GAP) - _PANEL_GAP
    parts.append(svg.text(WIDTH - _RIGHT, bottom + 36, "seconds from the fault", "label", "end"))
    return svg.drawing(WIDTH, bottom + 44, "Jitter per packet and the outage, original and modified failover", parts)


def _around_the_fault(heard: Sequence[Heard]) -> list[Heard]:
    longest = max(heard, key=lambda packet: packet.spacing_seconds)
    until = max(_AFTER_SECONDS, longest.at_seconds + 1.0)
    return [packet for packet in heard if -_BEFORE_SECONDS <= packet.at_seconds <= until]


def _jitter_panel(x: Scale, y: Scale, kind: str, heard: Sequence[Heard]) -> Iterator[str]:
    yield svg.text(x.end, y.end - 6, "jitter J (line) and |D| (dots), ms", "label", "end")
    for tick in y.ticks(5):
        yield svg.line(x.start, y(tick), x.end, y(tick), "grid")
        yield svg.text(x.start - 8, y(tick) + 4, svg.tick_label(tick), "tick", "end")
    for tick in x.ticks(8):
        yield svg.text(x(tick), y.start + 16, svg.tick_label(tick), "tick", "middle")
    longest = max(heard, key=lambda packet: packet.spacing_seconds)
    began = x(max(x.low, longest.at_seconds - longest.spacing_seconds))
    yield svg.box(began, y.end, x(longest.at_seconds) - began, y.start - y.end, "outage")
    yield svg.line(x(0), y.end - 4, x(0), y.start, "fault")
    yield svg.text(x(0) - 5, y.end + 10, "fault", "fault-label", "end")
    outage_ms = (longest.spacing_seconds - PACKET_SPACING_SECONDS) * 1000
    yield svg.text(x(longest.at_seconds) + 6, y.end + 10, f"outage {outage_ms:.1f} ms", "value")
    for packet in heard:
        if y.holds(packet.difference_seconds * 1000):
            yield svg.dot(x(packet.at_seconds), y(packet.difference_seconds * 1000), 1.3, "difference")
    for part in _unbroken(heard):
        yield svg.path(((x(p.at_seconds), y(p.jitter_seconds * 1000)) for p in part), f"curve {kind}")


def _unbroken(heard: Sequence[Heard]) -> list[list[Heard]]:
    """The packets in stretches without an outage: where nothing was heard there is no line."""
    parts: list[list[Heard]] = [[]]
    for packet in heard:
        if parts[-1] and packet.spacing_seconds > 1.5 * PACKET_SPACING_SECONDS:
            parts.append([])
        parts[-1].append(packet)
    return parts


def fig5(series: Mapping[str, Mapping[float, Sequence[float]]], top_ms: float | None = None) -> str:
    """Downtime against checkpoint interval: every run a dot, the range a line, the median a bar.

    `series` has for each kind, by interval in milliseconds, the runs' downtimes in seconds. What lies above `top_ms`
    is drawn at the upper edge, with its value.
    """
    intervals = sorted({interval for points in series.values() for interval in points})
    everything = [value * 1000 for points in series.values() for values in points.values() for value in values]
    if not everything:
        return ""
    highest = max(everything)
    top = min(highest * 1.12, top_ms) if top_ms else highest * 1.12
    y = Scale(0, top, 330, 46)
    parts = _legend()
    for tick in y.ticks(6):
        parts.append(svg.line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 8, y(tick) + 4, svg.tick_label(tick), "tick", "end"))
    step = (WIDTH - _LEFT - _RIGHT) / len(intervals)
    centres = {interval: _LEFT + step * (number + 0.5) for number, interval in enumerate(intervals)}
    for interval, at in centres.items():
        parts.append(svg.text(at, 350, f"{interval:g}", "tick", "middle"))
    for kind in (kind for kind in KINDS if kind in series):
        shift = step * (-0.16 if kind == KINDS[0] else 0.16)
        medians = []
        for interval, values in sorted(series[kind].items()):
            if values:
                at = centres[interval] + shift
                parts += _one_point(at, y, kind, [value * 1000 for value in values])
                medians.append((at, y(min(top, (spread(values)["median"]) * 1000))))
        parts.append(svg.path(medians, f"join {kind}"))
    parts.append(svg.text(_LEFT, 34, "downtime, ms", "label"))
    parts.append(svg.text(WIDTH - _RIGHT, 372, "checkpoint interval, ms", "label", "end"))
    return svg.drawing(WIDTH, 380, "Downtime against checkpoint interval, original and modified failover", parts)


def _one_point(at: float, y: Scale, kind: str, values_ms: Sequence[float]) -> Iterator[str]:
    whole = spread(values_ms)
    low, middle, high = (min(y.high, whole[name]) for name in ("min", "median", "max"))
    yield svg.line(at, y(low), at, y(high), f"range {kind}")
    for number, value in enumerate(values_ms):
        aside = ((number * 5) % 9 - 4) * 2.0  # dots of like value beside each other, the same way each time
        yield svg.dot(at + aside, y(min(y.high, value)), 2.6, f"run {kind}")
        if value > y.high:
            yield svg.text(at + aside, y(y.high) - 5, f"{value:.0f}", "tick", "middle")
    yield svg.line(at - 13, y(middle), at + 13, y(middle), f"median {kind}")
    yield svg.text(at + 16, y(middle) + 4, f"{whole['median']:.0f}", "value")


def _legend() -> list[str]:
    parts, at = [], _LEFT
    for kind in KINDS:
        parts.append(svg.box(at, 6, 11, 11, f"fill {kind}", radius=2))
        parts.append(svg.text(at + 16, 16, LABELS[kind], "label"))
        at += 40 + 6.6 * len(LABELS[kind])
    parts.append(svg.text(WIDTH - _RIGHT, 16, "dots: runs; bar and number: median", "label", "end"))
    return parts


def style() -> str:
    """The style sheet of the figures and of the page that shows them."""
    return resources.files("tunnelswitch_lab.paper").joinpath("style.css").read_text(encoding="utf-8")


def standalone(picture: str) -> str:
    """A figure as a file of its own, light or dark as its reader wishes."""
    head, _, body = picture.partition(">")
    named = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{named}><style>{style()}</style>{body}\n"
