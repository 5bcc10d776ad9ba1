"""Open vSwitch at a site: an own ovsdb-server and ovs-vswitchd, and the bridges that the agents find there.

Bridges: br-phy (the way to the WAN), br-svc (the service or the clients), and on servers br-t1 with tunnel T1. The
client tunnels T2 and T3 and the probe mesh are not made here: that is the agents' work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.procs import Proc

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_START_SECONDS = 10.0
_TUNNEL_SECONDS = 10.0
_PURGE_SECONDS = 0.5
_ANSWER_SECONDS = 0.1  # sooner than TCP repeats a SYN: a new attempt costs less than waiting
_DISCARD_PORT = 9

Spawn = Callable[..., Proc]


async def start(site: Site, spawn: Spawn) -> None:
    """Bring up a site's switch with fresh databases, and give br-phy the underlay address.

    Raises RuntimeError or TimeoutError if Open vSwitch does not come up.
    """
    database = site.directory / "conf.db"
    for stale in (database, site.database_socket, site.switch_control, site.directory / ".conf.db.~lock~"):
        stale.unlink(missing_ok=True)
    await procs.check_output(["ovsdb-tool", "create", str(database), str(SCHEMA)], _START_SECONDS)
    quiet = ["-vconsole:info", "-vsyslog:off", "-vfile:off"]
    environment = {"OVS_RUNDIR": str(site.directory), "OVS_LOGDIR": str(site.directory)}
    spawn(
        site.namespace,
        [
            "ovsdb-server",
            str(database),
            f"--remote=punix:{site.database_socket}",
            f"--unixctl={site.directory / 'ovsdb.ctl'}",
            *quiet,
        ],
        name=f"ovsdb-{site.name}",
        env=environment,
    )

    async def listening() -> bool:
        return site.database_socket.exists()

    await netns.wait_for(listening, f"ovsdb-server of {site.name}", _START_SECONDS, 0.01)
    spawn(
        site.namespace,
        ["ovs-vswitchd", site.ovsdb, f"--unixctl={site.switch_control}", *quiet],
        name=f"vswitchd-{site.name}",
        env=environment,
    )
    # Without --no-wait it returns only when vswitchd has made the bridges.
    command = ["ovs-vsctl", f"--db={site.ovsdb}", f"--timeout={_START_SECONDS:.0f}", "init", *_bridges(site)]
    await procs.check_output(command, _START_SECONDS + 1)
    await give_address(site)


async def give_address(site: Site) -> None:
    """Give br-phy the underlay address, as the network configuration of a host does when the device appears.

    A vswitchd that is killed takes its devices along. Raises LookupError if there is none yet.
    """
    async with netns.netlink(site.namespace) as ip:
        index = await netns.set_up(ip, "br-phy")
        address, length = site.underlay_address, names.UNDERLAY_PREFIX_LENGTH
        await ip.addr("replace", index=index, address=address, prefixlen=length)


def _bridges(site: Site) -> list[str]:
    """The ovs-vsctl commands for all bridges and ports of a site, to be run as one transaction."""
    commands = _bridge("br-phy", names.UPLINK, mac=site.underlay_mac)
    if not site.is_server:
        return [*commands, *_bridge("br-svc", names.CLIENT_PORT)]
    peer = next(Site(site.lab, name) for name in names.SERVERS if name != site.name)
    tunnel = ["type=gre", f"options:remote_ip={peer.underlay_address}", f"options:key={names.T1_KEY}"]
    return [
        *commands,
        *_bridge("br-svc", "svc0"),
        *_bridge("br-t1", "t1"),
        *["--", "add-port", "br-t1", "T1", "--", "set", "Interface", "T1", *tunnel],
    ]


def _bridge(name: str, port: str, mac: str | None = None) -> list[str]:
    settings = ["datapath_type=netdev", *([f'other-config:hwaddr="{mac}"'] if mac else [])]
    return ["--", "add-br", name, "--", "set", "Bridge", name, *settings, "--", "add-port", name, port]


async def wait_tunnel(layout: Layout) -> None:
    """Wait until T1 carries TCP between the copies of the service. Raises TimeoutError.

    A tunnel whose neighbour is not resolved yet drops its packets by a cached flow, and asks for the neighbour only
    when that flow is made; under a steady stream it never is again. No BFD mesh asks yet, so flows are purged.
    """
    primary, secondary = layout.servers
    loop = asyncio.get_running_loop()
    purge_at = loop.time() + _PURGE_SECONDS

    async def answered() -> bool:
        with netns.entered(primary.service_namespace):
            probe = netns.stream_socket()
        with contextlib.closing(probe):
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    where = (secondary.replication_address, _DISCARD_PORT)
                    await asyncio.get_running_loop().sock_connect(probe, where)
            except ConnectionRefusedError:
                return True  # somebody refused, so packets go there and back
            except (TimeoutError, OSError):
                await purge()
                return False
        return True

    async def purge() -> None:
        nonlocal purge_at
        if loop.time() >= purge_at:
            purge_at = loop.time() + _PURGE_SECONDS
            for server in layout.servers:
                command = ["ovs-appctl", "-t", str(server.switch_control), "revalidator/purge"]
                with contextlib.suppress(RuntimeError, TimeoutError):  # it is tried again
                    await procs.check_output(command, _ANSWER_SECONDS * 10)

    await netns.wait_for(answered, "tunnel T1", _TUNNEL_SECONDS, 0.01)


def installed() -> bool:
    """Whether Open vSwitch is on this machine."""
    on_path = os.get_exec_path()
    tools = ("ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool", "ovs-appctl")
    return SCHEMA.exists() and all(any((Path(d) / tool).exists() for d in on_path) for tool in tools)
