"""What this site sees of the others: path by BFD, bus by heartbeats, and for how long.

A site is silent when no fresh heartbeat came for one window (interval x multiplier). A process that itself ran late
cannot tell silence from its own sleep: it throws its windows away, starts them again and says so. A path that came back
is unknown for a while before it counts as up: a flapping link is neither healthy nor evidence against the other side.
A site whose heartbeats kept coming while its path was said to be down has shown that the path's word is worth little
here (a switch short of processor time): for a while it takes a longer silence to believe both.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnelswitch.core.facts import Bus, Observation, Path

# A site never heard, or a path never up, since this process started is unknown, not silent or down, for so many windows
# (and at least 2 s): probes need a moment to find each other.
GRACE_WINDOWS = 20
GRACE_SECONDS_MIN = 2.0
HOLD_WINDOWS = 3
DOUBT_SECONDS = 10.0
DOUBT_WINDOWS = 4
# Lateness above this part of the window makes the window worthless.
LATE_FRACTION = 0.5


@dataclass(slots=True)
class _Peer:
    path: Path
    path_since: float
    bus: Bus
    bus_since: float
    silent_at: float
    hold_until: float | None = None
    doubt_until: float = float("-inf")
    was_up: bool = False
    up_until: float = float("-inf")
    down_at: float | None = None


class Detector:
    """Observations of `others` by one site.

    Args:
        window_seconds: silence after which a heartbeat is missed for good.
        now: the moment this process began to look.
    """

    def __init__(self, others: tuple[str, ...], *, window_seconds: float, now: float) -> None:
        self.window_seconds = window_seconds
        grace = max(GRACE_SECONDS_MIN, GRACE_WINDOWS * window_seconds)
        self._peers = {site: _Peer(Path.UNKNOWN, now, Bus.UNKNOWN, now, silent_at=now + grace) for site in others}
        self._grace_until = now + grace
        self._late_until = now
        self.lateness_seconds = 0.0

    def __contains__(self, site: str) -> bool:
        return site in self._peers

    def heard(self, site: str, now: float) -> bool:
        """A fresh heartbeat came. Returns whether the observation changed."""
        peer = self._peers.get(site)
        if peer is None:
            return False
        if peer.path is Path.DOWN and now - peer.path_since > self.window_seconds:
            peer.doubt_until = now + DOUBT_SECONDS
        peer.silent_at = now + self.window_seconds * (DOUBT_WINDOWS if now < peer.doubt_until else 1)
        if peer.bus is Bus.ALIVE:
            return False
        peer.bus, peer.bus_since = Bus.ALIVE, now
        return True

    def path(self, site: str, path: Path, now: float) -> bool:
        """BFD says so. Returns whether the observation changed."""
        peer = self._peers.get(site)
        if peer is None:
            return False
        peer.down_at = None
        peer.was_up |= path is Path.UP
        if path is Path.DOWN and not peer.was_up and now < self._grace_until:
            peer.down_at = self._grace_until
            return False
        if peer.path is Path.UP:
            peer.up_until = now
        if path is Path.UP and peer.path is Path.DOWN:
            peer.path, peer.path_since = Path.UNKNOWN, now
            peer.hold_until = now + HOLD_WINDOWS * self.window_seconds
            return True
        if path is Path.UP and peer.hold_until is not None:
            return False
        peer.hold_until = None
        if path is peer.path:
            return False
        peer.path, peer.path_since = path, now
        return True

    def late(self, lateness_seconds: float, now: float) -> bool:
        """This process ran late. Returns whether its windows are void because of it."""
        self.lateness_seconds = lateness_seconds
        if lateness_seconds <= self.window_seconds * LATE_FRACTION:
            return False
        self._late_until = now + self.window_seconds
        for peer in self._peers.values():
            if peer.bus is Bus.ALIVE:
                peer.silent_at = max(peer.silent_at, now + self.window_seconds)
        return True

    def abstains(self, now: float) -> bool:
        return now < self._late_until

    def deadline(self) -> float | None:
        """When an observation may change by the mere passing of time."""
        first = float("inf")
        for peer in self._peers.values():
            if peer.bus is not Bus.SILENT and peer.silent_at < first:
                first = peer.silent_at
            if peer.hold_until is not None and peer.hold_until < first:
                first = peer.hold_until
            if peer.down_at is not None and peer.down_at < first:
                first = peer.down_at
        return first if first != float("inf") else None

    def expire(self, now: float) -> bool:
        """Let time pass. Returns whether an observation changed."""
        changed = False
        for peer in self._peers.values():
            if peer.bus is not Bus.SILENT and now >= peer.silent_at:
                peer.bus, peer.bus_since, changed = Bus.SILENT, now, True
            if peer.hold_until is not None and now >= peer.hold_until:
                peer.path, peer.path_since, peer.hold_until, changed = Path.UP, now, None, True
            if peer.down_at is not None and now >= peer.down_at:
                peer.path, peer.path_since, peer.down_at, changed = Path.DOWN, now, None, True
        return changed

    def observation(self, site: str, now: float) -> Observation:
        peer = self._peers[site]
        return Observation(site, peer.path, now - peer.path_since, peer.bus, now - peer.bus_since)

    def observations(self, now: float) -> tuple[Observation, ...]:
        return tuple(self.observation(site, now) for site in self._peers)

    def down_since(self, site: str) -> float | None:
        """Since when path and bus have both been gone; None while either works or is not known."""
        peer = self._peers.get(site)
        if peer is None or peer.path is not Path.DOWN or peer.bus is not Bus.SILENT:
            return None
        return max(peer.path_since, peer.bus_since)

    def up_until(self, site: str, now: float) -> float:
        """When the path to `site` was up last: now if it is, minus infinity if it never was."""
        peer = self._peers.get(site)
        if peer is None:
            return float("-inf")
        return now if peer.path is Path.UP else peer.up_until
