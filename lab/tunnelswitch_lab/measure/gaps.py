"""Downtime as a client sees it: the largest gap between packets that arrived, less the spacing it expects.

Pure. Times are in seconds on any one clock and need not be sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without packets, from the arrival before it to the arrival after it."""

    start_seconds: float
    end_seconds: float

    @property
    def length_seconds(self) -> float:
        """How long nothing arrived."""
        return self.end_seconds - self.start_seconds

    def downtime_seconds(self, spacing_seconds: float) -> float:
        """The gap less the nominal spacing of the packets; never negative."""
        return max(0.0, self.length_seconds - spacing_seconds)


def largest_gap(arrivals: Iterable[float]) -> Gap | None:
    """The longest stretch between consecutive arrivals (the first of equals); None with fewer than two."""
    ordered = sorted(arrivals)
    gaps = (Gap(earlier, later) for earlier, later in pairwise(ordered))
    return max(gaps, key=lambda gap: gap.length_seconds, default=None)


def largest_gap_after(arrivals: Sequence[float], moment: float) -> Gap | None:
    """The longest stretch that ends after `moment`: what a fault at that moment can have caused.

    It may begin before the moment, at the last packet that still came.
    """
    ordered = sorted(arrivals)
    before = [arrival for arrival in ordered if arrival <= moment]
    return largest_gap(before[-1:] + ordered[len(before) :])
