"""The bus over a real cluster of three: messages arrive, bad ones do not matter, servers die."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import time
from typing import TYPE_CHECKING

import nats
import pytest
from bus_ends import PATIENT, bus, until
from structlog.testing import capture_logs

from tunnelswitch.adapters.nats_bus import NatsBus
from tunnelswitch.bus import codec, limits, samples
from tunnelswitch.bus.access import Access
from tunnelswitch.bus.connection import Timing
from tunnelswitch.core import facts
from tunnelswitch.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bus_cluster import Cluster

pytestmark = pytest.mark.nats

HEARTBEATS = "tsw.v1.lab.heartbeat.gateway"


async def pair(
    cluster: Cluster, closing: Callable[..., None], on_state: Callable | None = None, timing: Timing = PATIENT
) -> tuple[NatsBus, NatsBus, list]:
    """A sender on n1 and a receiver on n2, connected, and what the receiver hears."""
    heard: list = []
    sender = bus(cluster, "gateway/agent", lambda _: None, "n1")
    receiver = bus(cluster, "secondary/agent", heard.append, "n2", on_state=on_state, timing=timing)
    closing(sender, receiver)
    await sender.start()
    await receiver.start()
    await until(lambda: sender.connected and receiver.connected)
    await flowing(sender, heard)
    return sender, receiver, heard


_SEQUENCE = itertools.count(1)


def beat() -> facts.Heartbeat:
    return dataclasses.replace(samples.HEARTBEAT, sequence=next(_SEQUENCE))


async def flowing(sender: NatsBus, heard: list) -> None:
    """Send heartbeats until a new one is heard."""
    first = beat()
    async with asyncio.timeout(20):
        while not any(message.sequence >= first.sequence for message in heard[-20:]):
            sender.publish(beat())
            await asyncio.sleep(0.005)


async def test_what_is_published_arrives_once_and_in_order(cluster: Cluster, closing: Callable[..., None]) -> None:
    sender, receiver, heard = await pair(cluster, closing)
    heard.clear()
    sent = [beat() for _ in range(200)]
    for message in sent:
        sender.publish(message)
    await sender.flush(20.0)
    proof = next(message for message in samples.MESSAGES if isinstance(message, facts.Proof))
    proof = dataclasses.replace(proof, site="gateway")
    sender.publish(proof)
    await until(lambda: proof in heard)
    assert [message for message in heard if message in sent] == sent
    assert receiver.counts.bad == {}


async def test_nobody_hears_himself(cluster: Cluster, closing: Callable[..., None]) -> None:
    heard: list = []
    mine, namesake = (bus(cluster, "gateway/agent", heard.append) for _ in range(2))
    other_heard: list = []
    other = bus(cluster, "secondary/agent", other_heard.append)
    closing(mine, namesake, other)
    for each in (mine, namesake, other):
        await each.start()
    await until(lambda: mine.connected and namesake.connected and other.connected)
    await flowing(mine, other_heard)
    assert heard == []


async def test_bad_messages_are_counted_and_do_not_matter(cluster: Cluster, closing: Callable[..., None]) -> None:
    kinds: list[str] = []
    heard: list = []
    receiver = bus(cluster, "secondary/agent", heard.append, on_bad=kinds.append)
    sender = bus(cluster, "gateway/agent", lambda _: None)
    closing(sender, receiver)
    await receiver.start()
    await sender.start()
    await until(lambda: sender.connected and receiver.connected)
    good = codec.encode(beat(), "gateway/agent", "1", 1.0)
    bad = {
        "not_json": b"\x00garbage",
        "too_large": b" " * (limits.PAYLOAD_BYTES + 1),
        "version": good.replace(b".v1.", b".v2."),
        "type": good.replace(b"v1.heartbeat", b"v1.gossip"),
        "invalid": good.replace(b'"late":false', b'"late":7'),
        "subject": good.replace(b'"site":"gateway"', b'"site":"primary"', 1),
        "source": good.replace(b'"source":"gateway/agent"', b'"source":"primary/agent"'),
    }
    of_sender = [kind for kind in bad if kind != "subject"]  # that one bears its own name
    stranger = await nats.connect(cluster.url("n3"))
    with capture_logs() as logs:
        for payload in bad.values():
            for _ in range(3):
                await stranger.publish(HEARTBEATS, payload)
        await stranger.flush()
        await until(lambda: len(kinds) == 3 * len(bad))
        await until(lambda: sender.counts.bad.total() == 3 * len(of_sender))
    await stranger.close()
    assert receiver.counts.bad == dict.fromkeys(bad, 3)
    lines = [line["kind"] for line in logs if line["event"] == "bad message dropped"]
    assert sorted(lines) == sorted([*bad, *of_sender]), "each of the two says it once"
    assert all(line["remedy"] for line in logs)
    assert heard == []
    await flowing(sender, heard)


async def test_a_handler_that_fails_does_not_end_the_reader(cluster: Cluster, closing: Callable[..., None]) -> None:
    calls: list = []
    reports: list = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))

    def emit(message: object) -> None:
        calls.append(message)
        raise ValueError("a fault in the core")

    receiver = bus(cluster, "secondary/agent", emit)
    sender = bus(cluster, "gateway/agent", lambda _: None)
    closing(sender, receiver)
    await receiver.start()
    await sender.start()
    await until(lambda: sender.connected and receiver.connected)
    await flowing(sender, calls)
    await flowing(sender, calls)
    assert {str(context["exception"]) for context in reports} == {"a fault in the core"}


async def test_a_killed_server_costs_moments_and_nothing_is_replayed(
    cluster: Cluster, closing: Callable[..., None]
) -> None:
    stale = [beat() for _ in range(50)]
    urls: dict[str, list[str | None]] = {"sender": [], "receiver": []}

    def sender_state(url: str | None) -> None:
        urls["sender"].append(url)
        if url is None:
            for message in stale:
                sender.publish(message)

    heard: list = []
    sender = bus(cluster, "gateway/agent", lambda _: None, "n1", on_state=sender_state)
    receiver = bus(cluster, "secondary/agent", heard.append, "n2", on_state=urls["receiver"].append)
    closing(sender, receiver)
    await sender.start()
    await receiver.start()
    await until(lambda: sender.connected and receiver.connected)
    await flowing(sender, heard)
    cluster.kill("n1")
    await until(lambda: len(urls["sender"]) == 3)
    assert sender.counts.dropped >= len(stale)
    await flowing(sender, heard)
    cluster.kill("n2")
    await until(lambda: len(urls["receiver"]) == 3)
    await flowing(sender, heard)
    assert urls["receiver"] == [cluster.url("n2"), None, cluster.url("n3")]
    assert not [message for message in heard if message in stale]


async def test_a_silent_server_is_left(cluster: Cluster, closing: Callable[..., None]) -> None:
    """SIGSTOP: its sockets accept everything and say nothing."""
    states: list[str | None] = []
    sender, _, heard = await pair(cluster, closing, states.append, Timing())
    cluster.stop("n2")
    await until(lambda: None in states)
    await flowing(sender, heard)
    late = bus(cluster, "late", lambda _: None, "n2", timing=Timing())
    closing(late)
    await late.start()
    await until(lambda: late.connected)
    cluster.resume("n2")
    await flowing(sender, heard)


async def test_the_preferred_server_is_gone_back_to(cluster: Cluster, closing: Callable[..., None]) -> None:
    states: list[str | None] = []
    sender, _, heard = await pair(cluster, closing, states.append)
    cluster.kill("n2")
    await until(lambda: len(states) == 3)
    cluster.start("n2")
    await until(lambda: states[-1] == cluster.url("n2"), 20)
    assert None not in states[2:], "it went over without a moment alone"
    await flowing(sender, heard)


async def test_without_a_server_it_starts_says_so_once_and_goes_on(
    cluster: Cluster, closing: Callable[..., None]
) -> None:
    cluster.kill()
    heard: list = []
    sender = bus(cluster, "gateway/agent", lambda _: None, "n1")
    receiver = bus(cluster, "secondary/agent", heard.append, "n2")
    closing(sender, receiver)
    with capture_logs() as logs:
        await sender.start()
        await receiver.start()
        assert not sender.connected
        sender.publish(beat())
        await sender.flush(0.1)
        await until(lambda: len(logs) == 2)
        await asyncio.sleep(1.0)
    assert [line["event"] for line in logs] == ["no NATS server answers, trying for ever"] * 2
    assert set(logs[0]["errors"]) == set(cluster.urls)
    assert sender.counts.dropped == 1
    cluster.start()
    await until(lambda: sender.connected and receiver.connected, 20)
    await flowing(sender, heard)
    for _ in range(2):
        cluster.kill()
        await until(lambda: not sender.connected and not receiver.connected)
        cluster.start()
        await until(lambda: sender.connected and receiver.connected, 20)
    await flowing(sender, heard)


async def test_a_socket_that_takes_nothing_does_not_pile_up(cluster: Cluster, closing: Callable[..., None]) -> None:
    sender, _, _ = await pair(cluster, closing)
    cluster.stop("n1")
    big = dataclasses.replace(
        beat(),
        observations=tuple(facts.Observation("x" * 1000, facts.Path.UP, 1.0, facts.Bus.ALIVE, 1.0) for _ in range(50)),
    )
    for _ in range(500):
        sender.publish(big)
    assert sender.counts.dropped > 0
    started = time.monotonic()
    await sender.flush(0.05)
    assert time.monotonic() - started < 20
    cluster.resume("n1")


async def test_it_can_be_closed_at_any_moment(cluster: Cluster) -> None:
    """nats-py swallows cancellations here and there; ours must end all the same, and leave nothing."""
    hasty = Timing(return_seconds=0.001, ping_seconds=0.0005, stagger_seconds=0.001)
    cluster.kill("n1")
    chance = random.Random(1)
    for round_ in range(150):
        if round_ == 100:
            cluster.start("n1")
        one = bus(cluster, "one", lambda _: None, chance.choice(["n1", "n2"]), timing=hasty)
        await one.start()
        await asyncio.sleep(chance.random() * 0.015)
        async with asyncio.timeout(20):
            await one.close()
        assert not one.connected
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_what_cannot_be_sent_is_counted(cluster: Cluster, closing: Callable[..., None]) -> None:
    sender, _, heard = await pair(cluster, closing)
    with capture_logs() as logs:
        sender.publish(dataclasses.replace(beat(), site="two words"))
        sender.publish(dataclasses.replace(beat(), sequence=-1))
    assert sender.counts.bad == {"invalid": 2}
    assert [line["where"] for line in logs] == ["to send"]
    await flowing(sender, heard)


def test_what_cannot_work_is_said_at_once(tmp_path: Path) -> None:
    def build(**options) -> None:
        NatsBus(**({"urls": ["nats://127.0.0.1:1"], "cluster": "lab", "source": "a", "kinds": []} | options))

    no = tmp_path / "not.creds"
    no.write_text("hello\n")
    for options in (
        {"cluster": "a.b"},
        {"urls": []},
        {"kinds": ["gossip"]},
    ):
        with pytest.raises(BusError) as caught:
            build(emit=print, **options)
        assert caught.value.remedy
    for files in (
        {"credentials": str(no)},
        {"credentials": str(tmp_path / "absent.creds")},
        {"seed": str(no)},
        {"seed": str(tmp_path / "absent.nk")},
        {"ca": str(no)},
        {"ca": str(tmp_path / "absent.crt")},
    ):
        with pytest.raises(BusError) as caught:
            Access(**files)
        assert caught.value.remedy
