"""What the policy wishes by itself, as an operator would, once nothing has been in the way for long enough.

*Failback*: the preferred site serves again. The site that came back resyncs as a standby by itself; that is the
drivers' work. *Relief*: a copy whose process nears its memory limit hands over to the other one, which is a young
process.

Whatever is in the way, a standby out of sync, a path that is down, a drain, a pause, a hand-over that was refused,
begins the stable time anew.
"""

from __future__ import annotations

from tunnelswitch.core import readiness
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import GroupRecord, Reason

# No longer than it takes to see that the standby is steady: the memory is nearly used up.
RELIEF_AFTER_SECONDS = 5.0


class StandingWishes:
    """Of one group, on the evidence that its switcher has. `due_at`: when time alone would bring one."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.due_at: float | None = None
        self._wish = ""
        self._stable_since: float | None = None

    def again(self) -> None:
        """It came to nothing: not at once again."""
        self._stable_since = self.due_at = None

    def verdict(self, record: GroupRecord, now: float) -> Verdict | None:
        """The standing wish of the policy, if it is due."""
        text, after_seconds = self._wanted(record, now)
        if text != self._wish:
            self._wish, self._stable_since = text, None
        self.due_at = None
        if not text:
            return None
        target = self.evidence.group.other(record.active)
        wish = Verdict(Reason.OPERATOR, (text,), consent_needed=True)
        in_the_way = record.paused or target in record.drained
        if in_the_way or readiness.promotable(self.evidence, record, target, wish, now):
            self._stable_since = None
            return None
        if self._stable_since is None:
            self._stable_since = now
        if now - self._stable_since >= after_seconds:
            return wish
        self.due_at = self._stable_since + after_seconds
        return None

    def _wanted(self, record: GroupRecord, now: float) -> tuple[str, float]:
        """What is wished, in words, and the stable time in seconds; no words: nothing."""
        group, active = self.evidence.group, record.active
        if group.relief:
            for name, status in sorted(self.evidence.statuses(active, now).items()):
                if status.outgrown:
                    return f"policy.relief: {name} at {active} nears its memory limit", RELIEF_AFTER_SECONDS
        after_seconds = group.failback_after_seconds
        in_vain = self.evidence.brake.on  # at either site: it would only begin the moves for its clients anew
        if after_seconds is not None and active != group.preferred and not in_vain:
            return f"policy.failback: {group.preferred} has been ready for {after_seconds:g} s", after_seconds
        return "", 0.0
