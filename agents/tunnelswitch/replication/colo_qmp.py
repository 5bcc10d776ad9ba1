"""Every QMP name that the `colo` driver uses, and how the answers read. Pure; nothing else here knows such a name.

COLO in its periodic form is Remus: stop, copy the dirty state, resume. QEMU calls parts of it unstable (`x-`), so
another version may spell them differently: this is the one file to change. Source: QEMU's QMP reference manual,
docs/COLO-FT.txt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

STOP, RESUME, COLO_EXIT, MIGRATION = "STOP", "RESUME", "COLO_EXIT", "MIGRATION"
# Older ones deadlock at the first checkpoint or corrupt memory.
OLDEST_VERSION = (11, 1)
# The block driver with which QEMU itself keeps both copies of a disk alike, and the one joining it to the local disk
# (docs/block-replication.txt).
REPLICATION, QUORUM = "replication", "quorum"


class Mode(StrEnum):
    """What part in checkpointing a QEMU has now (`query-colo-status`)."""

    NONE = "none"
    PRIMARY = "primary"
    SECONDARY = "secondary"


@dataclass(frozen=True, slots=True)
class Command:
    """One QMP command. `oob`: out of band, answered even while QEMU's main loop is stuck."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    oob: bool = False


QUERY_VERSION = Command("query-version")
QUERY_STATUS = Command("query-status")
QUERY_COLO = Command("query-colo-status")
QUERY_MIGRATE = Command("query-migrate")
QUERY_PARAMETERS = Command("query-migrate-parameters")
QUERY_KVM = Command("query-kvm")
QUERY_PROCESSORS = Command("query-cpus-fast")
QUERY_BLOCK = Command("query-block")
QUERY_NODES = Command("query-named-block-nodes", {"flat": True})
LIST_OBJECTS = Command("qom-list", {"path": "/objects"})
CANCEL = Command("migrate_cancel")
# Cuts the checkpoints' connection: frees whoever waits for a peer that no longer speaks.
CUT = Command("yank", {"instances": [{"type": "migration"}]}, oob=True)
# Answered out of band: is anybody there at all?
PING = Command("query-yank", oob=True)
# To a secondary: take over. To a primary: go on alone.
PEER_LOST = Command("x-colo-lost-heartbeat")
# A standby stands still between checkpoints, and goes on when it has taken over.
HALT = Command("stop")
GO_ON = Command("cont")
QUIT = Command("quit")
# How long the machine may stand still for the last of the first copy, ms; at 0 nothing is left for it.
ENDS_WHOLE, USUAL_DOWNTIME = 0, 300
# Not XBZRLE: it sends an eighth, and makes a page that the standby has wrong stay wrong (docs/colo.md).
ENABLE = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": name, "state": True} for name in ("return-path", "events", "x-colo")]},
)


def set_downtime(milliseconds: int) -> Command:
    """How long the machine may stand still for the last of a copy."""
    return Command("migrate-set-parameters", {"downtime-limit": milliseconds})


def set_interval(milliseconds: int) -> Command:
    """The time between checkpoints; in force at once, also under protection."""
    return Command("migrate-set-parameters", {"x-checkpoint-delay": milliseconds})


def migrate_to(uri: str) -> Command:
    """Begin to copy the machine to `tcp:HOST:PORT` or `unix:PATH`; checkpoints follow by themselves."""
    return Command("migrate", {"uri": uri})


def listen_on(uri: str) -> Command:
    """Take a machine in at `tcp:HOST:PORT` or `unix:PATH` (a QEMU started with `-incoming defer`)."""
    return Command("migrate-incoming", {"uri": uri})


def remove_object(name: str) -> Command:
    """Remove an object that the command line made."""
    return Command("object-del", {"id": name})


def interval_milliseconds(reply: Any) -> int:
    """The interval in force, from `QUERY_PARAMETERS`."""
    return _whole(reply, "x-checkpoint-delay")


def downtime_milliseconds(reply: Any) -> int:
    """From `QUERY_PARAMETERS`; the usual one if it does not say."""
    return _whole(reply, "downtime-limit", USUAL_DOWNTIME)


def has_kvm(reply: Any) -> bool:
    """Does the processor run the machine, from `QUERY_KVM`?"""
    return _table(reply).get("enabled") is True


