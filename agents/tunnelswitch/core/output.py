"""When output may leave that no standby holds (PROTOCOL R7).

A driver that holds output back releases it as its checkpoints are committed. Without a standby there are none, and what
the service says may leave only when nobody can take over from an older state any more: the record says `in_sync =
false`, a blocking number of voters holds that stamp durably, and no word of ours under it could still be taken for a
standby. Until then output waits; if another site is made active instead, it is never released.
"""

from __future__ import annotations

from tunnelswitch.core.certificate import Certificate
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.stamp import Stamp


class UnprotectedOutput:
    """One group's at one server site.

    Args:
        claim_seconds: for so long may a claim that there is a standby still be on its way into the record.
    """

    def __init__(self, certificate: Certificate, claim_seconds: float) -> None:
        self._certificate = certificate
        self._claim_seconds = claim_seconds
        self._claimed_under: Stamp | None = None
        self._claimed_at = float("-inf")

    def claims(self, mark: Stamp | None, now: float) -> None:
        """A heartbeat says, with this mark, that there is a standby in sync."""
        self._claimed_under, self._claimed_at = mark, now

    def allowed(self, record: GroupRecord, mark: Stamp | None, confirmed: Stamp | None, confirmed_at: float) -> bool:
        """May it leave?

        Args:
            mark: the stamp that this site's OVSDB holds.
            confirmed: the stamp of the last leader-confirmed read, asked for at `confirmed_at` or later.
        """
        if record.in_sync or mark != record.stamp or not self._certificate.is_blocking(record):
            return False
        if self._claimed_under != record.stamp:
            return True  # switchers believe a claim only with the mark of the record in force
        return confirmed == record.stamp and confirmed_at - self._claimed_at >= self._claim_seconds
