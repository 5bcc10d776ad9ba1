"""Real packets on a veth pair: what the adapter says against what the sender did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from netns_bed import Namespace, veth
from three_sites import Events, until

from tunnelswitch.adapters import client_packets
from tunnelswitch.adapters.client_packets import ClientPackets, PacketLimits
from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import Traffic

SERVICE, CLIENT, OTHER = "192.168.77.10", "192.168.77.99", "192.168.77.11"


@dataclass
class Pair:
    """A client behind `client0` of the gateway, where the service lives too."""

    gateway: Namespace
    client: Namespace

    async def plug(self) -> None:
        await veth(self.gateway, "client0", self.client, "eth0")
        await self.gateway.set_up("client0", f"{SERVICE}/24")
        await self.client.set_up("eth0", f"{CLIENT}/24")


@pytest.fixture
async def pair(namespaces: Callable[[], Namespace]) -> Pair:
    made = Pair(namespaces(), namespaces())
    await made.plug()
    return made


@pytest.fixture
async def watch(pair: Pair, events: Events) -> AsyncIterator[Callable[..., Any]]:
    made: list[ClientPackets] = []

    async def start(**options: Any) -> ClientPackets:
        limits = PacketLimits(retry_seconds=0.1, **options)
        one = ClientPackets("client0", site="gateway", services={"pbx": SERVICE}, emit=events.append, limits=limits)
        made.append(one)
        with pair.gateway.entered():  # the socket stays in it; nothing is awaited before it is open
            await one.start()
        return one

    yield start
    for one in made:
        await one.close()


async def send(source: Namespace, address: str, target: str, seconds_between: list[float]) -> list[tuple[float, float]]:
    """One datagram after each pause; returns between which two moments each left, as Unix seconds."""
    left = []
    with source.udp(address, 5004) as sender:
        for pause in seconds_between:
            await asyncio.sleep(pause)
            before = time.time()
            sender.sendto(b"TSWPxxxx", (target, 5004))
            left.append((before, time.time()))
    return left


async def test_a_pause_of_the_service_is_measured(pair: Pair, watch: Any, events: Events) -> None:
    await watch()
    left = await send(pair.gateway, SERVICE, CLIENT, [0.005] * 60 + [0.3] + [0.005] * 20)
    last, first = left[59], left[60]  # of the pause; the machine may have made others
    fact = await events.until(
        lambda event: isinstance(event, Traffic) and first[0] - 0.01 < event.gap_ended_at < first[1] + 0.01, "gap"
    )
    assert fact.service == "pbx"
    assert first[0] - last[1] - 0.01 < fact.gap_seconds < first[1] - last[0] + 0.01
    assert fact.downtime_seconds == pytest.approx(fact.gap_seconds - fact.nominal_spacing_seconds)


async def test_clients_that_nobody_answers_are_told(pair: Pair, watch: Any, events: Events) -> None:
    await watch()
    async with pair.gateway.netlink() as ip:  # no host, no answer
        await ip.flush_addr(index=(await ip.link_lookup(ifname="client0"))[0])
    async with pair.client.netlink() as ip:
        index = (await ip.link_lookup(ifname="eth0"))[0]
        await ip.neigh("add", dst=SERVICE, lladdr="02:00:00:00:00:10", ifindex=index)
    begun = time.time()
    async with asyncio.timeout(20):
        while not any(seen.unanswered_seconds > 0.2 for seen in events.of(ClientsSeen)):
            await send(pair.client, CLIENT, SERVICE, [0.02])
    assert max(seen.unanswered_seconds for seen in events.of(ClientsSeen)) < time.time() - begun
    await events.until(lambda event: event == ClientsSeen("pbx", 0.0), "they gave up")


async def test_clients_that_are_answered_are_not(pair: Pair, watch: Any, events: Events) -> None:
    one = await watch()
    with pair.client.udp(CLIENT, 5004) as client, pair.gateway.udp(SERVICE, 5004) as service:
        for _ in range(40):
            client.sendto(b"ask", (SERVICE, 5004))
            service.sendto(b"answer", (CLIENT, 5004))
            await asyncio.sleep(0.01)
    await until(lambda: one.packets >= 70, "packets counted")
    assert not events.of(ClientsSeen)


async def test_only_packets_of_the_services_pass_the_filter(pair: Pair, watch: Any) -> None:
    one = await watch()
    async with pair.gateway.netlink() as ip:
        index = (await ip.link_lookup(ifname="client0"))[0]
        await ip.addr("add", index=index, address=OTHER, prefixlen=24)
    await send(pair.gateway, OTHER, CLIENT, [0.001] * 20)
    await asyncio.sleep(0.1)
    before = one.packets
    await send(pair.gateway, SERVICE, CLIENT, [0.001] * 20)
    await until(lambda: one.packets >= before + 20, "packets counted")
    assert before == 0


async def test_reading_late_invents_no_gap_and_no_silence(pair: Pair, watch: Any, events: Events) -> None:
    one = await watch(batch_packets=50)
    said: list[tuple[float, float]] = []
    with pair.client.udp(CLIENT, 5004) as client, pair.gateway.udp(SERVICE, 5004) as service:
        for _ in range(400):  # no turn for the adapter: it reads all of it afterwards, in small batches
            client.sendto(b"ask", (SERVICE, 5004))
            before = time.time()
            service.sendto(b"answer", (CLIENT, 5004))
            said.append((before, time.time()))
            time.sleep(0.001)  # noqa: ASYNC251
    await until(lambda: one.packets >= 700, "packets counted")
    await asyncio.sleep(0.3)  # and the last ones
    assert not events.of(ClientsSeen)
    # A machine that stood still makes gaps, too.
    longest_seconds = max(after - before for (before, _), (_, after) in pairwise(said))
    assert not [fact for fact in events.of(Traffic) if fact.gap_seconds > max(0.2, longest_seconds + 0.01)]


async def test_dropped_packets_make_it_forget(
    pair: Pair, watch: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_packets, "DROPS_TOLD_SECONDS", 1.0)
    one = await watch(buffer_bytes=4096)
    with pair.gateway.udp(SERVICE, 5004) as service:
        for _ in range(500):
            service.sendto(b"answer", (CLIENT, 5004))
        await until(lambda: one.dropped > 0, "drops counted")
        assert "faster than they are read" in one.problem
    assert not events.of(Traffic)
    await until(lambda: not one.problem, "it is over")


async def test_a_device_may_come_and_go(pair: Pair, watch: Any) -> None:
    with pair.gateway.entered():  # where it looks for the device again
        await pair.gateway.delete("client0")
        one = await watch()
        assert not one.ready
        await pair.plug()
        await until(lambda: one.ready, "ready")
        await pair.gateway.delete("client0")
        await until(lambda: not one.ready, "gone is seen")
        assert one.problem.startswith("client packets on client0 are not watched: ")
        await pair.plug()
        await until(lambda: one.ready, "ready again")
        assert one.problem == ""
        await send(pair.gateway, SERVICE, CLIENT, [0.001] * 20)
        await until(lambda: one.packets >= 20, "packets counted")
