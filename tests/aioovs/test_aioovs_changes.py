"""Changes arrive, and whatever is missed is said to be missed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from real_ovs import Ovs

from aioovs import (
    Changes,
    Database,
    DatabaseClosed,
    Disconnected,
    Overflowed,
    Resynced,
    RowChange,
    SchemaError,
)

pytestmark = pytest.mark.ovs


async def following(changes: Changes, kind: type[Any]) -> Any:
    """The next item of this kind; others are passed over."""
    async with asyncio.timeout(20):
        async for change in changes:
            if isinstance(change, kind):
                return change
    raise AssertionError("unreachable: the iterator ends with an exception")


async def test_insert_update_and_delete_of_another_writer(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db, db.changes("Bridge") as changes:
        ovs.vsctl("add-br", "br0")
        insert = await following(changes, RowChange)
        assert (insert.table, insert.kind, insert.old, insert.new["name"]) == ("Bridge", "insert", {}, "br0")
        ovs.vsctl("set", "bridge", "br0", "fail_mode=secure")
        update = await following(changes, RowChange)
        assert (update.uuid, update.kind, update.old) == (insert.uuid, "update", {"fail_mode": None})
        assert (update.new["fail_mode"], update.new["name"]) == ("secure", "br0")
        ovs.vsctl("del-br", "br0")
        delete = await following(changes, RowChange)
        assert (delete.kind, delete.old["name"], delete.new) == ("delete", "br0", {})


async def test_each_consumer_gets_its_own_tables(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db, db.changes("Port") as ports, db.changes() as everything:
        await db.transact(db.api.add_br("br0"))
        assert (await following(ports, RowChange)).table == "Port"
        tables = {(await following(everything, RowChange)).table for _ in range(4)}
        assert tables == {"Open_vSwitch", "Bridge", "Port", "Interface"}


async def test_a_slow_consumer_is_told_what_it_lost_and_goes_on(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db, db.changes("Bridge", limit=3) as changes:
        for number in range(5):
            await db.transact(db.api.add_br(f"br{number}"))
        overflow = await anext(changes)
        assert overflow == Overflowed(lost=3)
        assert {row["name"] for row in db.rows("Bridge")} == {f"br{number}" for number in range(5)}
        assert [(await anext(changes)).new["name"] for _ in range(2)] == ["br3", "br4"]  # type: ignore[union-attr]


async def test_after_a_restart_with_other_content_the_differences_follow(ovs: Ovs) -> None:
    ovs.vsctl("add-br", "old")
    async with Database(ovs.remote) as db, db.changes("Bridge") as changes:
        ovs.kill_server()
        assert (await following(changes, Disconnected)).reason
        assert not db.connected
        assert [row["name"] for row in db.rows("Bridge")] == ["old"]
        ovs.create()
        ovs.start()
        ovs.vsctl("add-br", "new")
        await following(changes, Resynced)
        seen: dict[str, str] = {}
        while len(seen) < 2:
            change = await following(changes, RowChange)
            seen[(change.old or change.new)["name"]] = change.kind
        assert seen == {"old": "delete", "new": "insert"}
        assert [row["name"] for row in db.rows("Bridge")] == ["new"]


async def test_the_same_content_after_a_restart_is_no_change(ovs: Ovs) -> None:
    ovs.vsctl("add-br", "br0")
    async with Database(ovs.remote) as db, db.changes("Bridge") as changes:
        ovs.kill_server()
        ovs.start(init=False)
        await following(changes, Resynced)
        await db.transact(db.api.db_set("Bridge", "br0", ("fail_mode", "secure")))
        assert (await following(changes, RowChange)).kind == "update"


async def test_closing_ends_every_iterator_with_an_exception(ovs: Ovs) -> None:
    db = Database(ovs.remote)
    await db.open()
    waiting = asyncio.create_task(anext(db.changes("Bridge")))
    await asyncio.sleep(0)
    await db.close()
    with pytest.raises(DatabaseClosed):
        await waiting
    with pytest.raises(DatabaseClosed):
        await anext(db.changes("Bridge"))
    with pytest.raises(DatabaseClosed):
        await db.transact()


async def test_an_iterator_that_was_let_go_is_forgotten(ovs: Ovs) -> None:
    async with Database(ovs.remote) as db:
        changes = db.changes("Bridge")
        del changes
        gc.collect()
        assert not db._keeper.audience.wants("Bridge")


async def test_bad_subscriptions_are_refused(ovs: Ovs) -> None:
    async with Database(ovs.remote, tables={"Bridge": ["name"]}) as db:
        with pytest.raises(SchemaError, match="'Port' is not monitored"):
            db.changes("Port")
        with pytest.raises(SchemaError, match="'Port' is not monitored"):
            db.rows("Port")
        with pytest.raises(ValueError, match="limit"):
            db.changes("Bridge", limit=0)
