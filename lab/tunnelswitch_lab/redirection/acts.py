"""The acts themselves: a few frames, a route, an update. Each is opened beforehand and then done in one go."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import dns.asyncquery
import dns.rcode
import dns.tsigkeyring
import dns.update

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench import routed
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.redirection.ddns import KEY_NAME, NAME, STANDBY_ADDRESS, TTL_SECONDS, ZONE

Act = Callable[[], Awaitable[None]]

_BROADCAST = b"\xff" * 6
_ETH_ARP, _ETH_RARP = 0x0806, 0x8035
_ARP_REQUEST, _REVERSE_REQUEST = 1, 3
_REPEATS, _REPEAT_SECONDS = 3, 0.05
_UPDATE_SECONDS = 2.0


def announcements(mac: str, address: str) -> list[bytes]:
    """A gratuitous ARP request (RFC 5227, an announcement) and a reverse one (RFC 903), which says where a MAC is."""
    hardware, protocol = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(address)
    nothing = bytes(4)

    def frame(kind: int, operation: int, payload: bytes) -> bytes:
        head = struct.pack("!6s6sHHHBBH", _BROADCAST, hardware, kind, 1, 0x0800, 6, 4, operation)
        return (head + payload).ljust(60, b"\0")

    return [
        frame(_ETH_ARP, _ARP_REQUEST, hardware + protocol + bytes(6) + protocol),
        frame(_ETH_RARP, _REVERSE_REQUEST, hardware + nothing + hardware + nothing),
    ]


@contextlib.asynccontextmanager
async def garp(arguments: list[str]) -> AsyncIterator[Act]:
    """Announce the service from the copy's own device, as a hypervisor does for a guest. Some may be lost: repeated."""
    parser = argparse.ArgumentParser(prog="redirector garp")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--mac", required=True)
    given = parser.parse_args(arguments)
    with netns.entered(given.namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        sock.bind((given.device, 0))
    frames = announcements(given.mac, names.SERVICE_ADDRESS)

    async def act() -> None:
        for number in range(_REPEATS):
            await asyncio.sleep(_REPEAT_SECONDS * (number > 0))
            for frame in frames:
                sock.send(frame)

    with sock:
        yield act


@contextlib.asynccontextmanager
async def bgp(arguments: list[str]) -> AsyncIterator[Act]:
    """Give the standby's router its route to the copy: bgpd announces what zebra sees."""
    parser = argparse.ArgumentParser(prog="redirector bgp")
    parser.add_argument("--lab", required=True)
    standby = Layout(parser.parse_args(arguments).lab).servers[1]
    async with routed.route_to_copy(standby) as lead:
        yield lead


@contextlib.asynccontextmanager
async def dns_update(arguments: list[str]) -> AsyncIterator[Act]:
    """Replace the name's address, signed. Raises OSError if the server does not take it."""
    parser = argparse.ArgumentParser(prog="redirector dns")
    parser.add_argument("--server", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    given = parser.parse_args(arguments)
    secret = await asyncio.to_thread(given.key_file.read_text, encoding="ascii")
    keys = dns.tsigkeyring.from_text({KEY_NAME: secret})

    async def act() -> None:
        update = dns.update.UpdateMessage(ZONE, keyring=keys)
        update.replace(NAME, TTL_SECONDS, "A", STANDBY_ADDRESS)
        answer = await dns.asyncquery.udp(update, given.server, timeout=_UPDATE_SECONDS)
        if answer.rcode() != dns.rcode.NOERROR:
            raise OSError(f"the name server refuses the update: {dns.rcode.to_text(answer.rcode())}")

    yield act


ACTS: dict[str, Callable[[list[str]], contextlib.AbstractAsyncContextManager[Act]]] = {
    "garp": garp,
    "bgp": bgp,
    "dns": dns_update,
}
