"""Going back to the preferred site by itself, once nothing has been in the way for as long as the policy wants.

The site that came back resyncs as a standby by itself; that is the drivers' work. Whatever is in the way, a standby out
of sync, a path that is down, a drain, a pause, a hand-over that was refused, begins the stable time anew.
"""

from __future__ import annotations

from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import GroupRecord, Reason


class Failback:
    """Of one group, on the evidence that its switcher has. `due_at`: when time alone would bring it."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.due_at: float | None = None
        self._stable_since: float | None = None

    def again(self) -> None:
        """It came to nothing: not at once again."""
        self._stable_since = self.due_at = None

    def verdict(self, record: GroupRecord, now: float) -> Verdict | None:
        """The standing wish of the policy, if it is due."""
        group, after_seconds = self.evidence.group, self.evidence.group.failback_after_seconds
        self.due_at = None
        if after_seconds is None or record.active == group.preferred:
            self._stable_since = None
            return None
        wish = Verdict(
            Reason.OPERATOR,
            (f"policy.failback: {group.preferred} has been ready for {after_seconds:g} s",),
            consent_needed=True,
        )
        in_the_way = record.paused or group.preferred in record.drained
        if in_the_way or self.evidence.promotable(record, group.preferred, wish, now):
            self._stable_since = None
            return None
        if self._stable_since is None:
            self._stable_since = now
        if now - self._stable_since >= after_seconds:
            return wish
        self.due_at = self._stable_since + after_seconds
        return None
