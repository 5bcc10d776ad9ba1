"""The epoch store over a real JetStream cluster of three that writes to disk at once."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from typing import TYPE_CHECKING

import nats
import pytest
from bus_ends import PATIENT

from tunnelswitch.adapters.nats_bus import NatsBus
from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.bus import samples
from tunnelswitch.core import facts
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import CommitRefusedError, CommitUnknownError, EpochStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus_cluster import Cluster

pytestmark = pytest.mark.nats

SERVERS = {"gateway": "n3", "secondary": "n2", "primary": "n1"}
SECONDS = 20.0

_NAMES = itertools.count(1)


def new_record() -> facts.GroupRecord:
    """The first record of a group that no other test knows."""
    return dataclasses.replace(samples.RECORD, group=f"group{next(_NAMES)}", stamp=Stamp(1, "init.1"))


def after(record: facts.GroupRecord, decision_id: str = "gw.1") -> facts.GroupRecord:
    return dataclasses.replace(record, stamp=Stamp(record.stamp.epoch + 1, decision_id))


async def epochs_at(cluster: Cluster, closing: Callable[..., None], site: str) -> NatsEpochs:
    epochs = NatsEpochs(
        cluster.urls,
        cluster="lab",
        source=f"{site}/switcher",
        servers=SERVERS,
        preferred_url=cluster.url(SERVERS[site]),
        timing=PATIENT,
    )
    closing(epochs)
    await epochs.start()
    return epochs


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def pinned(epochs: NatsEpochs, avoid: tuple[str, ...], site: str) -> None:
    """Ask until it is done, as the agents do: a replica that has just come back is not up to date at once."""
    end = time.monotonic() + 30
    while await epochs.pin_leader(avoid) != site:
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


@pytest.fixture
async def epochs(store: Cluster, closing: Callable[..., None]) -> NatsEpochs:
    """At the gateway, with a bucket."""
    epochs = await epochs_at(store, closing, "gateway")
    await epochs.ensure_bucket()
    return epochs


async def test_a_record_is_created_once_read_and_replaced(epochs: NatsEpochs) -> None:
    first = new_record()
    assert await epochs.read(first.group, SECONDS) == (None, 0)
    revision = await epochs.create(first)
    assert await epochs.read(first.group, SECONDS) == (first, revision)
    with pytest.raises(CommitRefusedError):
        await epochs.create(first)
    second = after(first)
    newer = await epochs.commit(second, revision, SECONDS)
    assert newer > revision
    assert await epochs.read(first.group, SECONDS) == (second, newer)
    with pytest.raises(CommitRefusedError):
        await epochs.commit(after(second), revision, SECONDS)
    assert await epochs.read(first.group, SECONDS) == (second, newer)


async def test_only_init_creates(epochs: NatsEpochs) -> None:
    with pytest.raises(CommitRefusedError, match="no record"):
        await epochs.commit(new_record(), 0, SECONDS)
    with pytest.raises(CommitRefusedError):
        await epochs.commit(new_record(), 1, SECONDS)


async def test_a_deleted_key_is_not_created_again_nor_taken_for_none(store: Cluster, epochs: NatsEpochs) -> None:
    first = new_record()
    await epochs.create(first)
    stranger = await nats.connect(store.url("n2"))
    await stranger.publish(f"$KV.{epochs.bucket}.{first.group}", b"", headers={"KV-Operation": "DEL"})
    await stranger.flush()
    with pytest.raises(EpochStoreError, match="holds no record"):
        await epochs.read(first.group, SECONDS)
    with pytest.raises(CommitRefusedError):
        await epochs.create(first)
    await stranger.close()


async def test_of_many_that_commit_at_once_one_wins(
    store: Cluster, closing: Callable[..., None], epochs: NatsEpochs
) -> None:
    contenders = [epochs, await epochs_at(store, closing, "primary"), await epochs_at(store, closing, "secondary")]
    record = new_record()
    revision = await epochs.create(record)
    for round_ in range(5):
        bids = [after(record, f"bid.{round_}.{index}") for index in range(9)]
        results = await asyncio.gather(
            *(contenders[i % 3].commit(bid, revision, SECONDS) for i, bid in enumerate(bids)), return_exceptions=True
        )
        won = [i for i, result in enumerate(results) if isinstance(result, int)]
        lost = [result for result in results if isinstance(result, CommitRefusedError)]
        assert (len(won), len(lost)) == (1, 8), results
        record, revision = bids[won[0]], results[won[0]]
        assert await contenders[round_ % 3].read(record.group, SECONDS) == (record, revision)


async def test_reads_do_not_disturb_commits(store: Cluster, closing: Callable[..., None], epochs: NatsEpochs) -> None:
    readers = [await epochs_at(store, closing, site) for site in SERVERS]
    record = new_record()
    revision = await epochs.create(record)
    done = asyncio.Event()

    async def read_on(reader: NatsEpochs) -> list[int]:
        seen = []
        while not done.is_set():
            seen.append((await reader.read(record.group, SECONDS))[1])
        return seen

    reading = [asyncio.create_task(read_on(reader)) for reader in readers]
    for _ in range(50):
        record = after(record)
        revision = await epochs.commit(record, revision, SECONDS)
    done.set()
    for seen in await asyncio.gather(*reading):
        assert seen == sorted(seen)


async def test_no_majority_no_word(store: Cluster, closing: Callable[..., None], epochs: NatsEpochs) -> None:
    """The leader alone: it would still answer a plain read. And a commit of then is unknown, not refused."""
    record = new_record()
    revision = await epochs.create(record)
    await pinned(epochs, ("primary", "secondary"), "gateway")
    store.stop("n1")
    store.stop("n2")
    late = after(record)
    with pytest.raises(EpochStoreError) as caught:
        await epochs.read(record.group, 0.3)
    assert caught.value.remedy
    with pytest.raises(CommitUnknownError):
        await epochs.commit(late, revision, 0.3)
    store.resume("n1")
    store.resume("n2")
    found, now = await epochs.read(record.group, 30.0)
    assert (found, now > revision) in [(record, False), (late, True)]


async def test_the_end_of_the_connection_ends_the_wait(
    store: Cluster, closing: Callable[..., None], epochs: NatsEpochs
) -> None:
    """Through a node that is killed: the commit is unknown at once, not at its deadline."""
    record = new_record()
    revision = await epochs.create(record)
    await epochs.pin_leader(("primary",))
    through_primary = await epochs_at(store, closing, "primary")
    await through_primary.read(record.group, SECONDS)
    store.stop("n1")
    commit = asyncio.create_task(through_primary.commit(after(record), revision, 30.0))
    await asyncio.sleep(0.05)
    store.kill("n1")
    started = time.monotonic()
    with pytest.raises(CommitUnknownError):
        await commit
    assert time.monotonic() - started < 20
    assert (await through_primary.read(record.group, 30.0))[0] in (record, after(record))


async def test_the_leader_is_kept_off_the_active_site(epochs: NatsEpochs) -> None:
    await pinned(epochs, ("gateway", "secondary"), "primary")
    assert await epochs.pin_leader(("gateway", "secondary")) == "primary"
    await pinned(epochs, ("primary", "secondary"), "gateway")
    assert await epochs.pin_leader(()) == "gateway"
    assert await epochs.pin_leader(tuple(SERVERS)) == "gateway", "nowhere to go: it stays"


async def test_a_moving_leader_may_cost_an_answer_but_never_a_record(epochs: NatsEpochs) -> None:
    """The old leader drops what it is sent in its last moment: unknown, until read."""
    record = new_record()
    revision = await epochs.create(record)
    for avoid, site in (("gateway", "primary"), "secondary"), (("secondary", "primary"), "gateway"):
        moving = asyncio.create_task(pinned(epochs, avoid, site))
        while not moving.done():
            bid = after(record)
            try:
                record, revision = bid, await epochs.commit(bid, revision, 0.3)
            except CommitUnknownError:
                found, now = await epochs.read(record.group, SECONDS)
                assert (found, now > revision) in [(record, False), (bid, True)]
                record, revision = found, now
            await asyncio.sleep(0.01)  # a replica that is written to without pause never counts as up to date
        await moving


async def test_the_active_sites_node_may_die(store: Cluster, epochs: NatsEpochs) -> None:
    """With the leader elsewhere no election is needed: an unpinned leader's death takes 4 to 9 s."""
    record = new_record()
    revision = await epochs.create(record)
    for _ in range(3):  # a machine that stands still is as slow as an election, but not each time
        await pinned(epochs, ("primary", "secondary"), "gateway")
        store.kill("n1")
        started = time.monotonic()
        record = after(record)
        revision = await epochs.commit(record, revision, SECONDS)
        took_seconds = time.monotonic() - started
        assert await epochs.read(record.group, SECONDS) == (record, revision)
        if took_seconds < 2:
            return
        store.restore()
        store.wait_joined()
        store.wait_jetstream()
    raise AssertionError(f"the last of three commits took {took_seconds} s")


