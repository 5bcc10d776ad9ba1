"""Cases in which the network fails: whole, one way, between two sites only, for a moment."""

from __future__ import annotations

from dataclasses import replace

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Verdict
from tunnelswitch_lab.matrix.cases import PRIMARY, SECONDARY, Case, Clients, Expected
from tunnelswitch_lab.matrix.processes import LOST_HOST, OUTAGE, UNAWARE
from tunnelswitch_lab.matrix.steps import Cut, Drop, Heal, Step, Wait

_GATEWAY = names.GATEWAY


def _from(site: str) -> Drop:
    return Drop(f'iifname "{site}"', f"nothing leaves {site} any more")


def _to(site: str) -> Drop:
    return Drop(f'oifname "{site}"', f"nothing reaches {site} any more")


def _between(one: str, other: str) -> tuple[Drop, Drop]:
    return (
        Drop(f'iifname "{one}" oifname "{other}"', f"nothing gets from {one} to {other}"),
        Drop(f'iifname "{other}" oifname "{one}"', f"nothing gets from {other} to {one}"),
    )


def _blinks() -> tuple[Step, ...]:
    return tuple(step for _ in range(8) for step in (Cut(PRIMARY), Wait(0.02), Heal(), Wait(0.3)))


def cases() -> list[Case]:
    """Every case of this kind."""
    return [
        Case(
            "primary-isolated-and-back",
            "cuts the primary off the WAN for 3 s; its copy lives, and may answer nobody when it is back",
            (Cut(PRIMARY), Wait(3.0), Heal()),
            LOST_HOST,
        ),
        Case("secondary-isolated", "cuts the secondary off the WAN for 2 s", (Cut(SECONDARY), Wait(2.0), Heal())),
        Case(
            "gateway-isolated",
            "cuts the gateway off the WAN for 2 s: its clients reach nobody, and no move could help them",
            (Cut(_GATEWAY), Wait(2.0), Heal()),
            OUTAGE,
        ),
        Case("primary-cannot-send", "drops all that the primary sends", (_from(PRIMARY),), LOST_HOST),
        Case(
            "primary-cannot-receive",
            "drops all that is sent to the primary; it closes itself, and what it says of that may be heard first",
            (_to(PRIMARY),),
            replace(LOST_HOST, another=Verdict.CUT_OFF),
        ),
        Case(
            "secondary-cannot-send",
            "drops all that the secondary sends, for 2 s",
            (_from(SECONDARY), Wait(2.0), Heal()),
        ),
        Case(
            "gateway-primary-cut",
            "drops all between gateway and primary for 4 s; both still reach the secondary",
            (*_between(_GATEWAY, PRIMARY), Wait(4.0), Heal()),
            Expected(clients=Clients.INTERRUPTED, says="gateway has lost primary, path and bus, and too few"),
        ),
        Case(
            "servers-cut",
            "drops all between the servers for 3 s; both still reach the gateway",
            (*_between(PRIMARY, SECONDARY), Wait(3.0), Heal()),
            UNAWARE,
        ),
        Case(
            "link-blinks",
            "cuts the primary off for 20 ms, eight times: shorter than detection, and no reason to move",
            _blinks(),
            OUTAGE,
        ),
    ]
