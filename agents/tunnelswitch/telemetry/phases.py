"""From the marks of a move to how long each phase of it took.

Pure. Switching and promoting run at the same time, so the phases do not add up to the downtime; what happened before
the first mark (the time until anybody could notice) is in the downtime alone.
"""

from __future__ import annotations

from collections.abc import Mapping

# phase: (the marks it starts at, of which the latest counts; the mark it ends at)
PHASES = {
    "conclude": (("path_down", "bus_silent"), "verdict"),
    "commit": (("verdict",), "committed"),
    "switch": (("committed",), "switched"),
    "apply": (("switched",), "applied"),
    "promote": (("committed",), "promoted"),
}


def phase_seconds(marks: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase, never negative. A phase whose marks are not all there is left out: a proof, for one, is
    concluded at once from no silence."""
    return {
        phase: max(0.0, marks[end] - max(marks[start] for start in starts))
        for phase, (starts, end) in PHASES.items()
        if {*starts, end} <= marks.keys()
    }
