"""Which messages are too old to believe, told without any other machine's clock.

A reconnecting client may replay what it had buffered, and a paused process wakes up to a full queue. Order is told by
(incarnation, sequence); age by the sender's own clock, of which only the rate is used: the smallest difference ever
seen between arrival and sending stands for "no delay", and whatever lies above it is delay.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

# Two clocks' rates differ by less than this (PROTOCOL A4); the smallest difference is let up by it as time passes.
DRIFT_MAX = 500e-6
RETIRED_MAX = 16


class Stale(StrEnum):
    """Why a message was dropped."""

    SEQUENCE = "sequence"
    INCARNATION = "incarnation"
    AGE = "age"


@dataclass(slots=True)
class _Source:
    incarnation: str
    sequence: int
    offset_seconds: float
    at: float
    retired: deque[str] = field(default_factory=lambda: deque(maxlen=RETIRED_MAX))


class Freshness:
    """Remembers per source the newest message accepted.

    Args:
        age_max_seconds: messages delayed by more than this are dropped.
    """

    def __init__(self, age_max_seconds: float) -> None:
        self.age_max_seconds = age_max_seconds
        self._sources: dict[str, _Source] = {}

    def check(self, source: str, incarnation: str, sequence: int, sent_at_monotonic: float, now: float) -> Stale | None:
        """None if the message counts; otherwise why it does not. Only a message that counts is remembered."""
        offset = now - sent_at_monotonic
        known = self._sources.get(source)
        if known is None or (known.incarnation != incarnation and incarnation not in known.retired):
            retired: deque[str] = known.retired if known else deque(maxlen=RETIRED_MAX)
            if known:
                retired.append(known.incarnation)
            self._sources[source] = _Source(incarnation, sequence, offset, now, retired)
            return None
        if known.incarnation != incarnation:
            return Stale.INCARNATION
        if sequence <= known.sequence:
            return Stale.SEQUENCE
        floor = known.offset_seconds + DRIFT_MAX * max(0.0, now - known.at)
        known.sequence = sequence
        if offset - floor > self.age_max_seconds:
            return Stale.AGE
        known.offset_seconds = min(floor, offset)
        known.at = now
        return None
