"""`tunnelswitch init`: the only one who creates records (PROTOCOL R1). A record that is there is left as it is."""

from __future__ import annotations

import time

from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.config import Deployment
from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import CommitRefusedError, CommitUnknownError
from tunnelswitch.processes.connecting import operator_epochs

STORE_DEADLINE_SECONDS = 20.0
CREATE_ATTEMPTS = 5


async def run_init(deployment: Deployment, store_deadline_seconds: float = STORE_DEADLINE_SECONDS) -> dict[str, bool]:
    """Create the epoch store and the missing records; returns per group whether its record was created now.

    Raises:
        BusUnreachableError: no NATS server lets us in.
        EpochStoreError: JetStream did not do it in time.
    """
    created = {}
    async with operator_epochs(deployment) as epochs:
        await epochs.ensure_bucket(store_deadline_seconds)
        for group in deployment.core_groups():
            first = GroupRecord(
                group=group.name,
                stamp=Stamp(1, "init"),
                active=group.preferred,
                previous=group.preferred,
                in_sync=False,
                reason=Reason.INIT,
                voters=group.voters,
                gateways=group.gateways,
                decided_by="init",
                decided_at=time.time(),
            )
            created[group.name] = await _create(epochs, first)
    return created


async def _create(epochs: NatsEpochs, record: GroupRecord) -> bool:
    """Was it created now? Asked again when no answer came: the first one may have landed, and is the same."""
    for attempt in range(1, CREATE_ATTEMPTS + 1):
        try:
            await epochs.create(record)
        except CommitRefusedError:
            return attempt > 1
        except CommitUnknownError:
            if attempt == CREATE_ATTEMPTS:
                raise
        else:
            return True
    raise AssertionError("unreachable")
