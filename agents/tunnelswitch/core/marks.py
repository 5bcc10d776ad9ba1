"""The stamps that others follow, as one switcher heard them (PROTOCOL R3): what a new stamp has to exceed, and how it
shows that the epoch store has forgotten."""

from __future__ import annotations

from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.stamp import Stamp

# So many confirmed reads in a row must stay below a mark before the store is held to have forgotten.
BELOW_MAX = 2


class Marks:
    """Of one group.

    Args:
        gate: this gateway's, whose OVSDB holds a mark of its own.
    """

    def __init__(self, evidence: Evidence, gate: Gate) -> None:
        self._evidence = evidence
        self._gate = gate
        self._highest: Stamp | None = None
        self._reads_below = 0

    def heed(self, mark: Stamp | None) -> None:
        """Keep the highest stamp that anybody follows."""
        if mark is not None and (self._highest is None or mark > self._highest):
            self._highest = mark

    def in_force(self, stamp: Stamp) -> None:
        """Another record is in force."""
        self._reads_below = 0
        self.heed(stamp)

    def have_read(self, before: Stamp | None, after: Stamp | None) -> None:
        """A confirmed read came; `before` and `after` are what was above the record then."""
        self._reads_below = self._reads_below + 1 if before is not None and before == after else 0

    @property
    def forgotten(self) -> bool:
        """Has the store surely forgotten, rather than a newer record being on its way?"""
        return self._reads_below >= BELOW_MAX

    def above(self, record: GroupRecord | None) -> Stamp | None:
        """The highest mark, if it is above `record`: then nothing is decided on that record."""
        stored = self._gate.stored if self._gate.seen else None
        highest = max((mark for mark in (self._highest, stored) if mark is not None), default=None)
        return highest if highest is not None and record is not None and highest > record.stamp else None

    def next_epoch(self, record: GroupRecord) -> int:
        """Above everything heard: the record, this gateway's OVSDB, the marks of all sites."""
        heard = [stamp.epoch for stamp in (self._gate.stored, self._highest) if stamp is not None]
        return 1 + max([record.stamp.epoch, *heard])

    def active_under(self, record: GroupRecord, mark: Stamp, now: float) -> str | None:
        """Who serves under a mark whose record nobody has any more: one active per epoch, and its tunnels show it."""
        if mark.epoch == record.stamp.epoch:
            return record.active
        gate = self._gate
        if gate.stored is not None and gate.stored.epoch == mark.epoch and gate.present:
            return gate.ends[min(gate.present)].remote_site
        for site in self._evidence.group.servers:
            beat = self._evidence.fresh(site, now)
            told = beat.marks.get(record.group) if beat else None
            is_open = any(status.gate_open for status in self._evidence.statuses(site, now).values())
            if is_open and told is not None and told.epoch == mark.epoch:
                return site
        return None
