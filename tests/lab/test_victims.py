"""The whole system as the fault's victim, on real parts: what happens to a client's packet."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace

import pytest
from running_lab import Running

from tunnelswitch.bus import samples
from tunnelswitch.bus.codec import encode
from tunnelswitch.bus.limits import PAYLOAD_BYTES
from tunnelswitch.bus.subjects import subject_of
from tunnelswitch.core import facts
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.pki.identities import BUS_ACCOUNT
from tunnelswitch_lab import faults, messaging, netns, procs

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

GARBAGE = (
    b"",
    b"not json",
    b"[]",
    b'{"specversion":"1.0"}',
    b"\xff" * 100,
    b"{" * 60_000,
    b'"' + b"x" * PAYLOAD_BYTES + b'"',
)
KINDS = ("heartbeat", "epoch", "record", "proof", "move", "serving", "handover", "applied")


async def test_killed_and_restarted_programs_are_no_blip_for_clients(running: Running) -> None:
    async with running.watched() as view:
        for kind, site in (("switcher", "gateway"), ("agent", "gateway"), ("agent", "primary"), ("agent", "secondary")):
            proc = running.proc(f"{kind}-{site}")
            proc.signal(signal.SIGKILL)
            await procs.wait_gone([proc.pid], 20.0)
            running.start_program(kind, site)
            await asyncio.sleep(1.2)
        await asyncio.sleep(1.5)
    assert view.copies == ["primary"]
    assert len(view.replies) > 0.95 * view.asked
    assert running.tunnels() == {"t2-pbx"}
    assert await running.epoch() == 1


def forged(cluster: str) -> list[tuple[str, bytes]]:
    """What a liar would say, by subject: in another one's name, about another one, of a decision that nobody made."""
    future = Stamp(999, "gateway.feedface.1")
    record = replace(samples.RECORD, stamp=future, active="secondary", previous="primary")
    beat = replace(samples.HEARTBEAT, site="primary", sequence=2**40)
    proof = next(message for message in samples.MESSAGES if isinstance(message, facts.Proof))
    lies = [
        (beat, "secondary/agent", None),
        (beat, "primary/switcher", None),
        (beat, "primary/agent", f"tsw.v1.{cluster}.heartbeat.secondary"),
        (facts.Epoch(record), "primary/agent", None),
        (facts.Epoch(record), "operator", None),
        (replace(proof, site="primary", stamp=future), "secondary/agent", None),
        (replace(proof, site="primary", stamp=future), "primary/agent", None),  # true to its sender, and of no decision
        (facts.MoveRequest("voip", future, "secondary", "mallory"), "operator", None),
        (facts.MoveRequest("voip", future, "secondary", "mallory"), "viewer", None),
    ]
    return [
        (subject or subject_of(cluster, message), encode(message, source, str(number), time.time()))
        for number, (message, source, subject) in enumerate(lies)
    ]


async def test_whoever_lies_on_the_bus_is_counted_and_changes_nothing(running: Running) -> None:
    """Said with a key that the servers let say anything: what is left then is what the processes see for themselves."""
    layout = running.bed.layout
    before = running.tunnels("gateway"), running.tunnels("primary"), await running.epoch()
    said = [(f"tsw.v1.{layout.name}.{kind}.primary", payload) for payload in GARBAGE for kind in KINDS]
    said += forged(layout.name)

    async def publish() -> None:
        client = await messaging.connect(layout, layout.gateway, BUS_ACCOUNT)
        heard = await client.subscribe(f"tsw.v1.{layout.name}.heartbeat.*")
        true = [await heard.next_msg(timeout=20) for _ in range(30)]
        for subject, payload in [*said, *((old.subject, old.data) for old in true)]:
            await client.publish(subject, payload)
        await client.flush()
        await client.close()

    await netns.run_inside(layout.gateway.namespace, publish)
    bad, stale = "tunnelswitch_bad_messages_total", "tunnelswitch_stale_messages_total"
    least = {f'{bad}{{kind="{kind}"}}': 1 for kind in ("not_json", "too_large", "invalid", "subject", "source")}
    for endpoint in ("agent", "switcher"):
        for name, count in {**least, bad: len(GARBAGE), stale: 1}.items():

            async def counted(endpoint: str = endpoint, name: str = name, count: int = count) -> bool:
                return await running.metric("gateway", endpoint, name) >= count

            await running.until(counted, f"{name} of {endpoint}")
    assert (running.tunnels("gateway"), running.tunnels("primary"), await running.epoch()) == before
    assert running.client.watch(0.5).copies == ["primary"]
    assert "Traceback" not in running.logs()


