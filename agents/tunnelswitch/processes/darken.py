"""`tunnelswitch darken`: after a boot and before ovs-vswitchd starts, a site carries no client (PROTOCOL R2).

What OVSDB kept may be long past: the site was away, and others may have decided. The ports go, the stamps stay, so that
no older decision is believed; the site's own agent or switcher puts the right ports back once it has read the record.
"""

from __future__ import annotations

from aioovs import AioOvsError, Database
from tunnelswitch.config import Deployment
from tunnelswitch.dataplane import MONITORED, ChangePorts, client_ports
from tunnelswitch.errors import DataPlaneError

DEADLINE_SECONDS = 10.0


async def darken(database: Database, cluster: str) -> list[str]:
    """Remove every client tunnel end of ours, in one durable transaction; returns their names. Also those of which the
    deployment file knows nothing any more: a gateway that was taken away is darkened with the new file as well.

    Raises:
        AioOvsError: OVSDB did not do it.
    """
    present = client_ports(database, cluster)
    if present:
        drops = ChangePorts(database.api, cluster, drop=present)
        await database.transact(drops, deadline_seconds=DEADLINE_SECONDS, durable=True, comment="tunnelswitch darken")
    return present


async def run_darken(deployment: Deployment, site: str) -> list[str]:
    """Darken a site of the deployment; returns the names of the removed ports.

    Raises:
        DataPlaneError: its OVSDB does not answer, or did not do it: then ovs-vswitchd must not be started.
    """
    remote = deployment.sites[site].ovsdb
    try:
        async with Database(remote, tables=MONITORED, connect_deadline_seconds=DEADLINE_SECONDS) as database:
            return await darken(database, deployment.cluster.name)
    except AioOvsError as error:
        raise DataPlaneError(
            f"site {site} cannot be darkened by {remote}: {error}", "start ovsdb-server before, and ovs-vswitchd after"
        ) from error
