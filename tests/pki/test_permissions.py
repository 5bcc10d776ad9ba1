"""What every role may do, tried on a real server: all that the table allows works, and all else is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from deployed import PATIENT, Node, Voice, two_groups, who
from nats.js.api import StreamConfig
from nats.js.errors import APIError
from structlog.testing import capture_logs

from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.bus import nkey
from tunnelswitch.bus.access import Access
from tunnelswitch.bus.connection import Connection
from tunnelswitch.bus.samples import RECORD
from tunnelswitch.bus.subjects import BY_NAME
from tunnelswitch.pki.identities import STORE_API, Identity, identities, permissions
from tunnelswitch.pki.issue import issue

pytestmark = pytest.mark.nats

DEPLOYMENT = two_groups()
EVERYBODY = identities(DEPLOYMENT)
STREAM = "KV_tunnelswitch-lab"
# Whatever anybody could wish to do to the store or the servers, by each name that JetStream's API may have.
MISCHIEF = [
    f"{api}.{what}"
    for api in ("$JS.API", STORE_API)
    for what in (
        f"STREAM.DELETE.{STREAM}",
        f"STREAM.PURGE.{STREAM}",
        f"STREAM.UPDATE.{STREAM}",
        f"STREAM.MSG.DELETE.{STREAM}",
        f"STREAM.SNAPSHOT.{STREAM}",
        f"STREAM.RESTORE.{STREAM}",
        f"STREAM.PEER.REMOVE.{STREAM}",
        f"CONSUMER.CREATE.{STREAM}",
        "STREAM.CREATE.other",
        "STREAM.NAMES",
        "ACCOUNT.PURGE.STORE",
        "SERVER.REMOVE",
    )
] + ["$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.STORE.CONNZ", "tsw.v1.other.move.voip"]
SPOKEN = [f"tsw.v1.lab.{kind}.{name}" for kind in BY_NAME for name in (*DEPLOYMENT.sites, *DEPLOYMENT.groups)]


def concrete(pattern: str) -> str:
    return pattern.replace("*", "x").replace(">", "x.y")


def covers(pattern: str, name: str) -> bool:
    """Does a permission allow a subject or a subscription (docs.nats.io, "Subject-Based Messaging")?"""
    allowed, asked = pattern.split("."), name.split(".")
    for position, token in enumerate(allowed):
        if token == ">":
            return len(asked) > position
        if position >= len(asked) or asked[position] == ">" or (token != "*" and asked[position] != token):
            return False
    return len(allowed) == len(asked)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node"), DEPLOYMENT).running() as node:
        yield node


@pytest.fixture
async def voice(node: Node, request: pytest.FixtureRequest) -> AsyncIterator[Voice]:
    """The client of the identity that a test is parametrized with."""
    made = await node.connect(request.param)
    yield made
    await made.client.close()


def by_identity(*names: str) -> pytest.MarkDecorator:
    chosen = [who(name) for name in names] or list(EVERYBODY)
    return pytest.mark.parametrize(
        ("voice", "identity"),
        [(identity, identity) for identity in chosen],
        ids=[identity.name.replace("/", "-") for identity in chosen],
        indirect=["voice"],
    )


@by_identity()
async def test_it_may_publish_what_the_table_says_and_nothing_else(voice: Voice, identity: Identity) -> None:
    allowed = permissions(DEPLOYMENT, identity).publish
    others = [concrete(name) for other in EVERYBODY for name in permissions(DEPLOYMENT, other).publish]
    tried = sorted({*others, *SPOKEN, *MISCHIEF})
    expected = {name for name in tried if not any(covers(pattern, name) for pattern in allowed)}
    assert await voice.refused(voice.client.publish, tried) == expected
    assert {concrete(pattern) for pattern in allowed} == set(tried) - expected


@by_identity()
async def test_it_may_hear_what_the_table_says_and_nothing_else(voice: Voice, identity: Identity) -> None:
    allowed = permissions(DEPLOYMENT, identity).subscribe
    others = [name for other in EVERYBODY for name in permissions(DEPLOYMENT, other).subscribe]
    tried = sorted(
        {*others, ">", "*.>", "tsw.>", "tsw.v1.>", "_INBOX.>", "_INBOX.*.>", "$JS.>", "$KV.>", "$SYS.>", "_R_.>"}
    )
    expected = {name for name in tried if not any(covers(pattern, name) for pattern in allowed)}
    assert await voice.refused(voice.client.subscribe, tried) == expected
    assert set(allowed) <= set(tried) - expected


# Written by hand, from what must never be: the table above could be wrong in the same way as the permissions.
NEVER_PUBLISH = {
    "primary/agent": [
        "tsw.v1.lab.heartbeat.secondary",
        "tsw.v1.lab.proof.secondary",
        "tsw.v1.lab.applied.gateway",
        "tsw.v1.lab.serving.secondary",
        "tsw.v1.lab.epoch.voip",
        "tsw.v1.lab.record.voip",
        "tsw.v1.lab.handover.voip",
        "tsw.v1.lab.move.voip",
        "tsw.v1.lab.decision.primary",
        "$KV.tunnelswitch-lab.voip",
        "$KV.tunnelswitch-lab.read.secondary-agent",
        "_INBOX.operator.x",
    ],
    "gateway/agent": [
        "tsw.v1.lab.epoch.voip",
        "tsw.v1.lab.proof.gateway",
        "$KV.tunnelswitch-lab.voip",
        "tsw.v1.lab.move.voip",
    ],
    "watcher/agent": ["tsw.v1.lab.traffic.watcher", "tsw.v1.lab.proof.watcher", "$KV.tunnelswitch-lab.voip"],
    "gateway/switcher": [
        "tsw.v1.lab.heartbeat.gateway",
        "tsw.v1.lab.move.voip",
        "tsw.v1.lab.record.voip",
        "tsw.v1.lab.epoch.web",
        "tsw.v1.lab.handover.web",
        "tsw.v1.lab.applied.edge",
        "$KV.tunnelswitch-lab.voip",
    ],
    "gateway/store": ["$KV.tunnelswitch-lab.web", f"STORE.API.STREAM.CREATE.{STREAM}", "tsw.v1.lab.record.voip"],
    "gateway/system": ["$JS.API.ACCOUNT.PURGE.STORE", "$SYS.REQ.SERVER.PING.VARZ", "tsw.v1.lab.epoch.voip"],
    "operator": ["tsw.v1.lab.epoch.voip", "tsw.v1.lab.heartbeat.primary", "tsw.v1.lab.record.voip"],
    "viewer": [*SPOKEN, "$KV.tunnelswitch-lab.voip", f"STORE.API.STREAM.INFO.{STREAM}"],
}
NEVER_HEAR = {
    "primary/agent": ["_INBOX.secondary-agent.>", "_INBOX.>", "tsw.v1.lab.move.*", "tsw.v1.lab.>", ">"],
    "gateway/switcher": ["_INBOX.gateway-store.>", "_INBOX.gateway-agent.>", "tsw.v1.lab.>"],
    "gateway/store": ["tsw.v1.lab.heartbeat.*", "$KV.tunnelswitch-lab.>", "_INBOX.operator-store.>"],
    "gateway/system": ["$SYS.>", "$SYS.ACCOUNT.*.CONNECT", "tsw.v1.lab.heartbeat.*"],
    "operator": ["_INBOX.primary-agent.>", "tsw.v1.other.>", "$KV.>"],
    "viewer": ["_INBOX.operator.>", "_INBOX.>", "tsw.v1.>", ">"],
}


@by_identity(*NEVER_PUBLISH)
async def test_what_must_never_be_is_refused(voice: Voice, identity: Identity) -> None:
    said, heard = NEVER_PUBLISH[identity.name], NEVER_HEAR.get(identity.name, [])
    assert await voice.refused(voice.client.publish, said) == set(said)
    assert await voice.refused(voice.client.subscribe, heard) == set(heard)
    assert await voice.refused(voice.client.publish, MISCHIEF) == set(MISCHIEF)


@pytest.mark.parametrize("keyed", [False, True])
async def test_strangers_do_not_get_in(node: Node, tmp_path: Path, keyed: bool) -> None:
    seed = tmp_path / "other.nk"
    nkey.make(seed)
    access = Access(seed=str(seed) if keyed else None)
    stranger = Connection([node.url], name="stranger", access=access, timing=PATIENT)
    with capture_logs() as logs:
        await stranger.start()
        async with asyncio.timeout(20):
            while not logs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    await stranger.close()
    assert stranger.client is None
    assert "authorization violation" in str(logs[0]["errors"]).lower()
    assert logs[0]["remedy"].startswith("let the servers include the accounts.conf")


async def test_a_lost_key_is_of_no_use_once_the_nodes_are_told(tmp_path: Path) -> None:
    agent = who("primary/agent")
    node = Node(tmp_path, DEPLOYMENT)
    with node.running():
        lost, other = [Access(seed=str(identity.seed(node.keys))) for identity in (agent, who("viewer"))]
        thief, viewer = (
            Connection([node.url], name=name, access=access, timing=PATIENT)
            for name, access in (("t", lost), ("v", other))
        )
        for connection in (thief, viewer):
            await connection.start()
            await connection.wait_connected()
        stolen = await thief.wait_connected()
        agent.seed(node.keys).rename(tmp_path / "stolen.nk")
        issue(DEPLOYMENT, node.keys)
        node.reload()
        async with asyncio.timeout(20):
            await stolen.lost.wait()
        assert viewer.client is not None
        async with asyncio.timeout(20):
            await thief.wait_connected()  # it reads the key anew, and here is the new one
        await thief.close()
        await viewer.close()


async def test_a_key_that_goes_away_is_missed_once_and_found_again(tmp_path: Path) -> None:
    node, agent = Node(tmp_path, DEPLOYMENT), who("primary/agent")
    seed = agent.seed(node.keys)
    connection = Connection([node.url], name="x", access=Access(seed=str(seed)), timing=PATIENT)
    with capture_logs() as logs:
        with node.running():
            await connection.start()
            client = await connection.wait_connected()
            seed.rename(tmp_path / "away.nk")
        await client.lost.wait()
        with node.running():
            async with asyncio.timeout(20):
                while not (errors := [line["errors"] for line in logs if "errors" in line]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            (tmp_path / "away.nk").rename(seed)
            async with asyncio.timeout(20):
                await connection.wait_connected()
            await connection.close()
    assert [f"the key {seed} cannot be read" in str(error) for error in errors] == [True]


# ------------------------------------------------------------------ what a server does for those it lets in


def store_of(node: Node, name: str) -> NatsEpochs:
    identity = who(name)
    access = Access(seed=str(identity.seed(node.keys)), inbox=identity.inbox, jetstream_api=STORE_API)
    return NatsEpochs([node.url], cluster="lab", source=identity.name, servers={"gateway": "n"}, access=access)


@pytest.fixture
async def stored(node: Node) -> AsyncIterator[dict[str, NatsEpochs]]:
    """Everybody's way to the store, with a record of the group `voip` in it."""
    stores = {
        name: store_of(node, name)
        for name in ("operator/store", "gateway/store", "edge/store", "primary/agent", "viewer")
    }
    for store in stores.values():
        await store.start()
    await stores["operator/store"].ensure_bucket()
    yield stores
    for store in stores.values():
        await store.close()


