"""The testbed of these tests: primary, secondary and gateway joined by a `wan` bridge, with a service copy behind each
server and a client behind the gateway. Both copies have one address and one MAC, as copies of a machine do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from netns_bed import Namespace, Switch, veth

from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group, Service, Tunnel, tunnel_ends

CLUSTER = "test"
ADDRESSES = {"primary": "10.9.0.1", "secondary": "10.9.0.2", "gateway": "10.9.0.3"}
SERVICE_ADDRESS = "192.168.77.10"
CLIENT_ADDRESS = "192.168.77.99"
PORT = 5004
GROUP = Group(
    name="voip",
    preferred="primary",
    standby="secondary",
    gateways=("gateway",),
    voters=tuple(ADDRESSES),
    services=(Service("pbx", "br-svc", t2_key=2, t3_key=3),),
)
ENDS = {site: tunnel_ends(GROUP, site, ADDRESSES) for site in ADDRESSES}
T2, T3 = (next(end for end in ENDS["gateway"] if end.label == label) for label in ("T2", "T3"))


def stamp(epoch: int, decision: str = "a") -> Stamp:
    return Stamp(epoch, decision)


def switch_to(
    new: Stamp,
    expected: Stamp | None = None,
    *,
    add: tuple[Tunnel, ...] = (),
    remove: tuple[Tunnel, ...] = (),
    deadline_seconds: float = 20.0,
) -> ApplyTunnels:
    return ApplyTunnels("voip", new, expected, add, remove, deadline_seconds)


class Bed:
    """Everything, built once."""

    def __init__(self) -> None:
        self.wan = Namespace()
        self.sites = {site: Namespace() for site in ADDRESSES}
        self.hosts = {site: Namespace() for site in ADDRESSES}
        self.switches: dict[str, Switch] = {}
        self._closing = contextlib.ExitStack()
        for namespace in (self.wan, *self.sites.values(), *self.hosts.values()):
            self._closing.callback(namespace.close)

    async def build(self) -> None:
        async with self.wan.netlink() as ip:
            await ip.link("add", kind="bridge", ifname="wan")
        await self.wan.set_up("wan")
        for site, namespace in self.sites.items():
            await veth(self.wan, site, namespace, "phy0")
            async with self.wan.netlink() as ip:
                bridge = (await ip.link_lookup(ifname="wan"))[0]
            await self.wan.set_up(site, master=bridge)
            await namespace.set_up("phy0", arp=False)  # a switch's port: the kernel must not answer there
            await veth(namespace, "svc0", self.hosts[site], "eth0")
            await namespace.set_up("svc0", arp=False)
            gateway = site == "gateway"
            mac = "02:00:00:00:00:99" if gateway else "02:00:00:00:00:10"
            await self.hosts[site].set_up("eth0", address=None)
            async with self.hosts[site].netlink() as ip:
                index = (await ip.link_lookup(ifname="eth0"))[0]
                await ip.link("set", index=index, address=mac)
                await ip.addr("add", index=index, address=CLIENT_ADDRESS if gateway else SERVICE_ADDRESS, prefixlen=24)
            self.switches[site] = switch = Switch(namespace)
            self._closing.callback(switch.close)
            for bridge_name, port in (("br-phy", "phy0"), ("br-svc", "svc0")):
                switch.vsctl("add-br", bridge_name, "--", "set", "bridge", bridge_name, "datapath_type=netdev")
                switch.vsctl("add-port", bridge_name, port)
            await namespace.set_up("br-phy", f"{ADDRESSES[site]}/24")

    def clean(self) -> None:
        """Removes everything that a test may have left in the switches."""
        for switch in self.switches.values():
            for port in switch.vsctl("list-ports", "br-svc").split():
                if port != "svc0":
                    switch.vsctl("del-port", port)
            switch.vsctl("--if-exists", "del-br", "br-probe", "--", "clear", "Open_vSwitch", ".", "external_ids")

    async def restore(self) -> None:
        for site in ADDRESSES:
            async with self.wan.netlink() as ip:
                bridge = (await ip.link_lookup(ifname="wan"))[0]
            await self.wan.set_up(site, master=bridge)

    def close(self) -> None:
        self._closing.close()


class Events(list[Any]):
    """What an adapter emitted, in order; `until` waits for it."""

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]

    async def until(self, true: Callable[[Any], bool], what: str, seconds: float = 20.0) -> Any:
        seen = 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for event in self[seen:]:
                        seen += 1
                        if true(event):
                            return event
                    await asyncio.sleep(0.002)
        except TimeoutError:
            for event in self[seen:]:  # it came while this process stood still, and so did the deadline
                if true(event):
                    return event
            raise AssertionError(f"not within {seconds} s: {what}; emitted: {list(self)}") from None


async def until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Polls every 20 ms."""
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Client:
    """Asks the service who it is; each server's copy answers with its site's name."""

    def __init__(self, bed: Bed) -> None:
        self._socket = bed.hosts["gateway"].udp(CLIENT_ADDRESS, PORT)
        self._copies = {site: bed.hosts[site].udp(SERVICE_ADDRESS, PORT) for site in ("primary", "secondary")}

    async def __aenter__(self) -> Client:
        loop = asyncio.get_running_loop()
        for site, copy in self._copies.items():
            loop.add_reader(copy, self._answer, copy, site.encode())
        return self

    async def __aexit__(self, *_: object) -> None:
        for copy in self._copies.values():
            asyncio.get_running_loop().remove_reader(copy)
            copy.close()
        self._socket.close()

    def _answer(self, copy: socket.socket, name: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            _, client = copy.recvfrom(2048)
            copy.sendto(name, client)

    async def who(self, seconds: float = 20.0) -> str | None:
        """The site that answers, None if none does for so long. It asks again every 50 ms."""
        loop = asyncio.get_running_loop()
        while True:  # what came late belongs to a question before
            try:
                self._socket.recv(2048)
            except BlockingIOError:
                break
        deadline = loop.time() + seconds
        while loop.time() < deadline:
            self._socket.sendto(b"who", (SERVICE_ADDRESS, PORT))
            with contextlib.suppress(TimeoutError):
                return (await asyncio.wait_for(loop.sock_recv(self._socket, 2048), 0.05)).decode()
        return None

    async def until(self, wanted: str | None, seconds: float = 20.0) -> None:
        """Asks until this one answers, or nobody: flows that a datapath has cached outlive a switch."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (answer := await self.who(seconds=0.3)) != wanted:
            assert loop.time() < deadline, f"{answer} answers, not {wanted}"
