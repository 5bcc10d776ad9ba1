"""The cables of a lab: the WAN's bridge, a veth per site, and the namespaces of the service and the client.

The service has the same address and MAC on both server sites, as a virtual machine has; nobody forwards IP packets.
"""

from __future__ import annotations

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.netns import End

_SERVICE_NETWORK_LENGTH = 24
_PERMANENT = 0x80  # NUD_PERMANENT, linux/neighbour.h


async def build(layout: Layout) -> None:
    """Make all namespaces of a lab and plug them together. Raises OSError (FileExistsError for one that is there)."""
    for namespace in layout.namespaces:
        await netns.create(namespace)
    async with netns.netlink(layout.wan_namespace) as wan:
        await wan.link("add", ifname=names.WAN_BRIDGE, kind="bridge")
        bridge = await netns.set_up(wan, names.WAN_BRIDGE, mtu=names.UNDERLAY_MTU)
        for site in layout.sites:
            await netns.add_veth(End(layout.wan_namespace, site.wan_port), End(site.namespace, names.UPLINK, arp=False))
            await netns.set_up(wan, site.wan_port, master=bridge)
    for server in layout.servers:
        await _plug_service(server)
    inner = names.INNER_MTU
    await netns.add_veth(
        End(layout.client_namespace, "eth0", inner, names.CLIENT_MAC),
        End(layout.gateway.namespace, names.CLIENT_PORT, inner, arp=False),
    )
    await _address(layout.client_namespace, "eth0", names.CLIENT_ADDRESS)
    await _know(layout.client_namespace, names.SERVICE_ADDRESS, names.SERVICE_MAC)


async def _plug_service(server: Site) -> None:
    """Give a server's copy of the service its two devices: eth0 to the clients, t1 to its peer."""
    inside, inner = server.service_namespace, names.INNER_MTU
    outside = End(server.namespace, "svc0", inner, arp=False)
    await netns.add_veth(End(inside, "eth0", inner, names.SERVICE_MAC), outside)
    await _address(inside, "eth0", names.SERVICE_ADDRESS)
    await _know(inside, names.CLIENT_ADDRESS, names.CLIENT_MAC)
    await netns.add_veth(End(inside, "t1", inner), End(server.namespace, "t1", inner, arp=False))
    index = await _address(inside, "t1", server.replication_address)
    async with netns.netlink(inside) as ip:
        # Checkpoints are small and one-way: without quickack each would wait for a delayed acknowledgement.
        await ip.route(
            "replace",
            dst="10.8.0.0/24",
            oif=index,
            scope="link",
            prefsrc=server.replication_address,
            metrics={"quickack": 1},
        )


async def _address(namespace: str, device: str, address: str) -> int:
    async with netns.netlink(namespace) as ip:
        index = await netns.index_of(ip, device)
        await ip.addr("replace", index=index, address=address, prefixlen=_SERVICE_NETWORK_LENGTH)
    return index


async def _know(namespace: str, address: str, mac: str) -> None:
    """A permanent neighbour entry: no call waits for ARP across a tunnel that is just being switched."""
    async with netns.netlink(namespace) as ip:
        index = await netns.index_of(ip, "eth0")
        await ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=_PERMANENT)
