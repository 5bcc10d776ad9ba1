"""Many services in heartbeats: what changed at once, the rest in turns, so that a beat stays small and none is a burst.

A site with few services says all of them in every heartbeat. One with more says whole groups: those of which something
changed since its last heartbeat, and so many others that each has its turn within `TURN_SECONDS`. `services_version`
goes up by one with every heartbeat that brings a change. Whoever has missed one cannot tell what changed in it: it
forgets what it knew and learns it anew, group by group. So what a heartbeat is completed with is always what its sender
would have said in it, or not said at all; only the numbers for people (`AGES`) may be of an earlier turn.

Knows neither the wire nor a clock. Whether a heartbeat is fresh is the core's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter

from tunnelswitch.core.facts import SERVICES_EVERY_BEAT_MAX, Heartbeat, ServiceStatus

TURN_SECONDS = 1.0
AGES = ("checkpoint_sequence", "checkpoint_age_seconds", "progress")
"""Nobody decides on these, and they would be news in every heartbeat."""
INCARNATIONS_MAX = 2
"""Remembered of one site: the process that speaks, and the one before, of which something may still be on its way."""
SITES_MAX = 256

Statuses = tuple[ServiceStatus, ...]

_news = attrgetter(*(name for name in ServiceStatus.__dataclass_fields__ if name not in AGES))


class Teller:
    """What one site's heartbeats say of its services. Takes every heartbeat that is about to leave, in order."""

    def __init__(self) -> None:
        self._whole: Statuses = ()
        self._groups: dict[str, Statuses] = {}  # in the order in which they were said last
        self._version = 0
        self._sent_at = 0.0
        self._due = 0.0
        self._all = True

    def lost(self) -> None:
        """What was to be said may not have left: the next heartbeat says everything."""
        self._all = True

    def shorten(self, beat: Heartbeat) -> Heartbeat:
        """The heartbeat to send for this one, which has everything."""
        if len(beat.services) <= SERVICES_EVERY_BEAT_MAX:
            return beat
        changed = self._changed(beat.services)
        if changed:
            self._version += 1
        said = list(self._groups) if self._all else [*changed, *self._in_turn(beat, changed)]
        self._sent_at, self._all = beat.sent_at_monotonic, False
        for name in said:
            self._groups[name] = self._groups.pop(name)
        services = tuple(chain.from_iterable(self._groups[name] for name in said))
        return replace(beat, services=services, services_version=self._version)

    def _changed(self, services: Statuses) -> list[str]:
        """The groups of which there is news; notes them all as they are now."""
        if services is self._whole:
            return []
        self._whole, before = services, self._groups
        now = _by_group(services)
        if now.keys() != before.keys():
            # Nothing says that a group is gone: a step of two makes everybody forget.
            self._version, self._all, self._groups = self._version + 1, True, now
            return list(now)
        changed = [name for name, said in now.items() if list(map(_news, said)) != list(map(_news, before[name]))]
        self._groups = {name: now[name] for name in before}
        return changed

    def _in_turn(self, beat: Heartbeat, changed: Iterable[str]) -> list[str]:
        """Those whose turn it is, by the time since the last heartbeat: beats out of turn come at any time."""
        total = len(beat.services)
        self._due = min(self._due + total * (beat.sent_at_monotonic - self._sent_at) / TURN_SECONDS, total)
        named = set(changed)
        turn = []
        for name, statuses in self._groups.items():
            if self._due <= 0:
                break
            self._due -= len(statuses)
            if name not in named:
                turn.append(name)
        return turn


@dataclass(slots=True)
class _Known:
    """What one incarnation of a site has said, as of its heartbeat `sequence`."""

    sequence: int = 0
    version: int = 0
    groups: dict[str, Statuses] = field(default_factory=dict)
    whole: Statuses = ()


class Listener:
    """Completes what others say of their services. Takes every heartbeat that comes, in any order, also twice."""

    def __init__(self) -> None:
        self._sites: dict[str, dict[str, _Known]] = {}

    def complete(self, beat: Heartbeat) -> Heartbeat:
        """The heartbeat with all that its sender is known to say in it; the very same tuple while that is the same."""
        if not beat.services_version:
            return beat
        known = self._known(beat.site, beat.incarnation)
        if beat.sequence <= known.sequence:
            return replace(beat, services=())  # it came before, or comes too late
        follows = beat.sequence == known.sequence + 1 and beat.services_version == known.version + 1
        if beat.services_version != known.version and not follows:
            known.groups, known.whole = {}, ()
        known.sequence, known.version = beat.sequence, beat.services_version
        said = _by_group(beat.services)
        if any(known.groups.get(name) != statuses for name, statuses in said.items()):
            known.groups |= said
            known.whole = tuple(chain.from_iterable(known.groups.values()))
        return replace(beat, services=known.whole)

    def _known(self, site: str, incarnation: str) -> _Known:
        incarnations = self._sites.setdefault(site, {})
        known = incarnations.setdefault(incarnation, _Known())
        if len(incarnations) > INCARNATIONS_MAX:
            del incarnations[next(iter(incarnations))]
        if len(self._sites) > SITES_MAX:
            del self._sites[next(iter(self._sites))]
        return known


def _by_group(services: Statuses) -> dict[str, Statuses]:
    groups: dict[str, list[ServiceStatus]] = {}
    for status in services:
        groups.setdefault(status.group, []).append(status)
    return {name: tuple(statuses) for name, statuses in groups.items()}
