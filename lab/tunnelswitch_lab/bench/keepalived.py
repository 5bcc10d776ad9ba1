"""keepalived: VRRP version 3 (RFC 5798) between the two copies, the service's address on the master, gratuitous ARP.

This is the paper's "original" way, on one layer 2 that reaches over both tunnels. It has its fastest lawful settings:
adverts down to the 10 ms that RFC 5798 can express, real-time priority, no delay before the announcements, and a
process' end told to it by a tracked file the moment the kernel knows of it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench.pair import add_tunnels, start_copies, tool
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

_PRIORITIES = {"primary": 150, "secondary": 100}
_PERMANENT, _REACHABLE = 0x80, 0x02  # linux/neighbour.h
_STANDBY_MAC = "02:00:4d:00:00:0b"
_MASTER_SECONDS = 15.0
_NONLOCAL_BIND = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
# Ends when the process does, and says so in the file that keepalived watches.
_TELL = """
import os, pathlib, select, sys
select.select([os.pidfd_open(int(sys.argv[1]))], [], [])
pathlib.Path(sys.argv[2]).write_text("1")
"""


def configuration(server: Site, interval_ms: float, tracked: str) -> str:
    """keepalived.conf(5) of one server. `tracked` is the file that says that the service has died."""
    return f"""global_defs {{
    router_id {server.name}
    vrrp_version 3
    vrrp_garp_master_delay 0
    vrrp_garp_master_repeat 2
    vrrp_rt_priority 50
    vrrp_no_swap
}}
track_file service {{
    file {tracked}
    weight 0
    init_file 0 overwrite
}}
vrrp_instance service {{
    state BACKUP
    interface eth0
    virtual_router_id 77
    priority {_PRIORITIES[server.name]}
    advert_int {interval_ms / 1000:g}
    virtual_ipaddress {{
        {names.SERVICE_ADDRESS}/24 dev eth0
    }}
    track_file {{
        service weight 0
    }}
}}
"""


@dataclass
class Keepalived:
    """VRRP with an advert every `interval_ms`; a backup takes over after three of them and its skew."""

    interval_ms: float
    name: str = "keepalived"
    faults: tuple[str, ...] = ("host-loss", "service-crash")
    does_not: str = (
        "vote: a partition makes two masters; keep state; reach beyond one layer 2; fence the old master's packets"
    )

    async def start(self, bed: Testbed) -> None:
        for server in bed.layout.servers:
            await _own_address(server)
        copies = await start_copies(bed)
        await add_tunnels(bed.layout)
        await _ask_for_neighbours(bed.layout, permanent=False)
        for server in bed.layout.servers:
            self._spawn(bed, server, copies[server.name])

        async def is_master() -> bool:
            listed = await tool(
                "ip", "-n", bed.layout.servers[0].service_namespace, "-o", "address", "show", "dev", "eth0"
            )
            return f"{names.SERVICE_ADDRESS}/" in listed

        await netns.wait_for(is_master, "the primary's keepalived as master", _MASTER_SECONDS)

    def _spawn(self, bed: Testbed, server: Site, copy: Proc) -> None:
        place = bed.layout.service_state_directory(server.name)
        config, tracked = place / "keepalived.conf", place / "crashed"
        config.write_text(configuration(server, self.interval_ms, str(tracked)), encoding="utf-8")
        pids = ["-p", str(place / "keepalived.pid"), "-r", str(place / "vrrp.pid")]
        command = ["keepalived", "--vrrp", "--dont-fork", "--log-console", "-f", str(config), *pids]
        bed.spawn(server.service_namespace, command, name=f"keepalived-{server.name}")
        watcher = [sys.executable, "-c", _TELL, str(copy.pid), str(tracked)]
        bed.spawn(server.service_namespace, watcher, name=f"watcher-{server.name}")

    async def wait_ready(self, recording: Recording) -> None:
        """The call is answered, so there is a master; its backup hears it within one advert."""

    async def stop(self, bed: Testbed) -> None:
        """Give the service's devices back the address and MAC that every lab has."""
        # A keepalived that is killed later, parent first, takes the address away on its way out.
        await bed.stop("keepalived-", "watcher-")
        for server in bed.layout.servers:
            async with netns.netlink(server.service_namespace) as ip:
                index = await netns.index_of(ip, "eth0")
                await ip.flush_addr(index=index)
                await ip.link("set", index=index, address=names.SERVICE_MAC)
                await ip.addr("replace", index=index, address=names.SERVICE_ADDRESS, prefixlen=24)
        await _ask_for_neighbours(bed.layout, permanent=True)


async def _own_address(server: Site) -> None:
    """On one layer 2 both copies need a MAC and an address of their own; the service's moves between them."""
    async with netns.netlink(server.service_namespace) as ip:
        index = await netns.index_of(ip, "eth0")
        await ip.flush_addr(index=index)
        if server.name != names.SERVERS[0]:
            await ip.link("set", index=index, address=_STANDBY_MAC)
        await ip.addr("replace", index=index, address=f"192.168.77.{100 + server.number}", prefixlen=24)
    _listen_before_it_comes(server)


def _listen_before_it_comes(server: Site) -> None:
    """The service binds the address on both servers, wherever it is."""
    with netns.entered(server.service_namespace):
        _NONLOCAL_BIND.write_text("1")


async def _ask_for_neighbours(layout: Layout, *, permanent: bool) -> None:
    """Whether the client knows the service's MAC for good, or follows announcements; and each copy the client's."""
    pairs = [(layout.client_namespace, names.SERVICE_ADDRESS, names.SERVICE_MAC)]
    pairs += [(server.service_namespace, names.CLIENT_ADDRESS, names.CLIENT_MAC) for server in layout.servers]
    for namespace, address, mac in pairs:
        async with netns.netlink(namespace) as ip:
            index = await netns.index_of(ip, "eth0")
            state = _PERMANENT if permanent or address == names.CLIENT_ADDRESS else _REACHABLE
            await ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=state)
