"""A soak in a few lines, for the one who waited for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunnelswitch_lab.soak.checkpoints import checkpoint_lines


def lines(summary: dict[str, Any], out: Path) -> list[str]:
    """What matters of summary.json."""
    worst = summary["heartbeat_age_worst_ratio"]["start"]
    told = [
        f"load {summary['load']['name']}, {summary['minutes']:g} minutes: {summary['failovers']} failovers, "
        f"epochs {', '.join(map(str, summary['epochs']))}",
        f"widest window {_most(summary['window_seconds_max'], 1e3, ' ms')}",
        f"worst heartbeat age {_most(worst, 100, ' % of its window')}",
        f"false silences {_count(summary['false_silences'])}, BFD downs {_count(summary['bfd_downs'])}, "
        f"connections to NATS made anew {sum(summary['nats_reconnects'].values()):g}",
        *checkpoint_lines(summary.get("checkpoints", {})),
        f"copies that ended and were started anew: {summary['copies_started']}" if summary["copies_started"] else "",
        _host_loss(summary["host_loss"]),
        *(f"NOT as it must be: {problem}" for problem in summary["problems"]),
        f"everything: {out / 'summary.json'}",
    ]
    return [line for line in told if line]


def _host_loss(lost: dict[str, Any]) -> str:
    marks = lost.get("marks")
    if not marks or marks["bus_silent"] is None:
        return ""
    seen = {name: marks[name] * 1e3 for name in ("path_down", "bus_silent", "verdict") if marks[name] is not None}
    said = ", ".join(f"{name} {value:.1f} ms" for name, value in seen.items())
    return f"host loss under load: {said}; {(lost['probe_downtime_seconds'] or 0) * 1e3:.1f} ms without service"


def _most(figures: dict[str, float], factor: float, unit: str) -> str:
    if not figures:
        return "unknown"
    pair = max(figures, key=lambda name: figures[name])
    return f"{figures[pair] * factor:.0f}{unit} ({pair})"


def _count(by_process: dict[str, dict[str, float]]) -> int:
    return int(sum(sum(series.values()) for series in by_process.values()))
