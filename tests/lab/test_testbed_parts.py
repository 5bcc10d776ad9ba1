"""One lab that is up: its parts work as real ones do, and each fault does exactly what it says."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NoStreamResponseError
from nats.js.kv import KeyValue

from tunnelswitch import config
from tunnelswitch.pki.identities import STORE_ACCOUNT
from tunnelswitch_lab import agents, deployment, messaging, netns, procs
from tunnelswitch_lab.faults import FAULTS, find
from tunnelswitch_lab.layout import CLIENT_ADDRESS, SERVERS, SERVICE_ADDRESS, Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.testbed import Testbed

pytestmark = pytest.mark.lab
_ARP = 0x0806


async def udp_passes(source: str, target: str, address: str, port: int = 9009, tries: int = 150) -> bool:
    """Whether datagrams of 1000 octets reach `address` in `target` and are answered."""
    with netns.entered(target):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with netns.entered(source):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    loop = asyncio.get_running_loop()
    with server, client:
        server.bind((address, port))
        client.connect((address, port))
        for _ in range(tries):
            await loop.sock_sendall(client, bytes(1000))
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.1):
                    data, peer = await loop.sock_recvfrom(server, 2000)
                    await loop.sock_sendto(server, data, peer)
                    return len(await loop.sock_recv(client, 2000)) == 1000
    return False


async def t1_passes(layout: Layout, tries: int = 150) -> bool:
    primary, secondary = layout.servers
    return await udp_passes(
        primary.service_namespace, secondary.service_namespace, secondary.replication_address, tries=tries
    )


async def t2_passes(layout: Layout, tries: int = 150) -> bool:
    return await udp_passes(
        layout.client_namespace, layout.site("primary").service_namespace, SERVICE_ADDRESS, tries=tries
    )


async def underlay_passes(here: Site, there: Site, tries: int = 150) -> bool:
    return await udp_passes(here.namespace, there.namespace, there.underlay_address, tries=tries)


async def add_tunnel(near: Site, far: Site, key: int) -> None:
    for here, there in ((near, far), (far, near)):
        port = f"test{key}"
        settings = ["type=gre", f"options:remote_ip={there.underlay_address}", f"options:key={key}"]
        command = ["ovs-vsctl", f"--db={here.ovsdb}", "--timeout=20", "--may-exist", "add-port", "br-svc", port]
        await procs.check_output([*command, "--", "set", "Interface", port, *settings], 30)


async def test_underlay_carries_udp_between_all_sites(bed: Testbed) -> None:
    sites = bed.layout.sites
    for here, there in ((a, b) for a in sites for b in sites if a != b):
        assert await underlay_passes(here, there), f"{here.name} to {there.name}"


def arp_answers(here: Site, there: Site) -> set[str]:
    """Every MAC that answers for the address of `there` on the underlay (RFC 826)."""
    with netns.entered(here.namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
    with contextlib.closing(wire):
        wire.bind(("br-phy", _ARP))
        mac = bytes.fromhex(here.underlay_mac.replace(":", ""))
        addresses = [socket.inet_aton(site.underlay_address) for site in (here, there)]
        ask = b"\xff" * 6 + mac + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"
        wire.send(ask + mac + addresses[0] + bytes(6) + addresses[1])
        found: set[str] = set()
        with contextlib.suppress(TimeoutError):
            while True:
                wire.settimeout(0.3 if found else 20)  # whether another one answers, too
                frame = wire.recv(64)
                if frame[20:22] == b"\x00\x02" and frame[28:32] == addresses[1]:
                    found.add(frame[22:28].hex(":"))
        return found


async def test_only_the_bridge_answers_for_its_address(bed: Testbed) -> None:
    """A port's own MAC in an answer would be learnt by tunnels, which then carry nothing."""
    for here, there in itertools.permutations(bed.layout.sites, 2):
        assert await asyncio.to_thread(arp_answers, here, there) == {there.underlay_mac}


