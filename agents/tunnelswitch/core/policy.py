"""What a group's policy has against a move that the evidence would allow: drained, switched off, paused, too soon."""

from __future__ import annotations

from tunnelswitch.core.evidence import Verdict
from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.topology import Group


class Policy:
    """Of one group, as its switcher applies it."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._moved_at: float | None = None

    def moved(self, record: GroupRecord, now: float) -> None:
        """Another site is active by `record`, whoever decided it. What was planned is no sign of trouble."""
        if record.reason is not Reason.OPERATOR:
            self._moved_at = now

    def against(self, record: GroupRecord, verdict: Verdict, now: float) -> list[str]:
        """Each objection in words that name its remedy."""
        group, target = self._group, self._group.other(record.active)
        against = []
        if target in record.drained:
            against.append(f"{target} is drained (tunnelswitch undrain)")
        if not group.automatic and verdict.reason is not Reason.OPERATOR:
            against.append("automatic failover is off (policy.automatic)")
        if record.paused and verdict.reason is not Reason.OPERATOR:
            against.append(f"automatic failover is paused by {record.paused} (tunnelswitch resume)")
        # Hysteresis never delays a proof.
        free_at = float("-inf") if self._moved_at is None else self._moved_at + group.hysteresis_seconds
        if verdict.reason is Reason.SUSPICION and now < free_at:
            against.append("hysteresis: the last move is too recent (policy.hysteresis_seconds)")
        return against
