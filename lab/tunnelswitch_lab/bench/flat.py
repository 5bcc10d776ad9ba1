"""One layer 2 that reaches over both tunnels: the service's address is with whoever claims it, clients follow its ARP.

It is what keepalived and Pacemaker stand on. Each copy has a MAC and an address of its own beside the service's, which
it listens on before it has it.
"""

from __future__ import annotations

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench.pair import add_tunnels, set_kernel, start_copies, tool
from tunnelswitch_lab.layout import Site
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.testbed import Testbed

STANDBY_MAC = "02:00:4d:00:00:0b"
GATEWAY_MAC = "02:00:4d:00:00:0c"
PREFIX_LENGTH = 24
_PERMANENT, _REACHABLE = 0x80, 0x02  # linux/neighbour.h


def own_address(site: Site) -> str:
    """A site's address on the flat network, which stays with it."""
    return f"192.168.77.{100 + site.number}"


async def start(bed: Testbed) -> dict[str, Proc]:
    """Start both copies on one layer 2, where nobody has the service's address yet. Raises LabError."""
    for server in bed.layout.servers:
        mac = names.SERVICE_MAC if server.name == names.SERVERS[0] else STANDBY_MAC
        await give_address(server, own_address(server), mac)
        set_kernel(server.service_namespace, ip_nonlocal_bind=1)
    copies = await start_copies(bed)
    await add_tunnels(bed.layout)
    await know(bed.layout.client_namespace, names.SERVICE_ADDRESS, names.SERVICE_MAC, permanent=False)
    return copies


async def restore(bed: Testbed) -> None:
    """Give the service's devices back the address and MAC that every lab has. Nobody may claim the address any more."""
    for server in bed.layout.servers:
        await give_address(server, names.SERVICE_ADDRESS, names.SERVICE_MAC)
        await know(server.service_namespace, names.CLIENT_ADDRESS, names.CLIENT_MAC, permanent=True)
    await know(bed.layout.client_namespace, names.SERVICE_ADDRESS, names.SERVICE_MAC, permanent=True)


async def has_service_address(server: Site) -> bool:
    """Whether a server claims the service's address."""
    listed = await tool("ip", "-n", server.service_namespace, "-o", "address", "show", "dev", "eth0")
    return f"{names.SERVICE_ADDRESS}/" in listed


async def give_address(server: Site, address: str, mac: str) -> None:
    """Give a server's copy this address and MAC instead of those that it has."""
    async with netns.netlink(server.service_namespace) as ip:
        index = await netns.index_of(ip, "eth0")
        await ip.flush_addr(index=index)
        await ip.link("set", index=index, address=mac)
        await ip.addr("replace", index=index, address=address, prefixlen=PREFIX_LENGTH)


async def attach(gateway: Site, address: str) -> None:
    """Give the gateway's host an address on the flat network, and a MAC that is the same after every reset."""
    setting = ["set", "Bridge", "br-svc", f'other-config:hwaddr="{GATEWAY_MAC}"']
    await tool("ovs-vsctl", f"--db={gateway.ovsdb}", "--timeout=5", *setting)
    async with netns.netlink(gateway.namespace) as ip:
        index = await netns.set_up(ip, "br-svc")
        await ip.addr("replace", index=index, address=address, prefixlen=PREFIX_LENGTH)


async def know(namespace: str, address: str, mac: str, *, permanent: bool) -> None:
    """Tell a client or a copy a neighbour's MAC: for good, or until it is announced otherwise."""
    async with netns.netlink(namespace) as ip:
        index = await netns.index_of(ip, "eth0")
        state = _PERMANENT if permanent else _REACHABLE
        await ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=state)