async def test_a_record_is_made_by_the_operator_written_by_its_switcher_and_read_by_all(
    stored: dict[str, NatsEpochs],
) -> None:
    revision = await stored["operator/store"].create(RECORD)
    revision = await stored["gateway/store"].commit(RECORD, revision, 20.0)
    for store in stored.values():
        assert await store.read(RECORD.group, 20.0) == (RECORD, revision)


async def test_a_reply_cannot_be_aimed_at_a_record(node: Node, stored: dict[str, NatsEpochs]) -> None:
    """A server answers to any reply subject: in the store's own account this overwrote the record."""
    before = await stored["viewer"].read(RECORD.group, 20.0)
    key, question = f"$KV.tunnelswitch-lab.{RECORD.group}", json.dumps({"last_by_subj": "$KV.tunnelswitch-lab.voip"})
    for name in ("primary/agent", "viewer", "edge/store"):
        identity = who(name)
        voice = await node.connect(identity)
        for allowed in permissions(DEPLOYMENT, identity).publish:
            if allowed.startswith((STORE_API, "$KV")):
                await voice.client.publish(allowed, question.encode(), reply=key)
        await voice.client.flush()
        await asyncio.sleep(0.1)
        assert voice.forbidden == []
        await voice.client.close()
    assert await stored["viewer"].read(RECORD.group, 20.0) == before


async def test_nobody_rolls_a_record_up_or_drops_the_store(node: Node, stored: dict[str, NatsEpochs]) -> None:
    before = await stored["viewer"].read(RECORD.group, 20.0)
    for name in ("gateway/store", "operator/store"):
        voice = await node.connect(who(name))
        with pytest.raises(APIError, match="rollup"):
            await voice.client.jetstream(prefix=STORE_API, timeout=20).publish(
                f"$KV.tunnelswitch-lab.{RECORD.group}", headers={"Nats-Rollup": "all"}
            )
        store = voice.client.jetstream(prefix=STORE_API, timeout=0.3)
        for attempt in (
            store.delete_stream(STREAM),
            store.purge_stream(STREAM),
            store.update_stream(StreamConfig(name=STREAM, subjects=["$KV.tunnelswitch-lab.>"], deny_delete=False)),
        ):
            with pytest.raises(TimeoutError):
                await attempt
        await voice.client.flush()
        assert len(voice.forbidden) == 3
        await voice.client.close()
    assert await stored["viewer"].read(RECORD.group, 20.0) == before