async def test_nats_is_a_cluster_that_commits_on_three_replicas_and_is_led_from_the_gateway(bed: Testbed) -> None:
    assert await messaging.wait_ready(bed.layout) == "gateway"
    primary = bed.layout.site("primary")

    async def first(bucket: KeyValue) -> int:
        """A young bucket's leader does not listen at once; what finds no listener was taken by nobody."""
        for _ in range(100):
            with contextlib.suppress(NoStreamResponseError):
                return await bucket.create("key", b"old")
            await asyncio.sleep(0.1)
        raise AssertionError("no leader of the bucket listens")

    async def compare_and_set() -> tuple[str, int, bytes | None]:
        client = await messaging.connect(bed.layout, primary, STORE_ACCOUNT)
        try:
            store = client.jetstream()
            bucket = await store.create_key_value(bucket="trial", replicas=3)
            await bucket.update("key", b"new", last=await first(bucket))
            info = await store.stream_info("KV_trial")
            value = (await bucket.get("key")).value
            return str(client.connected_url.netloc), info.config.num_replicas or 0, value
        finally:
            await client.close()

    assert await netns.run_inside(primary.namespace, compare_and_set) == ("10.9.0.1:4222", 3, b"new")
    await messaging.wipe(bed.layout)


async def test_t1_carries_tcp_between_the_copies_of_the_service(bed: Testbed) -> None:
    primary, secondary = bed.layout.servers
    size = 300_000

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.readexactly(size))).encode())
        writer.close()

    with netns.entered(secondary.service_namespace):
        listener = socket.create_server((secondary.replication_address, 7001))
    with netns.entered(primary.service_namespace):
        connection = netns.stream_socket()
    async with await asyncio.start_server(swallow, sock=listener), asyncio.timeout(20):
        await asyncio.get_running_loop().sock_connect(connection, (secondary.replication_address, 7001))
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(bytes(size))
        assert await reader.read() == str(size).encode()
        writer.close()
        await writer.wait_closed()


async def test_service_looks_the_same_on_both_sites_and_nobody_forwards(bed: Testbed) -> None:
    seen = []
    for server in bed.layout.servers:
        links = json.loads(await procs.check_output(["ip", "-j", "addr"], 20, server.service_namespace))
        eth0 = next(link for link in links if link["ifname"] == "eth0")
        seen.append((eth0["address"], eth0["mtu"], [info["local"] for info in eth0["addr_info"]]))
        routes = await procs.check_output(["ip", "route"], 20, server.service_namespace)
        assert re.search(r"10\.8\.0\.0/24 dev t1 .*quickack 1", routes)
    assert seen[0] == seen[1]
    assert seen[0][1:] == (1400, [SERVICE_ADDRESS])
    for namespace in bed.layout.namespaces:
        assert await procs.check_output(["sysctl", "-n", "net.ipv4.ip_forward"], 20, namespace) == "0\n"
        assert await procs.check_output(["ip", "-6", "addr"], 20, namespace) == ""


async def test_cutting_one_tunnel_leaves_the_other_and_heal_brings_it_back(bed: Testbed) -> None:
    layout = bed.layout
    await add_tunnel(layout.site("primary"), layout.gateway, key=2)
    assert await t1_passes(layout)
    assert await t2_passes(layout)

    before = time.time()
    moment = await bed.inject(find("link-cut:T1"))
    assert before <= moment <= time.time()
    assert not await t1_passes(layout, tries=3)
    assert await t2_passes(layout)
    await bed.heal()
    assert await t1_passes(layout)

    await bed.inject(find("link-cut:T2"))
    assert not await t2_passes(layout, tries=3)
    assert await t1_passes(layout)
    await bed.heal()
    assert await t2_passes(layout)


