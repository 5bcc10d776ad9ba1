"""TLS with the certificates that `pki init` made: the bus, and OVSDB."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from deployed import PATIENT, Node, access_of, two_groups, who
from real_ovs import Ovs
from structlog.testing import capture_logs

from aioovs import ConnectError, Database, SslFiles
from tunnelswitch.adapters.nats_bus import NatsBus
from tunnelswitch.bus import samples
from tunnelswitch.bus.access import Access
from tunnelswitch.bus.connection import Connection
from tunnelswitch.config import Deployment
from tunnelswitch.pki.issue import CA, issue


def on_loopback() -> Deployment:
    """The NATS node of `primary` is at 127.0.0.1."""
    deployment = two_groups()
    sites = dict(deployment.sites)
    sites["primary"] = msgspec.structs.replace(sites["primary"], nats_url="nats://127.0.0.1:4222")
    return msgspec.structs.replace(deployment, sites=sites)


def tls_node(directory: Path) -> Node:
    folder = directory / "pki/primary"
    files = f'cert_file: "{folder}/nats.crt", key_file: "{folder}/nats.key", ca_file: "{directory}/pki/{CA}"'
    return Node(directory, on_loopback(), f"tls {{ {files} }}")


async def said_by(access: Access, url: str) -> dict[str, object]:
    """What a connection that cannot be made complains of."""
    connection = Connection([url], name="x", access=access, timing=PATIENT)
    with capture_logs() as logs:
        await connection.start()
        async with asyncio.timeout(20):
            while not logs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    await connection.close()
    return dict(logs[0])


@pytest.mark.nats
async def test_the_bus_works_under_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[object] = []
    with tls_node(tmp_path).running() as node:
        speaker, hearer = (
            NatsBus([node.url], cluster="lab", source=name, kinds=kinds, emit=heard.append, access=access)
            for name, kinds in (("gateway/agent", ()), ("primary/agent", ("heartbeat",)))
            for access in [access_of(node.keys, who(name), tls=True)]
        )
        await speaker.start()
        await hearer.start()
        async with asyncio.timeout(20):
            while not heard:
                speaker.publish(samples.HEARTBEAT)
                await speaker.flush(0.1)
                await asyncio.sleep(0.01)
        assert heard[0] == samples.HEARTBEAT
        assert speaker.counts.bad == hearer.counts.bad == {}
        await speaker.close()
        await hearer.close()
    assert caplog.records == []


@pytest.mark.nats
async def test_whom_nobody_vouches_for_is_not_spoken_to(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    issue(on_loopback(), tmp_path / "other/pki")
    with tls_node(tmp_path).running() as node:
        key = str(who("primary/agent").seed(node.keys))
        foreign = await said_by(Access(seed=key, ca=str(tmp_path / "other/pki" / CA)), node.url)
        assert "CERTIFICATE_VERIFY_FAILED" in str(foreign["errors"])
        elsewhere = await said_by(Access(seed=key, ca=str(node.keys / CA)), node.url.replace("127.0.0.1", "127.0.0.2"))
        assert "127.0.0.2" in str(elsewhere["errors"])


@pytest.mark.nats
async def test_a_server_without_tls_gets_nothing_from_who_wants_it(tmp_path: Path) -> None:
    with Node(tmp_path, on_loopback()).running() as node:
        said = await said_by(access_of(node.keys, who("primary/agent"), tls=True), node.url)
        assert "does not offer TLS" in str(said["errors"])


# ------------------------------------------------------------------ OVSDB


@pytest.fixture
async def ovs(tmp_path: Path) -> AsyncIterator[Ovs]:
    keys = tmp_path / "pki"
    issue(on_loopback(), keys)
    site = keys / "gateway"
    running = Ovs(tmp_path)
    running.start(
        "--remote=pssl:0:127.0.0.1",
        f"--private-key={site / 'ovsdb.key'}",
        f"--certificate={site / 'ovsdb.crt'}",
        f"--ca-cert={site / 'client.crt'}",
    )
    yield running
    running.stop()


def remote(ovs: Ovs) -> str:
    assert ovs.server is not None
    listing = subprocess.run(["ss", "-Htlnp"], check=True, capture_output=True, text=True).stdout
    line = next(line for line in listing.splitlines() if f"pid={ovs.server.child.pid}," in line)
    return f"ssl:127.0.0.1:{line.split()[3].rsplit(':', 1)[1]}"


@pytest.mark.ovs
async def test_a_site_s_database_is_for_its_own_processes_alone(ovs: Ovs, tmp_path: Path) -> None:
    def files(client: str, server: str = "gateway") -> SslFiles:
        keys = tmp_path / "pki"
        return SslFiles(keys / client / "client.key", keys / client / "client.crt", keys / server / "ovsdb.crt")

    async with Database(remote(ovs), ssl=files("gateway"), connect_deadline_seconds=20) as database:
        assert (await database.transact(database.api.add_br("in"), deadline_seconds=20)).changed
    assert ovs.vsctl("list-br") == "in"
    for wrong in (files("primary"), files("gateway", "primary")):
        with pytest.raises(ConnectError):
            await Database(remote(ovs), ssl=wrong, connect_deadline_seconds=0.5).open()