async def test_the_store_tells_of_every_commit(
    store: Cluster, closing: Callable[..., None], epochs: NatsEpochs
) -> None:
    heard: list[object] = []
    bus = NatsBus(store.urls, cluster="lab", source="secondary/agent", kinds=["record"], emit=heard.append)
    closing(bus)
    await bus.start()
    record = new_record()
    await until(lambda: bus.connected)
    revision = await epochs.create(record)
    await epochs.read(record.group, SECONDS)
    await epochs.commit(after(record), revision, SECONDS)
    await until(lambda: len(heard) == 2)
    assert heard == [facts.Epoch(record), facts.Epoch(after(record))]


async def test_without_a_bucket_it_says_what_to_do(store: Cluster, closing: Callable[..., None]) -> None:
    epochs = NatsEpochs(store.urls, cluster="nowhere", source="gateway/switcher", servers=SERVERS)
    closing(epochs)
    await epochs.start()
    with pytest.raises(EpochStoreError) as caught:
        await epochs.read("voip", SECONDS)
    assert "tunnelswitch init" in caught.value.diagnostics()


async def test_a_record_outlives_the_whole_cluster(store: Cluster, epochs: NatsEpochs) -> None:
    """Every node killed right after the acknowledgement: `sync_interval: always` has it on disk."""
    record = new_record()
    revision = await epochs.create(record)
    record = after(record)
    revision = await epochs.commit(record, revision, SECONDS)
    store.kill()
    with pytest.raises(EpochStoreError):
        await epochs.read(record.group, 0.2)
    store.start()
    assert await epochs.read(record.group, 40.0) == (record, revision)


async def test_reads_of_many_groups_are_confirmed_by_one_mark(store: Cluster, epochs: NatsEpochs) -> None:
    records = [new_record() for _ in range(20)]
    for record in records:
        await epochs.create(record)
    missing = new_record().group

    async def writes() -> int:
        client = await nats.connect(store.url("n2"))
        try:
            return int((await client.jetstream().stream_info(f"KV_{epochs.bucket}")).state.last_seq)
        finally:
            await client.close()

    before = await writes()
    found = await asyncio.gather(
        *(epochs.read(record.group, SECONDS) for record in records), epochs.read(missing, SECONDS)
    )
    assert [record for record, _ in found] == [*records, None]
    assert await writes() == before + 1
    # What was committed in between is read, and its revision can be replaced.
    changed = after(records[3])
    revision = await epochs.commit(changed, found[3][1], SECONDS)
    again = await asyncio.gather(*(epochs.read(record.group, SECONDS) for record in records))
    assert again[3] == (changed, revision)
    await epochs.commit(after(changed, "gw.2"), again[3][1], SECONDS)
