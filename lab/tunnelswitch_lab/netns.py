"""Network namespaces and what is plugged into them: veth pairs, addresses, routes, plain requests from inside.

Thin helpers over pyroute2. They know nothing of sites, switches or processes' purposes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import AsyncIPRoute, netns

T = TypeVar("T")

NAMESPACE_DIRECTORY = Path("/run/netns")
_NUD_PERMANENT = 0x80
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000
_RESPONSE_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True)
class End:
    """One end of a veth pair: where it lives and what it is called. `mtu_bytes` counts the IP packet.

    `arp` is off for a switch's port: the kernel would answer there for the bridge's address, with the port's own MAC,
    and a tunnel whose neighbour was learnt from that answer carries nothing.
    """

    namespace: str
    device: str
    mtu_bytes: int = 1500
    mac: str | None = None
    arp: bool = True


def existing(prefix: str) -> list[str]:
    """Names of the namespaces on this machine that begin with `prefix`, sorted."""
    return sorted(name for name in netns.listnetns() if name.startswith(prefix))


async def create(name: str) -> None:
    """Make a namespace with its loopback, without IPv6, so that nothing speaks in it unasked."""
    netns.create(name)
    with entered(name):
        _disable_ipv6()
    async with netlink(name) as ip:
        await set_up(ip, "lo")


def _disable_ipv6() -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")


def remove(name: str) -> None:
    """Remove a namespace with all its devices; one that is already gone is no error."""
    with contextlib.suppress(FileNotFoundError):
        netns.remove(name)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """Move the calling thread into a namespace. Never await inside: other tasks would be moved too."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.setns(name, flags=0)
        try:
            yield
        finally:
            netns.setns(home)
    finally:
        os.close(home)


async def run_inside(name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine inside a namespace, on a thread with an event loop of its own."""

    def body() -> T:
        with entered(name):
            return asyncio.run(work())

    return await asyncio.to_thread(body)


def processes_inside(names: Iterable[str]) -> set[int]:
    """Process ids of everything alive in these namespaces, the caller excepted."""
    inodes = set()
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            inodes.add(f"net:[{(NAMESPACE_DIRECTORY / name).stat().st_ino}]")
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is a zombie
            if str((entry / "ns/net").readlink()) in inodes:
                found.add(int(entry.name))
    return found


@contextlib.asynccontextmanager
async def netlink(name: str) -> AsyncIterator[AsyncIPRoute]:
    """A routing socket that works inside a namespace, from any thread."""
    with entered(name):
        descriptor = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE).detach()
    async with AsyncIPRoute(fileno=descriptor) as ip:
        yield ip


async def index_of(ip: AsyncIPRoute, device: str) -> int:
    """Interface index of a device. Raises LookupError if it is not there."""
    found = list(await ip.link_lookup(ifname=device))
    if not found:
        raise LookupError(f"no device {device}")
    return int(found[0])


async def set_up(ip: AsyncIPRoute, device: str, **attributes: Any) -> int:
    """Bring a device up, with pyroute2 link attributes; returns its index."""
    index = await index_of(ip, device)
    await ip.link("set", index=index, state="up", **attributes)
    return index


async def add_veth(left: End, right: End) -> None:
    """Plug two namespaces together. Both ends come up with checksum offload off."""
    async with netlink(left.namespace) as ip:
        await ip.link(
            "add",
            kind="veth",
            ifname=left.device,
            peer={"ifname": right.device, "net_ns_fd": right.namespace},
        )
    for end in (left, right):
        disable_offload(end.namespace, end.device)
        async with netlink(end.namespace) as ip:
            attributes = {"address": end.mac} if end.mac else {}
            await set_up(ip, end.device, mtu=end.mtu_bytes, arp=end.arp, **attributes)


def disable_offload(namespace: str, device: str) -> None:
    """`ethtool -K DEVICE tx off` (linux/ethtool.h, ETHTOOL_STXCSUM).

    A userspace switch hands on frames whose checksum the sender left to the hardware; ping works, UDP and TCP do not.
    """
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sQ16x", device.encode(), ctypes.addressof(value))
    with entered(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)


def add_tap(namespace: str, device: str) -> None:
    """A tap that outlives whoever opens it; one that is there is kept (linux/if_tun.h). Raises OSError."""
    request = struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI)
    with entered(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)  # it belongs to the namespace it is opened in
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def stream_socket() -> socket.socket:
    """A TCP socket for use with an event loop; it belongs to the namespace that the thread is in now."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def http_get(namespace: str, endpoint: str, path: str, timeout_seconds: float = 1.0) -> tuple[int, bytes]:
    """GET from HOST:PORT inside a namespace: status and body. Raises OSError or TimeoutError if nobody answers."""
    host, _, port = endpoint.rpartition(":")
    with entered(namespace):
        connection = stream_socket()
    async with asyncio.timeout(timeout_seconds):
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
            reader, writer = await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            answer = b""
            while len(answer) < _RESPONSE_LIMIT_BYTES and (chunk := await reader.read(65536)):
                answer += chunk
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(b" ", 2)
    if len(fields) < 3 or not fields[1].isdigit():
        raise ConnectionError(f"{endpoint} does not speak HTTP")
    return int(fields[1]), body


async def wait_for(
    condition: Callable[[], Awaitable[bool]], what: str, timeout_seconds: float, poll_seconds: float = 0.05
) -> None:
    """Poll until `condition` holds. Raises TimeoutError that says `what` did not happen."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while not await condition():
        if loop.time() > deadline:
            raise TimeoutError(f"{what}: not after {timeout_seconds:g} s")
        await asyncio.sleep(poll_seconds)
