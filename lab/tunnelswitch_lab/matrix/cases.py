"""One fault of the matrix, as data: what is done, step by step, and what must follow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Verdict
from tunnelswitch_lab.matrix.steps import Step

PRIMARY, SECONDARY = names.SERVERS
STAYS = (PRIMARY,)
MOVES = (PRIMARY, SECONDARY)


class Clients(StrEnum):
    """What clients may notice."""

    UNAWARE = "unaware"  # the call loses no packet
    INTERRUPTED = "interrupted"  # they may be without service for a while, and have it again at the end
    UNSERVED = "unserved"  # nobody is left who may serve


@dataclass(frozen=True)
class Expected:
    """What must follow from a fault. `another` verdict is as good as the first, where two kinds of evidence race.
    `copies` are the sites whose copies answer, in order; `says` is a regular expression that must be found in what the
    programs log or tell the bus after the fault, if it is not empty."""

    verdict: Verdict = Verdict.NONE
    copies: tuple[str, ...] = STAYS
    clients: Clients = Clients.UNAWARE
    says: str = ""
    another: Verdict | None = None


@dataclass(frozen=True)
class Case:
    """One fault. `prepare` is done before the call begins; `settle_seconds` is how long is watched after the last step.
    `hurts_bus`: NATS nodes are not what they were, and are made anew for the next case."""

    name: str
    does: str
    steps: tuple[Step, ...]
    expected: Expected = Expected()
    prepare: tuple[Step, ...] = ()
    settle_seconds: float = 2.0
    hurts_bus: bool = False
