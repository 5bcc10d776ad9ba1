"""Cases in which a machine lacks something: disk, an up-to-date database, the right time, processors, descriptors."""

from __future__ import annotations

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.matrix.cases import SECONDARY, Case, Clients, Expected
from tunnelswitch_lab.matrix.machine import (
    Backup,
    Busy,
    Fill,
    Free,
    NoDescriptors,
    OwnClocks,
    Restore,
    SetClocks,
    SmallDisk,
    UntilDisabled,
)
from tunnelswitch_lab.matrix.processes import OUTAGE, PROVEN
from tunnelswitch_lab.matrix.steps import Inject, Kill, Start, UntilAnswered, Wait

_GATEWAY = names.GATEWAY


def _disks() -> list[Case]:
    crash = Inject("service-crash")
    two = (SECONDARY, _GATEWAY)
    return [
        Case(
            "disk-full-one-node",
            "fills the disk below one NATS node's store, and crashes the service when the node has given up",
            (Fill(SECONDARY), UntilDisabled(SECONDARY), crash),
            PROVEN,
            prepare=(SmallDisk(SECONDARY),),
            hurts_bus=True,
        ),
        Case(
            "disk-full-majority",
            "fills the disks below two of three NATS nodes and crashes the service: nobody can decide, until there is "
            "room again and the nodes are restarted",
            (
                *(Fill(site) for site in two),
                *(UntilDisabled(site) for site in two),
                crash,
                Wait(2.0),
                *(Free(site) for site in two),
                *(step for site in two for step in (Kill(f"nats-{site}"), Start(f"nats-{site}"))),
                UntilAnswered(25.0),
            ),
            PROVEN,
            prepare=tuple(SmallDisk(site) for site in two),
            hurts_bus=True,
        ),
    ]


def _databases() -> list[Case]:
    database = f"ovsdb-{_GATEWAY}"
    return [
        Case(
            "ovsdb-restored",
            "puts a backup of the gateway's OVSDB, made before a failover, in its place after the failover",
            (Inject("service-crash"), Wait(2.0), Kill(database), Restore(_GATEWAY), Start(database)),
            PROVEN,
            prepare=(Backup(_GATEWAY),),
        ),
        Case(
            "ovsdb-gateway-gone",
            "kills the gateway's OVSDB server, which is started again after 4 s",
            (Kill(database), Wait(4.0), Start(database)),
            OUTAGE,
            settle_seconds=5.0,
        ),
    ]


def _clocks() -> list[Case]:
    return [
        Case(
            f"clock-{word}",
            f"sets the wall clocks of agents and switcher an hour {word}, and crashes the service 2 s later",
            (SetClocks(seconds), Wait(2.0), Inject("service-crash")),
            PROVEN,
            prepare=(OwnClocks(),),
        )
        for word, seconds in (("forward", 3600), ("back", -3600))
    ]


def _scarcity() -> list[Case]:
    agent = f"agent-{SECONDARY}"
    return [
        Case(
            "processors-busy",
            "runs two busy loops for each processor for 4 s",
            (Busy(2, 4.0),),
            Expected(clients=Clients.INTERRUPTED),
        ),
        Case(
            "no-descriptors",
            "crashes the service while the secondary's agent cannot start a hook; 3 s later it can again",
            (
                NoDescriptors(agent),
                Inject("service-crash"),
                Wait(3.0),
                NoDescriptors(agent, lift=True),
                UntilAnswered(8.0),
            ),
            PROVEN,
        ),
    ]


def cases() -> list[Case]:
    """Every case of this kind."""
    return [*_disks(), *_databases(), *_clocks(), *_scarcity()]
