"""Reception statistics of one RTP stream by RFC 3550: sequence numbers (A.1), loss (A.3), jitter (6.4.1,
A.8).

Pure. Jitter is the paper's equations (1) and (2): D(i,j) = (Rj - Sj) - (Ri - Si), J = J + (|D| - J) / 16.
It does not show an outage as long as the sender's clock keeps running: see `gaps` for that.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

_MODULUS = 1 << 16
_TIMESTAMP_MODULUS = 1 << 32
MAX_DROPOUT = 3000
MAX_MISORDER = 100


class Outcome(enum.Enum):
    """What A.1 makes of a packet."""

    PROBATION = "probation"  # the source is not yet believed
    FIRST = "first"  # the source is believed from this packet on
    IN_ORDER = "in order"  # counted; there may be a permissible gap before it
    LATE = "late"  # counted; a duplicate or out of order
    JUMP = "jump"  # not counted: a big jump; two in a row mean that the sender restarted
    RESTART = "restart"  # the second of two: the stream begins anew here


@dataclass(frozen=True, slots=True)
class PacketStatistics:
    """One packet's place in the stream; `jitter_seconds` is the running J after it."""

    outcome: Outcome
    extended_sequence: int
    difference_seconds: float
    jitter_seconds: float


class Reception:
    """The statistics of one synchronisation source.

    `min_sequential` is the RFC's MIN_SEQUENTIAL (A.1): packets in sequence before the source is believed.
    Use 1 where the source is known by other means, so that every packet counts.
    """

    def __init__(self, clock_hz: int, min_sequential: int = 2) -> None:
        if clock_hz <= 0 or min_sequential < 1:
            raise ValueError("the clock rate and the number of sequential packets must be positive")
        self._clock_hz = clock_hz
        self._min_sequential = min_sequential
        self._probation: int | None = None
        self._started = False
        self._base = self._max = self._cycles = 0
        self._bad: int | None = None
        self._previous: tuple[float, int] | None = None
        self.received = 0
        self.restarts = 0
        self.jitter_seconds = 0.0
        self.jitter_max_seconds = 0.0

    @property
    def extended_highest(self) -> int:
        """Highest sequence number with its cycles (A.1)."""
        return self._cycles + self._max

    @property
    def expected(self) -> int:
        """Packets that the sender sent, judged by sequence numbers (A.3)."""
        return self.extended_highest - self._base + 1 if self._started else 0

    @property
    def lost(self) -> int:
        """Expected less received (A.3); negative when there were more duplicates than losses."""
        return self.expected - self.received

    def receive(self, sequence: int, timestamp: int, arrival_seconds: float) -> PacketStatistics:
        """Count one packet: 16-bit sequence, 32-bit RTP timestamp, arrival on the receiver's clock."""
        outcome = self._update_sequence(sequence)
        difference = 0.0
        if outcome in (Outcome.FIRST, Outcome.RESTART):
            self._previous, self.jitter_seconds = None, 0.0
        if outcome not in (Outcome.PROBATION, Outcome.JUMP):
            self.received += 1
            difference = self._update_jitter(timestamp, arrival_seconds)
        extended = self._extend(sequence)
        return PacketStatistics(outcome, extended, difference, self.jitter_seconds)

    def _extend(self, sequence: int) -> int:
        extended = self._cycles + sequence
        return extended - _MODULUS if sequence - self._max > _MODULUS // 2 else extended

    def _begin(self, sequence: int) -> None:
        self._base = self._max = sequence
        self._bad, self._cycles, self.received = None, 0, 0
        self._started = True

    def _update_sequence(self, sequence: int) -> Outcome:
        if not self._started:
            return self._prove(sequence)
        delta = (sequence - self._max) % _MODULUS
        if 0 < delta < MAX_DROPOUT:
            if sequence < self._max:
                self._cycles += _MODULUS
            self._max, self._bad = sequence, None
            return Outcome.IN_ORDER
        if delta == 0 or delta > _MODULUS - MAX_MISORDER:
            return Outcome.LATE
        if sequence == self._bad:
            self._begin(sequence)
            self.restarts += 1
            return Outcome.RESTART
        self._bad = (sequence + 1) % _MODULUS
        return Outcome.JUMP

    def _prove(self, sequence: int) -> Outcome:
        in_sequence = self._probation is not None and sequence == (self._max + 1) % _MODULUS
        left = self._probation if in_sequence and self._probation is not None else self._min_sequential
        self._probation, self._max = left - 1, sequence
        if self._probation > 0:
            return Outcome.PROBATION
        self._begin(sequence)
        return Outcome.FIRST

    def _update_jitter(self, timestamp: int, arrival_seconds: float) -> float:
        previous, self._previous = self._previous, (arrival_seconds, timestamp)
        if previous is None:
            return 0.0
        ticks = (timestamp - previous[1]) % _TIMESTAMP_MODULUS
        if ticks >= _TIMESTAMP_MODULUS // 2:
            ticks -= _TIMESTAMP_MODULUS
        difference = (arrival_seconds - previous[0]) - ticks / self._clock_hz
        self.jitter_seconds += (abs(difference) - self.jitter_seconds) / 16
        self.jitter_max_seconds = max(self.jitter_max_seconds, self.jitter_seconds)
        return difference
