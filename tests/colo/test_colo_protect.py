"""What may be protected: a Protector asking a QEMU that answers as it is told to here."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.replication.colo_protect import Protector
from tunnelswitch.replication.colo_qmp import Command, Copied, Mode
from tunnelswitch.replication.colo_state import Machine

SITES = {"one": ColoSite(migration_address="127.0.0.1:1"), "two": ColoSite(migration_address="127.0.0.1:2")}
DISK = {"device": "root", "inserted": {"drv": "quorum", "children": [{"child": "children.0", "node-name": "local"}]}}
REPLICATING = {"node-name": "local", "drv": "replication"}


class Qemu:
    """The answers of an active of this version; whatever else it is asked is noted."""

    def __init__(self, *version: int) -> None:
        numbers = dict(zip(("major", "minor", "micro"), version, strict=True))
        self.answers: dict[str, Any] = {"query-version": {"qemu": numbers}, "query-block": []}
        self.asked: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.machine = Machine("vm")
        self.machine.found("b.1.2")
        self.machine.take_answers(Mode.NONE, "running", "")
        options = Colo(qmp_socket="/x", sites=SITES)
        self.protector = Protector(self.machine, options, "one", self._ask, lambda: None, self._count)

    def says(self, mode: Mode, run_state: str, migration: str, copied: Copied | None = None) -> None:
        """What a look finds; an attempt that has ended is told as `colo_watch` tells it."""
        self.machine.take_answers(mode, run_state, migration, copied)
        if mode is not Mode.NONE or migration == "failed":
            self.protector.attempted(mode, "")

    async def _ask(self, command: Command, limit_seconds: float) -> Any:
        self.asked[command.name] += 1
        return self.answers.get(command.name)

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1


async def test_an_old_qemu_is_refused() -> None:
    for version in ((10, 2, 3), (11, 0, 90)):
        qemu = Qemu(*version)
        await qemu.protector.settle()
        dotted = ".".join(map(str, version))
        assert qemu.machine.obstacle == f"QEMU {dotted}; 11.1 or later is needed"
        assert qemu.counts == {"refused": 1}
        await qemu.protector.keep()
        assert not qemu.asked["migrate"]


async def test_a_new_qemu_is_not() -> None:
    for version in ((11, 1, 0), (12, 0, 0)):
        qemu = Qemu(*version)
        await qemu.protector.settle()
        assert qemu.machine.obstacle == ""
        await qemu.protector.keep()
        assert qemu.asked["migrate"] == 1


async def test_a_disk_that_comes_to_be_replicated_is_no_obstacle_any_more() -> None:
    qemu = Qemu(11, 1, 0)
    qemu.answers["query-block"] = [DISK]
    for _ in range(2):
        await qemu.protector.settle()
        assert "root (quorum without a replication child)" in qemu.machine.obstacle
    assert qemu.counts == {"refused": 1}, "said once"
    qemu.answers["query-named-block-nodes"] = [REPLICATING]
    await qemu.protector.settle()
    assert qemu.machine.obstacle == ""


async def copying(*, kvm: bool) -> Qemu:
    """A machine in the first round of its copy."""
    qemu = Qemu(11, 1, 0)
    qemu.answers["query-kvm"] = {"enabled": kvm, "present": True}
    await qemu.protector.settle()
    await qemu.protector.keep()
    assert qemu.asked["migrate"] == 1
    qemu.says(Mode.NONE, "running", "active", Copied(0.5, rounds=1, rest_seconds=1.0))
    await qemu.protector.keep()
    assert not qemu.asked["stop"], "there is much left to send"
    return qemu


@pytest.mark.parametrize("nearly", [Copied(0.98, rounds=1, rest_seconds=0.04), Copied(0.9, rounds=2)])
async def test_without_kvm_a_machine_stands_still_for_the_end_of_its_copy(nearly: Copied) -> None:
    for kvm in (False, True):
        qemu = await copying(kvm=kvm)
        qemu.says(Mode.NONE, "running", "active", nearly)
        await qemu.protector.keep()
        assert qemu.asked["stop"] == (0 if kvm else 1)
        qemu.says(Mode.PRIMARY, "colo", "colo")
        await qemu.protector.keep()
        assert not qemu.asked["cont"], "QEMU lets it go on after the first checkpoint"


@pytest.mark.parametrize(
    ("mode", "migration"),
    [(Mode.NONE, "failed"), (Mode.PRIMARY, "colo")],
    ids=["the copy failed", "QEMU was faster"],
)
async def test_a_machine_that_was_halted_for_its_copy_goes_on(mode: Mode, migration: str) -> None:
    qemu = await copying(kvm=False)
    qemu.says(Mode.NONE, "running", "active", Copied(1.0, rounds=2))
    await qemu.protector.keep()
    qemu.says(mode, "paused", migration)
    await qemu.protector.keep()
    assert qemu.asked["cont"] == 1
    qemu.says(mode, "running", migration)
    await qemu.protector.keep()
    assert qemu.asked["cont"] == 1


async def test_what_an_earlier_agent_halted_goes_on_and_what_an_operator_halted_does_not() -> None:
    for downtime, times in ((0, 1), (300, 0)):
        qemu = Qemu(11, 1, 0)
        qemu.answers["query-migrate-parameters"] = {"downtime-limit": downtime}
        qemu.says(Mode.NONE, "paused", "failed")
        await qemu.protector.settle()
        await qemu.protector.keep()
        assert qemu.asked["cont"] == times


async def test_a_copy_that_an_earlier_agent_began_is_brought_to_its_end() -> None:
    qemu = Qemu(11, 1, 0)
    qemu.answers["query-migrate-parameters"] = {"downtime-limit": 0}
    qemu.says(Mode.NONE, "running", "active", Copied(0.9, rounds=3))
    await qemu.protector.settle()
    await qemu.protector.keep()
    assert qemu.asked["stop"] == 1
    assert not qemu.asked["migrate"]


@pytest.mark.parametrize("migration", ["failed", "active"])
async def test_what_an_earlier_agent_halted_goes_on_although_it_must_not_be_protected(migration: str) -> None:
    qemu = Qemu(11, 1, 0)
    qemu.answers |= {"query-migrate-parameters": {"downtime-limit": 0}, "query-block": [DISK]}
    qemu.says(Mode.NONE, "paused", migration)
    await qemu.protector.settle()
    assert qemu.machine.obstacle
    qemu.says(Mode.NONE, "paused", "failed")
    await qemu.protector.keep()
    assert qemu.asked["cont"] == 1


async def test_a_copy_whose_order_was_lost_is_begun_anew() -> None:
    """The connection broke before QEMU had taken it: it will never tell of an end."""
    qemu = await copying(kvm=True)
    qemu.says(Mode.NONE, "running", "")
    await qemu.protector.settle()
    assert not qemu.protector.copying
    await qemu.protector.keep()
    assert qemu.asked["migrate"] == 2


async def test_a_copy_that_never_began_is_given_up_once() -> None:
    qemu = Qemu(11, 1, 0)
    await qemu.protector.settle()
    await qemu.protector.keep()
    qemu.says(Mode.NONE, "running", "")
    await qemu.protector._copy.keep(asyncio.get_running_loop().time() + 61.0)
    assert qemu.asked["migrate_cancel"] == 1
    assert not qemu.protector.copying


async def test_an_active_that_its_lost_peer_still_holds_is_freed_again() -> None:
    """QEMU was told, and the order was lost: it waits for an answer that will not come."""
    qemu = Qemu(11, 1, 0)
    qemu.says(Mode.PRIMARY, "colo", "colo")
    qemu.machine.peer_lost = True
    for times in (1, 2):
        qemu.protector.peer.expect_checkpoints()
        await asyncio.sleep(0.01)
        assert (qemu.asked["yank"], qemu.asked["x-colo-lost-heartbeat"]) == (times, times)
    qemu.says(Mode.NONE, "running", "failed")
    qemu.protector.peer.expect_checkpoints()
    await asyncio.sleep(0.01)
    assert qemu.asked["yank"] == 2
    await qemu.protector.peer.close()
