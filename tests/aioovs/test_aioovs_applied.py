"""`applied` means that a real ovs-vswitchd has done it."""

from __future__ import annotations

import asyncio
import signal

import pytest
from real_ovs import Ovs, eventually

from aioovs import ConnectionLost, Database, Guard, SetKeys, TransactionTimeout

pytestmark = pytest.mark.ovs
GRE = {"type": "gre", "options": {"remote_ip": "192.0.2.2", "key": "2"}}


async def test_applied_is_waited_for_and_the_port_is_there(switch: Ovs) -> None:
    async with Database(switch.remote) as db:
        outcome = await db.transact(db.api.add_port("ready", "t2", **GRE), wait_applied=True, deadline_seconds=20)
        assert outcome.applied
        assert outcome.applied_at is not None
        assert outcome.submitted_at <= outcome.committed_at <= outcome.applied_at
        assert outcome.failed_interfaces == ()
        port = next(row for row in db.rows("Interface") if row["name"] == "t2")
        assert port["ofport"] > 0


async def test_an_unchanged_outcome_is_honest_about_applied(switch: Ovs) -> None:
    async with Database(switch.remote) as db:
        await db.transact(db.api.add_port("ready", "t2", **GRE), wait_applied=True, deadline_seconds=20)
        again = await db.transact(db.api.add_port("ready", "t2", **GRE), wait_applied=True, deadline_seconds=20)
        assert (again.changed, again.applied) == (False, True)
        assert switch.switch is not None
        switch.switch.signal(signal.SIGSTOP)
        sent = await db.transact(db.api.add_port("ready", "t3", **GRE))
        assert (sent.changed, sent.applied) == (True, False)
        pending = await db.transact(db.api.add_port("ready", "t3", **GRE))
        assert (pending.changed, pending.applied, pending.next_cfg) == (False, False, sent.next_cfg)
        with pytest.raises(TransactionTimeout):
            await db.transact(db.api.add_port("ready", "t3", **GRE), wait_applied=True, deadline_seconds=0.2)


async def test_a_stopped_switch_is_a_timeout_after_the_commit(switch: Ovs) -> None:
    async with Database(switch.remote) as db:
        assert switch.switch is not None
        switch.switch.signal(signal.SIGSTOP)
        with pytest.raises(TransactionTimeout, match="committed, but") as failure:
            await db.transact(db.api.add_port("ready", "t2", **GRE), wait_applied=True, deadline_seconds=2)
        assert failure.value.committed
        assert failure.value.next_cfg is not None
        with pytest.raises(TransactionTimeout):
            await db.wait_applied(failure.value.next_cfg, 0.1)
        switch.switch.signal(signal.SIGCONT)
        await db.wait_applied(failure.value.next_cfg, 20)


async def test_losing_the_server_while_waiting_for_applied_says_committed(switch: Ovs) -> None:
    async with Database(switch.remote) as db:
        assert switch.switch is not None
        switch.switch.signal(signal.SIGSTOP)
        task = asyncio.create_task(
            db.transact(db.api.add_port("ready", "t2", **GRE), wait_applied=True, deadline_seconds=20)
        )
        await eventually(lambda: bool(db._keeper._applying) and any(row["name"] == "t2" for row in db.rows("Port")))
        switch.kill_server()
        with pytest.raises(ConnectionLost) as failure:
            await task
        assert failure.value.committed


async def test_an_interface_that_could_not_be_made_is_named(switch: Ovs) -> None:
    async with Database(switch.remote) as db:
        outcome = await db.transact(
            db.api.add_port("ready", "good", **GRE),
            db.api.add_port("ready", "bad", type="nonsense"),
            wait_applied=True,
            deadline_seconds=20,
        )
        assert outcome.failed_interfaces == ("bad",)


async def test_repeated_guarded_switches_with_few_columns(switch: Ovs) -> None:
    tables = {
        "Open_vSwitch": ["bridges", "external_ids"],
        "Bridge": ["name", "ports"],
        "Port": ["name", "interfaces"],
        "Interface": ["name", "type", "options", "ofport"],
    }
    async with Database(switch.remote, tables=tables) as db:
        row = db.rows("Open_vSwitch")[0].uuid
        await db.transact(
            db.api.add_port("ready", "t2", **GRE), SetKeys(db.api, "Open_vSwitch", row, "external_ids", {"epoch": "0"})
        )
        here, there = "t2", "t3"
        for epoch in range(20):
            outcome = await db.transact(
                db.api.add_port("ready", there, type="gre", options={"remote_ip": "192.0.2.3", "key": there[1:]}),
                SetKeys(db.api, "Open_vSwitch", row, "external_ids", {"epoch": str(epoch + 1)}),
                db.api.del_port(here, "ready", if_exists=False),
                guard=Guard("Open_vSwitch", row, "epoch", str(epoch)),
                wait_applied=True,
                deadline_seconds=20,
            )
            assert (outcome.applied, outcome.failed_interfaces) == (True, ())
            assert switch.vsctl("list-ports", "ready") == there
            here, there = there, here