async def test_cutting_the_underlay_isolates_one_site_and_kills_nobody(bed: Testbed) -> None:
    primary, secondary, gateway = bed.layout.sites
    await bed.inject(find("link-cut:underlay"), active="secondary")
    assert not await underlay_passes(primary, secondary, tries=3)
    assert await underlay_passes(primary, gateway)
    assert all(process["alive"] for process in bed.status()["processes"])
    await bed.heal()
    assert await underlay_passes(primary, secondary)
    await messaging.wait_ready(bed.layout)


async def test_status_as_json_names_everything_and_it_is_there(bed: Testbed, command: Callable[..., Any]) -> None:
    status = json.loads(command("status", "--name", bed.layout.name, "-f", "json").stdout)
    assert set(status["namespaces"].values()) == set(netns.existing(bed.layout.prefix))
    assert {process["name"] for process in status["processes"]} >= {
        f"{part}-{site}" for part in ("ovsdb", "vswitchd", "nats") for site in ("primary", "secondary", "gateway")
    }
    assert all(process["alive"] for process in status["processes"])
    paths = [Path(process["log"]) for process in status["processes"]]
    for site in status["sites"].values():
        paths.append(Path(site["ovsdb"].removeprefix("unix:")))
        endpoint = site["nats_monitor_url"].removeprefix("http://")
        assert (await netns.http_get(site["namespace"], endpoint, "/varz"))[0] == http.client.OK
        assert site["nats_url"] in status["nats"]["urls"]
        assert all(url.startswith("http://10.9.0.") for url in site["metrics_urls"].values())
    await procs.check_output(["ls", *map(str, paths)], 20)
    assert set(status["sites"]["gateway"]["metrics_urls"]) == {"agent", "switcher"}
    assert status["client"]["address"] == CLIENT_ADDRESS
    assert status["service"]["probe"] == f"{SERVICE_ADDRESS}:5006"
    pretty = command("status", "--name", bed.layout.name).stdout
    assert all(name in pretty for name in (status["sites"]["primary"]["ovsdb"], status["service"]["rtp"]))


def test_deployment_file_describes_this_lab(shared_lab: str) -> None:
    layout = Layout(shared_lab)
    data = config.load(layout.deployment_file)
    assert data.sites["primary"].ovsdb == layout.site("primary").ovsdb
    assert data.detection.multiplier == 3
    assert data.groups["voip"].preferred == "primary"
    hooks = data.services["pbx"].exec
    assert hooks is not None
    assert hooks.promote == (str(deployment.HOOKS / "promote"), str(layout.service_directory / "{site}"))


async def test_what_is_spawned_is_written_down_logged_and_stopped(bed: Testbed) -> None:
    proc = bed.spawn("client", ["sh", "-c", "echo $GREETING; exec sleep 60"], name="extra-1", env={"GREETING": "hi"})
    other = await Testbed.attach(bed.layout.name)
    assert next(p for p in other.status()["processes"] if p["name"] == "extra-1")["pid"] == proc.pid
    await other.close()
    await netns.wait_for(lambda: _said(proc, "hi"), "the greeting", 20)
    await bed.stop("extra-")
    assert not proc.alive
    assert "extra-1" not in [process["name"] for process in bed.status()["processes"]]
    with pytest.raises(ValueError, match="no namespace 'nowhere'"):
        bed.spawn("nowhere", ["true"], name="extra-2")


async def _said(proc: procs.Proc, text: str) -> bool:
    return text in (await procs.check_output(["cat", proc.log], 20)).split()


_FAKE_AGENT = """\
#!{python}
import http.server, sys, tomllib, time
if sys.argv[1] == "init":
    sys.exit(0)
if sys.argv[1] == "{dies}":
    sys.exit("agent: no such luck")
site = tomllib.load(open(sys.argv[3], "rb"))["sites"][sys.argv[5]]
host, port = site[sys.argv[1] + "_metrics"].split(":")
born = time.monotonic()
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() - born > 0.3
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b'{{"ready": true}}' if ready else b'{{"ready": false}}')
http.server.HTTPServer((host, int(port)), Health).serve_forever()
"""


