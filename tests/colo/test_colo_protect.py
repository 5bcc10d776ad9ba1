"""What may be protected: a Protector asking a QEMU that answers as it is told to here."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.replication.colo_protect import Protector
from tunnelswitch.replication.colo_qmp import Command, Mode
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
