"""Cases in which a process dies or hangs. What an init system starts again is started again here after a second."""

from __future__ import annotations

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Verdict
from tunnelswitch_lab.matrix.cases import MOVES, PRIMARY, SECONDARY, Case, Clients, Expected
from tunnelswitch_lab.matrix.steps import (
    Continue,
    Inject,
    Kill,
    Start,
    StartSecondSwitcher,
    StartSwitch,
    Stop,
    Wait,
)

_BACK_SECONDS = 1.0
_HANG_SECONDS = 2.0

LOST_HOST = Expected(Verdict.SUSPICION, MOVES, Clients.INTERRUPTED)
PROVEN = Expected(Verdict.PROOF, MOVES, Clients.INTERRUPTED)
CUT_OFF = Expected(Verdict.CUT_OFF, MOVES, Clients.INTERRUPTED)
OUTAGE = Expected(clients=Clients.INTERRUPTED)
UNAWARE = Expected()


def _killed(process: str, expected: Expected = UNAWARE, **options: object) -> Case:
    return Case(
        f"{process}-killed",
        f"kills {process}, which is started again after {_BACK_SECONDS:g} s",
        (Kill(process), Wait(_BACK_SECONDS), Start(process)),
        expected,
        **options,  # type: ignore[arg-type]
    )


def _hangs(process: str, expected: Expected = UNAWARE) -> Case:
    return Case(
        f"{process}-hangs",
        f"stops {process} for {_HANG_SECONDS:g} s",
        (Stop(process), Wait(_HANG_SECONDS), Continue(process)),
        expected,
    )


def _programs() -> list[Case]:
    programs = [*(f"agent-{site}" for site in names.SITES), f"switcher-{names.GATEWAY}"]
    half_seen = Expected(says=f"no heartbeats from {PRIMARY} while its path is up")
    told = {f"agent-{PRIMARY}": half_seen}
    return [case(name, told.get(name, UNAWARE)) for name in programs for case in (_killed, _hangs)]


def _copies() -> list[Case]:
    active, standby = (f"service-{site}" for site in names.SERVERS)
    return [
        # The host lives and the process is there: only the clients' unanswered packets tell.
        _hangs(active, CUT_OFF),
        _killed(standby),
        _hangs(standby),
        Case(
            "both-copies-killed",
            "kills the active copy and the standby: nobody is left who may serve",
            (Kill(standby), Wait(0.5), Kill(active)),
            Expected(clients=Clients.UNSERVED, says="refuse.*standby is not in sync"),
        ),
    ]


def _switches() -> list[Case]:
    """A switch that is gone or hangs takes its site off the WAN, since it forwards in user space here."""
    cases = []
    for site, expected in ((PRIMARY, LOST_HOST), (SECONDARY, UNAWARE), (names.GATEWAY, OUTAGE)):
        switch = f"vswitchd-{site}"
        cases += [
            Case(
                f"{switch}-killed",
                f"kills {switch}, which is started again after {_BACK_SECONDS:g} s",
                (Kill(switch), Wait(_BACK_SECONDS), StartSwitch(site)),
                expected,
                settle_seconds=3.5,
            ),
            _hangs(switch, expected),
        ]
    return cases


def _databases() -> list[Case]:
    """Without its database's server ovs-vswitchd does not run its userspace datapath: the site is off the WAN until it
    has connected anew. A server that hangs keeps the connection, and packets flow."""
    killed = {PRIMARY: LOST_HOST, SECONDARY: UNAWARE, names.GATEWAY: OUTAGE}
    return [
        case
        for site, expected in killed.items()
        for case in (_killed(f"ovsdb-{site}", expected, settle_seconds=3.5), _hangs(f"ovsdb-{site}"))
    ]


def _nodes() -> list[Case]:
    nodes = [f"nats-{site}" for site in names.SITES]
    killed = [_killed(node) for node in nodes]
    return [
        *killed,
        *(_hangs(node) for node in nodes),
        Case(
            "nats-majority-killed",
            "kills two of three NATS nodes for 4 s: nobody can decide, and nothing moves",
            (
                Kill(nodes[1]),
                Kill(nodes[2]),
                Wait(4.0),
                Start(nodes[1]),
                Start(nodes[2]),
            ),
            UNAWARE,
            settle_seconds=4.0,
        ),
    ]


def _switchers() -> list[Case]:
    switcher = f"switcher-{names.GATEWAY}"
    second = (StartSecondSwitcher(),)
    return [
        Case(
            "stale-switcher-wakes",
            "stops the switcher, crashes the service, lets a second switcher decide, and wakes the first",
            (Stop(switcher), Wait(0.5), Inject("service-crash"), Wait(2.0), Continue(switcher)),
            PROVEN,
            prepare=second,
        ),
        Case(
            "switcher-stopped-mid-decision",
            "crashes the service with two switchers beside the gateway; one is stopped in the midst of it for 2 s",
            (Inject("service-crash"), Wait(0.004), Stop(switcher), Wait(2.0), Continue(switcher)),
            PROVEN,
            prepare=second,
        ),
        Case(
            "two-switchers-host-loss",
            "loses the primary with two switchers beside the gateway: one decision, made once",
            (Inject("host-loss"),),
            LOST_HOST,
            prepare=second,
        ),
        Case(
            "switcher-sleeps-alone",
            "stops the only switcher, crashes the service, and wakes it 2 s later: it decides on what is so then",
            (Stop(switcher), Wait(0.5), Inject("service-crash"), Wait(2.0), Continue(switcher)),
            PROVEN,
        ),
    ]


def cases() -> list[Case]:
    """Every case of this kind."""
    return [*_programs(), *_copies(), *_nodes(), *_databases(), *_switches(), *_switchers()]
