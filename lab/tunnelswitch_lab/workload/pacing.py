"""Sending at fixed times and knowing how late one was: deadlines, a lateness histogram, kernel receive times.

Deadlines are absolute, so lateness does not add up. Memory is bounded whatever the run's length.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from tunnelswitch.packet_sockets import SO_TIMESTAMPNS, TIMESPEC

_BIN_SECONDS = 0.0001
_BINS = 2000  # up to 200 ms; later still counts in the last bin, and the maximum is exact
ANCILLARY_BYTES = socket.CMSG_SPACE(TIMESPEC.size)


@dataclass(slots=True)
class Lateness:
    """How late a loop woke up, in bins of 0.1 ms."""

    count: int = 0
    max_seconds: float = 0.0
    _bins: list[int] = field(default_factory=lambda: [0] * _BINS)

    def add(self, seconds: float) -> None:
        """Count one wake-up that was `seconds` after its deadline."""
        self.count += 1
        if seconds > self.max_seconds:
            self.max_seconds = seconds
        self._bins[min(max(int(seconds / _BIN_SECONDS), 0), _BINS - 1)] += 1

    def quantile_seconds(self, fraction: float) -> float:
        """Upper edge of the bin below which `fraction` of the wake-ups lie; 0 when there are none."""
        rank, seen = fraction * self.count, 0
        for index, number in enumerate(self._bins):
            seen += number
            if number and seen >= rank:
                return min((index + 1) * _BIN_SECONDS, self.max_seconds)
        return 0.0


class Pace:
    """Absolute deadlines, one every `interval_seconds` from `start`.

    Falls behind by at most a second: what is later than that is skipped and counted, never sent in one burst.
    """

    def __init__(self, interval_seconds: float, start: float) -> None:
        self.interval_seconds = interval_seconds
        self.deadline = start
        self.skipped = 0
        self.lateness = Lateness()

    def take(self, now: float) -> bool:
        """Whether it is time to send; moves to the next deadline when it is."""
        late = now - self.deadline
        if late < 0:
            return False
        self.lateness.add(late)
        self.deadline += self.interval_seconds
        if late > 1.0:
            missed = int(late / self.interval_seconds)
            self.skipped += missed
            self.deadline += missed * self.interval_seconds
        return True


def ask_for_realtime(priority: int) -> bool:
    """Run this process under SCHED_FIFO (sched(7)) at `priority`; 0 asks for nothing. Whether it was granted."""
    if priority <= 0:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    return True


def receive_time_ns(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The kernel's time of arrival out of recvmsg's ancillary data, in nanoseconds since 1970."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return None
