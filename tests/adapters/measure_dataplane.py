"""Figures for docs/dataplane.md: `python tests/adapters/measure_dataplane.py` (root). Not a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable

from netns_bed import Namespace, veth
from pyroute2 import netns
from three_sites import (
    ADDRESSES,
    CLIENT_ADDRESS,
    CLUSTER,
    ENDS,
    GROUP,
    PORT,
    SERVICE_ADDRESS,
    T2,
    T3,
    Bed,
    Events,
    stamp,
    switch_to,
)

from aioovs import Database
from tunnelswitch.adapters.client_packets import ClientPackets
from tunnelswitch.adapters.ovs_paths import OvsPaths
from tunnelswitch.adapters.ovs_tunnels import OvsTunnels
from tunnelswitch.core.events import PathChanged, SwitchApplied
from tunnelswitch.core.facts import Path
from tunnelswitch.dataplane import MONITORED

ROUNDS = 200
MOVES = 30


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def summary(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return f"median {statistics.median(ordered) * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, most {ordered[-1] * 1e3:.2f} ms"


def tunnels(database: Database, site: str, emit: Callable[[object], None]) -> OvsTunnels:
    return OvsTunnels(
        database,
        cluster=CLUSTER,
        site=site,
        ends=ENDS[site],
        groups=(GROUP.name,),
        allowed_bridges=("br-svc",),
        emit=emit,
    )


async def switches(gateway: OvsTunnels) -> None:
    """Submitted to applied, back and forth."""
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    applied, committed = [], []
    for epoch in range(2, ROUNDS + 2):
        add, remove = (T3, T2) if epoch % 2 == 0 else (T2, T3)
        done = await gateway.apply(switch_to(stamp(epoch), stamp(epoch - 1), add=(add,), remove=(remove,)))
        assert isinstance(done, SwitchApplied), done
        applied.append(done.applied_at - done.submitted_at)
        committed.append(done.committed_at - done.submitted_at)
        await asyncio.sleep(0.02)
    say(f"switch, submitted to committed (durable): {summary(committed)}")
    say(f"switch, submitted to applied:             {summary(applied)}")


async def first_packets(bed: Bed, databases: dict[str, Database]) -> None:
    """Around a switch: when the new copy answers first, and until when packets still reached the old one.

    The mesh is there; neighbours are made to age after 2 s, so that only what it keeps warm is warm.
    """
    paths, events = [], Events()
    for site in ADDRESSES:
        peers = {peer: address for peer, address in ADDRESSES.items() if peer != site}
        paths.append(
            OvsPaths(
                databases[site],
                cluster=CLUSTER,
                site=site,
                peers=peers,
                probe_bridge="br-probe",
                like_bridges=("br-svc",),
                interval_seconds=0.02,
                multiplier=3,
                emit=events.append if site == "gateway" else lambda event: None,
            )
        )
        await paths[-1].start()
    for site in ("primary", "secondary"):
        await events.until(lambda event, site=site: event == PathChanged(site, Path.UP), "up")
    sites = {site: tunnels(databases[site], site, lambda event: None) for site in ADDRESSES}
    for site in ("primary", "secondary"):
        await sites[site].apply(switch_to(stamp(1), add=ENDS[site]))
    await sites["gateway"].apply(switch_to(stamp(1), add=(T2,)))
    for switch in bed.switches.values():
        switch.appctl("tnl/neigh/aging", "2")
    await asyncio.sleep(5)
    say("neighbours of the gateway:\n" + bed.switches["gateway"].appctl("tnl/neigh/show"))
    first, last = [], []
    async with Stream(bed) as stream:
        await asyncio.sleep(1.5)
        for epoch in range(2, MOVES + 2):
            add, remove = (T3, T2) if epoch % 2 == 0 else (T2, T3)
            stream.answers.clear()
            submitted = time.monotonic()
            done = await sites["gateway"].apply(switch_to(stamp(epoch), stamp(epoch - 1), add=(add,), remove=(remove,)))
            assert isinstance(done, SwitchApplied), done
            await asyncio.sleep(0.5)
            asked = {site: [at for at, who in stream.answers if who == site and at > submitted] for site in ADDRESSES}
            first.append(min(asked[add.remote_site]) - done.applied_at)
            last.append(max(asked[remove.remote_site], default=submitted) - done.applied_at)
            if epoch == 2:
                say(f"the first packet that arrives over a new T3 left {first[0] * 1e3:.1f} ms after applied")
    say(f"first packet that the new copy answers, after applied: {summary(first)}")
    say(f"last packet that the old copy answers, after applied:  {summary(last)}")
    for one in paths:
        await one.close()


class Stream:
    """Asks each millisecond; `answers` are (when the question left, which site's copy answered it)."""

    def __init__(self, bed: Bed) -> None:
        self._client = bed.hosts["gateway"].udp(CLIENT_ADDRESS, PORT)
        self._copies = {site: bed.hosts[site].udp(SERVICE_ADDRESS, PORT) for site in ("primary", "secondary")}
        self.answers: list[tuple[float, str]] = []

    async def __aenter__(self) -> Stream:
        loop = asyncio.get_running_loop()
        for site, copy in self._copies.items():
            loop.add_reader(copy, self._answer, copy, site)
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for copy in self._copies.values():
            asyncio.get_running_loop().remove_reader(copy)
            copy.close()
        self._client.close()

    async def _ask(self) -> None:
        while True:
            self._client.sendto(struct.pack("d", time.monotonic()), (SERVICE_ADDRESS, PORT))
            await asyncio.sleep(0.001)

    def _answer(self, copy: socket.socket, site: str) -> None:
        """A question that arrived counts as answered: the way back is not what is measured."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, client = copy.recvfrom(64)
                copy.sendto(data, client)
                self.answers.append((struct.unpack("d", data)[0], site))


async def client_packets() -> None:
    """CPU of the adapter at 1 kHz in both directions."""
    gateway, client = Namespace(), Namespace()
    await veth(gateway, "client0", client, "eth0")
    await gateway.set_up("client0", "192.168.77.10/24")
    await client.set_up("eth0", "192.168.77.99/24")
    sender = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "flood", pass_fds=(gateway.fd, client.fd), env={"FDS": f"{gateway.fd} {client.fd}"}
    )
    one = ClientPackets("client0", site="gateway", services={"pbx": "192.168.77.10"}, emit=lambda event: None)
    with gateway.entered():
        await one.start()
    await asyncio.sleep(1)
    cpu, wall, packets = time.process_time(), time.monotonic(), one.packets
    await asyncio.sleep(5)
    cpu, wall, packets = time.process_time() - cpu, time.monotonic() - wall, one.packets - packets
    say(f"client packets: {packets / wall:.0f}/s, {100 * cpu / wall:.1f} % of a core, {one.dropped} dropped")
    await one.close()
    await sender.wait()


def flood() -> None:
    """One request and one answer each millisecond for seven seconds."""
    sockets = []
    for fd, address in zip(map(int, os.environ["FDS"].split()), ("192.168.77.10", "192.168.77.99"), strict=True):
        netns.setns(fd)
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 5004))
        sockets.append(made)
    service, client = sockets
    start = time.monotonic()
    for n in range(7000):
        client.sendto(b"x" * 60, ("192.168.77.10", 5004))
        service.sendto(b"x" * 60, ("192.168.77.99", 5004))
        time.sleep(max(0.0, start + n / 1000 - time.monotonic()))


async def main() -> None:
    await client_packets()
    bed = Bed()
    try:
        await bed.build()
        async with contextlib.AsyncExitStack() as stack:
            databases = {
                site: await stack.enter_async_context(Database(bed.switches[site].remote, tables=MONITORED))
                for site in ADDRESSES
            }
            await first_packets(bed, databases)
            bed.clean()
            await asyncio.sleep(0.2)
            await switches(tunnels(databases["gateway"], "gateway", lambda event: None))
    finally:
        bed.close()


if __name__ == "__main__":
    flood() if sys.argv[1:] == ["flood"] else asyncio.run(main())