async def test_a_switcher_that_slept_through_a_failover_changes_nothing(running: Running) -> None:
    sleeper = running.proc("switcher-gateway")
    sleeper.signal(signal.SIGSTOP)
    running.start_program("switcher", "gateway")  # its metrics address is taken: it must say so and end
    await asyncio.sleep(1.0)
    await running.bed.inject(faults.find("service-crash"))
    await asyncio.sleep(1.0)
    assert running.tunnels() == {"t2-pbx"}, "nobody decides while the only switcher sleeps"
    sleeper.signal(signal.SIGCONT)
    await running.until_tunnels({"t3-pbx"})
    assert running.client.watch(0.5).copies == ["secondary"]


async def test_a_tunnel_removed_by_hand_comes_back_and_a_strange_one_is_left_alone(running: Running) -> None:
    running.ovs("gateway", "del-port", "br-svc", "t2-pbx")
    await running.until_tunnels({"t2-pbx"})
    assert running.client.watch(0.5).copies == ["primary"]
    running.ovs("gateway", "add-port", "br-svc", "t3-pbx", "--", "set", "interface", "t3-pbx", "type=internal")
    await running.bed.inject(faults.find("service-crash"))
    await asyncio.sleep(1.0)
    assert running.ovs("gateway", "get", "interface", "t3-pbx", "type").strip() == "internal"
    running.ovs("gateway", "del-port", "br-svc", "t3-pbx")
    await running.until_tunnels({"t3-pbx"})
    assert running.client.watch(0.5).copies == ["secondary"]


async def test_a_site_that_comes_back_serves_nobody(running: Running) -> None:
    await running.bed.inject(faults.find("link-cut:underlay"))
    await running.until_tunnels({"t3-pbx"})
    old = running.proc("service-primary")

    async def closed() -> bool:
        return not running.tunnels("primary")

    await running.until(closed, "the isolated site closing itself")
    watching = asyncio.create_task(asyncio.to_thread(running.client.watch, 4.0))
    await running.bed.heal()
    view = await watching
    assert view.copies == ["secondary"]

    async def destroyed() -> bool:
        return not old.alive

    await running.until(destroyed, "the old copy's end")
    assert not running.tunnels("primary")


async def test_bus_gone_leaves_traffic_as_it_is_and_back_it_works_again(running: Running) -> None:
    nodes = [proc for proc in running.bed._state.procs if proc.name.startswith("nats-") and proc.alive]
    for node in nodes:
        node.signal(signal.SIGSTOP)
    view = await asyncio.to_thread(running.client.watch, 3.0)
    assert view.copies == ["primary"]
    assert len(view.replies) > 0.95 * view.asked
    for node in nodes:
        node.signal(signal.SIGCONT)
    await asyncio.sleep(3.0)
    await running.until_protected()
    await running.bed.inject(faults.find("service-crash"))
    await running.until_tunnels({"t3-pbx"})
    assert running.client.watch(0.5).copies == ["secondary"]


async def test_ovsdb_of_the_gateway_stops_and_comes_back(running: Running) -> None:
    """Both processes there say so, are not ready meanwhile, and are ready again."""
    server = running.proc("ovsdb-gateway")

    async def all_say(connected: bool) -> bool:
        for endpoint in ("agent", "switcher"):
            code, body = await running.get("gateway", endpoint, "/healthz")
            said = await running.metric("gateway", endpoint, "tunnelswitch_ovsdb_connected")
            if (code, said, b"OVSDB" in body) != ((200, 1.0, False) if connected else (503, 0.0, True)):
                return False
        return True

    await running.until(lambda: all_say(True), "all ready")
    server.signal(signal.SIGSTOP)
    await running.until(lambda: all_say(False), "OVSDB declared dead")
    server.signal(signal.SIGCONT)
    await running.until(lambda: all_say(True), "OVSDB back")
    assert running.tunnels() == {"t2-pbx"}
    assert await running.epoch() == 1
