"""What this site sees of the others: path by BFD, bus by heartbeats, and for how long.

A site is silent when no fresh heartbeat came for one window: interval x multiplier, widened per site to what `patience`
has measured. A process that itself ran late cannot tell silence from its own sleep: it throws its windows away, starts
them again and says so. A path that came back is unknown for a while before it counts as up: a flapping link is neither
healthy nor evidence against the other side. A site whose heartbeats kept coming while its path was said to be down has
shown that the path's word is worth little here (a switch short of processor time): for a while it takes a longer
silence to believe both.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnelswitch.core.facts import Bus, Observation, Path
from tunnelswitch.core.patience import Limits, Patience

# A site never heard, or a path never up, since this process started is unknown, not silent or down, for so many windows
# (and at least 2 s): probes need a moment to find each other.
GRACE_WINDOWS = 20
GRACE_SECONDS_MIN = 2.0
# What a start does to a machine teaches nothing about it.
BUSTLE_SECONDS = 2.0
HOLD_WINDOWS = 3
DOUBT_SECONDS = 10.0
DOUBT_WINDOWS = 4
# Lateness above this part of the window makes the window worthless.
LATE_FRACTION = 0.5


@dataclass(slots=True)
class _Peer:
    patience: Patience
    path: Path
    path_since: float
    bus: Bus
    bus_since: float
    silent_at: float
    allowed_seconds: float
    heard_at: float | None = None
    hold_until: float | None = None
    doubt_until: float = float("-inf")
    was_up: bool = False
    up_until: float = float("-inf")
    down_at: float | None = None


class Detector:
    """Observations of `others` by one site.

    Args:
        limits: between which the window for each site moves.
        now: the moment this process began to look.

    Attributes:
        silent: the sites whose heartbeats are missing.
    """

    def __init__(self, others: tuple[str, ...], *, limits: Limits, now: float) -> None:
        self.limits = limits
        self._configured_seconds = limits.window_seconds
        grace = max(GRACE_SECONDS_MIN, GRACE_WINDOWS * limits.window_seconds)
        self._peers = {
            site: _Peer(Patience(limits, now), Path.UNKNOWN, now, Bus.UNKNOWN, now, now + grace, limits.window_seconds)
            for site in others
        }
        self._grace_until = self._due_at = now + grace
        self._learns_from = now + BUSTLE_SECONDS
        self._late_until = now
        self.silent: set[str] = set()
        self.lateness_seconds = 0.0

    def __contains__(self, site: str) -> bool:
        return site in self._peers

    def patience(self) -> dict[str, Patience]:
        """What was measured, by site."""
        return {site: peer.patience for site, peer in self._peers.items()}

    def window_seconds(self, site: str) -> float:
        """How long the silence of `site` may be, as measured; as configured for a site that is none of ours."""
        peer = self._peers.get(site)
        return self._configured_seconds if peer is None else peer.patience.window_seconds

    def allowed_seconds(self, site: str) -> float:
        """How long the silence that is under way may be: the window as it was when the site was heard last."""
        peer = self._peers.get(site)
        return self._configured_seconds if peer is None else peer.allowed_seconds

    def multiplier(self, site: str, configured: int) -> int:
        """What BFD's multiplier to `site` should be."""
        return self.limits.multiplier(configured, self.window_seconds(site))

    def _window(self, peer: _Peer, now: float) -> float:
        doubted = DOUBT_WINDOWS * self._configured_seconds if now < peer.doubt_until else 0.0
        return max(peer.patience.window_seconds, min(doubted, self.limits.ceiling_seconds))

    def heard(self, site: str, now: float, *, missed: int | None = 0) -> bool:
        """A fresh heartbeat came. Returns whether the observation changed.

        Args:
            missed: how many before it did not come, or came too late; None if it is the first of its incarnation.
        """
        peer = self._peers.get(site)
        if peer is None:
            return False
        if peer.path is Path.DOWN and now - peer.path_since > self._configured_seconds:
            peer.doubt_until = now + DOUBT_SECONDS
        if now >= self._learns_from:
            self._measure(peer, now, missed)
        peer.heard_at, peer.allowed_seconds = now, self._window(peer, now)
        peer.silent_at = now + peer.allowed_seconds
        self._due_by(peer.silent_at)
        if peer.bus is Bus.ALIVE:
            return False
        peer.bus, peer.bus_since = Bus.ALIVE, now
        self.silent.discard(site)
        return True

    @staticmethod
    def _measure(peer: _Peer, now: float, missed: int | None) -> None:
        """Not of a process that died in between, and not while we slept: that is nothing a live site did."""
        if missed is None or peer.heard_at is None:
            return
        peer.patience.heard(now, missed)
        peer.patience.waited(now - peer.heard_at, peer.allowed_seconds)

    def path(self, site: str, path: Path, now: float) -> bool:
        """BFD says so. Returns whether the observation changed."""
        peer = self._peers.get(site)
        if peer is None:
            return False
        peer.down_at = None
        peer.was_up |= path is Path.UP
        if path is Path.DOWN and not peer.was_up and now < self._grace_until:
            peer.down_at = self._grace_until
            self._due_by(peer.down_at)
            return False
        if peer.path is Path.UP:
            peer.up_until = now
        if path is Path.UP and peer.path is Path.DOWN:
            peer.path, peer.path_since = Path.UNKNOWN, now
            peer.hold_until = now + HOLD_WINDOWS * self._configured_seconds
            self._due_by(peer.hold_until)
            return True
        if path is Path.UP and peer.hold_until is not None:
            return False
        peer.hold_until = None
        if path is peer.path:
            return False
        peer.path, peer.path_since = path, now
        return True

    def late(self, lateness_seconds: float, now: float) -> bool:
        """This process ran late. Returns whether its windows are void because of it.

        Its sleep is nobody's silence. A window that has widened much is not thrown away for a sleep that is short
        beside it, or a machine under load would never conclude: the silence is counted without that sleep.
        """
        self.lateness_seconds = lateness_seconds
        if lateness_seconds <= self._configured_seconds * LATE_FRACTION:
            return False
        void = False
        for peer in self._peers.values():
            peer.heard_at = None
            if lateness_seconds > peer.allowed_seconds * LATE_FRACTION:
                void, slept_until = True, now + peer.allowed_seconds
                self._late_until = max(self._late_until, slept_until)
            else:
                slept_until = peer.silent_at + lateness_seconds
            if peer.bus is Bus.ALIVE:
                peer.silent_at = max(peer.silent_at, slept_until)
        return void

    def abstains(self, now: float) -> bool:
        return now < self._late_until

    def deadline(self) -> float:
        """When an observation may change by the mere passing of time, or a little before: asked at every event, worked
        out in `expire`. Infinity if none may."""
        return self._due_at

    def _due_by(self, at: float) -> None:
        self._due_at = min(self._due_at, at)

    def expire(self, now: float) -> bool:
        """Let time pass. Returns whether an observation changed."""
        changed, self._due_at = False, float("inf")
        for site, peer in self._peers.items():
            if peer.bus is not Bus.SILENT and now >= peer.silent_at:
                peer.bus, peer.bus_since, changed = Bus.SILENT, now, True
                self.silent.add(site)
            if peer.hold_until is not None and now >= peer.hold_until:
                peer.path, peer.path_since, peer.hold_until, changed = Path.UP, now, None, True
            if peer.down_at is not None and now >= peer.down_at:
                peer.path, peer.path_since, peer.down_at, changed = Path.DOWN, now, None, True
            if peer.bus is not Bus.SILENT:
                self._due_by(peer.silent_at)
            for at in (peer.hold_until, peer.down_at):
                if at is not None:
                    self._due_by(at)
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
