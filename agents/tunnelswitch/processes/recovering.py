"""`tunnelswitch recover`: a record where the epoch store has none, or holds something else (PROTOCOL R1).

Without a record nothing is decided, and only a person can say that it is lost. What the sites hold durably says what
was decided last: the new record exceeds the highest mark of all enrolled sites, with the site that clients reach.
Nothing moves. A record that merely went back is raised by the switchers themselves.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection

from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.config import Deployment
from tunnelswitch.core.facts import GroupRecord, Heartbeat, Reason, ServiceStatus
from tunnelswitch.core.runs import join_runs
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group
from tunnelswitch.errors import EpochStoreError, RefusedError
from tunnelswitch.processes.connecting import operator_bus, operator_epochs

LISTEN_SECONDS = 3.0
STORE_SECONDS = 20.0
READ_SECONDS = 3.0


async def run_recover(
    deployment: Deployment, group: str, *, active: str = "", without: Collection[str] = ()
) -> GroupRecord:
    """Write the record of a group that has lost it.

    Args:
        active: who serves, if no gate shows it.
        without: enrolled sites that are surely off, and need not be heard.

    Raises:
        RefusedError: there is a record, or too little is known to write one.
        EpochStoreError: the store does not answer.
    """
    known = next(one for one in deployment.core_groups() if one.name == group)
    beats: dict[str, Heartbeat] = {}

    def hear(event: object) -> None:
        if isinstance(event, Heartbeat):
            beats[event.site] = event

    async with operator_epochs(deployment) as epochs:
        await epochs.ensure_bucket(STORE_SECONDS)
        revision = await _lost_revision(epochs, group)
        async with operator_bus(deployment, ("heartbeat",), hear):
            await asyncio.sleep(max(LISTEN_SECONDS, 3 * deployment.detection.window_seconds))
        record = recovered(known, beats, active=active, without=without)
        if revision:
            await epochs.commit(record, revision, STORE_SECONDS)
        else:
            await epochs.create(record, STORE_SECONDS)
        return record


async def _lost_revision(epochs: NatsEpochs, group: str) -> int:
    """The revision of what stands where the record should be; 0 if nothing does. Raises RefusedError for a record."""
    try:
        found, revision = await epochs.read(group, READ_SECONDS)
    except EpochStoreError:
        return await epochs.revision(group, READ_SECONDS)  # raises too, unless the store does answer
    if found is not None:
        raise RefusedError(
            f"group {group} has a record, {found.stamp}: nothing is lost",
            "if it is below what sites follow, the switchers raise it by themselves: see `tunnelswitch status`",
        )
    return revision


def recovered(
    group: Group, beats: dict[str, Heartbeat], *, active: str = "", without: Collection[str] = ()
) -> GroupRecord:
    """The record that the sites' marks ask for. Pure, but for the time and the name that it bears.

    Raises:
        RefusedError: a site was not heard, or it does not show who serves.
    """
    enrolled = dict.fromkeys((*group.servers, *group.gateways, *group.voters))
    unheard = [site for site in enrolled if site not in beats and site not in without]
    if unheard:
        raise RefusedError(
            f"no heartbeat of {', '.join(unheard)}: its mark may be the highest",
            "start the agents there, or say --without SITE for a site that is surely off",
        )
    unsaid = [
        site
        for site in group.servers
        if site in beats and beats[site].services_version and not _statuses(group, beats, site)
    ]
    if unsaid:
        # Many services are said in turns, and all anew after a lost heartbeat.
        raise RefusedError(f"{', '.join(unsaid)} has not said yet what it hosts of {group.name}", "try again")
    marks = [beat.marks[group.name] for beat in beats.values() if group.name in beat.marks]
    highest = max(marks, default=Stamp(0, "none"))
    serving = active or _who_serves(group, beats, highest)
    other = group.other(serving)
    services = {status.service: status.run for status in _statuses(group, beats, serving)}
    return GroupRecord(
        group=group.name,
        stamp=Stamp(highest.epoch + 1, f"recover.{secrets.token_hex(4)}"),
        active=serving,
        # A site that was not heard may still be reached: then the old active is it, and has to be certified away.
        previous=other if other in without else serving,
        in_sync=False,
        reason=Reason.RECOVERY,
        voters=group.voters,
        gateways=group.gateways,
        active_run=join_runs(services) if len(services) == len(group.services) else "",
        evidence=(f"the record was lost; the highest mark is {highest}; {serving} serves",),
        decided_by="recover",
        decided_at=time.time(),
    )


def _who_serves(group: Group, beats: dict[str, Heartbeat], highest: Stamp) -> str:
    open_at = [
        site
        for site in group.servers
        if site in beats
        and any(status.gate_open for status in _statuses(group, beats, site))
        and beats[site].marks.get(group.name, highest).epoch == highest.epoch
    ]
    if len(open_at) == 1:
        return open_at[0]
    raise RefusedError(
        f"the gates do not show who serves {group.name}: {' and '.join(open_at) or 'none'} is open under {highest}",
        "say --active SITE: the site whose copy holds the newest state",
    )


def _statuses(group: Group, beats: dict[str, Heartbeat], site: str) -> list[ServiceStatus]:
    return [status for status in beats[site].services if status.group == group.name] if site in beats else []
