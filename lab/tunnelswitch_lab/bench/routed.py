"""A routed way from the gateway to each server, instead of a switched one: what BGP needs.

The client sees no difference. The gateway's router answers to the service's MAC and the servers' routers to the
client's, so a frame goes to the nearest router, over a tunnel as an IP packet, and on to the copy. Which tunnel is a
matter of one host route at the gateway, which is not made here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench.pair import know, set_kernel, tool
from tunnelswitch_lab.layout import Layout, Site

_PERMANENT = 0x80  # NUD_PERMANENT, linux/neighbour.h
_PREFIX_LENGTH = 24
# The copy as a next hop: zebra(8) announces no kernel route that has none.
_COPY = "10.7.0.10"
_VSCTL_SECONDS = 5


@dataclass(frozen=True)
class Link:
    """A tunnel of routers between the gateway and a server; `key` is that of GRE."""

    server: Site
    key: int

    @property
    def bridge(self) -> str:
        """The bridge of the tunnel at both ends; its own port has the router's address."""
        return f"br-{self.server.name[:9]}"

    def address(self, site: Site) -> str:
        """A router's address on this link."""
        return f"10.7.{self.server.number}.{site.number}"

    def mac(self, site: Site) -> str:
        """Fixed, so that nobody waits for ARP over a tunnel that is just being switched."""
        return f"02:00:0a:07:{self.server.number:02x}:{site.number:02x}"


def links(layout: Layout, keys: tuple[int, int] = (names.T2_KEY, names.T3_KEY)) -> tuple[Link, ...]:
    """The links of a lab, the primary's first."""
    return tuple(Link(server, key) for server, key in zip(layout.servers, keys, strict=True))


async def build(layout: Layout, between: tuple[Link, ...], leading: Collection[str] = names.SERVERS) -> None:
    """Make the links and let packets through, in a lab that was just reset. Raises LabError.

    The routers of the servers that `leading` names have a route to their copy, which BGP may announce.
    """
    gateway = layout.gateway
    for link in between:
        server = link.server
        for here, there in ((gateway, server), (server, gateway)):
            await know(here, there)
            await _tunnel(here, there, link)
        await _stand_in(server, names.CLIENT_MAC)
        if server.name in leading:
            async with route_to_copy(server) as lead:
                await lead()
        async with netns.netlink(server.namespace) as ip:
            await ip.route("replace", dst=f"{names.CLIENT_ADDRESS}/32", gateway=link.address(gateway))
    await _stand_in(gateway, names.SERVICE_MAC)
    async with netns.netlink(gateway.namespace) as ip:
        index = await netns.index_of(ip, "br-svc")
        await ip.route("replace", dst=f"{names.CLIENT_ADDRESS}/32", oif=index, scope="link")
        await _neighbour(ip, index, names.CLIENT_ADDRESS, names.CLIENT_MAC)


@contextlib.asynccontextmanager
async def route_to_copy(server: Site) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """What gives a server's router its route to the copy there, with everything open beforehand."""
    async with netns.netlink(server.namespace) as ip:
        index = await netns.index_of(ip, "br-svc")
        await _neighbour(ip, index, _COPY, names.SERVICE_MAC)

        async def lead() -> None:
            await ip.route("replace", dst=f"{names.SERVICE_ADDRESS}/32", gateway=_COPY, oif=index, flags=["onlink"])

        yield lead


async def next_hop(layout: Layout) -> str:
    """The router to which the gateway sends the service's packets; an empty text if it knows none."""
    listed = await tool("ip", "-n", layout.gateway.namespace, "route", "show", f"{names.SERVICE_ADDRESS}/32")
    words = listed.split()
    return words[words.index("via") + 1] if "via" in words else ""


async def _tunnel(here: Site, there: Site, link: Link) -> None:
    options = ["type=gre", f"options:remote_ip={there.underlay_address}", f"options:key={link.key}"]
    settings = ["datapath_type=netdev", f'other-config:hwaddr="{link.mac(here)}"']
    commands = ["add-br", link.bridge, "--", "set", "Bridge", link.bridge, *settings]
    commands += ["--", "add-port", link.bridge, f"R{link.server.number}"]
    commands += ["--", "set", "Interface", f"R{link.server.number}", *options]
    commands += ["--", "set", "Interface", link.bridge, f"mtu_request={names.INNER_MTU}"]
    await tool("ovs-vsctl", f"--db={here.ovsdb}", f"--timeout={_VSCTL_SECONDS}", *commands)
    async with netns.netlink(here.namespace) as ip:
        index = await netns.set_up(ip, link.bridge)
        await ip.addr("replace", index=index, address=link.address(here), prefixlen=_PREFIX_LENGTH)
        await _neighbour(ip, index, link.address(there), link.mac(there))


async def _stand_in(site: Site, mac: str) -> None:
    """Make the site's router take frames that are addressed to `mac` on br-svc."""
    setting = ["set", "Bridge", "br-svc", f'other-config:hwaddr="{mac}"']
    await tool("ovs-vsctl", f"--db={site.ovsdb}", f"--timeout={_VSCTL_SECONDS}", *setting)
    async with netns.netlink(site.namespace) as ip:
        await netns.set_up(ip, "br-svc")
    set_kernel(site.namespace, ip_forward=1, conf__all__rp_filter=0)


async def _neighbour(ip: Any, index: int, address: str, mac: str) -> None:
    await ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=_PERMANENT)