async def test_agents_are_waited_for_and_one_that_dies_is_named(
    bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tunnelswitch"
    monkeypatch.setattr(agents, "executable", lambda: program)
    program.write_text(_FAKE_AGENT.format(python=sys.executable, dies="nobody"))
    program.chmod(0o755)
    await bed.start_agents()
    running = {process["name"] for process in bed.status()["processes"] if process["alive"]}
    assert running >= {"agent-primary", "agent-secondary", "agent-gateway", "switcher-gateway"}
    await bed.inject(find("agent-crash"), active="secondary")
    await netns.wait_for(lambda: _died(bed, "agent-secondary"), "the end of an agent", 20)
    await bed.stop_agents()

    program.write_text(_FAKE_AGENT.format(python=sys.executable, dies="switcher"))
    with pytest.raises(LabError, match=r"switcher-gateway has ended: agent: no such luck \(log: .*\)"):
        await bed.start_agents()
    await bed.stop_agents()


async def _died(bed: Testbed, *names: str) -> bool:
    return {process["name"] for process in bed.status()["processes"] if not process["alive"]} == set(names)


async def test_service_runs_on_both_sites_and_its_crash_kills_one_copy(bed: Testbed) -> None:
    await bed.start_service(checkpoint_interval_ms=25)
    await bed.inject(find("service-crash"), active="primary")
    await netns.wait_for(lambda: _died(bed, "service-primary"), "the end of the active copy", 20)
    with pytest.raises(LabError, match="service-primary does not run"):
        await bed.inject(find("service-crash"), active="primary")
    await bed.start_service(checkpoint_interval_ms=25)
    await bed.stop_service()


async def test_host_loss_kills_exactly_that_site_and_reset_makes_all_new(bed: Testbed) -> None:
    layout = bed.layout
    lost = layout.site("primary")
    guest = bed.spawn("svc-primary", ["sleep", "60"], name="guest")
    before = {process["pid"]: process["site"] for process in bed.status()["processes"]}
    await bed.inject(find("host-loss"))
    await procs.wait_gone([pid for pid, site in before.items() if site == "primary"], 20)
    assert not netns.processes_inside([lost.namespace, lost.service_namespace])
    assert not guest.alive
    after = {process["pid"] for process in bed.status()["processes"] if process["alive"]}
    assert after == {pid for pid, site in before.items() if site != "primary"}
    assert await underlay_passes(layout.site("secondary"), layout.gateway)

    await bed.reset()
    assert await t1_passes(layout)
    assert await underlay_passes(lost, layout.gateway)
    processes = bed.status()["processes"]
    assert len(processes) == 9
    assert all(process["alive"] for process in processes)
    assert "test2" not in await procs.check_output(["ovs-vsctl", f"--db={lost.ovsdb}", "list-ports", "br-svc"], 20)


async def test_nats_crash_leaves_a_cluster_of_two(bed: Testbed) -> None:
    await bed.inject(find("nats-crash"))
    await netns.wait_for(lambda: _died(bed, "nats-primary"), "the end of a node", 20)
    await bed.reset()
    assert await messaging.wait_ready(bed.layout) == "gateway"


def test_every_fault_says_what_must_follow() -> None:
    assert {name: (fault.verdict, fault.expected_active("primary")) for name, fault in FAULTS.items()} == {
        "host-loss": ("suspicion", "secondary"),
        "service-crash": ("proof", "secondary"),
        "agent-crash": ("none", "primary"),
        "nats-crash": ("none", "primary"),
        "link-cut:T1": ("none", "primary"),
        "link-cut:T2": ("cut-off", "secondary"),
        "link-cut:underlay": ("suspicion", "secondary"),
    }
    assert find("host-loss").expected_active("secondary") == SERVERS[0]
    with pytest.raises(ValueError, match="the known ones are host-loss, service-crash"):
        find("fire")
