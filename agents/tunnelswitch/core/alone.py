"""Is an active alone: can nobody take over from it any more? Then it need not close itself when it is isolated
(PROTOCOL R4), and output that no standby holds may leave (R7).

Its own word that there is a standby may still be on its way into the record when the standby is gone. A driver that
holds output back releases it as its checkpoints are committed; without a standby there are none, and until it is known
that nobody can take over from an older state, output waits. If another site is made active instead, it is never
released.
"""

from __future__ import annotations

from collections.abc import Iterable

from tunnelswitch.core.actions import AllowOutput
from tunnelswitch.core.certificate import Certificate
from tunnelswitch.core.confirmed import Confirmed
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.stamp import Stamp

# A claim that we have a standby is a ballot for two windows, and then perhaps a commit under way.
CLAIM_SECONDS = 3.0


class Alone:
    """One group at one server site.

    Args:
        services: of the group.
        started_at: what an earlier process claimed until then is not known.
        read_seconds: a confirmed read was asked for at most so long before its answer.
    """

    def __init__(
        self,
        gate: Gate,
        certificate: Certificate,
        confirmed: Confirmed,
        services: Iterable[str],
        started_at: float,
        read_seconds: float,
    ) -> None:
        self._gate = gate
        self._certificate = certificate
        self._confirmed = confirmed
        self._services = tuple(services)
        self._read_seconds = read_seconds
        self._claimed_at = started_at
        self._claimed_under: Stamp | None = None
        self._has_looked = False
        self._granted: tuple[int, str] | None = None
        self._told = False

    def claims(self, now: float) -> None:
        """A heartbeat says that every service has a standby in sync."""
        self._claimed_at, self._claimed_under = now, self._gate.stored
        self._granted = None

    def is_known(self, record: GroupRecord) -> bool:
        """Can nobody take over? With several gateways our claim may have been taken into a record that we have not
        heard of: only a read made long enough after it tells."""
        if record.in_sync or len(record.gateways) == 1:
            return not record.in_sync
        return self._is_settled(record)

    def words(self, record: GroupRecord, *, unprotected: bool, repeated: bool) -> list[AllowOutput]:
        """What the drivers have to be told about output now.

        Args:
            unprotected: this site serves, and does not say that it has a standby for all that it serves.
            repeated: it is time to say again what is allowed.
        """
        if not self._has_looked and self._gate.seen:
            # An earlier process may have claimed a standby under what was stored when this one began.
            self._has_looked, self._claimed_under = True, self._claimed_under or self._gate.stored
        allowed = unprotected and not record.in_sync and self._may_leave(record)
        if allowed == self._told and not (allowed and repeated):
            return []
        self._told = allowed
        return [AllowOutput(service, allowed) for service in self._services]

    def _may_leave(self, record: GroupRecord) -> bool:
        """Once granted it holds until we claim a standby again, or somebody else is to serve: without such a claim no
        record in between can have named one. So nothing that fails here or there takes it back."""
        decision = (record.stamp.epoch, record.stamp.decision_id)
        if self._granted == decision:
            return True
        if self._gate.stored != record.stamp or not self._certificate.is_blocking(record):
            return False
        # Switchers believe a claim only with the mark of the record in force.
        if self._claimed_under == record.stamp and not self._is_settled(record):
            return False
        self._granted = decision
        return True

    def _is_settled(self, record: GroupRecord) -> bool:
        return self._confirmed.at(record.stamp) - self._read_seconds - self._claimed_at >= CLAIM_SECONDS
