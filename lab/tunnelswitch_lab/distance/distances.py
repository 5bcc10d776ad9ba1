"""Named distances between sites, and the weather that a line of that length has. Pure.

A distance is the round-trip time between any two of the three sites. What is protected is far from the gateway, too,
so every step of a failover that crosses the WAN is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.relay import Weather

RTT_MAX_SECONDS = 1.0
_FRAME_BITS = 1500 * 8
_QUEUE_SECONDS = 0.1  # what a router holds of a line that is full


@dataclass(frozen=True)
class Distance:
    """`rtt_seconds` between each two sites; 0: the machine's own, with nothing added."""

    name: str
    rtt_seconds: float


DISTANCES = (
    Distance("lan", 0.0),
    Distance("metro", 0.002),
    Distance("national", 0.020),
    Distance("continental", 0.080),
)


@dataclass(frozen=True)
class Line:
    """What a line is like beside its length. `jitter` is a part of the delay: each way takes that much more or less.
    `rate_bits` per second are each site's, in each direction."""

    jitter: float = 0.05
    loss: float = 0.001
    rate_bits: float = 100e6

    def weather(self, distance: Distance) -> Weather | None:
        """Of a frame from one site to another; None for what is no WAN. The mean delay is half the round-trip time.

        Frames keep their order, as on one line: TCP takes overtaking for loss.
        """
        if not distance.rtt_seconds:
            return None
        way_seconds = distance.rtt_seconds / 2
        return Weather(
            delay_seconds=way_seconds * (1 - self.jitter),
            jitter_seconds=2 * way_seconds * self.jitter,
            loss=self.loss,
            rate_bits=self.rate_bits,
            in_order=True,
            frames_max=round(self.rate_bits * (way_seconds + _QUEUE_SECONDS) / _FRAME_BITS),
        )


def chosen_distances(wanted: Iterable[str]) -> tuple[Distance, ...]:
    """The distances of these names, or of so many milliseconds (`35ms`); all named ones by default. Raises LabError."""
    known = {distance.name: distance for distance in DISTANCES}
    return tuple(known.get(text) or _measured(text) for text in wanted) or DISTANCES


def _measured(text: str) -> Distance:
    try:
        seconds = float(text.removesuffix("ms")) / 1000
    except ValueError:
        seconds = -1.0
    if not text.endswith("ms") or not 0 < seconds <= RTT_MAX_SECONDS:
        names = ", ".join(distance.name for distance in DISTANCES)
        raise LabError(f"--distance {text!r} is not known: {names}, or a round-trip time up to 1000ms such as 35ms")
    return Distance(text, seconds)
