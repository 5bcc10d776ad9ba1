"""Which messages are too old to believe, told without any other machine's clock.

A reconnecting client may replay what it had buffered, and a paused process wakes up to a full queue. Order is told by
(incarnation, sequence); age by the sender's own clock, of which only the rate is used: the smallest difference ever
seen between arrival and sending stands for "no delay", and whatever lies above it is delay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

# Two clocks' rates differ by less than this (PROTOCOL A4); the smallest difference is let up by it as time passes.
DRIFT_MAX = 500e-6
# A delay that stays the same for so long is no backlog: the sender's clock stood still (a suspended machine), or the
# way became longer for good.
SETTLED_SECONDS = 1.0
# A retired incarnation that goes on where it stopped is believed again when its successor has been quiet for so many
# times the greatest age: the successor was an old message, not a new start.
RETURN_AGES = 10
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
    late_offset_seconds: float = 0.0
    late_since: float | None = None

    def settled(self, offset_seconds: float, age_max_seconds: float, now: float) -> bool:
        """Has the delay been the same for long enough? Also notes this one."""
        same = self.late_since is not None and abs(offset_seconds - self.late_offset_seconds) <= age_max_seconds
        if not same or self.late_since is None:
            self.late_offset_seconds, self.late_since = offset_seconds, now
        return now - self.late_since >= SETTLED_SECONDS


@dataclass(slots=True)
class _Site:
    now: _Source
    retired: dict[str, _Source] = field(default_factory=dict)

    def begin(self, source: _Source) -> None:
        """Another incarnation speaks now."""
        self.retired[self.now.incarnation] = self.now
        if len(self.retired) > RETIRED_MAX:
            del self.retired[next(iter(self.retired))]
        self.now = source


class Freshness:
    """Remembers per source the newest message accepted.

    Args:
        age_max_seconds: messages delayed by more than this are dropped.
    """

    def __init__(self, age_max_seconds: float) -> None:
        self.age_max_seconds = age_max_seconds
        self._sources: dict[str, _Site] = {}

    def check(
        self,
        source: str,
        incarnation: str,
        sequence: int,
        sent_at_monotonic: float,
        now: float,
        *,
        age_max_seconds: float | None = None,
    ) -> Stale | None:
        """None if the message counts; otherwise why it does not. Only a message that counts is remembered.

        Args:
            age_max_seconds: for this message, if not as ever.
        """
        offset, age_max = now - sent_at_monotonic, age_max_seconds or self.age_max_seconds
        site = self._sources.get(source)
        if site is None:
            self._sources[source] = _Site(_Source(incarnation, sequence, offset, now))
            return None
        if incarnation == site.now.incarnation:
            return self._judge(site.now, sequence, offset, age_max, now)
        earlier = site.retired.get(incarnation)
        if earlier is None:
            site.begin(_Source(incarnation, sequence, offset, now))
            return None
        quiet = now - site.now.at > RETURN_AGES * self.age_max_seconds
        if not quiet or self._judge(earlier, sequence, offset, age_max, now) is not None:
            return Stale.INCARNATION
        del site.retired[incarnation]
        site.begin(earlier)
        return None

    @staticmethod
    def _judge(known: _Source, sequence: int, offset: float, age_max: float, now: float) -> Stale | None:
        if sequence <= known.sequence:
            return Stale.SEQUENCE
        floor = known.offset_seconds + DRIFT_MAX * max(0.0, now - known.at)
        known.sequence = sequence
        if offset - floor > age_max:
            if not known.settled(offset, age_max, now):
                return Stale.AGE
            floor = offset
        known.offset_seconds = min(floor, offset)
        known.at, known.late_since = now, None
        return None
