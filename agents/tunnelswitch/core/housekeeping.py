"""Changes of a group's record that move nobody: what an operator drained or paused, a re-arm after a needless
self-fence, and whether the standby is in sync (PROTOCOL R3, R7).

A re-arm voids all evidence, so nothing is changed that does not have to be, and a loss of protection must stand for a
while.
"""

from __future__ import annotations

from dataclasses import replace

from tunnelswitch.core import readiness
from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.facts import DrainRequest, GroupRecord, PauseRequest, Reason
from tunnelswitch.core.topology import Group

# The active's word that its standby is lost must stand for so long before the record says so.
PROTECTION_HOLD_SECONDS = 0.3
# A gate closed by consent comes with a proof, which may be a moment behind: nobody undoes what another switcher asked.
REARM_HOLD_SECONDS = 0.1


class Housekeeping:
    """Of one group, on the evidence that its switcher has."""

    def __init__(self, evidence: Evidence, unix_offset_seconds: float) -> None:
        self.evidence = evidence
        self.unix_offset_seconds = unix_offset_seconds
        self.due_at: float | None = None
        self._seen: tuple[tuple[bool, str, str], float] | None = None
        self._fenced_since: float | None = None

    def void(self) -> None:
        """A new stamp is in force."""
        self._seen = self._fenced_since = None

    def change(self, record: GroupRecord, now: float) -> GroupRecord | None:
        """The record as it should be, its stamp not yet raised; None if nothing is due. `due_at` says when something
        will be, if time alone can bring it."""
        asked = self._drained(record) or self._paused(record, now)
        return asked or self._rearmed(record, now) or self._protection(record, now)

    def _drained(self, record: GroupRecord) -> GroupRecord | None:
        wish = self.evidence.drain
        if wish is None:
            return None
        drained = drained_after(record, wish)
        what = "is drained" if wish.drained else "may serve again"
        evidence = (f"{wish.asked_by} asks: {wish.site} {what}",)
        return replace(record, drained=drained, reason=Reason.OPERATOR, evidence=evidence)

    def _paused(self, record: GroupRecord, now: float) -> GroupRecord | None:
        wish = self.evidence.pause
        if wish is None:
            return None
        what = "nothing is to move by itself" if wish.paused else "automatic moves may go on"
        evidence = (f"{wish.asked_by} asks: {what}",)
        since = now + self.unix_offset_seconds if wish.paused else 0.0
        return replace(record, paused=paused_text(wish), paused_at=since, reason=Reason.OPERATOR, evidence=evidence)

    def _rearmed(self, record: GroupRecord, now: float) -> GroupRecord | None:
        beat = self.evidence.fresh(record.active, now)
        if beat is None or beat.marks.get(record.group) != record.stamp:
            return None  # what it said of an earlier stamp has been answered
        if not any(status.self_fenced for status in self.evidence.statuses(record.active, now).values()):
            self._fenced_since = None
            return None
        if self._fenced_since is None:
            self._fenced_since = now
        due = self._fenced_since + REARM_HOLD_SECONDS
        if not self._is_due(due, now):
            return None
        evidence = (f"{record.active} closed itself under {record.stamp} and is in touch again",)
        return replace(record, reason=Reason.REARM, evidence=evidence)

    def _protection(self, record: GroupRecord, now: float) -> GroupRecord | None:
        should = readiness.protection(self.evidence, record, now)
        if should is None or should == (record.in_sync, record.active_run, record.standby_run):
            self._seen = None
            return None
        if self._seen is None or self._seen[0] != should:
            self._seen = (should, now)
        in_sync, active_run, standby_run = should
        if in_sync and not self._says_so_now(record, now):
            return None
        due = self._seen[1] + (0.0 if in_sync else PROTECTION_HOLD_SECONDS)
        if not self._is_due(due, now):
            return None
        evidence = ("standby is in sync",) if in_sync else (f"{record.active} has no standby in sync",)
        changed = replace(record, in_sync=in_sync, active_run=active_run, standby_run=standby_run)
        return replace(changed, reason=Reason.PROTECTION, evidence=evidence)

    def _says_so_now(self, record: GroupRecord, now: float) -> bool:
        """Does the active speak under the stamp in force? Under an earlier one it may have had a standby that it has
        lost since, and let output leave that nobody else holds."""
        beat = self.evidence.fresh(record.active, now)
        return beat is not None and beat.marks.get(record.group) == record.stamp

    def _is_due(self, at: float, now: float) -> bool:
        if now >= at:
            return True
        self.due_at = at if self.due_at is None else min(at, self.due_at)
        return False


def paused_text(wish: PauseRequest) -> str:
    """What the record says once `wish` is granted; empty: not paused."""
    if not wish.paused:
        return ""
    return f"{wish.asked_by}: {wish.why}" if wish.why else wish.asked_by


def drained_after(record: GroupRecord, wish: DrainRequest) -> tuple[str, ...]:
    """The drained sites once `wish` is granted."""
    others = tuple(site for site in record.drained if site != wish.site)
    return (*others, wish.site) if wish.drained else others


def against_drain(record: GroupRecord, group: Group, wish: DrainRequest) -> str | None:
    """Why `wish` is not granted, to be read after the name of who asks; None if it is."""
    if wish.site not in group.servers:
        return f"asks to drain {wish.site}, and {group.name} is served by {' and '.join(group.servers)}"
    if set(drained_after(record, wish)) >= set(group.servers):
        return f"asks to drain {wish.site} as well, and then nobody could serve"
    return None
