"""An active that is out of touch with its voters closes itself before others count on it (PROTOCOL R4, A3).

The time runs from the last touch, not from when it was missed.
"""

from __future__ import annotations

from tunnelswitch.core.alone import Alone
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.member import Member
from tunnelswitch.core.quorum import blocking


class Isolation:
    """One group at one server site. `due_at`: when time alone will have it closed."""

    def __init__(self, member: Member, gate: Gate, alone: Alone) -> None:
        self.due_at: float | None = None
        self._member = member
        self._gate = gate
        self._alone = alone

    def is_due(self, record: GroupRecord, now: float) -> bool:
        """Must the open gate of this active be closed now? Not if there is nobody to hand over to."""
        self.due_at = None
        if not self._gate.open or self._alone.is_known(record):
            return False
        touched_at = max(self.in_touch_at(record.voters, now), self._member.started_at)
        due_at = touched_at + self._member.timing.fence_after_seconds
        if now >= due_at:
            return True
        self.due_at = due_at
        return False

    def fit(self, record: GroupRecord | None, now: float) -> bool:
        """May this site's watchdog be kicked? Not while the gate may be open although this site should have closed it
        by now: then its host has to die."""
        if self._gate.closed:
            return True
        voters = record.voters if record is not None else self._gate.group.voters
        if now - self.in_touch_at(voters, now) < self._member.timing.fence_after_seconds:
            return True
        return record is not None and record.active == self._gate.site and self._alone.is_known(record)

    def in_touch_at(self, voters: tuple[str, ...], now: float) -> float:
        """When K voters, this site among them, were in touch with this site last."""
        site = self._gate.site
        needed = blocking(len(voters)) - (site in voters)
        if needed <= 0:
            return now
        times = sorted(self._member.in_touch_at(voter, now) for voter in voters if voter != site)
        return times[-needed] if needed <= len(times) else float("-inf")
