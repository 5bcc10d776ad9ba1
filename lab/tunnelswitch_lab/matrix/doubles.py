"""Cases of two faults at once."""

from __future__ import annotations

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Verdict
from tunnelswitch_lab.matrix.cases import MOVES, SECONDARY, Case, Clients, Expected
from tunnelswitch_lab.matrix.processes import LOST_HOST, PROVEN
from tunnelswitch_lab.matrix.steps import Continue, Inject, Kill, Start, Stop, UntilAnswered, Wait

_SWITCHER = f"switcher-{names.GATEWAY}"
_NODES = tuple(f"nats-{site}" for site in (SECONDARY, names.GATEWAY))


def cases() -> list[Case]:
    """Every case of this kind."""
    return [
        Case(
            "host-loss-and-switcher-killed",
            "loses the primary, and kills the switcher 10 ms later; it is started again after 1 s",
            (Inject("host-loss"), Wait(0.01), Kill(_SWITCHER), Wait(1.0), Start(_SWITCHER), UntilAnswered(8.0)),
            LOST_HOST,
        ),
        Case(
            "host-loss-while-standby-has-no-bus",
            "loses the primary while the secondary's NATS node is down: nobody can store a decision until it is back",
            (
                Kill(_NODES[0]),
                Wait(1.0),
                Inject("host-loss"),
                Wait(2.0),
                Start(_NODES[0]),
                UntilAnswered(25.0),
            ),
            LOST_HOST,
        ),
        Case(
            "host-loss-while-ovsdb-hangs",
            "loses the primary while the gateway's OVSDB hangs: the decision stands, and is applied when it answers",
            (
                Stop(f"ovsdb-{names.GATEWAY}"),
                Wait(0.1),
                Inject("host-loss"),
                Wait(2.0),
                Continue(f"ovsdb-{names.GATEWAY}"),
                UntilAnswered(8.0),
            ),
            LOST_HOST,
        ),
        Case(
            "service-crash-while-bus-has-no-majority",
            "kills two of three NATS nodes, then the service: it moves when a decision can be stored",
            (
                *(Kill(node) for node in _NODES),
                Wait(1.0),
                Inject("service-crash"),
                Wait(2.0),
                *(Start(node) for node in _NODES),
                UntilAnswered(25.0),
            ),
            PROVEN,
        ),
        Case(
            "host-loss-then-new-active-crashes",
            "loses the primary, and kills the copy that took over: nobody is left who may serve",
            (Inject("host-loss"), Wait(1.5), Kill(f"service-{SECONDARY}")),
            Expected(Verdict.SUSPICION, MOVES, Clients.UNSERVED, says="refuse.*standby is not in sync"),
        ),
    ]
