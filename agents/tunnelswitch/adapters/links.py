"""What agents and drivers need of the kernel's links, addresses and routes, over rtnetlink(7).

It works in the network namespace of the thread that makes it. It only adds: it never removes an address, a route of
somebody else or a device. OVS ports are none of its business.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from types import TracebackType
from typing import Any, Self, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tunnelswitch.errors import DataPlaneError

_IFF_UP = 0x1
_IFF_LOWER_UP = 0x10000
_PROTOCOL_STATIC = 4  # RTPROT_STATIC: an operator's route, not a routing daemon's
_INGRESS = 0xFFFF0000
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_BURST_MIN_BYTES = 16 * 1024
_QUEUE_LATENCY = "1s"
MATCH_ALL = ["0x0/0x0+0"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Link:
    """One network device. `carrier` says that the other end is there; `addresses` are ADDRESS/LENGTH, IPv4 first."""

    name: str
    index: int
    up: bool
    carrier: bool
    mtu_bytes: int
    addresses: tuple[str, ...]


class Links:
    """An open rtnetlink socket: `async with Links() as links`."""

    def __init__(self) -> None:
        # opened here, not by pyroute2 on a thread of its own: it must be of the namespace that this thread is in
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
        self._ip: Any = AsyncIPRoute(fileno=opened.detach())

    async def __aenter__(self) -> Self:
        await self._ip.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ip.__aexit__(kind, error, trace)

    async def link(self, device: str) -> Link:
        """The device as it is.

        Raises:
            DataPlaneError: there is none of that name.
        """
        index = await self._index(device)
        message = (await self._ask(self._ip.link("get", index=index), f"read {device}"))[0]
        addresses = [
            f"{found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}"
            async for found in await self._ask(self._ip.addr("dump", index=index), f"read the addresses of {device}")
        ]
        return Link(
            name=device,
            index=index,
            up=bool(message["flags"] & _IFF_UP),
            carrier=bool(message["flags"] & _IFF_LOWER_UP),
            mtu_bytes=message.get_attr("IFLA_MTU"),
            addresses=tuple(sorted(addresses, key=lambda text: ip_interface(text).version)),
        )

    async def device_with(self, address: str) -> str:
        """The device that has this address (without a length); empty if none has.

        Raises:
            DataPlaneError: the kernel refuses.
        """
        wanted = ip_address(address)
        devices = {link["index"]: link.get_attr("IFLA_IFNAME") async for link in await self._dump("link")}
        async for found in await self._dump("addr"):
            if ip_address(found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS")) == wanted:
                return str(devices.get(found["index"], ""))
        return ""

    async def ensure_up(self, device: str, *, mtu_bytes: int | None = None) -> None:
        """Set the device up, and its MTU if one is given.

        Raises:
            DataPlaneError: it is not there, or the kernel refuses.
        """
        attributes = {} if mtu_bytes is None else {"mtu": mtu_bytes}
        index = await self._index(device)
        await self._ask(self._ip.link("set", index=index, state="up", **attributes), f"set {device} up")

    async def ensure_address(self, device: str, address: str) -> None:
        """Give the device an address (ADDRESS/LENGTH) unless it has it.

        Raises:
            DataPlaneError: the device is not there, or the kernel refuses.
        """
        wanted = ip_interface(address)
        if str(wanted) in (await self.link(device)).addresses:
            return
        attributes = {"address": str(wanted.ip), "prefixlen": wanted.network.prefixlen}
        adding = self._ip.addr("add", index=await self._index(device), **attributes)
        await self._ask(adding, f"give {device} the address {address}")

    async def ensure_quickack(self, device: str, peer: str) -> None:
        """Acknowledge at once what comes from `peer` by TCP (`quickack 1` on a host route out of `device`).

        A checkpoint waits for its acknowledgement; a delayed one (40 ms) would be longer than the checkpoint. The way
        and the source address stay those of the present route.

        Raises:
            DataPlaneError: there is no route to the peer out of that device, or the kernel refuses.
        """
        index = await self._index(device)
        length = 32 if ip_address(peer).version == 4 else 128
        asking = self._ip.route("get", dst=peer, oif=index)
        present = (await self._ask(asking, f"find a route to {peer} out of {device}"))[0]
        ways = {"gateway": present.get_attr("RTA_GATEWAY"), "prefsrc": present.get_attr("RTA_PREFSRC")}
        replacing = self._ip.route(
            "replace",
            dst=f"{peer}/{length}",
            oif=index,
            proto=_PROTOCOL_STATIC,
            metrics={"quickack": 1},
            **{name: way for name, way in ways.items() if way is not None},
        )
        await self._ask(replacing, f"set quickack on the route to {peer}")

    async def redirect(self, source: str, target: str, keys: Sequence[Sequence[str]]) -> None:
        """Have the kernel send out of `target` whatever comes out of `source` and matches all keys of one u32 filter
        (tc-u32(8), tc-mirred(8)). What was asked for before is forgotten; without filters everything stays.

        Raises:
            DataPlaneError: a device is not there, or the kernel refuses.
        """
        index, to = await self._index(source), await self._index(target)
        with contextlib.suppress(NetlinkError):  # there was none
            await self._ip.tc("del", "ingress", index)
        await self._ask(self._ip.tc("add", "ingress", index), f"filter what comes out of {source}")
        action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": to}
        for filter_keys in keys:
            everything = list(filter_keys) == MATCH_ALL
            adding = self._ip.tc(
                "add-filter",
                "u32",
                index,
                parent=_INGRESS,
                prio=1,
                protocol=_ETH_P_ALL if everything else _ETH_P_IP,
                target=0,
                keys=list(filter_keys),
                action=action,
            )
            await self._ask(adding, f"redirect from {source} to {target}")

    async def silence(self, device: str) -> None:
        """Let the host itself neither ask nor answer for addresses on a device, and set it up.

        Raises:
            DataPlaneError: it is not there, or the kernel refuses.
        """
        index = await self._index(device)
        await self._ask(self._ip.link("set", index=index, arp=False, state="up"), f"set {device} up without ARP")

    async def limit_rate(self, device: str, mbit: int) -> None:
        """Let no more than `mbit` Mbit/s out of a device: a token bucket (tc-tbf(8)) that holds what exceeds it.

        Raises:
            DataPlaneError: it is not there, or the kernel refuses.
        """
        index, bytes_a_second = await self._index(device), mbit * 125_000
        burst = max(_BURST_MIN_BYTES, bytes_a_second // 100)
        replacing = self._ip.tc("replace", "tbf", index, rate=f"{mbit}mbit", burst=burst, latency=_QUEUE_LATENCY)
        await self._ask(replacing, f"limit the rate of {device}")

    async def _dump(self, kind: str) -> AsyncIterator[Any]:
        found: AsyncIterator[Any] = await self._ask(getattr(self._ip, kind)("dump"), f"list every {kind}")
        return found

    async def _index(self, device: str) -> int:
        found = list(await self._ask(self._ip.link_lookup(ifname=device), f"look for {device}"))
        if not found:
            raise DataPlaneError(f"there is no network device {device}", "create it, or correct its name")
        return int(found[0])

    async def _ask(self, request: Awaitable[T], purpose: str) -> T:
        try:
            return await request
        except NetlinkError as error:
            remedy = "give the agent CAP_NET_ADMIN" if error.code == errno.EPERM else ""
            raise DataPlaneError(f"cannot {purpose}: {error}", remedy) from error
