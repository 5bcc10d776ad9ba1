"""Checkpoints over an encrypted line: what crosses it is WireGuard's, and the pair works as over any other."""

from __future__ import annotations

import signal
import socket
import struct

import pytest
from encrypted_line import INSIDE, LISTEN_PORT, encrypted_line, listening, namespace
from machines import Machines, promote, until

from tunnelswitch.config import ColoSite
from tunnelswitch.core.events import Promoted
from tunnelswitch.core.facts import CheckpointSeen, Protection

pytestmark = pytest.mark.lab
IPV4, UDP = 0x0800, 17
MIGRATION_PORT = 7001


def crossed(heard: socket.socket) -> set[tuple[int, int, int]]:
    """Ethertype, protocol and destination port of all that was heard, ARP aside."""
    kinds = set()
    while True:
        try:
            frame = heard.recv(2048)
        except BlockingIOError:
            return kinds
        (ethertype,) = struct.unpack_from("!H", frame, 12)
        if ethertype == IPV4:
            kinds.add((ethertype, frame[23], struct.unpack_from("!H", frame, 14 + 4 * (frame[14] & 15) + 2)[0]))
        elif ethertype != 0x0806:
            kinds.add((ethertype, 0, 0))


async def test_nothing_of_a_machine_crosses_the_line_in_the_clear(machines: Machines) -> None:
    sites = {site: ColoSite(migration_address=f"{address}:{MIGRATION_PORT}") for site, address in INSIDE.items()}
    async with encrypted_line():
        with listening("one") as heard:
            for site in INSIDE:
                machines.boot(site, standby=site == "two", namespace=namespace(site))
            first, second = [await machines.watch(site, sites=sites) for site in INSIDE]
            await until(lambda: first.seen.protection is Protection.PROTECTED and second.seen.in_sync)
            await until(lambda: len(second.of(CheckpointSeen)) > 10)
            assert crossed(heard) == {(IPV4, UDP, LISTEN_PORT)}
        machines.signal("one", signal.SIGKILL)
        assert isinstance(await second.driver.promote(promote()), Promoted)
        await until(lambda: second.seen.role == "active")
        await machines.close()
