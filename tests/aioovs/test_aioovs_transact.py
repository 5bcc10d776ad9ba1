"""Transactions on a real ovsdb-server: guards, keys, conflicts, errors, deadlines."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest
from proxy import Proxy
from real_ovs import Ovs, eventually

from aioovs import (
    CommandError,
    Conflict,
    Database,
    Guard,
    GuardFailed,
    NotConnected,
    RemoveKeys,
    SetKeys,
    TransactionError,
    TransactionTimeout,
)

pytestmark = pytest.mark.ovs
MakeProxy = Callable[[], Awaitable[Proxy]]


def root(db: Database) -> uuid.UUID:
    return db.rows("Open_vSwitch")[0].uuid


def epoch_guard(db: Database, expected: str | None) -> Guard:
    return Guard("Open_vSwitch", root(db), "epoch", expected)


def epoch_of(db: Database) -> str | None:
    return db.external_id("Open_vSwitch", root(db), "epoch")


def set_keys(db: Database, **keys: str) -> SetKeys:
    return SetKeys(db.api, "Open_vSwitch", ".", "external_ids", keys)


async def test_ports_are_added_set_and_removed_in_one_transaction(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        first = await db.transact(db.api.add_br("br0", datapath_type="netdev"), db.api.add_port("br0", "t2"))
        assert first.changed
        assert not first.applied  # no ovs-vswitchd runs here
        assert first.applied_at is None
        assert first.submitted_at <= first.committed_at
        second = await db.transact(
            db.api.add_port("br0", "t3", type="gre", options={"remote_ip": "192.0.2.3", "key": "7"}),
            db.api.add_port("br0", "t4"),
            db.api.db_set("Interface", "t4", ("type", "internal"), if_exists=False),
            db.api.del_port("t2", "br0", if_exists=False),
            comment="a switch",
        )
        assert first.next_cfg is not None
        assert second.next_cfg == first.next_cfg + 1
        assert set(ovs.vsctl("list-ports", "br0").split()) == {"t3", "t4"}
        assert ovs.vsctl("get", "interface", "t4", "type") == "internal"
        options = {row["name"]: row["options"] for row in db.rows("Interface")}
        assert options["t3"] == {"remote_ip": "192.0.2.3", "key": "7"}
        assert set(db.api.list_ports("br0").execute(check_error=True)) == {"t3", "t4"}


async def test_a_port_is_replaced_by_one_of_the_same_name(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        await db.transact(db.api.add_br("br0"), db.api.add_port("br0", "t2", type="gre"))
        await db.transact(db.api.del_port("t2", "br0"), db.api.add_port("br0", "t2", type="internal"))
        assert ovs.vsctl("get", "interface", "t2", "type") == "internal"


async def test_a_created_row_is_known_by_its_real_uuid(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        create = db.api.db_create("QoS", type="linux-noop")
        await db.transact(create)
        assert db.row("QoS", create.result) is not None


async def test_nothing_to_change_is_said_and_nothing_is_sent(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        first = await db.transact(db.api.add_br("br0"))
        again = await db.transact(db.api.add_br("br0"), db.api.del_port("absent"))
        assert (again.changed, again.next_cfg) == (False, first.next_cfg)
        assert ovs.vsctl("get", "open_vswitch", ".", "next_cfg") == str(first.next_cfg)


async def test_a_guard_counts_even_when_there_is_nothing_to_change(ovs: Ovs) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=7")
    async with Database(ovs.remote) as db:
        assert not (await db.transact(guard=epoch_guard(db, "7"))).changed
        with pytest.raises(GuardFailed):
            await db.transact(guard=epoch_guard(db, "6"))


async def test_a_stale_guard_writes_nothing_and_says_what_is_held(ovs: Ovs) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=8")
    async with Database(ovs.remote) as db:
        with pytest.raises(GuardFailed, match="it holds '8'") as failure:
            await db.transact(db.api.add_br("br0"), set_keys(db, epoch="9"), guard=epoch_guard(db, "7"))
        assert (failure.value.expected, failure.value.held, failure.value.row_exists) == ("7", "8", True)
    assert ovs.external_id("epoch") == "8"
    assert ovs.vsctl("list-br") == ""


async def test_of_several_guards_all_must_hold(ovs: Ovs) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:one=1", "external_ids:two=2")
    async with Database(ovs.remote) as db:
        (switch,) = db.rows("Open_vSwitch")

        def guards(**expected: str | None) -> list[Guard]:
            return [Guard("Open_vSwitch", switch.uuid, key, value) for key, value in expected.items()]

        for stale in ({"one": "1", "two": "1"}, {"one": None, "two": "2"}, {"one": "1", "three": "3"}):
            with pytest.raises(GuardFailed):
                await db.transact(db.api.add_br("br0"), guard=guards(**stale))
        assert ovs.vsctl("list-br") == ""
        await db.transact(db.api.add_br("br0"), guard=guards(one="1", two="2", three=None, four=None))
        assert ovs.vsctl("list-br") == "br0"


async def test_the_guard_comes_before_the_transactions_own_write(ovs: Ovs) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=7")
    async with Database(ovs.remote) as db:
        await db.transact(set_keys(db, epoch="8"), guard=epoch_guard(db, "7"))
        assert ovs.external_id("epoch") == "8"
        with pytest.raises(GuardFailed):  # its own write would satisfy it
            await db.transact(set_keys(db, epoch="9"), guard=epoch_guard(db, "9"))
    assert ovs.external_id("epoch") == "8"


async def test_an_absent_key_can_be_guarded(ovs: Ovs) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:other=kept")
    async with Database(ovs.remote) as db:
        await db.transact(set_keys(db, epoch="1"), guard=epoch_guard(db, None))
        with pytest.raises(GuardFailed) as failure:
            await db.transact(set_keys(db, epoch="2"), guard=epoch_guard(db, None))
        assert failure.value.held == "1"
        assert db.external_id("Open_vSwitch", root(db), "other") == "kept"
    assert ovs.external_id("epoch") == "1"


@pytest.mark.parametrize("expected", ["7", None])
async def test_a_guard_on_a_missing_row_fails(ovs: Ovs, expected: str | None) -> None:
    async with Database(ovs.remote) as db:
        with pytest.raises(GuardFailed, match="row does not exist") as failure:
            await db.transact(set_keys(db, epoch="8"), guard=Guard("Open_vSwitch", uuid.uuid4(), "epoch", expected))
        assert not failure.value.row_exists
    assert ovs.external_id("epoch") == ""


async def test_a_guard_on_a_missing_key_fails(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        with pytest.raises(GuardFailed, match="it is absent"):
            await db.transact(set_keys(db, epoch="8"), guard=epoch_guard(db, "7"))
        with pytest.raises(CommandError, match="not a monitored map column"):
            await db.transact(guard=Guard("Open_vSwitch", root(db), "epoch", "7", column="bridges"))


async def test_of_concurrent_writers_exactly_one_wins(ovs: Ovs) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=0")
    writers = [Database(ovs.remote) for _ in range(5)]
    for db in writers:
        await db.open()
    try:
        for epoch in range(10):
            results = await asyncio.gather(
                *(
                    db.transact(
                        set_keys(db, epoch=str(epoch + 1), writer=str(number)), guard=epoch_guard(db, str(epoch))
                    )
                    for number, db in enumerate(writers)
                ),
                return_exceptions=True,
            )
            winners = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
            losers = [result for result in results if isinstance(result, GuardFailed)]
            assert (len(winners), len(losers)) == (1, 4)
            assert {loser.held for loser in losers} == {str(epoch + 1)}
            assert ovs.external_id("writer") == str(winners[0])
            await eventually(lambda: {epoch_of(db) for db in writers} == {ovs.external_id("epoch")})
    finally:
        for db in writers:
            await db.close()


async def test_two_first_writers_of_different_keys_meet_as_a_conflict(ovs: Ovs) -> None:
    async with Database(ovs.remote) as one, Database(ovs.remote) as two:
        results = await asyncio.gather(
            one.transact(set_keys(one, a="1"), guard=Guard("Open_vSwitch", root(one), "a", None)),
            two.transact(set_keys(two, b="1"), guard=Guard("Open_vSwitch", root(two), "b", None)),
            return_exceptions=True,
        )
    assert [type(result) for result in results if isinstance(result, BaseException)] == [Conflict]


async def test_keys_are_changed_and_other_writers_keys_survive(ovs: Ovs, proxied: MakeProxy) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=1", "external_ids:theirs=old")
    proxy = await proxied()
    async with Database(proxy.remote) as db:
        proxy.hold()  # ours is built on what is about to be old
        ours = asyncio.create_task(db.transact(set_keys(db, epoch="2", more="x"), deadline_seconds=20))
        await asyncio.sleep(0)
        ovs.vsctl("set", "open_vswitch", ".", "external_ids:theirs=new", "external_ids:fresh=1")
        proxy.release()
        await ours
        assert [ovs.external_id(key) for key in ("epoch", "more", "theirs", "fresh")] == ["2", "x", "new", "1"]
        await db.transact(RemoveKeys(db.api, "Open_vSwitch", root(db), "external_ids", ["epoch", "absent"]))
        assert [ovs.external_id(key) for key in ("epoch", "theirs")] == ["", "new"]
    assert b'["external_ids","delete",["set",["epoch","more"]]]' in proxy.seen.replace(
        b'["more","epoch"]', b'["epoch","more"]'
    )
    assert b'"insert",["map",[["epoch","2"],["more","x"]]]' in proxy.seen


async def test_of_several_commands_on_a_key_the_last_counts(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        remove = RemoveKeys(db.api, "Open_vSwitch", root(db), "external_ids", ["epoch"])
        await db.transact(set_keys(db, epoch="1"), set_keys(db, epoch="2"))
        assert ovs.external_id("epoch") == "2"
        await db.transact(remove, set_keys(db, epoch="3"))
        assert ovs.external_id("epoch") == "3"
        await db.transact(set_keys(db, epoch="4"), remove)
        assert ovs.external_id("epoch") == ""


async def test_ovsdbapps_own_map_write_meets_another_writer_as_a_conflict(ovs: Ovs, proxied: MakeProxy) -> None:
    proxy = await proxied()
    async with Database(proxy.remote) as db:
        proxy.hold()
        command = db.api.db_set("Open_vSwitch", root(db), ("external_ids", {"a": "1"}))
        ours = asyncio.create_task(db.transact(command, deadline_seconds=20))
        await asyncio.sleep(0)
        ovs.vsctl("set", "open_vswitch", ".", "external_ids:b=1")
        proxy.release()
        with pytest.raises(Conflict):
            await ours
    assert ovs.external_id("a") == ""


async def test_a_conflict_behind_a_guard_that_holds_is_no_failed_guard(ovs: Ovs, proxied: MakeProxy) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=1")
    proxy = await proxied()
    async with Database(proxy.remote) as db:
        proxy.hold()
        command = db.api.db_set("Open_vSwitch", root(db), ("external_ids", {"a": "1"}))
        ours = asyncio.create_task(db.transact(command, guard=epoch_guard(db, "1"), deadline_seconds=20))
        await asyncio.sleep(0)
        ovs.vsctl("set", "open_vswitch", ".", "external_ids:b=1")
        proxy.release()
        with pytest.raises(Conflict, match="a command had read"):
            await ours


async def test_a_late_commit_is_harmless_behind_a_guard(ovs: Ovs, proxied: MakeProxy) -> None:
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=1")
    proxy = await proxied()
    async with Database(proxy.remote, liveness_deadline_seconds=60) as db:
        proxy.hold()
        with pytest.raises(TransactionTimeout) as failure:
            await db.transact(
                db.api.add_br("late"), set_keys(db, epoch="2"), guard=epoch_guard(db, "1"), deadline_seconds=0.5
            )
        assert failure.value.sent
        assert not failure.value.committed
        ovs.vsctl("set", "open_vswitch", ".", "external_ids:epoch=3")
        proxy.release()
        await db.transact(set_keys(db, after="1"), deadline_seconds=20)
        assert ovs.external_id("epoch") == "3"
        assert ovs.vsctl("list-br") == ""


async def test_a_late_commit_without_another_writer_lands(ovs: Ovs, proxied: MakeProxy) -> None:
    proxy = await proxied()
    async with Database(proxy.remote, liveness_deadline_seconds=60) as db:
        proxy.hold()
        with pytest.raises(TransactionTimeout, match="may still land"):
            await db.transact(set_keys(db, epoch="2"), deadline_seconds=0.5)
        proxy.release()
        await db.transact(set_keys(db, after="1"), deadline_seconds=20)
        assert db.external_id("Open_vSwitch", root(db), "epoch") == "2"


async def test_cancelling_leaves_the_connection_usable(ovs: Ovs, proxied: MakeProxy) -> None:
    proxy = await proxied()
    async with Database(proxy.remote, liveness_deadline_seconds=60) as db:
        proxy.hold()
        task = asyncio.create_task(db.transact(set_keys(db, epoch="2"), deadline_seconds=30))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert db.api.idl._outstanding_txns == {}
        proxy.release()
        assert (await db.transact(set_keys(db, after="1"), deadline_seconds=20)).changed


async def test_many_transactions_await_their_replies_together(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        outcomes = await asyncio.gather(*(db.transact(set_keys(db, **{f"k{i}": "1"})) for i in range(50)))
        assert len({outcome.next_cfg for outcome in outcomes}) == 50
        assert all(db.external_id("Open_vSwitch", root(db), f"k{i}") == "1" for i in range(50))


async def test_what_awaits_the_server_is_bounded(ovs: Ovs, proxied: MakeProxy) -> None:
    proxy = await proxied()
    async with Database(proxy.remote, liveness_deadline_seconds=60) as db:
        proxy.hold()
        results = await asyncio.gather(
            *(db.transact(set_keys(db, epoch=str(i)), deadline_seconds=1) for i in range(300)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, TransactionError)]
        assert len(refused) == 300 - 256
        assert "slow down" in str(refused[0])


async def test_a_command_that_cannot_be_built_sends_nothing(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        await db.transact(db.api.add_br("br0"))
        before = ovs.vsctl("get", "open_vswitch", ".", "next_cfg")
        bad = [
            (db.api.add_port("nowhere", "p"), "Cannot find Bridge with name=nowhere"),
            (db.api.db_set("Bridge", "br0", ("fail_mode", "nonsense")), "nonsense"),
            (db.api.db_set("Bridge", "br0", ("fail_mode", 5)), "cannot hold 5"),
            (db.api.db_set("Bridge", "br0", ("no_such", "x")), "no_such"),
            (db.api.db_set("Bridge", "absent", ("fail_mode", "secure"), if_exists=False), "absent"),
            (SetKeys(db.api, "Bridge", "br0", "external_ids", {"k": 5}), "cannot hold"),
            (SetKeys(db.api, "Bridge", "absent", "external_ids", {"k": "v"}), "absent"),
            (SetKeys(db.api, "Nothing", "br0", "external_ids", {"k": "v"}), "not monitored"),
            (db.api.db_set("Bridge", "br0", ("name", "br1")), "cannot be changed"),
            (RemoveKeys(db.api, "Bridge", "br0", "ports", ["k"]), "not a monitored map"),
        ]
        for command, reason in bad:
            with pytest.raises(CommandError, match=reason):
                await db.transact(db.api.add_port("br0", "half"), command)
        assert ovs.vsctl("get", "open_vswitch", ".", "next_cfg") == before
        assert ovs.vsctl("list-ports", "br0") == ""
        assert (await db.transact(db.api.add_port("br0", "whole"))).changed


async def test_the_servers_refusal_is_told_in_its_own_words(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        await db.transact(db.api.add_br("br0"))
        with pytest.raises(TransactionError, match=r"constraint violation: .*identical values"):
            await db.transact(db.api.add_br("br0", may_exist=False))
        with pytest.raises(TransactionError, match="referential integrity violation"):
            await db.transact(db.api.db_set("Bridge", "br0", ("ports", [uuid.uuid4()])))
        assert (await db.transact(set_keys(db, still="works"))).changed


async def test_durable_commits_and_guards_work_together(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        await db.transact(set_keys(db, epoch="1"), guard=epoch_guard(db, None), durable=True)
        with pytest.raises(GuardFailed):
            await db.transact(set_keys(db, epoch="3"), guard=epoch_guard(db, "2"), durable=True)
        unchanged = await db.transact(durable=True)
        assert not unchanged.changed
    assert ovs.external_id("epoch") == "1"


async def test_an_uninitialised_database_is_explained(bare_ovs: Callable[[], Ovs]) -> None:
    ovs = bare_ovs()
    ovs.start(init=False)
    async with Database(ovs.remote) as db:
        with pytest.raises(CommandError, match="ovs-vsctl --no-wait init"):
            await db.transact(db.api.add_br("br0"))
        with pytest.raises(CommandError, match="no Open_vSwitch row"):
            await db.transact(wait_applied=True)


async def test_executing_a_writing_command_directly_is_refused(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        with pytest.raises(CommandError, match="would block the event loop"):
            db.api.add_br("br0").execute(check_error=True, log_errors=False)


async def test_without_a_connection_it_fails_at_once(ovs: Ovs) -> None:
    db = Database(ovs.remote)
    with pytest.raises(NotConnected, match="not opened"):
        await db.transact(deadline_seconds=60)
    async with db:
        ovs.kill_server()
        await eventually(lambda: not db.connected)
        begin = time.monotonic()
        with pytest.raises(NotConnected, match="nothing was sent"):
            await db.transact(set_keys(db, epoch="1"), deadline_seconds=60)
        assert time.monotonic() - begin < 20
        with pytest.raises(NotConnected, match=r"within 0\.1 s"):
            await db.wait_connected(0.1)


@pytest.mark.parametrize("deadline_seconds", [0, -1, float("nan"), float("inf")])
async def test_a_senseless_deadline_is_refused(ovs: Ovs, deadline_seconds: float) -> None:
    async with Database(ovs.remote) as db:
        with pytest.raises(ValueError, match="deadline_seconds"):
            await db.transact(deadline_seconds=deadline_seconds)
