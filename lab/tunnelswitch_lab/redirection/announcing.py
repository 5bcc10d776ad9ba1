"""Announcements: frames that tell every switch of a layer 2 where a MAC and an address are now."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench.pair import tool
from tunnelswitch_lab.redirection import openflow

Act = Callable[[], Awaitable[None]]

_BROADCAST = b"\xff" * 6
_ETH_ARP, _ETH_RARP = 0x0806, 0x8035
_ARP_REQUEST, _REVERSE_REQUEST = 1, 3
_REPEATS, _REPEAT_SECONDS = 3, 0.05


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
    """Announce the service from the copy's own device, as a hypervisor does for a guest. Some may be lost: repeated.

    `--device` is a copy's device in `--namespace`, or a machine's port of the switch whose management socket and
    database are `--switch` and `--database`.
    """
    parser = argparse.ArgumentParser(prog="redirector garp")
    parser.add_argument("--namespace")
    parser.add_argument("--switch")
    parser.add_argument("--database")
    parser.add_argument("--device", required=True)
    parser.add_argument("--mac", required=True)
    given = parser.parse_args(arguments)
    frames = announcements(given.mac, names.SERVICE_ADDRESS)
    if given.switch:
        port = await tool(
            "ovs-vsctl", f"--db={given.database}", "--timeout=5", "get", "Interface", given.device, "ofport"
        )
        sock = openflow.connect(given.switch)
        frames = [openflow.packet_out(int(port), frame) for frame in frames]
    else:
        with netns.entered(given.namespace):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            sock.bind((given.device, 0))

    async def act() -> None:
        for number in range(_REPEATS):
            await asyncio.sleep(_REPEAT_SECONDS * (number > 0))
            for frame in frames:
                sock.send(frame)

    with sock:
        yield act
