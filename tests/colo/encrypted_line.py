"""A line between two network namespaces with WireGuard over it, by its userspace implementation (wireguard-go).

The kernel of a machine for tests may not have WireGuard; the protocol and the packets are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from nacl.bindings import crypto_scalarmult_base

from tunnelswitch_lab import netns

LISTEN_PORT = 51820
LINE = {"one": "192.0.2.1", "two": "192.0.2.2"}  # RFC 5737: for documentation, and for a line that leads nowhere
INSIDE = {"one": "10.7.0.1", "two": "10.7.0.2"}
_SOCKETS = Path("/var/run/wireguard")
_STALE = re.compile(r"tsw-wg(\d+)-(one|two)")


def namespace(site: str) -> str:
    return f"tsw-wg{os.getpid()}-{site}"


def _device(site: str) -> str:
    return f"wg{os.getpid()}{site[0]}"


@contextlib.asynccontextmanager
async def encrypted_line() -> AsyncIterator[None]:
    """Both namespaces, the line and WireGuard on it; all of it goes away again, also what a killed run has left."""
    _remove_stale()
    private = {site: secrets.token_bytes(32) for site in LINE}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for site in LINE:
            await netns.create(namespace(site))
        await netns.add_veth(*(netns.End(namespace(site), "line") for site in LINE))
        for site, other in (("one", "two"), ("two", "one")):
            await _address(site, "line", LINE[site])
            daemons.append(_daemon(site))
            await _configure(site, private[site], crypto_scalarmult_base(private[other]), other)
            await _address(site, _device(site), INSIDE[site])
        yield
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()
        for site in LINE:
            netns.remove(namespace(site))
            (_SOCKETS / f"{_device(site)}.sock").unlink(missing_ok=True)


def _remove_stale() -> None:
    for name in netns.existing("tsw-wg"):
        found = _STALE.fullmatch(name)
        if found and not Path("/proc", found[1]).exists():
            netns.remove(name)


async def _address(site: str, device: str, address: str) -> None:
    async with netns.netlink(namespace(site)) as ip:
        index = await netns.set_up(ip, device, mtu=1500 if device == "line" else 1420)
        await ip.addr("add", index=index, address=address, prefixlen=24)


def _daemon(site: str) -> subprocess.Popen[bytes]:
    command = ["setpriv", "--pdeathsig", "KILL", "--", "wireguard-go", "--foreground", _device(site)]
    return subprocess.Popen(["ip", "netns", "exec", namespace(site), *command], stderr=subprocess.DEVNULL)


async def _configure(site: str, private: bytes, peer: bytes, other: str) -> None:
    """Over its socket (WireGuard's cross-platform interface: keys in hexadecimal, an empty line at the end)."""
    path = _SOCKETS / f"{_device(site)}.sock"
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110 - a file tells nobody that it is there
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(str(path))
        wanted = (
            f"set=1\nprivate_key={private.hex()}\nlisten_port={LISTEN_PORT}\nreplace_peers=true\n"
            f"public_key={peer.hex()}\nendpoint={LINE[other]}:{LISTEN_PORT}\nallowed_ip={INSIDE[other]}/32\n\n"
        )
        writer.write(wanted.encode())
        answer = await reader.readuntil(b"\n\n")
        writer.close()
    assert answer == b"errno=0\n\n", answer


@contextlib.contextmanager
def listening(site: str) -> Iterator[socket.socket]:
    """A packet socket on the line, which hears all that crosses it (packet(7))."""
    with netns.entered(namespace(site)):
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    heard.bind(("line", 0))
    heard.setblocking(False)
    with heard:
        yield heard
