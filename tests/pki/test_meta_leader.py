"""JetStream's own leader is kept off the active site, and the epoch store works through the accounts on three nodes."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from bus_cluster import Cluster
from deployed import EXAMPLE, access_of, who

from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.adapters.nats_meta import NatsMeta
from tunnelswitch.bus.samples import RECORD
from tunnelswitch.config.reading import parse
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import BusError
from tunnelswitch.pki.issue import ACCOUNTS, issue

pytestmark = pytest.mark.nats

SERVERS = {"gateway": "n3", "secondary": "n2", "primary": "n1"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "pki"
    issue(parse(EXAMPLE.read_text(encoding="utf-8"), "example"), directory)
    return directory


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("nodes")
    (directory / ACCOUNTS.name).write_bytes((keys / ACCOUNTS).read_bytes())
    cluster = Cluster(directory, jetstream=True, more=f"include {ACCOUNTS.name}")
    try:
        cluster.start()
        cluster.wait_joined()
        cluster.wait_jetstream()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
async def meta(nodes: Cluster, keys: Path) -> AsyncIterator[NatsMeta]:
    meta = NatsMeta(nodes.urls, source="gateway/system", servers=SERVERS, access=access_of(keys, who("gateway/system")))
    await meta.start()
    yield meta
    await meta.close()


def leader(nodes: Cluster) -> str | None:
    """By another way: the monitoring port."""
    name = (nodes.monitor("n2", "jsz") or {}).get("meta_cluster", {}).get("leader")
    return next((site for site, server in SERVERS.items() if server == name), None)


async def led_from(nodes: Cluster, site: str) -> None:
    """Who is asked may hear of it a little later than who has done it."""
    end = time.monotonic() + 20
    while (found := leader(nodes)) != site:
        assert time.monotonic() < end, f"led from {found}"
        await asyncio.sleep(0.05)


async def pinned(meta: NatsMeta, *avoid: str) -> str | None:
    """Ask until it is done, as a switcher does: after an election the others are not up to date at once."""
    end = time.monotonic() + 30
    while True:
        try:
            site = await meta.pin_leader(avoid)
        except BusError:
            site = avoid[0]
        if site not in avoid:
            return site
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


async def test_the_leader_leaves_a_site_that_is_to_be_avoided_and_no_other(nodes: Cluster, meta: NatsMeta) -> None:
    await pinned(meta, "gateway", "secondary")
    await led_from(nodes, "primary")
    assert await pinned(meta, "secondary") == "primary", "it was well there"
    await led_from(nodes, "primary")
    assert await pinned(meta, "primary") == "gateway", "the first that could lead"
    await led_from(nodes, "gateway")


async def test_where_it_cannot_go_it_stays_and_says_so(nodes: Cluster, meta: NatsMeta) -> None:
    await pinned(meta, "primary", "secondary")
    assert await meta.pin_leader(("gateway", "secondary", "primary")) == "gateway"


async def test_without_the_key_nothing_is_moved(nodes: Cluster, keys: Path) -> None:
    agent = who("primary/agent")
    other = NatsMeta(nodes.urls, source="x", servers=SERVERS, access=access_of(keys, agent))
    await other.start()
    before = leader(nodes)
    with pytest.raises(BusError, match="leader of JetStream"):
        await other.pin_leader((before or "",))
    await other.close()
    assert leader(nodes) == before


async def test_the_store_works_through_the_accounts(nodes: Cluster, keys: Path) -> None:
    stores = {}
    for name, node in (("operator/store", "n1"), ("gateway/store", "n3"), ("primary/agent", "n1"), ("viewer", "n2")):
        access = access_of(keys, who(name))
        stores[name] = NatsEpochs(
            nodes.urls, cluster="lab", source=name, servers=SERVERS, preferred_url=nodes.url(node), access=access
        )
        await stores[name].start()
    await stores["operator/store"].ensure_bucket()
    revision = await stores["operator/store"].create(RECORD)
    for site in ("primary", "secondary"):
        switcher, end = stores["gateway/store"], time.monotonic() + 30
        while await switcher.pin_leader((site,)) == site:
            assert time.monotonic() < end
        moved = dataclasses.replace(RECORD, stamp=Stamp(RECORD.stamp.epoch + 1, f"to.{site}"))
        revision = await switcher.commit(moved, revision, 20.0)
        for store in stores.values():
            assert await store.read(RECORD.group, 20.0) == (moved, revision)
    for store in stores.values():
        await store.close()
