"""The underlay between the sites: which direction carries, and what BFD makes of it. Also which hosts have power."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tunnelswitch.core.facts import Path
from tunnelswitch_lab.simulator.timeline import Timeline


class Network:
    """A full mesh of links, each cut by any number of faults, each direction by itself.

    Args:
        detection_seconds: (site, other): how long BFD at `site` waits now before it gives up the path to `other`.
        tell_path: (site, other, state): BFD at `site` changed its word on the path to `other`.
    """

    def __init__(
        self,
        timeline: Timeline,
        sites: tuple[str, ...],
        detection_seconds: Callable[[str, str], float],
        tell_path: Callable[[str, str, Path], None],
    ) -> None:
        self.sites = sites
        self.unpowered: set[str] = set()
        self.down_until: dict[tuple[str, str], float] = {}
        self.silent_until: dict[tuple[str, str], float] = {}
        self._timeline = timeline
        self._detection_seconds = detection_seconds
        self._tell_path = tell_path
        self._cut: dict[tuple[str, str], int] = {}
        self._bfd = {(one, other): Path.UP for one in sites for other in sites if one != other}
        self.disturbed = False

    def carries(self, source: str, target: str) -> bool:
        """Does a packet from `source` reach `target`?"""
        if not self.disturbed or source == target:
            return True
        return (source, target) not in self._cut and source not in self.unpowered and target not in self.unpowered

    def connected(self, one: str, other: str) -> bool:
        """Do packets go both ways?"""
        return self.carries(one, other) and self.carries(other, one)

    def bfd(self, site: str, other: str) -> Path:
        """What BFD at `site` says now."""
        return self._bfd[site, other]

    def down_lately(self, site: str, other: str, seconds: float) -> bool:
        """Has BFD at `site` said so within the last so many seconds, or does it still?"""
        if self._bfd[site, other] is Path.DOWN:
            return True
        until = self.down_until.get((site, other))
        return until is not None and self._timeline.now - until <= seconds

    def silent_lately(self, source: str, target: str, seconds: float) -> bool:
        """Did nothing get through at some time within the last so many seconds?"""
        until = self.silent_until.get((source, target), float("-inf"))
        return not self.carries(source, target) or self._timeline.now - until <= seconds

    def cut(self, ways: Iterable[tuple[str, str]]) -> None:
        for way in ways:
            self._cut[way] = self._cut.get(way, 0) + 1
        self.changed()

    def _note_silence(self) -> None:
        for way in self._bfd:
            if not self.carries(*way):
                self.silent_until[way] = self._timeline.now

    def mend(self, ways: Iterable[tuple[str, str]]) -> None:
        self._note_silence()
        for way in ways:
            left = self._cut.get(way, 0) - 1
            if left > 0:
                self._cut[way] = left
            else:
                self._cut.pop(way, None)
        self.changed()

    def power(self, site: str, *, on: bool) -> None:
        self._note_silence()
        (self.unpowered.discard if on else self.unpowered.add)(site)
        self.changed()

    def mend_all(self) -> None:
        self._note_silence()
        self._cut.clear()
        self.changed()

    def changed(self) -> None:
        """BFD notices after its detection time."""
        self.disturbed = bool(self._cut or self.unpowered)
        ways: dict[float, list[tuple[str, str]]] = {}
        for way in self._bfd:
            ways.setdefault(self._detection_seconds(*way), []).append(way)
        for seconds, those in ways.items():
            self._timeline.after(seconds, self._detect, those)

    def _detect(self, ways: Iterable[tuple[str, str]]) -> None:
        for site, other in ways:
            state = Path.UP if self.connected(site, other) else Path.DOWN
            if state is not self._bfd[site, other] and site not in self.unpowered:
                self.say(site, other, state)

    def say(self, site: str, other: str, state: Path) -> None:
        """BFD at `site` says so, rightly or not."""
        if self._bfd[site, other] is Path.DOWN and state is Path.UP:
            self.down_until[site, other] = self._timeline.now
        self._bfd[site, other] = state
        self._tell_path(site, other, state)

    def restarted(self, site: str) -> None:
        """The site booted: its BFD sessions begin anew."""
        for other in self.sites:
            if other != site:
                if self._bfd[site, other] is Path.DOWN:  # what it had said before stays said
                    self.down_until[site, other] = self._timeline.now
                self._bfd[site, other] = Path.UP if self.connected(site, other) else Path.DOWN


def both_ways(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (one, other), (other, one)


def around(site: str, sites: Iterable[str]) -> list[tuple[str, str]]:
    """Every way in and out of a site."""
    return [way for other in sites if other != site for way in both_ways(site, other)]