def processor_threads(reply: Any) -> frozenset[int]:
    """Ids of the threads that run the machine's processors, from `QUERY_PROCESSORS`; several may share one."""
    found = (_table(one).get("thread-id") for one in reply) if isinstance(reply, list) else ()
    return frozenset(thread for thread in found if isinstance(thread, int))


def mode(reply: Any) -> Mode:
    """From `QUERY_COLO`."""
    try:
        return Mode(_table(reply).get("mode", "none"))
    except ValueError:
        return Mode.NONE


def run_state(reply: Any) -> str:
    """From `QUERY_STATUS`: running, paused, inmigrate, colo, ..."""
    return str(_table(reply).get("status", ""))


def migration_status(data: Any) -> str:
    """From `QUERY_MIGRATE` or a MIGRATION event; empty if there was never one."""
    return str(_table(data).get("status", ""))


def migration_error(reply: Any) -> str:
    """Why the last migration failed, from `QUERY_MIGRATE`."""
    return str(_table(reply).get("error-desc", ""))


@dataclass(frozen=True, slots=True)
class Copied:
    """How far the copy of the memory is: the part that the other side has, the rounds begun, and the seconds that what
    is left of this round takes at the rate so far."""

    progress: float = 0.0
    rounds: int = 0
    rest_seconds: float = math.inf


def copied(reply: Any) -> Copied:
    """From `QUERY_MIGRATE`."""
    ram = _table(_table(reply).get("ram"))
    total, remaining, rate = _whole(ram, "total"), _whole(ram, "remaining"), ram.get("mbps", 0)
    if total <= 0 or "remaining" not in ram:
        return Copied()
    progress = round(min(1.0, max(0.0, 1.0 - remaining / total)), 2)
    rest = remaining * 8 / (rate * 1e6) if isinstance(rate, int | float) and rate > 0 else math.inf
    return Copied(progress, _whole(ram, "dirty-sync-count"), rest)


def object_names(reply: Any) -> frozenset[str]:
    """From `LIST_OBJECTS`."""
    return frozenset(str(entry.get("name")) for entry in reply) if isinstance(reply, list) else frozenset()


def version(reply: Any) -> tuple[int, ...]:
    """Major, minor and micro version, from `QUERY_VERSION`; zeros if it does not say."""
    numbers = _table(_table(reply).get("qemu"))
    found = [numbers.get(name) for name in ("major", "minor", "micro")]
    return tuple(number if isinstance(number, int) else 0 for number in found)


def unreplicated_disks(reply: Any, nodes: Any) -> list[str]:
    """Disks that the machine may write and that no checkpoint carries, from `QUERY_BLOCK` and `QUERY_NODES`."""
    drivers = {node.get("node-name"): node.get("drv") for node in _tables(nodes)}
    found = []
    for entry in _tables(reply):
        medium = _table(entry.get("inserted"))
        if not medium or medium.get("ro") or medium.get("drv") == REPLICATION:
            continue
        quorum = medium.get("drv") == QUORUM
        children = (drivers.get(child.get("node-name")) for child in _tables(medium.get("children")))
        if not (quorum and REPLICATION in children):
            name = str(entry.get("device") or entry.get("qdev") or medium.get("node-name") or "?")
            found.append(f"{name} ({QUORUM} without a {REPLICATION} child)" if quorum else name)
    return found


def event_nanoseconds(event: Mapping[str, Any]) -> int:
    """The same exactly, in nanoseconds since 1970; 0 if it does not say. QEMU tells whole microseconds, cut off: it was
    not earlier."""
    stamp = _table(event.get("timestamp"))
    seconds, fraction = stamp.get("seconds", 0), stamp.get("microseconds", 0)
    whole = isinstance(seconds, int) and isinstance(fraction, int) and seconds > 0
    return (seconds * 1_000_000 + fraction) * 1000 if whole else 0


def event_seconds(event: Mapping[str, Any]) -> float:
    """When an event happened, by QEMU's host clock, seconds since 1970; 0 if it does not say."""
    stamp = _table(event.get("timestamp"))
    seconds, fraction = stamp.get("seconds", 0), stamp.get("microseconds", 0)
    return float(seconds) + float(fraction) / 1e6 if seconds and seconds > 0 else 0.0


def _whole(reply: Any, name: str, default: int = 0) -> int:
    value = _table(reply).get(name, default)
    return value if isinstance(value, int) else default


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [_table(entry) for entry in value] if isinstance(value, list) else []
